/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Self-protection: who may touch the gate's own objects, pins and daemon. */
#pragma once

/* Nanoseconds of a clock tick as /proc/PID/stat counts them, which is how user space knows. */
#define TICK 10000000
/* "bpfseal_", with which the names of sets begin */
#define NAME_OF_SETS 0x5f6c616573667062ull
#define MMF_HAS_UPROBES (1ull << 19)
#define FMODE_WRITE 2
#define MNT_DETACH 2
#define LSM_UNSAFE_SHARE 1
#define LSM_UNSAFE_PTRACE 2
#define PTRACE_MODE_ATTACH 2
#define PROC_SUPER_MAGIC 0x9fa0
/* PROC_TIME_INIT_INO */
#define FIRST_TIME_NS 0xeffffffa
#define CAP_SYS_ADMIN 21
#define CAP_BPF 39

/* A number of a process comes again, also within a tick; its number and this moment do not. */
static __always_inline u64 started(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline u64 start_ticks(struct task_struct *task)
{
	return started(task) / TICK;
}

/*
 * Has somebody put breakpoints (uprobes) into the current process? The kernel writes them into private copies of its
 * code, at any byte, and adds to numbers in its data: neither its file nor a hook shows that.
 */
static __always_inline bool is_probed(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct mm_struct___bitmap *bitmap = (void *)mm;
	u64 flags = 0;

	if (bpf_core_field_exists(mm->flags))
		bpf_core_read(&flags, sizeof(flags), &mm->flags);
	else if (bpf_core_field_exists(bitmap->flags))
		bpf_core_read(&flags, sizeof(flags), &bitmap->flags);
	return flags & MMF_HAS_UPROBES;
}

/* Does the current task run the daemon's executable, seen at exec, and nothing else? */
static __always_inline bool is_daemon(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 *start = bpf_map_lookup_elem(&marks, &tgid);

	if (!start || *start != started((void *)bpf_get_current_task()))
		return false;
	if (!is_probed())
		return true;
	/* Not when they are gone again, either. */
	bpf_map_delete_elem(&marks, &tgid);
	return false;
}

static __always_inline struct guard *locked_guard(void)
{
	u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &zero);

	return g && g->locked ? g : 0;
}

static __always_inline bool is_inode(struct inode *inode, u32 dev, u64 ino)
{
	return inode && BPF_CORE_READ(inode, i_ino) == ino && BPF_CORE_READ(inode, i_sb, s_dev) == dev;
}

/*
 * The process that arms is one of the daemon's by its own word until here. From now on it is by the moment when it
 * started, which user space does not know so well. Its file must be one that can be known again: on some file
 * systems (btrfs, overlay) user space sees another device.
 */
static __always_inline bool mark_who_arms(struct guard *g)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 *start = bpf_map_lookup_elem(&marks, &tgid);

	if (!start || *start != start_ticks(task))
		return false;
	*start = started(task);
	if (!is_inode(BPF_CORE_READ(task, mm, exe_file, f_inode), g->exe_dev, g->exe))
		g->exe = 0;
	return true;
}

static __always_inline u32 refuse_own(struct guard *g, u32 kind, u32 id)
{
	struct own_key key = { .kind = kind, .id = id };

	if (!g->locked || !bpf_map_lookup_elem(&own, &key) || is_daemon())
		return 0;
	emit_attempt(0, REASON_OWN_OBJECT, (u64)kind << 32 | id);
	return REASON_OWN_OBJECT;
}

/* The kernel counts whoever asks already. */
static __always_inline void show_uses(struct guard *g, struct bpf_map *map)
{
	g->users = BPF_CORE_READ(map, usercnt.counter);
	g->references = BPF_CORE_READ(map, refcnt.counter);
}

/*
 * A set that the daemon is just writing is on no list yet. It has its name: nobody else gets hold of a map with such
 * a name, or he would have a descriptor of what is about to decide.
 */
static __always_inline u32 refuse_unborn(struct guard *g, struct bpf_map *map, u32 id)
{
	u64 name = 0;

	bpf_core_read(&name, sizeof(name), &map->name);
	if (name != NAME_OF_SETS || is_daemon())
		return 0;
	emit_attempt(0, REASON_OWN_OBJECT, (u64)OWN_MAP << 32 | id);
	return REASON_OWN_OBJECT;
}

/* By its id or by a descriptor: one of the gate's, or a set that is on no list yet. */
static __always_inline u32 refuse_map(struct guard *g, struct bpf_map *map, u32 id)
{
	u32 reason = id < g->first_map || id > g->last_map ? 0 : refuse_own(g, OWN_MAP, id);

	return reason ?: refuse_unborn(g, map, id);
}

struct borrowing {
	struct bpf_map **used;
	struct guard *g;
	u32 id;		/* of the gate's map that it uses */
	u32 unused;
};

static long look_at_used(u32 i, struct borrowing *b)
{
	struct own_key key = { .kind = OWN_MAP };
	struct bpf_map *map = 0;

	if (bpf_probe_read_kernel(&map, sizeof(map), &b->used[i]) || !map)
		return 1;
	key.id = BPF_CORE_READ(map, id);
	if (key.id < b->g->first_map || key.id > b->g->last_map || !bpf_map_lookup_elem(&own, &key))
		return 0;
	b->id = key.id;
	return 1;
}

/*
 * Whoever got a descriptor of one of the gate's maps somehow cannot change it by that, but could have a program do it,
 * in whatever mode the gate is.
 */
static __noinline u32 refuse_borrower(struct bpf_prog *prog, struct guard *g)
{
	struct bpf_prog_aux *aux = BPF_CORE_READ(prog, aux);
	struct borrowing b = { .used = BPF_CORE_READ(aux, used_maps), .g = g };

	if (!g->locked || is_daemon())
		return 0;
	bpf_loop(BPF_CORE_READ(aux, used_map_cnt), look_at_used, &b, 0);
	if (!b.id)
		return 0;
	emit_attempt(2, REASON_OWN_OBJECT, (u64)OWN_MAP << 32 | b.id);
	return REASON_OWN_OBJECT;
}

/* While another build takes its place it is two files: whichever a crash leaves there is the daemon. */
static __always_inline bool is_daemon_file(struct guard *g, struct inode *inode)
{
	return is_inode(inode, g->exe_dev, g->exe) ||
	       (g->next_exe && is_inode(inode, g->next_dev, g->next_exe));
}

/* Is this the daemon's thread that exchanges programs now? The number alone may be another's by now. */
static __always_inline bool is_renewing(struct guard *g)
{
	return g->renewing && g->renewing == (u32)bpf_get_current_pid_tgid() &&
	       g->renewer == start_ticks((void *)bpf_get_current_task()) && is_daemon();
}

/*
 * A name in `dir` is about to vanish or to be covered. Being the daemon is not enough: it may have come here by a
 * path that somebody made lead here.
 */
static __always_inline u32 refuse_unlink(struct inode *dir, struct dentry *dentry)
{
	struct guard *g = locked_guard();
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	u32 reason = 0;

	if (!g)
		return 0;
	if (is_inode(dir, g->pins_dev, g->pins) || is_inode(inode, g->pins_dev, g->pins))
		reason = is_renewing(g) ? 0 : REASON_OWN_PIN;
	else if (is_daemon_file(g, inode))
		reason = g->next_exe && is_daemon() ? 0 : REASON_DAEMON_FILE;
	if (!reason)
		return 0;
	emit_attempt(0, reason, 0);
	return reason;
}

/* The switch that turns BPF LSM programs off, on whichever mount of procfs, under whatever name. */
static __noinline u32 refuse_sysctl(struct inode *inode)
{
	struct guard *g = locked_guard();
	struct proc_inode *proc;
	const char *name;
	char text[16] = {};

	if (!g)
		return 0;
	proc = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	name = BPF_CORE_READ(proc, sysctl_entry, procname);
	if (!name || bpf_probe_read_kernel_str(text, sizeof(text), name) != 15)
		return 0;
	if (bpf_strncmp(text, 15, "ftrace_enabled"))
		return 0;
	emit_attempt(0, REASON_FTRACE, 0);
	return REASON_FTRACE;
}

/* Opening for writing: the daemon's file, or the switch that turns BPF LSM programs off. */
static __always_inline u32 refuse_open(struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct guard *g = locked_guard();

	if (!g)
		return 0;
	if (is_daemon_file(g, inode)) {
		emit_attempt(0, REASON_DAEMON_FILE, 0);
		return REASON_DAEMON_FILE;
	}
	return BPF_CORE_READ(inode, i_sb, s_magic) == PROC_SUPER_MAGIC ? refuse_sysctl(inode) : 0;
}

static __always_inline u32 refuse_daemon_file(struct inode *inode)
{
	struct guard *g = locked_guard();

	if (!g || !is_daemon_file(g, inode))
		return 0;
	emit_attempt(0, REASON_DAEMON_FILE, 0);
	return REASON_DAEMON_FILE;
}

/*
 * Is the current task in the machine's first namespaces of processes, users and time? In others, numbers of threads
 * and the time since the boot are what whoever made the namespace says.
 */
static __always_inline bool in_first_namespaces(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct time_namespace *time = BPF_CORE_READ(task, nsproxy, time_ns);

	/* Kernels without such namespaces have no first one. */
	return !BPF_CORE_READ(task, thread_pid, level) && !BPF_CORE_READ(task, cred, user_ns, level) &&
	       (!time || BPF_CORE_READ(time, ns.inum) == FIRST_TIME_NS);
}

/* May the current task load programs at all, as far as the kernel itself is concerned? */
static __always_inline bool may_load(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 held = 0;

	BPF_CORE_READ_INTO(&held, task, cred, cap_permitted);
	return !BPF_CORE_READ(task, cred, user_ns, level) &&
	       held & (1ull << CAP_SYS_ADMIN | 1ull << CAP_BPF);
}

/* Does somebody else answer its system calls, or some of them? Then it believes whatever he says. */
static __always_inline bool is_filtered(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, seccomp.mode) != 0;
}

struct threads {
	struct list_head *at, *end;
	bool any;
};

static long look_at_thread(u32 i, struct threads *t)
{
	struct list_head *at = t->at;
	struct task_struct *task;

	if (!at || at == t->end)
		return 1;
	task = (void *)at - bpf_core_field_offset(struct task_struct, thread_node);
	t->any = t->any || BPF_CORE_READ(task, ptrace);
	t->at = BPF_CORE_READ(at, next);
	return 0;
}

/* More threads than a daemon has that is about to arm. */
#define MOST_THREADS 4096

/*
 * Does somebody trace a thread of the current process, or answer its system calls? Its own words for that come from
 * /proc, on which anybody may have mounted something.
 */
static __noinline bool is_led(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct signal_struct *signal = BPF_CORE_READ(task, signal);
	struct list_head *end = (void *)signal + bpf_core_field_offset(struct signal_struct, thread_head);
	struct threads t = { .at = BPF_CORE_READ(end, next), .end = end };

	bpf_loop(MOST_THREADS, look_at_thread, &t, 0);
	return t.any || t.at != t.end || is_filtered();
}

/* Marks a process that has just become the daemon, and forgets one that no longer is. */
static __always_inline void note_exec(struct linux_binprm *bprm)
{
	struct guard *g = locked_guard();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct file *file = BPF_CORE_READ(bprm, file);
	u64 start;

	if (!g)
		return;
	if (!is_daemon_file(g, BPF_CORE_READ(file, f_inode)) ||
	    (BPF_CORE_READ(bprm, unsafe) & (LSM_UNSAFE_SHARE | LSM_UNSAFE_PTRACE)) ||
	    !in_first_namespaces() || !may_load() || is_filtered()) {
		bpf_map_delete_elem(&marks, &tgid);
		return;
	}
	start = started((void *)bpf_get_current_task());
	bpf_map_update_elem(&marks, &tgid, &start, BPF_ANY);
}

/*
 * A process that is about to read what somebody else made, and needs to be nothing special for it; later, that it has
 * answered. With breakpoints it could have read what was not there.
 */
static __noinline void note_worker(u32 request)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 *mark = bpf_map_lookup_elem(&marks, &tgid);
	u64 start = started((void *)bpf_get_current_task());

	if (!mark)
		return;
	if (is_probed())
		bpf_map_delete_elem(&marks, &tgid);
	else if (request == STEP_DOWN && *mark == start)
		*mark = start | MARK_STEPPED_DOWN;
	else if (request == ANSWERED && *mark == (start | MARK_STEPPED_DOWN))
		*mark |= MARK_ANSWERED;
}

/* The daemon is about to believe the process, which has ended and that it has not waited for. */
static __noinline u32 refuse_worker(u32 tgid)
{
	u64 *mark;

	if (!is_daemon())
		return 0;
	mark = bpf_map_lookup_elem(&marks, &tgid);
	if (mark && (*mark & MARK_STEPPED_DOWN) && (*mark & MARK_ANSWERED))
		return 0;
	emit_attempt(0, REASON_TRACE, tgid);
	return REASON_TRACE;
}

/* What the daemon starts has copies of its descriptors, or all of its memory, until it executes something. */
static __always_inline bool runs_daemon_file(struct task_struct *task)
{
	struct guard *g = locked_guard();
	struct inode *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);

	/* Until it is restarted, the daemon is the build before. */
	return g && (is_daemon_file(g, inode) ||
		     (g->last_exe && is_inode(inode, g->last_dev, g->last_exe)));
}

static __always_inline u32 refuse_trace(struct task_struct *child, unsigned int mode)
{
	u32 tgid = BPF_CORE_READ(child, tgid);
	u64 *start;

	if (!(mode & PTRACE_MODE_ATTACH))
		return 0;
	start = bpf_map_lookup_elem(&marks, &tgid);
	if (!(start && *start == started(child)) && !runs_daemon_file(child))
		return 0;
	if (is_daemon())
		return 0;
	emit_attempt(0, REASON_TRACE, tgid);
	return REASON_TRACE;
}
