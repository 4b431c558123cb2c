/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Generators: processes that run one known executable, and nothing else, may load programs
 * within limits. Known is an inode, as long as the kernel has it in memory: the daemon has
 * looked at its contents, and nobody may write it from then on (struct pin). Marked is a
 * process at exec. It loses the mark for good when it executes another file, maps code that is
 * not pinned for it, makes memory executable, opens its memory for writing, gets breakpoints, or
 * is traced.
 */
#pragma once

/* "mem" */
#define NAME_MEM 0x6d656d
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_DENYWRITE 0x0800

static __always_inline void lose_mark(u32 tgid)
{
	bpf_map_delete_elem(&makers_running, &tgid);
}

/* The generator that the current process is, by image, or 0. */
static __always_inline u32 current_generator(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct made *made = bpf_map_lookup_elem(&makers_running, &tgid);

	if (!made || made->start != started((void *)bpf_get_current_task()))
		return 0;
	if (!is_probed())
		return made->image;
	lose_mark(tgid);
	return 0;
}

static __always_inline void note_breakpoints(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (!is_probed())
		return;
	lose_mark(tgid);
	bpf_map_delete_elem(&marks, &tgid);
}

/*
 * A process may open its own memory for writing, and no other hook is asked: whoever gets the descriptor then writes
 * its code. Nobody who is marked opens that of others, so they are not told apart.
 */
static __always_inline void note_memory(struct file *file)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	const unsigned char *name;
	u32 text = 0;

	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) != PROC_SUPER_MAGIC)
		return;
	name = BPF_CORE_READ(file, f_path.dentry, d_name.name);
	bpf_probe_read_kernel(&text, sizeof(text), name);
	if (text != NAME_MEM)
		return;
	lose_mark(tgid);
	bpf_map_delete_elem(&marks, &tgid);
}

/* Whoever can write a task's memory decides what everybody makes who shares that memory. */
static __always_inline void lose_marks_of(struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	struct mm_struct *mm = BPF_CORE_READ(task, mm);

	lose_mark(BPF_CORE_READ(task, tgid));
	if (!mm)
		return;
	if (BPF_CORE_READ(parent, mm) == mm)
		lose_mark(BPF_CORE_READ(parent, tgid));
	if (bpf_core_field_exists(mm->owner))
		lose_mark(BPF_CORE_READ(mm, owner, tgid));
}

/* The file's contents belong to `image`: its executable, or one of its libraries. */
static __always_inline bool belongs(struct pin *pin, u32 image)
{
	int i;

	if (pin->exe == image)
		return true;
#pragma unroll
	for (i = 0; i < PIN_LIBRARIES; i++)
		if (pin->libraries[i] == image)
			return true;
	return false;
}

static __always_inline void note_generator(struct linux_binprm *bprm)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct pin *pin = bpf_inode_storage_get(&pinned, bprm->file->f_inode, 0, 0);
	struct made made = {};

	/* Others would only take room from those who can load something. */
	if (!pin || !pin->exe || (bprm->unsafe & LSM_UNSAFE_PTRACE) || !may_load() || is_filtered()) {
		lose_mark(tgid);
		return;
	}
	made.start = started((void *)bpf_get_current_task());
	made.image = pin->exe;
	bpf_map_update_elem(&makers_running, &tgid, &made, BPF_ANY);
}

/*
 * Foreign code. A library can do harm without any code of its own, by what it makes the
 * dynamic loader call: libc's loader maps each with MAP_DENYWRITE, which nobody else does.
 */
static __always_inline void note_mapping(struct file *file, unsigned long prot, unsigned long flags)
{
	struct pin *pin = 0;
	u32 image;

	if (!(prot & PROT_EXEC) && !(file && (flags & MAP_DENYWRITE)))
		return;
	image = current_generator();
	if (!image)
		return;
	if (file)
		pin = bpf_inode_storage_get(&pinned, file->f_inode, 0, 0);
	if (pin && belongs(pin, image) && !((prot & PROT_EXEC) && (prot & PROT_WRITE)))
		return;
	lose_mark(bpf_get_current_pid_tgid() >> 32);
}

/* Memory that was anything else becomes code. */
static __always_inline void note_protection(unsigned long prot)
{
	if ((prot & PROT_EXEC) && current_generator())
		lose_mark(bpf_get_current_pid_tgid() >> 32);
}

/* Whatever was pinned is written by nobody. */
static __always_inline u32 refuse_pinned(struct inode *inode)
{
	struct pin *pin = inode ? bpf_inode_storage_get(&pinned, inode, 0, 0) : 0;

	if (!pin || !locked_guard())
		return 0;
	emit_attempt(0, REASON_GENERATOR_FILE, 0);
	return REASON_GENERATOR_FILE;
}

/* Does it run where and as whom the policy says, and now? 0, or which limit. */
static __always_inline u32 misplaced(struct maker *maker)
{
	u32 limit = volume_limit(maker);

	if (bpf_ktime_get_boot_ns() >= maker->until)
		return LIMIT_TIME;
	if (limit)
		return limit;
	if (maker->uid != (u32)-1 && maker->uid != (u32)bpf_get_current_uid_gid())
		return LIMIT_USER;
	if (maker->cgroup && bpf_get_current_ancestor_cgroup_id(maker->level) != maker->cgroup)
		return LIMIT_CGROUP;
	return 0;
}

/* What a generator brings: 0 if the limits allow it. REASON_UNSIGNED: it is no generator. */
static __noinline u32 judge_generated(struct load *l, void *index)
{
	u32 image = current_generator();
	struct key key = { .len = image, .use = USE_GENERATOR };
	struct header *header;
	struct maker *maker;
	u32 type = l->key.prog_type;
	int seen;

	if (!image)
		return REASON_UNSIGNED;
	header = bpf_map_lookup_elem(index, &key);
	maker = bpf_map_lookup_elem(&makers, &image);
	if (!header || !maker)
		return REASON_UNSIGNED;
	l->image = image;
	l->class = CLASS_GENERATED;
	l->maps = maker->maps;
	l->refs = l->places = 0;
	l->detail = misplaced(maker);
	if (l->detail)
		return REASON_GENERATOR_LIMIT;
	l->detail = LIMIT_TYPE;
	if (type > 63 || !(maker->types >> type & 1))
		return REASON_GENERATOR_LIMIT;
	l->detail = LIMIT_LENGTH;
	if (l->key.len > maker->max_insns)
		return REASON_GENERATOR_LIMIT;
	seen = scan(l->src, l->key.len, header);
	if (seen & SEEN_FAILED)
		return REASON_UNREADABLE;
	if ((seen & SEEN_MAP_INDEX) || l->fd_array)
		return REASON_MAP_INDEX;
	if (seen & SEEN_MODULE)
		return REASON_MODULE_BTF;
	l->detail = LIMIT_CALLS;
	if (seen & SEEN_HARM)
		return REASON_GENERATOR_LIMIT;
	l->detail = 0;
	return 0;
}
