// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Before there is a gate: nobody traces the enforcer, opens its memory or takes its descriptors, so that nobody holds
 * the process that is to arm it. One program, which goes with the last descriptor of its link.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define PTRACE_MODE_ATTACH 2
#define EPERM 1

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The enforcer's file: inode, and device as in super_block.s_dev. */
const volatile u64 file[2];

SEC("lsm/ptrace_access_check")
int BPF_PROG(bpfseal_shield, struct task_struct *child, unsigned int mode)
{
	struct inode *inode;

	if (!(mode & PTRACE_MODE_ATTACH))
		return 0;
	inode = BPF_CORE_READ(child, mm, exe_file, f_inode);
	if (!inode || BPF_CORE_READ(inode, i_ino) != file[0] || BPF_CORE_READ(inode, i_sb, s_dev) != file[1])
		return 0;
	return -EPERM;
}
