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
	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)(g->value + (member.offset & 0xffffff) / 8))) {
		g->reason = refuse_unread(g->how);
		return g->reason != 0;
	}
	if (!fd)
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

static __always_inline struct bpf_map *map_of_fd(u32 fd)
{
	struct file *file = file_of_fd(fd);

	return file ? BPF_CORE_READ(file, private_data) : 0;
}

static __noinline u32 refuse_linked(struct bpf_map *map, u32 how)
{
	struct registration g = {
		.list = (u64)BPF_CORE_READ((struct bpf_struct_ops_map *)map, links),
		.count = count_members((void *)map),
		.how = how,
	};

	bpf_loop(MOST_MEMBERS, check_linked, &g, 0);
	return g.reason;
}

static __noinline u32 refuse_given_members(struct bpf_map *map, u64 value)
{
	struct registration g = {
		.list = (u64)type_of_struct((void *)map) + TYPE_BYTES,
		.value = value + bpf_core_field_offset(struct bpf_struct_ops_value, data),
		.count = count_members((void *)map),
		.how = BPF_MAP_UPDATE_ELEM,
	};

	bpf_loop(MOST_MEMBERS, check_given, &g, 0);
	return g.reason;
}

/* By a link. */
static __always_inline u32 refuse_registration(int cmd, union attach_attr *attr)
{
	struct bpf_map *map;
	u32 zero = 0, fd;
	struct guard *guard = bpf_map_lookup_elem(&guards, &zero);

	if (!guard)
		return REASON_NO_VERDICT;
	if (!guard->revoked)
		return 0;
	if (cmd == BPF_LINK_CREATE && BPF_PROBE_READ(attr, link_create.attach_type) == BPF_STRUCT_OPS)
		fd = BPF_PROBE_READ(attr, link_create.prog_fd);
	else if (cmd == BPF_LINK_UPDATE)
		fd = BPF_PROBE_READ(attr, link_update.new_prog_fd);
	else
		return 0;
	map = map_of_fd(fd);
	if (!map || BPF_CORE_READ(map, map_type) != BPF_MAP_TYPE_STRUCT_OPS)
		return 0;
	return refuse_linked(map, cmd);
}

static __noinline u32 refuse_map_of_fd(u32 fd)
{
	struct guard *g = locked_guard();
	struct bpf_map *map = map_of_fd(fd);
	u32 id = map ? BPF_CORE_READ(map, id) : 0;

	return g && id ? refuse_map(g, map, id) : 0;
}

#define MOST_INNER 4096

struct inner {
	u64 values;	/* descriptors in the caller's memory */
	u32 reason;
	u32 unused;
};

/* Which maps these are cannot be seen here, and the kernel may see it. */
static __noinline u32 refuse_unseen_map(void)
{
	emit_attempt(0, REASON_OWN_OBJECT, (u64)OWN_MAP << 32);
	return REASON_OWN_OBJECT;
}

static long look_at_inner(u32 i, struct inner *in)
{
	u32 fd = 0;

	in->reason = bpf_probe_read_user(&fd, sizeof(fd), (void *)(in->values + i * sizeof(fd)))
			     ? refuse_unseen_map()
			     : refuse_map_of_fd(fd);
	return in->reason != 0;
}

/* Programs that look maps up in another map could change them. */
static __noinline u32 refuse_inner(u64 values, u32 count)
{
	struct inner in = { .values = values };

	if (count > MOST_INNER)
		return refuse_unseen_map();
	bpf_loop(count, look_at_inner, &in, 0);
	return in.reason;
}

/* By a descriptor: one that was had while its holder was the daemon, say. */
static __always_inline u32 refuse_change(u32 cmd, union attach_attr *attr)
{
	bool batch = is_among(cmd, BATCH_CHANGES);
	u32 fd, type, reason;
	struct bpf_map *map;

	if (!locked_guard())
		return 0;
	fd = batch ? BPF_PROBE_READ(attr, map_batch.map_fd) : BPF_PROBE_READ(attr, map_update.map_fd);
	reason = refuse_map_of_fd(fd);
	if (reason || (cmd != BPF_MAP_UPDATE_ELEM && cmd != BPF_MAP_UPDATE_BATCH))
		return reason;
	map = map_of_fd(fd);
	type = map ? BPF_CORE_READ(map, map_type) : 0;
	if ((type != BPF_MAP_TYPE_ARRAY_OF_MAPS && type != BPF_MAP_TYPE_HASH_OF_MAPS) || is_daemon())
		return 0;
	return batch ? refuse_inner(BPF_PROBE_READ(attr, map_batch.values),
				    BPF_PROBE_READ(attr, map_batch.count))
		     : refuse_inner(BPF_PROBE_READ(attr, map_update.value), 1);
}

/* Each update of any map comes by here. */
static __always_inline u32 refuse_update(union attach_attr *attr)
{
	struct bpf_map *map;
	u32 zero = 0, type;
	struct guard *guard = bpf_map_lookup_elem(&guards, &zero);

	if (!guard)
		return REASON_NO_VERDICT;
	if (!guard->revoked && !guard->placed)
		return 0;
	map = map_of_fd(BPF_PROBE_READ(attr, map_update.map_fd));
	type = map ? BPF_CORE_READ(map, map_type) : 0;
	if (type == BPF_MAP_TYPE_STRUCT_OPS)
		return refuse_given_members(map, BPF_PROBE_READ(attr, map_update.value));
	if (holds_programs(type))
		return refuse_held(map, BPF_PROBE_READ(attr, map_update.value));
	return 0;
}
