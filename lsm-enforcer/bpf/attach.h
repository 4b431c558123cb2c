/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Gate 3: attaching. Loaders' probe programs never; a program whose rule names places, only there;
 * a replacement of another program's function, only the one that it was loaded for.
 *
 * Programs are given as descriptors, which a thread could exchange after this look.
 */
#pragma once

/* The file behind a descriptor of the current task. */
static __always_inline struct file *file_of_fd(u32 fd)
{
	/* Each update of a map comes by here: what the verifier can follow is read without a call. */
	struct fdtable *table = bpf_get_current_task_btf()->files->fdt;
	struct file *file = 0;

	if (fd < table->max_fds)
		bpf_probe_read_kernel(&file, sizeof(file), &table->fd[fd]);
	return file;
}

static __always_inline struct bpf_prog *prog_of_fd(u32 fd)
{
	struct file *file = file_of_fd(fd);

	return file ? BPF_CORE_READ(file, private_data) : 0;
}

static __always_inline struct record *record_of_fd(u32 fd)
{
	/* Another file's private data that happened to lead to a record's key would only be refused. */
	struct bpf_prog *prog = prog_of_fd(fd);
	u64 aux = prog ? (u64)BPF_CORE_READ(prog, aux) : 0;

	return bpf_map_lookup_elem(&records, &aux);
}

static __always_inline u32 is_probe(struct record *r, u64 how)
{
	if (!r || r->class != CLASS_PROBE)
		return 0;
	emit_attempt(3, REASON_PROBE_ATTACH, how);
	return REASON_PROBE_ATTACH;
}

/* Loaded before it was revoked: whoever holds it does not put it back where it was taken off. */
static __noinline u32 is_gone(struct record *r, u64 how)
{
	const char *name;
	struct origin *origin;
	bool enforced;
	u32 image;

	if (!r || r->class != CLASS_SIGNED)
		return 0;
	image = r->image;
	if (!is_revoked(image))
		return 0;
	origin = bpf_map_lookup_elem(&origins, &image);
	name = origin ? origin->name : 0;
	enforced = mode_in_force() == MODE_ENFORCE;
	emit_place(r, REASON_REVOKED_ATTACH, name, how, enforced);
	return enforced ? REASON_REVOKED_ATTACH : 0;
}

/* The place's name is in `c`; without one it is no place that could be compared. */
static __noinline u32 refuse_place(struct record *r, struct choice *c, u64 how)
{
	bool enforced;

	c->image = r->image;
	c->allowed = 0;
	if (c->name.text[0])
		bpf_loop(r->places, try_pattern, c, 0);
	if (c->allowed)
		return 0;
	enforced = mode_in_force() == MODE_ENFORCE;
	emit_place(r, REASON_ATTACH_PLACE, c->name.text, how, enforced);
	return enforced ? REASON_ATTACH_PLACE : 0;
}

static __always_inline void name_event_of_file(struct file *file, struct choice *c)
{
	u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &zero);

	if (file && g)
		name_event((u64)BPF_CORE_READ(file, private_data), g, &c->name);
}

static __always_inline void name_current_device(u32 index, struct choice *c)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	name_device((u64)BPF_CORE_READ(task, nsproxy, net_ns), index, &c->name);
}

static __always_inline bool is_group_type(u32 attach_type)
{
	return attach_type < 64 && (CGROUP_ATTACH_TYPES >> attach_type & 1);
}

static __always_inline void name_group_of_fd(u32 fd, struct choice *c)
{
	struct file *file = file_of_fd(fd);

	if (file)
		name_group((u64)BPF_CORE_READ(file, f_inode, i_private), &c->name);
}

/* Where a link has its program: at a device or a control group. Its program may be exchanged for another one there. */
__noinline int name_place_of_link(u64 link_address, struct place_name *name)
{
	struct bpf_link *link = (void *)link_address;
	struct net_device *device = 0;
	u32 type;

	if (!link || !name)
		return 0;
	type = BPF_CORE_READ(link, type);
	if (type == BPF_LINK_TYPE_CGROUP) {
		name_group((u64)BPF_CORE_READ((struct bpf_cgroup_link *)link, cgroup, kn), name);
	} else if (type == BPF_LINK_TYPE_XDP) {
		device = BPF_CORE_READ((struct bpf_xdp_link *)link, dev);
	} else if (type == BPF_LINK_TYPE_TCX && bpf_core_type_exists(struct tcx_link)) {
		device = BPF_CORE_READ((struct tcx_link *)link, dev);
	} else if (type == BPF_LINK_TYPE_NETKIT && bpf_core_type_exists(struct netkit_link)) {
		device = BPF_CORE_READ((struct netkit_link *)link, dev);
	}
	if (device)
		name_device_at(device, name);
	return 0;
}

static __always_inline bool is_device_type(u32 attach_type)
{
	return attach_type == BPF_XDP || attach_type == BPF_TCX_INGRESS ||
	       attach_type == BPF_TCX_EGRESS || attach_type == BPF_NETKIT_PRIMARY ||
	       attach_type == BPF_NETKIT_PEER;
}

/* By a command of bpf(). */
static __noinline u32 refuse_command_place(int cmd, union attach_attr *attr, struct bpf_prog *prog,
					   struct record *r)
{
	struct many m = {};
	struct choice *c = &m.choice;
	u32 type;

	if (cmd == BPF_LINK_CREATE) {
		type = BPF_PROBE_READ(attr, link_create.attach_type);
		if (traces_many(prog) || is_many_kprobes(type))
			name_functions(attr, prog, r, &m);
		else if (type == BPF_PERF_EVENT)
			name_event_of_file(file_of_fd(BPF_PROBE_READ(attr, link_create.target_fd)), c);
		else if (is_device_type(type))
			name_current_device(BPF_PROBE_READ(attr, link_create.target_fd), c);
		else if (is_group_type(type))
			name_group_of_fd(BPF_PROBE_READ(attr, link_create.target_fd), c);
	} else if (cmd == BPF_PROG_ATTACH) {
		type = BPF_PROBE_READ(attr, prog_attach.attach_type);
		if (is_device_type(type))
			name_current_device(BPF_PROBE_READ(attr, prog_attach.target_fd), c);
		else if (is_group_type(type))
			name_group_of_fd(BPF_PROBE_READ(attr, prog_attach.target_fd), c);
	} else if (cmd == BPF_LINK_UPDATE) {
		struct file *file = file_of_fd(BPF_PROBE_READ(attr, link_update.link_fd));

		if (file)
			name_place_of_link((u64)BPF_CORE_READ(file, private_data), &c->name);
	} else if (cmd == BPF_RAW_TRACEPOINT_OPEN) {
		if (bpf_probe_read_user_str(c->name.text, PLACE_BYTES,
					    (void *)BPF_PROBE_READ(attr, raw_tracepoint.name)) ==
		    PLACE_BYTES)
			c->name.text[0] = 0;
	}
	return refuse_place(r, c, cmd);
}

/*
 * A replacement: without a target it goes to the one that it was loaded for and judged with, with
 * one to another program (libxdp moves programs to a new dispatcher so), which its rule must name
 * as well. A loader with threads could exchange the other program after this look.
 */
static __noinline u32 refuse_replacement(int cmd, union attach_attr *attr, struct record *r)
{
	struct choice c = {};
	struct bpf_prog *target;
	u32 fd, function;

	if (cmd != BPF_LINK_CREATE)
		return 0;
	fd = BPF_PROBE_READ(attr, link_create.target_fd);
	function = BPF_PROBE_READ(attr, link_create.target_btf_id);
	if (!fd || mode_in_force() != MODE_ENFORCE)
		return 0;
	target = prog_of_fd(fd);
	if (r && target && !loader_shares_files() &&
	    may_replace((u64)BPF_CORE_READ(target, aux), function, r, &c))
		return 0;
	emit_attempt(3, REASON_ATTACH_PROGRAM, cmd);
	return REASON_ATTACH_PROGRAM;
}

#define BATCH_CHANGES                                                                              \
	(1ull << BPF_MAP_LOOKUP_AND_DELETE_BATCH | 1ull << BPF_MAP_UPDATE_BATCH |                   \
	 1ull << BPF_MAP_DELETE_BATCH)
#define CHANGES                                                                                    \
	(BATCH_CHANGES | 1ull << BPF_MAP_UPDATE_ELEM | 1ull << BPF_MAP_DELETE_ELEM |                \
	 1ull << BPF_MAP_LOOKUP_AND_DELETE_ELEM | 1ull << BPF_MAP_FREEZE)
/* Every command of bpf() comes by here: all but these leave at once. */
#define LOOKED_AT                                                                                  \
	(CHANGES | 1ull << BPF_PROG_ATTACH | 1ull << BPF_PROG_DETACH | 1ull << BPF_PROG_TEST_RUN |  \
	 1ull << BPF_RAW_TRACEPOINT_OPEN |                                                           \
	 1ull << BPF_LINK_CREATE | 1ull << BPF_LINK_UPDATE | 1ull << BPF_LINK_GET_FD_BY_ID)

/* Of maps that somebody has a descriptor of already. */
#define READS                                                                                      \
	(1ull << BPF_MAP_LOOKUP_ELEM | 1ull << BPF_MAP_GET_NEXT_KEY | 1ull << BPF_MAP_LOOKUP_BATCH)

static __always_inline bool is_among(u32 cmd, u64 commands)
{
	return cmd < 64 && (commands >> cmd & 1);
}

#define BPF_F_TEST_XDP_LIVE_FRAMES 2
#define BPF_F_REPLACE 4

/*
 * A test run: whoever has the descriptor runs the program on what he made. For most that only brings a result. A raw
 * tracepoint takes his numbers for the kernel's addresses; live frames leave by real interfaces; and a program with
 * places runs at those alone. Programs of type syscall are run in no other way; nor are the beginning and the end of
 * a script of bpftrace, and what a generator made is its own affair.
 */
static __noinline int refuse_run(union attach_attr *attr)
{
	u32 fd = BPF_PROBE_READ(attr, test.prog_fd), flags = BPF_PROBE_READ(attr, test.flags), type;
	struct record *r = record_of_fd(fd);
	struct bpf_prog *prog = prog_of_fd(fd);

	if (!r || !prog || r->class == CLASS_PROBE || r->class == CLASS_GENERATED)
		return 0;
	if (is_gone(r, BPF_PROG_TEST_RUN))
		return -EPERM;
	type = BPF_CORE_READ(prog, type);
	if (type == BPF_PROG_TYPE_SYSCALL || mode_in_force() != MODE_ENFORCE)
		return 0;
	if (type != BPF_PROG_TYPE_RAW_TRACEPOINT && !(flags & BPF_F_TEST_XDP_LIVE_FRAMES) && !r->places)
		return 0;
	emit_attempt(3, REASON_ATTACH_PLACE, BPF_PROG_TEST_RUN);
	return -EPERM;
}

/*
 * What has the last word is attached by a command, and whoever has a descriptor of it from before arming could undo
 * that. Whoever shares his descriptors could exchange one for another meanwhile.
 */
static __noinline u32 refuse_detachment(u32 type, u32 fd)
{
	struct guard *g = locked_guard();
	struct bpf_prog *prog;

	if (!g || (type != BPF_LSM_CGROUP && type != BPF_CGROUP_SYSCTL) || is_daemon())
		return 0;
	prog = prog_of_fd(fd);
	if (prog && refuse_own(g, OWN_PROG, BPF_CORE_READ(prog, aux, id)))
		return REASON_OWN_OBJECT;
	if (!loader_shares_files())
		return 0;
	emit_attempt(0, REASON_OWN_OBJECT, (u64)OWN_PROG << 32);
	return REASON_OWN_OBJECT;
}

/*
 * EBADF for the command by which libbpf asks whether the kernel knows uprobe multi links: it
 * hands in a probe and a bad target and expects just this. A second question names an
 * impossible process; kernels that check it say EINVAL.
 */
static __always_inline int refuse_attach(int cmd, union attach_attr *attr)
{
	int error = -EPERM;
	struct bpf_prog *prog;
	struct record *r;
	u32 fd;

	if (cmd == BPF_LINK_CREATE) {
		/* libbpf's question about perf links: no perf event, so the kernel refuses by itself. */
		if (BPF_PROBE_READ(attr, link_create.attach_type) == BPF_PERF_EVENT &&
		    BPF_PROBE_READ(attr, link_create.target_fd) == (u32)-1)
			return 0;
		fd = BPF_PROBE_READ(attr, link_create.prog_fd);
		error = -EBADF;
		if (BPF_PROBE_READ(attr, link_create.attach_type) == BPF_TRACE_UPROBE_MULTI &&
		    BPF_PROBE_READ(attr, link_create.uprobe_multi.pid) == (u32)-1)
			error = -EINVAL;
	} else if (cmd == BPF_RAW_TRACEPOINT_OPEN) {
		fd = BPF_PROBE_READ(attr, raw_tracepoint.prog_fd);
	} else if (cmd == BPF_PROG_ATTACH) {
		/* The same of cilium/ebpf about control groups: there is none with this descriptor. */
		if (BPF_PROBE_READ(attr, prog_attach.attach_type) == BPF_CGROUP_INET_INGRESS &&
		    BPF_PROBE_READ(attr, prog_attach.target_fd) == (u32)-1)
			return 0;
		fd = BPF_PROBE_READ(attr, prog_attach.attach_bpf_fd);
		if ((BPF_PROBE_READ(attr, prog_attach.attach_flags) & BPF_F_REPLACE) &&
		    refuse_detachment(BPF_PROBE_READ(attr, prog_attach.attach_type),
				      BPF_PROBE_READ(attr, prog_attach.replace_bpf_fd)))
			return -EPERM;
	} else if (cmd == BPF_PROG_DETACH) {
		return refuse_detachment(BPF_PROBE_READ(attr, prog_attach.attach_type),
					 BPF_PROBE_READ(attr, prog_attach.attach_bpf_fd)) ? -EPERM : 0;
	} else if (cmd == BPF_LINK_UPDATE) {
		fd = BPF_PROBE_READ(attr, link_update.new_prog_fd);
	} else if (cmd == BPF_PROG_TEST_RUN) {
		return refuse_run(attr);
	} else if (cmd == BPF_LINK_GET_FD_BY_ID) {
		struct guard *g = locked_guard();

		return g && refuse_own(g, OWN_LINK, BPF_PROBE_READ(attr, get_id.link_id)) ? -EPERM : 0;
	} else {
		return 0;
	}
	r = record_of_fd(fd);
	if (is_probe(r, cmd))
		return error;
	if (is_gone(r, cmd))
		return -EPERM;
	prog = prog_of_fd(fd);
	if (prog && BPF_CORE_READ(prog, type) == BPF_PROG_TYPE_EXT)
		return refuse_replacement(cmd, attr, r) ? -EPERM : 0;
	if (refuse_many(cmd, attr, prog))
		return -EPERM;
	return r && r->places && refuse_command_place(cmd, attr, prog, r) ? -EPERM : 0;
}

/* For ways that lead to no place with a name. */
static __noinline u32 refuse_nameless(u32 fd, u64 how)
{
	struct record *r = record_of_fd(fd);
	u32 reason = is_probe(r, how) ?: is_gone(r, how);
	struct choice c = {};

	if (reason || !r || !r->places)
		return reason;
	return refuse_place(r, &c, how);
}

/* Which program it is cannot be seen here, and the kernel may see it. */
static __noinline u32 refuse_unread(u64 how)
{
	if (mode_in_force() != MODE_ENFORCE)
		return 0;
	emit_attempt(3, REASON_ATTACH_PLACE, how);
	return REASON_ATTACH_PLACE;
}

/* The caller's memory has the descriptor. */
static __noinline u32 refuse_given(u64 address, u64 how)
{
	u32 fd = 0;

	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)address))
		return refuse_unread(how);
	return refuse_nameless(fd, how);
}

static __always_inline bool is_kcm(struct file *file)
{
	struct socket *socket;

	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return false;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk, __sk_common.skc_family) == AF_KCM;
}

/* Perf events the old way (kprobes, uprobes, tracepoints), devices of tun, multiplexed sockets. */
static __always_inline u32 refuse_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct choice c = {};
	struct record *r;
	u32 reason;

	if (cmd == TUNSETSTEERINGEBPF || cmd == TUNSETFILTEREBPF)
		return refuse_given(arg, cmd);
	if (cmd == SIOCKCMATTACH)
		return is_kcm(file) ? refuse_given(arg + sizeof(u32), cmd) : 0;
	if (cmd != PERF_EVENT_IOC_SET_BPF)
		return 0;
	r = record_of_fd(arg);
	reason = is_probe(r, cmd) ?: is_gone(r, cmd);
	if (reason || !r || !r->places)
		return reason;
	name_event_of_file(file, &c);
	return refuse_place(r, &c, cmd);
}
