// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The gate: BPF LSM programs that refuse BPF programs nobody signed.
 *
 * Hooks stand here, short; what they decide is in the headers. Which of them are loaded on a
 * kernel is chosen by user space from BTF (src/kernel/ladder.rs): `?` keeps libbpf from
 * loading one by itself. None sleeps: the RCU read lock that a non-sleepable program holds is
 * what lets user space free a replaced set.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "reason.h"
#include "shared.h"
#include "maps.h"
#include "emit.h"
#include "compare.h"
#include "refs.h"
#include "place.h"
#include "guard.h"
#include "admit.h"
#include "callers.h"
#include "bind.h"
#include "mounts.h"
#include "volume.h"
#include "generator.h"
#include "protect.h"
#include "many.h"
#include "attach.h"
#include "held.h"
#include "register.h"
#include "option.h"
#include "netlink.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MEANING_FLAGS (BPF_F_SLEEPABLE | BPF_F_XDP_HAS_FRAGS)

/* 6.9 and later: the kernel's own copy of the instructions, before the verifier. */
SEC("?lsm/bpf_prog_load")
int BPF_PROG(gate1_load, struct bpf_prog *prog, struct prog_load_attr *attr)
{
	/* As numbers: functions that are verified by themselves take no kernel pointers. */
	struct bpf_prog_aux *aux = BPF_CORE_READ(prog, aux);
	struct bpf_prog *same = BPF_CORE_READ(aux, prog);
	struct load l = {
		.prog = same,
		.aux = aux,
		.src = (u64)same + bpf_core_field_offset(struct bpf_prog, insnsi),
		.key.len = prog->len,
		.key.prog_type = prog->type,
		.key.attach_type = prog->expected_attach_type,
		.key.btf_id = attr->attach_btf_id,
		.key.flags = attr->prog_flags & MEANING_FLAGS,
		.odd_flags = (attr->prog_flags & ~MEANING_FLAGS) | attr->prog_ifindex,
		.core_relos = attr->core_relo_cnt,
		.fd_array = attr->fd_array != 0,
		.attach_fd = attr->attach_prog_fd,
	};
	union bpf_attr___later *later = (void *)attr;

	if (bpf_core_field_exists(later->fd_array_cnt))
		l.fd_array_cnt = BPF_CORE_READ(later, fd_array_cnt);
	return deny(admit(&l));
}

/*
 * 6.1 to 6.8 have no such hook. There lsm/bpf sees the command's attributes,
 * bpf_prog_alloc_security the new program's aux before the instructions are copied, and
 * capable() is called by bpf_check() before anything is rewritten.
 */
/* Not inline: what it puts on the stack would lie below all that judges attachments. */
static __noinline void note_pending(struct prog_load_attr *attr)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct pending p = {
		.flags = attr->prog_flags,
		.core_relos = attr->core_relo_cnt,
		.ifindex = attr->prog_ifindex,
		.fd_array = attr->fd_array != 0,
		.attach_fd = attr->attach_prog_fd,
	};

	u32 slot = tid % LOADER_SLOTS;
	u32 *loads = bpf_map_lookup_elem(&loaders, &slot);

	if (loads)
		*loads = 1;
	bpf_map_update_elem(&pendings, &tid, &p, BPF_ANY);
}

SEC("?lsm/bpf_prog_alloc_security")
int BPF_PROG(gate1_alloc, struct bpf_prog_aux *aux)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	u64 key = (u64)aux;
	struct pending *p = bpf_map_lookup_elem(&pendings, &tid);

	/* Addresses are used again: what an earlier program left must not speak for this one. */
	forget(key);
	if (p) {
		p->aux = key;
		bpf_map_update_elem(&owners, &key, &tid, BPF_ANY);
	}
	return 0;
}

/*
 * find_prog_type() sets aux->ops after the instructions were copied completely, and
 * bpf_check()'s first act is bpf_capable(), long before resolve_pseudo_ldimm64() computes the
 * tag and rewrites. So the first call with ops and without tag sees exactly what user space
 * asked for. Nothing rewrites in between without kernel-side CO-RE, which is refused.
 * A task without the capability never gets here, has no record, and is refused for that.
 */
SEC("?lsm/capable")
int BPF_PROG(gate1_capable, const struct cred *cred, struct user_namespace *ns, int cap)
{
	struct bpf_prog_aux *aux;
	struct pending *p;
	u32 tid, slot, *loads, *owner;
	u64 key;

	if (cap != 39 && cap != 21 && cap != 38) /* CAP_BPF, CAP_SYS_ADMIN, CAP_PERFMON */
		return 0;
	tid = (u32)bpf_get_current_pid_tgid();
	slot = tid % LOADER_SLOTS;
	loads = bpf_map_lookup_elem(&loaders, &slot);
	if (!loads || !*loads)
		return 0;
	p = bpf_map_lookup_elem(&pendings, &tid);
	if (!p || !p->aux)
		return 0;
	key = p->aux;
	owner = bpf_map_lookup_elem(&owners, &key);
	if (!owner || *owner != tid)
		return 0;
	aux = (void *)key;
	if (!BPF_CORE_READ(aux, ops))
		return 0;

	struct bpf_prog *prog = BPF_CORE_READ(aux, prog);
	struct load l = {
		.prog = prog,
		.aux = aux,
		.src = (u64)prog + bpf_core_field_offset(struct bpf_prog, insnsi),
		.key.len = BPF_CORE_READ(prog, len),
		.key.prog_type = BPF_CORE_READ(prog, type),
		.key.attach_type = BPF_CORE_READ(prog, expected_attach_type),
		.key.btf_id = BPF_CORE_READ(aux, attach_btf_id),
		.key.flags = p->flags & MEANING_FLAGS,
		.odd_flags = (p->flags & ~MEANING_FLAGS) | p->ifindex,
		.core_relos = p->core_relos,
		.fd_array = p->fd_array,
		.attach_fd = p->attach_fd,
	};
	u64 tag = 0;

	bpf_map_delete_elem(&pendings, &tid);
	bpf_map_delete_elem(&owners, &key);
	bpf_probe_read_kernel(&tag, sizeof(tag), &prog->tag);
	if (!tag)
		admit(&l);
	return 0;
}

/* The last word lets pass what passed here. Without room for this thread it does not. */
static __always_inline int passed(int verdict)
{
	u32 tid = (u32)bpf_get_current_pid_tgid(), one = 1;

	if (!verdict)
		bpf_map_update_elem(&asked, &tid, &one, BPF_ANY);
	return verdict;
}

static __always_inline int refuse_command(int cmd, union attach_attr *attr)
{
	u32 reason;

	if (!is_among(cmd, LOOKED_AT))
		return 0;
	if (is_among(cmd, CHANGES)) {
		reason = refuse_change(cmd, attr);
		if (!reason && cmd == BPF_MAP_UPDATE_ELEM)
			reason = refuse_update(attr);
		return deny(reason);
	}
	return refuse_attach(cmd, attr) ?: deny(refuse_registration(cmd, attr));
}

SEC("?lsm/bpf")
int BPF_PROG(gate_bpf_pending, int cmd, struct prog_load_attr *attr)
{
	if (cmd == BPF_PROG_LOAD) {
		note_pending(attr);
		return passed(0);
	}
	return is_among(cmd, READS) ? 0 : passed(refuse_command(cmd, (void *)attr));
}

/* 6.9 and later. */
SEC("?lsm/bpf")
int BPF_PROG(gate_bpf, int cmd, union attach_attr *attr)
{
	return is_among(cmd, READS) ? 0 : passed(refuse_command(cmd, attr));
}

/* What else could end it is refused there a second time, in the same words. */
static __always_inline int still_refused(u32 way)
{
	return mode_in_force() == MODE_ENFORCE && refuse_way(way);
}

SEC("?lsm_cgroup/locked_down")
int BPF_PROG(last_lockdown, int what)
{
	return !still_refused(switch_of_reason(what));
}

SEC("?lsm_cgroup/kernel_load_data")
int BPF_PROG(last_load_data, int what)
{
	return !still_refused(way_of_data(what));
}

SEC("?lsm_cgroup/kernel_read_file")
int BPF_PROG(last_read_file, struct file *file, int what)
{
	return !still_refused(way_of_file(what));
}

/* The switch that turns all of these off; whoever has a descriptor of it comes here, too. */
SEC("?cgroup/sysctl")
int last_sysctl(struct sysctl_call *call)
{
	char name[16] = {};

	if (!call->write || !locked_guard() ||
	    bpf_sysctl_get_name((void *)call, name, sizeof(name), BPF_F_SYSCTL_BASE_NAME) != 14)
		return 1;
	return bpf_strncmp(name, 15, "ftrace_enabled") != 0;
}

/* Gate 2, and guard of our own programs. */
SEC("?lsm/bpf_prog")
int BPF_PROG(gate2_prog, struct bpf_prog *prog)
{
	u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &zero);

	if (!g)
		return -EPERM;
	return passed(deny(refuse_own(g, OWN_PROG, prog->aux->id) ?: refuse_borrower(prog, g)
				   ?: bind(prog, g)));
}

/*
 * A loader with threads: what the verifier resolved, before it throws dead code away. Unlike an
 * LSM program, one on a function is left out on a processor where it was preempted. So there are
 * several, of which the first one that runs does the work; a program that none of them saw is
 * refused.
 */
#define SEE_REFERENCES(n)                                                                          \
	SEC("?fentry/bpf_remove_insns")                                                            \
	int BPF_PROG(see_references_##n, struct bpf_prog *prog)                                    \
	{                                                                                          \
		see_references(prog);                                                              \
		return 0;                                                                          \
	}
SEE_REFERENCES(1)
SEE_REFERENCES(2)
SEE_REFERENCES(3)
SEE_REFERENCES(4)

SEC("?lsm/bpf_prog_free")
int BPF_PROG(forget_prog, struct bpf_prog *prog)
{
	forget((u64)prog->aux);
	return 0;
}

/*
 * Also for a load that fails before it was judged, in the task that tried: its entry must not
 * outlive the aux, whose address another thread's load may get.
 */
SEC("?lsm/bpf_prog_free_security")
int BPF_PROG(forget_aux, struct bpf_prog_aux *aux)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct pending *p = bpf_map_lookup_elem(&pendings, &tid);
	u64 key = (u64)aux;

	if (p && p->aux == key)
		bpf_map_delete_elem(&pendings, &tid);
	bpf_map_delete_elem(&owners, &key);
	forget(key);
	return 0;
}

SEC("?lsm/file_ioctl")
int BPF_PROG(gate_ioctl, struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd == STEP_DOWN || cmd == ANSWERED)
		note_worker(cmd);
	if (cmd == WHETHER_ANSWERED)
		return deny(refuse_worker(arg));
	return deny(refuse_ioctl(file, cmd, arg));
}

/* 6.8 and later: the same for 32-bit programs. */
SEC("?lsm/file_ioctl_compat")
int BPF_PROG(gate_ioctl_compat, struct file *file, unsigned int cmd, unsigned long arg)
{
	return deny(refuse_ioctl(file, cmd, arg));
}

SEC("?lsm/socket_setsockopt")
int BPF_PROG(gate_option, struct socket *socket, int level, int option)
{
	return deny(refuse_option(level, option));
}

SEC("?lsm/netlink_send")
int BPF_PROG(gate_netlink, struct sock *sk, struct sk_buff *skb)
{
	return deny(refuse_netlink(sk, skb));
}

SEC("?lsm/bpf_map")
int BPF_PROG(guard_map, struct bpf_map *map)
{
	struct guard *g = locked_guard();
	u32 id = map->id;

	if (!g)
		return passed(0);
	if (g->shown == id && is_daemon())
		show_uses(g, map);
	return passed(deny(refuse_map(g, map, id)));
}

/*
 * Pins keep the programs above on their hooks, and a pin is as safe as the mounts below it. The ones that follow need
 * none: they are on the machine's first control group, which nobody can remove, by a command and not by a link.
 * Programs that were put on a hook later run earlier (bpf_trampoline_link_prog() puts them at the head of its list),
 * so the gate has been asked already, if there is one. 1: it may pass.
 */
static __always_inline int last_word_of(void)
{
	u32 zero = 0, tid = (u32)bpf_get_current_pid_tgid();
	struct guard *g = bpf_map_lookup_elem(&guards, &zero);
	u32 *gone = bpf_map_lookup_elem(&lost, &zero);
	bool was_asked = !bpf_map_delete_elem(&asked, &tid);

	if (!g || !gone)
		return 0;
	if (g->last_word == LAST_WORD_NONE || (was_asked && !*gone))
		return 1;
	if (g->last_word != LAST_WORD_WATCHES)
		return 0;
	g->last_word = LAST_WORD_NONE;
	return 1;
}

SEC("?lsm_cgroup/bpf")
int BPF_PROG(last_word, int cmd, union attach_attr *attr)
{
	return is_among(cmd, READS) || last_word_of();
}

/* A call that began when there was a gate ends when there is none. */
SEC("?lsm_cgroup/bpf_prog")
int BPF_PROG(last_prog, struct bpf_prog *prog)
{
	return last_word_of();
}

SEC("?lsm_cgroup/bpf_map")
int BPF_PROG(last_map, struct bpf_map *map)
{
	return last_word_of();
}

/*
 * Programs leave their hooks one after another, some time after their pins went. By then the first pin has come by
 * here, before its link was let go of.
 */
SEC("?lsm/inode_free_security")
int BPF_PROG(note_lost, struct inode *inode)
{
	struct guard *g = locked_guard();
	struct own_key key = { .kind = OWN_PIN };
	u32 zero = 0, *gone;

	if (!g || BPF_CORE_READ(inode, i_sb, s_dev) != g->pins_dev)
		return 0;
	key.id = (u32)BPF_CORE_READ(inode, i_ino);
	gone = bpf_map_lookup_elem(&lost, &zero);
	if (gone && bpf_map_lookup_elem(&own, &key))
		*gone = 1;
	return 0;
}

SEC("?lsm/inode_unlink")
int BPF_PROG(guard_unlink, struct inode *dir, struct dentry *dentry)
{
	return deny(refuse_unlink(dir, dentry));
}

/* By another name it could be started, and would put the next build there; nobody could take that name away. */
SEC("?lsm/inode_link")
int BPF_PROG(guard_link, struct dentry *old)
{
	return deny(refuse_daemon_file(BPF_CORE_READ(old, d_inode)));
}

SEC("?lsm/inode_rmdir")
int BPF_PROG(guard_rmdir, struct inode *dir, struct dentry *dentry)
{
	return deny(refuse_unlink(dir, dentry) ?: refuse_mount_point(dentry));
}

SEC("?lsm/inode_rename")
int BPF_PROG(guard_rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir,
	     struct dentry *new_dentry)
{
	return deny(refuse_unlink(old_dir, old_dentry) ?: refuse_unlink(new_dir, new_dentry)
			    ?: refuse_mount_point(new_dentry));
}

SEC("?lsm/sb_umount")
int BPF_PROG(guard_umount, struct vfsmount *mnt, int flags)
{
	u64 address = 0;

	bpf_get_func_arg(ctx, 0, &address);
	return deny(refuse_umount(address, flags));
}

SEC("?lsm/sb_mount")
int BPF_PROG(guard_mount, const char *name, struct path *path, const char *type,
	     unsigned long flags, void *data)
{
	u32 reason = refuse_old_move(flags);

	if (!reason && brings_mount(flags))
		reason = refuse_target_at(path, false);
	return deny(reason);
}

SEC("?lsm/move_mount")
int BPF_PROG(guard_move, struct path *from, struct path *to)
{
	return deny(refuse_move(from, to) ?: refuse_target_at(to, true));
}

SEC("?lsm/sb_pivotroot")
int BPF_PROG(guard_pivot, struct path *old_root, struct path *new_root)
{
	return deny(refuse_pivot(old_root));
}

SEC("?lsm/file_open")
int BPF_PROG(guard_open, struct file *file)
{
	if (!(file->f_mode & FMODE_WRITE))
		return 0;
	note_memory(file);
	return deny(refuse_open(file) ?: refuse_pinned(file->f_inode));
}

SEC("?lsm/path_truncate")
int BPF_PROG(guard_truncate, struct path *path)
{
	struct inode *inode = path->dentry->d_inode;

	return deny(refuse_daemon_file(inode) ?: refuse_pinned(inode));
}

/* 6.2 and later: by a descriptor, and by opening with O_TRUNC, which needs none for writing. */
SEC("?lsm/file_truncate")
int BPF_PROG(guard_truncate_file, struct file *file)
{
	return deny(refuse_daemon_file(file->f_inode) ?: refuse_pinned(file->f_inode));
}

SEC("?lsm/bdev_setintegrity")
int BPF_PROG(note_volume, struct block_device *bdev, enum lsm_integrity_type type)
{
	if (type == bpf_core_enum_value(enum lsm_integrity_type, LSM_INT_DMVERITY_ROOTHASH))
		note_table(bdev);
	return 0;
}

/* Every read and write of the machine comes here: nothing but a few loads for most. */
SEC("?lsm/file_permission")
int BPF_PROG(guard_use, struct file *file, int mask)
{
	return deny(refuse_use(file, mask));
}

SEC("?lsm/locked_down")
int BPF_PROG(guard_lockdown, int what)
{
	return deny(refuse_way(switch_of_reason(what)));
}

SEC("?lsm/kernel_load_data")
int BPF_PROG(guard_load_data, int what)
{
	return deny(refuse_way(way_of_data(what)));
}

SEC("?lsm/kernel_read_file")
int BPF_PROG(guard_read_file, struct file *file, int what)
{
	return deny(refuse_way(way_of_file(what)));
}

SEC("?lsm/ptrace_access_check")
int BPF_PROG(guard_trace, struct task_struct *child, unsigned int mode)
{
	u32 reason = refuse_trace(child, mode);

	if (!reason && (mode & PTRACE_MODE_ATTACH))
		lose_marks_of(child);
	return deny(reason);
}

SEC("?lsm/ptrace_traceme")
int BPF_PROG(note_traceme, struct task_struct *parent)
{
	lose_marks_of((void *)bpf_get_current_task());
	return 0;
}

SEC("?lsm/mmap_file")
int BPF_PROG(note_mmap, struct file *file, unsigned long reqprot, unsigned long prot,
	     unsigned long flags)
{
	note_mapping(file, prot, flags);
	return 0;
}

SEC("?lsm/file_mprotect")
int BPF_PROG(note_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	note_protection(prot);
	return 0;
}

SEC("?lsm/bprm_committed_creds")
int BPF_PROG(mark_daemon, struct linux_binprm *bprm)
{
	note_exec(bprm);
	note_generator(bprm);
	return 0;
}

/*
 * A breakpoint was hit. The kernel forgets that a process has any when it meets one that is gone, and only then. As
 * above, a program on a function may be left out.
 */
#define NOTE_TRAP(name, function)                                                                  \
	SEC("?fentry/" function)                                                                    \
	int BPF_PROG(name, struct pt_regs *registers)                                               \
	{                                                                                          \
		note_breakpoints();                                                                 \
		return 0;                                                                          \
	}
NOTE_TRAP(note_trap_1, "uprobe_pre_sstep_notifier")
NOTE_TRAP(note_trap_2, "uprobe_pre_sstep_notifier")
NOTE_TRAP(note_trap_3, "uprobe_pre_sstep_notifier")
NOTE_TRAP(note_call_1, "handle_syscall_uprobe")
NOTE_TRAP(note_call_2, "handle_syscall_uprobe")
NOTE_TRAP(note_call_3, "handle_syscall_uprobe")

SEC("?lsm/task_free")
int BPF_PROG(unmark_daemon, struct task_struct *task)
{
	u32 tgid = task->tgid;
	struct made *made;
	u64 *mark, start;

	/* One that never was has the number of who tried to start it. */
	if (!BPF_CORE_READ(task, exit_state))
		return 0;
	if (task->pid != tgid)
		return 0;
	/* It may be long since it ended: by now another one may have the number. */
	start = BPF_CORE_READ(task, start_boottime);
	mark = bpf_map_lookup_elem(&marks, &tgid);
	if (mark && (*mark & ~(MARK_STEPPED_DOWN | MARK_ANSWERED)) == start)
		bpf_map_delete_elem(&marks, &tgid);
	made = bpf_map_lookup_elem(&makers_running, &tgid);
	if (made && made->start == start)
		lose_mark(tgid);
	return 0;
}
