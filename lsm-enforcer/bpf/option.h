/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Attaching by a socket option. The hook does not show the option's value; the registers of the
 * system call say where it is. Another way to set the option (io_uring, a 32-bit program) does not
 * have it there, and nobody attaches programs so: it is refused.
 */
#pragma once

#define SOL_SOCKET 1
#define SO_ATTACH_BPF 50
#define SO_ATTACH_REUSEPORT_EBPF 52
#define SOL_PACKET 263
#define PACKET_FANOUT_DATA 22
#define NR_SETSOCKOPT 54 /* x86-64 */

static __always_inline bool attaches(int level, int option)
{
	return level == SOL_SOCKET ? option == SO_ATTACH_BPF || option == SO_ATTACH_REUSEPORT_EBPF
				   : level == SOL_PACKET && option == PACKET_FANOUT_DATA;
}

static __always_inline u32 refuse_option(int level, int option)
{
	struct pt_regs___kernel *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());

	if (!attaches(level, option) || !bpf_core_field_exists(registers->orig_ax))
		return 0;
	/* A request of io_uring may run on the way out of another call of the same name. */
	if (BPF_CORE_READ(registers, orig_ax) != NR_SETSOCKOPT ||
	    (int)BPF_CORE_READ(registers, si) != level || (int)BPF_CORE_READ(registers, dx) != option)
		return refuse_unread(option);
	/* Classic instructions are longer than a descriptor. */
	if (level == SOL_PACKET && (u32)BPF_CORE_READ(registers, r8) != sizeof(u32))
		return 0;
	return refuse_given(BPF_CORE_READ(registers, r10), option);
}
