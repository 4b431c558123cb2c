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
#define NR_SETSOCKOPT 54 /* x86-64 */

static __always_inline u32 refuse_option(int level, int option)
{
	struct pt_regs___kernel *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct choice c = {};
	struct record *r;
	u32 reason, fd = 0;

	if (level != SOL_SOCKET || (option != SO_ATTACH_BPF && option != SO_ATTACH_REUSEPORT_EBPF))
		return 0;
	if (!bpf_core_field_exists(registers->orig_ax))
		return 0;
	/* What cannot be read here the kernel may read. */
	if (BPF_CORE_READ(registers, orig_ax) != NR_SETSOCKOPT ||
	    bpf_probe_read_user(&fd, sizeof(fd), (void *)BPF_CORE_READ(registers, r10))) {
		if (mode_in_force() != MODE_ENFORCE)
			return 0;
		emit_attempt(3, REASON_ATTACH_PLACE, option);
		return REASON_ATTACH_PLACE;
	}
	r = record_of_fd(fd);
	reason = is_probe(r, option) ?: is_gone(r, option);
	if (reason || !r || !r->places)
		return reason;
	return refuse_place(r, &c, option);
}
