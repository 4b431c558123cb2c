/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Registering a struct of functions (struct_ops). The kernel takes each member's program for that
 * member alone, as it was loaded and judged; what is left to see here is whether one was revoked
 * since. By a link the kernel's own list of members is registered, by a command what the caller's
 * memory says.
 */
#pragma once

#define MOST_MEMBERS 128
/* Bytes of the user ABI's struct btf_type and struct btf_member. */
#define TYPE_BYTES 12
#define MEMBER_BYTES 12

struct registration {
	u64 list;	/* links, or members of the struct's type */
	u64 value;	/* user memory */
	u32 count;
	u32 how;
	u32 reason;
};

static __always_inline u32 is_gone_program(struct bpf_prog *prog, u32 how)
{
	u64 aux = prog ? (u64)BPF_CORE_READ(prog, aux) : 0;

	return is_gone(bpf_map_lookup_elem(&records, &aux), how);
}

static long check_linked(u32 i, struct registration *g)
{
	struct bpf_link **links = (void *)g->list, *link = 0;

	if (i >= g->count || bpf_probe_read_kernel(&link, sizeof(link), links + i))
		return 1;
	/* A member that is left out, or no function. */
	if (!link)
		return 0;
	g->reason = is_gone_program(BPF_CORE_READ(link, prog), g->how);
	return g->reason != 0;
}

/* A number among the data that happens to be a descriptor of such a program is judged as well. */
static long check_given(u32 i, struct registration *g)
{
	struct {
		u32 name, type, offset;
	} member = {};
	struct bpf_prog *prog;
	u64 fd = 0;

	if (i >= g->count ||
	    bpf_probe_read_kernel(&member, sizeof(member), (void *)(g->list + i * MEMBER_BYTES)))
		return 1;
	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)(g->value + (member.offset & 0xffffff) / 8)) ||
	    !fd)
		return 0;
	prog = prog_of_fd(fd);
	if (prog && BPF_CORE_READ(prog, type) == BPF_PROG_TYPE_STRUCT_OPS)
		g->reason = is_gone_program(prog, g->how);
	return g->reason != 0;
}

static __always_inline struct btf_type *type_of_struct(struct bpf_struct_ops_map *map)
{
	struct bpf_struct_ops_map___old *old = (void *)map;

	if (bpf_core_field_exists(map->st_ops_desc))
		return BPF_CORE_READ(map, st_ops_desc, type);
	return BPF_CORE_READ(old, st_ops, type);
}

static __always_inline u32 count_members(struct bpf_struct_ops_map *map)
{
	return BPF_CORE_READ(type_of_struct(map), info) & 0xffff;
}

/* The map whose members a command would register, or 0. */
static __always_inline struct bpf_struct_ops_map *map_to_register(int cmd, union attach_attr *attr)
{
	struct bpf_map *map;
	struct file *file;
	u32 fd;

	if (cmd == BPF_LINK_CREATE) {
		if (BPF_PROBE_READ(attr, link_create.attach_type) != BPF_STRUCT_OPS)
			return 0;
		fd = BPF_PROBE_READ(attr, link_create.prog_fd);
	} else if (cmd == BPF_LINK_UPDATE) {
		fd = BPF_PROBE_READ(attr, link_update.new_prog_fd);
	} else if (cmd == BPF_MAP_UPDATE_ELEM) {
		fd = BPF_PROBE_READ(attr, map_update.map_fd);
	} else {
		return 0;
	}
	file = file_of_fd(fd);
	map = file ? BPF_CORE_READ(file, private_data) : 0;
	return map && BPF_CORE_READ(map, map_type) == BPF_MAP_TYPE_STRUCT_OPS ? (void *)map : 0;
}

static __noinline u32 refuse_registration(int cmd, union attach_attr *attr)
{
	struct registration g = { .how = cmd };
	struct bpf_struct_ops_map *map;
	struct guard *guard;
	u32 zero = 0;

	/* Each update of any map comes by. */
	guard = bpf_map_lookup_elem(&guards, &zero);
	if (!guard || !guard->revoked)
		return 0;
	map = map_to_register(cmd, attr);
	if (!map)
		return 0;
	g.count = count_members(map);
	if (cmd == BPF_MAP_UPDATE_ELEM) {
		g.list = (u64)type_of_struct(map) + TYPE_BYTES;
		g.value = BPF_PROBE_READ(attr, map_update.value) +
			  bpf_core_field_offset(struct bpf_struct_ops_value, data);
		bpf_loop(MOST_MEMBERS, check_given, &g, 0);
	} else {
		g.list = (u64)BPF_CORE_READ(map, links);
		bpf_loop(MOST_MEMBERS, check_linked, &g, 0);
	}
	return g.reason;
}
