/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The mounts from the one that shows the pins up to the root of its namespace. When one of them
 * goes, the pins' file system may go with its last mount, and the gate with it. They go
 *  - by umount, of themselves or lazily of something above;
 *  - by umount in another mount namespace, if that is a peer or a master of this one: a lazy one
 *    takes everything below along there, and each of it here;
 *  - when somebody removes or renames the folder on which one of them is mounted, in a mount
 *    namespace in which nothing is mounted on it.
 * All are looked up at that moment. So that none changes between this look and the deed, they
 * stay where they are: they are not moved, nor put below another root; and nothing is slipped in between
 * one of them and what it stands on, which could go without any of these (a folder of /proc goes with its process).
 * Between look and deed others may mount, too, and whoever looks up a path on a FUSE of his own makes that as long as
 * he likes. Who wins such a race has nothing of it: then the last word (gate.bpf.c) is there.
 */
#pragma once

#define MOST_ABOVE 64
#define MOST_MASTERS 8
#define MOST_PEERS 4096
/* Mounts on one mount, all that are passed on the way to the topmost together. */
#define MOST_CHILDREN 65536
#define NR_MOVE_MOUNT 429
#define MOVE_MOUNT_SET_GROUP 0x100
/* The call is one of 32-bit programs, which may have any registers. */
#define TS_COMPAT 2
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_MOVE 8192
#define MS_UNBINDABLE (1 << 17)
#define MS_PRIVATE (1 << 18)
#define MS_SLAVE (1 << 19)
#define MS_SHARED (1 << 20)
#define S_IFMT 0170000
#define S_IFDIR 0040000

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

struct ascent {
	struct mount *at;
	struct mount *top;	/* looked for */
	struct dentry *point;	/* or, if it is not 0, a mount on this */
	u32 found;		/* or too deep to say */
	u32 unused;
};

static long ascend(u32 i, struct ascent *a)
{
	struct mount *at = a->at, *parent = BPF_CORE_READ(at, mnt_parent);

	a->found = a->point ? a->point == BPF_CORE_READ(at, mnt_mountpoint) && parent != at
			    : at == a->top;
	if (a->found || !parent || parent == at)
		return 1;
	a->at = parent;
	a->found = 1;
	return 0;
}

/* Is the mount at address `mount` the one at `top`, or somewhere below it? */
__noinline int is_below(u64 mount, u64 top)
{
	struct ascent a = { .at = (void *)mount, .top = (void *)top };

	bpf_loop(MOST_ABOVE, ascend, &a, 0);
	return a.found;
}

struct peers {
	struct mount *first;
	struct mount *at;
	struct mount *gone;
	u32 found;
	u32 unused;
};

static long look_at_peer(u32 i, struct peers *p)
{
	struct mount *at = p->at;

	p->found = is_below((u64)at, (u64)p->gone);
	p->at = (void *)BPF_CORE_READ(at, mnt_share.next) -
		bpf_core_field_offset(struct mount, mnt_share);
	if (p->found || p->at == p->first)
		return 1;
	p->found = 1;
	return 0;
}

/* Does what happens to mounts on a peer of `group` happen on this mount, too? Or there are too many masters to say. */
static __always_inline bool hears_of(struct mount *mount, u32 group)
{
	int k;

	for (k = 0; k < MOST_MASTERS && mount && group; k++) {
		if (BPF_CORE_READ(mount, mnt_group_id) == group)
			return true;
		mount = BPF_CORE_READ(mount, mnt_master);
	}
	return mount && group;
}

struct topmost {
	struct mount *at;
	struct dentry *point;
	void *link;		/* of the child that is looked at, or the end of the list */
	u32 found;
	u32 unused;
};

static long look_at_child(u32 i, struct topmost *t)
{
	struct mount *at = t->at, *child;
	void *end = (void *)at + bpf_core_field_offset(struct mount, mnt_mounts);

	t->found = t->link == end;
	if (t->found)
		return 1;
	child = t->link - bpf_core_field_offset(struct mount, mnt_child);
	if (BPF_CORE_READ(child, mnt_parent) != at) {
		/* It was just taken out of the list. */
		t->link = BPF_CORE_READ(at, mnt_mounts.next);
	} else if (BPF_CORE_READ(child, mnt_mountpoint) == t->point) {
		t->at = child;
		t->point = BPF_CORE_READ(child, mnt.mnt_root);
		t->link = BPF_CORE_READ(child, mnt_mounts.next);
	} else {
		t->link = BPF_CORE_READ(child, mnt_child.next);
	}
	return 0;
}

/* What the kernel will find there: a path may have been looked up before something was mounted on it. */
static __always_inline bool find_topmost(struct topmost *t)
{
	struct mount *at = t->at;

	t->link = BPF_CORE_READ(at, mnt_mounts.next);
	t->found = 0;
	bpf_loop(MOST_CHILDREN, look_at_child, t, 0);
	return t->found;
}

struct unmounting {
	struct mount *at;	/* on the way up */
	struct mount *gone;	/* what is unmounted, */
	struct dentry *point;	/* on what, */
	u32 group;		/* and to whom that is told; 0: nobody */
	u32 lazy;
	u32 found;
	u32 unused;
};

/* Does the one at `u->at` go as well? */
static long look_above(u32 i, struct unmounting *u)
{
	struct mount *at = u->at, *parent = BPF_CORE_READ(at, mnt_parent);
	struct dentry *point = BPF_CORE_READ(at, mnt_mountpoint);
	struct mount *master = parent;
	int k;

	u->found = 1;
	if (at == u->gone)
		return 1;
	if (!parent || parent == at) {
		u->found = 0;
		return 1;
	}
	if (point == u->point && hears_of(parent, u->group))
		return 1;
	for (k = 0; u->lazy && k < MOST_MASTERS && master; k++) {
		if (BPF_CORE_READ(master, mnt_group_id)) {
			struct peers p = { .first = master, .at = master, .gone = u->gone };

			bpf_loop(MOST_PEERS, look_at_peer, &p, 0);
			if (p.found)
				return 1;
		}
		master = BPF_CORE_READ(master, mnt_master);
	}
	if (u->lazy && master)
		return 1;
	u->at = parent;
	return 0;
}

/* Would unmounting `gone` take the pins' mount away, or one above it? */
__noinline int takes_pins_away(u64 pins, u64 gone, u32 lazy)
{
	struct mount *mount = (void *)gone;
	struct mount *parent = BPF_CORE_READ(mount, mnt_parent);
	struct unmounting u = {
		.at = (void *)pins,
		.gone = mount,
		.point = BPF_CORE_READ(mount, mnt_mountpoint),
		.group = BPF_CORE_READ(parent, mnt_group_id),
		.lazy = lazy,
	};

	bpf_loop(MOST_ABOVE, look_above, &u, 0);
	return u.found;
}

/* Nobody: the daemon opens the gate first. */
static __always_inline u32 refuse_mounts(u64 detail)
{
	emit_attempt(0, REASON_OWN_PIN, detail);
	return REASON_OWN_PIN;
}

static __always_inline bool has_mounts_on(struct mount *mount)
{
	return (void *)BPF_CORE_READ(mount, mnt_mounts.next) !=
	       (void *)mount + bpf_core_field_offset(struct mount, mnt_mounts);
}

static __always_inline u32 refuse_umount(u64 mnt_address, int flags)
{
	u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &zero);
	struct vfsmount *mnt = (void *)mnt_address;
	struct mount *mount = mount_of(mnt);
	bool with_others;

	if (!g)
		return 0;
	/* Arming shows which mount it is by asking for what is refused here: first in the open, then alone. */
	if (!g->mount) {
		if (BPF_CORE_READ(mnt, mnt_sb, s_dev) != g->pins_dev ||
		    !(g->locked ? is_daemon() : mark_who_arms(g)) || is_led())
			return 0;
		g->mount = (u64)mount;
		return REASON_OWN_PIN;
	}
	if (!g->locked)
		return 0;
	/* Automounts on it go by themselves. */
	with_others = (flags & MNT_DETACH) || has_mounts_on(mount);
	return takes_pins_away(g->mount, (u64)mount, with_others) ? refuse_mounts(flags) : 0;
}

/* A folder on which a mount stands here may look like any other in another namespace. */
static __always_inline u32 refuse_mount_point(struct dentry *dentry)
{
	struct guard *g = locked_guard();
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct ascent a = { .point = dentry };

	if (!g || !inode || (BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFDIR)
		return 0;
	a.at = (void *)g->mount;
	bpf_loop(MOST_ABOVE, ascend, &a, 0);
	return a.found ? refuse_mounts(0) : 0;
}

struct slipping {
	struct mount *at;	/* on the way up */
	struct mount *target;	/* what gets a mount, */
	struct dentry *point;	/* where; 0: anywhere */
	u32 group;		/* and who is told of it; 0: nobody */
	u32 found;
};

static long look_at_point(u32 i, struct slipping *s)
{
	struct mount *at = s->at, *parent = BPF_CORE_READ(at, mnt_parent);

	s->found = 0;
	if (!parent || parent == at)
		return 1;
	s->found = 1;
	if ((!s->point || s->point == BPF_CORE_READ(at, mnt_mountpoint)) &&
	    (parent == s->target || hears_of(parent, s->group)))
		return 1;
	s->at = parent;
	return 0;
}

/*
 * Would a mount on `point` of `target` come to stand between the pins' mount, or one above it, and what that stands
 * on? A copy that the kernel makes for a peer does, where something is mounted there already.
 */
__noinline int slips_in(u64 pins, u64 target, u64 point)
{
	struct mount *mount = (void *)target;
	struct slipping s = {
		.at = (void *)pins,
		.target = mount,
		.point = (void *)point,
		.group = BPF_CORE_READ(mount, mnt_group_id),
	};

	bpf_loop(MOST_ABOVE, look_at_point, &s, 0);
	return s.found;
}

/* `beneath`: it may come to stand below the topmost mount that is there, the hook is not told. */
__noinline int refuse_target(u64 target, u64 dentry, u32 beneath)
{
	struct guard *g = locked_guard();
	struct topmost top = { .at = (void *)target, .point = (void *)dentry };
	struct mount *mount;

	if (!g)
		return 0;
	/* More than can be counted. */
	if (!find_topmost(&top))
		return refuse_mounts(0);
	mount = top.at;
	if (slips_in(g->mount, (u64)mount, (u64)top.point))
		return refuse_mounts(0);
	if (beneath && top.point == BPF_CORE_READ(mount, mnt.mnt_root) &&
	    slips_in(g->mount, (u64)BPF_CORE_READ(mount, mnt_parent),
		     (u64)BPF_CORE_READ(mount, mnt_mountpoint)))
		return refuse_mounts(0);
	return 0;
}

static __always_inline u32 refuse_target_at(struct path *path, bool beneath)
{
	struct vfsmount *mnt = BPF_CORE_READ(path, mnt);

	return refuse_target((u64)mount_of(mnt), (u64)BPF_CORE_READ(path, dentry), beneath);
}

/* mount(2) is asked for other things as well: path_mount(). */
static __always_inline bool brings_mount(unsigned long flags)
{
	if (flags & MS_REMOUNT)
		return false;
	return (flags & MS_BIND) || !(flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE));
}

static __always_inline bool in_pins_namespace(struct guard *g)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum) == g->mount_ns;
}

/* mount(2) names what is moved by a path that nobody has looked up yet. */
static __always_inline u32 refuse_old_move(unsigned long flags)
{
	struct guard *g = locked_guard();

	return g && (flags & MS_MOVE) && in_pins_namespace(g) ? refuse_mounts(flags) : 0;
}

/*
 * Does the current system call put a mount into another one's group (MOVE_MOUNT_SET_GROUP)? The hook is not told. What
 * cannot be seen may be.
 */
static __always_inline bool may_set_group(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs___kernel *registers = (void *)bpf_task_pt_regs(task);

	return !bpf_core_field_exists(registers->orig_ax) ||
	       BPF_CORE_READ(registers, orig_ax) != NR_MOVE_MOUNT ||
	       (BPF_CORE_READ(task, thread_info.status) & TS_COMPAT) ||
	       (BPF_CORE_READ(registers, r8) & MOVE_MOUNT_SET_GROUP);
}

/* Then, would what happens on it happen on one of the mounts up to the root? */
__noinline int joins(u64 pins, u64 from, u64 to)
{
	struct mount *source = (void *)from, *target = (void *)to;
	struct slipping s = { .at = (void *)pins, .group = BPF_CORE_READ(source, mnt_group_id) };

	if (!s.group || BPF_CORE_READ(source, mnt.mnt_sb) != BPF_CORE_READ(target, mnt.mnt_sb))
		return false;
	bpf_loop(MOST_ABOVE, look_at_point, &s, 0);
	return s.found;
}

static __always_inline u32 refuse_move(struct path *from, struct path *to)
{
	struct guard *g = locked_guard();
	struct vfsmount *source = BPF_CORE_READ(from, mnt), *target = BPF_CORE_READ(to, mnt);

	if (!g)
		return 0;
	if (is_below(g->mount, (u64)mount_of(source)))
		return refuse_mounts(0);
	if (BPF_CORE_READ(to, dentry) != BPF_CORE_READ(target, mnt_root) || !may_set_group())
		return 0;
	return joins(g->mount, (u64)mount_of(source), (u64)mount_of(target)) ? refuse_mounts(0) : 0;
}

/* The old root is mounted on `old`. */
static __always_inline u32 refuse_pivot(struct path *old)
{
	struct guard *g = locked_guard();

	if (g && in_pins_namespace(g))
		return refuse_mounts(0);
	return refuse_target_at(old, false);
}
