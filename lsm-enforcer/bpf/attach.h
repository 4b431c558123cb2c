/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Gate 3, as far as it goes: loaders' probe programs are never attached. */
#pragma once

/* The program behind a descriptor of the current task, best effort. */
static __always_inline struct record *record_of_fd(u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = 0;
	struct bpf_prog *prog;
	u64 aux;

	if (!table || fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	files = BPF_CORE_READ(table, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), &files[fd]) || !file)
		return 0;
	/* Another file's private data that happened to lead to a record's key would only be refused. */
	prog = BPF_CORE_READ(file, private_data);
	aux = (u64)BPF_CORE_READ(prog, aux);
	return bpf_map_lookup_elem(&records, &aux);
}

static __always_inline u32 is_probe(u32 fd, u64 how)
{
	struct record *r = record_of_fd(fd);

	if (!r || r->class != CLASS_PROBE)
		return 0;
	emit_attempt(3, REASON_PROBE_ATTACH, how);
	return REASON_PROBE_ATTACH;
}

/*
 * EBADF for the command by which libbpf asks whether the kernel knows uprobe multi links: it
 * hands in a probe and a bad target and expects just this. A second question names an
 * impossible process; kernels that check it say EINVAL.
 */
static __always_inline int refuse_attach(int cmd, union attach_attr *attr)
{
	int error = -EPERM;
	u32 fd;

	if (cmd == BPF_LINK_CREATE) {
		/* libbpf's question about perf links: no perf event, so the kernel refuses by itself. */
		if (BPF_PROBE_READ(attr, link_create.attach_type) == BPF_PERF_EVENT &&
		    BPF_PROBE_READ(attr, link_create.target_fd) == (u32)-1)
			return 0;
		fd = BPF_PROBE_READ(attr, link_create.prog_fd);
		error = -EBADF;
		if (BPF_PROBE_READ(attr, link_create.attach_type) == BPF_TRACE_UPROBE_MULTI &&
		    BPF_PROBE_READ(attr, link_create.uprobe_pid) == (u32)-1)
			error = -EINVAL;
	} else if (cmd == BPF_RAW_TRACEPOINT_OPEN) {
		fd = BPF_PROBE_READ(attr, raw_tracepoint.prog_fd);
	} else if (cmd == BPF_PROG_ATTACH) {
		fd = BPF_PROBE_READ(attr, prog_attach.attach_bpf_fd);
	} else if (cmd == BPF_LINK_UPDATE) {
		fd = BPF_PROBE_READ(attr, link_update.new_prog_fd);
	} else if (cmd == BPF_LINK_GET_FD_BY_ID) {
		struct guard *g = locked_guard();

		return g && refuse_own(g, OWN_LINK, BPF_PROBE_READ(attr, get_id.link_id)) ? -EPERM : 0;
	} else {
		return 0;
	}
	return is_probe(fd, cmd) ? error : 0;
}
