/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Events and counters. Nothing here decides: an event that finds no room is only counted. */
#pragma once

static __always_inline void count(u32 which)
{
	u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void forget(u64 aux)
{
	u32 which = COUNT_RECORDS;
	u64 *n = bpf_map_lookup_elem(&counters, &which);

	bpf_map_delete_elem(&bounds, &aux);
	if (!bpf_map_delete_elem(&records, &aux) && n)
		__sync_fetch_and_add(n, -1);
}

static __always_inline void describe_task(struct event *e)
{
	u64 id = bpf_get_current_pid_tgid();

	e->at = bpf_ktime_get_boot_ns();
	e->cgroup = bpf_get_current_cgroup_id();
	e->pid = id >> 32;
	e->tid = (u32)id;
	e->uid = (u32)bpf_get_current_uid_gid();
	e->spare = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

/* What an event about a program is made from. */
struct note {
	struct bpf_prog *prog;
	struct bpf_prog_aux *aux;
	const char *target;
	u64 detail;
	u32 gate;
	u32 reason;
	u32 refused;
	u32 class;
	u32 image;
	u32 flags;
};

static __always_inline void describe_program(struct event *e, struct note *n)
{
	struct bpf_prog *prog = n->prog;
	struct bpf_prog_aux *aux = n->aux;

	e->detail = n->detail;
	e->gate = n->gate;
	e->reason = n->reason;
	e->refused = n->refused;
	e->class = n->class;
	e->image = n->image;
	e->flags = n->flags;
	e->prog_type = BPF_CORE_READ(prog, type);
	e->attach_type = BPF_CORE_READ(prog, expected_attach_type);
	e->insns = BPF_CORE_READ(prog, len);
	e->btf_id = BPF_CORE_READ(aux, attach_btf_id);
	e->prog_id = BPF_CORE_READ(aux, id);
	bpf_probe_read_kernel(e->name, sizeof(e->name), &aux->name);
}

/* A refusal: with the first words, so that user space can say what came. */
static __noinline void emit_refusal(struct note *n)
{
	struct bpf_prog *prog = n->prog;
	struct event *e;
	u64 size;

	count(n->refused ? COUNT_REFUSED : COUNT_AUDITED);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	describe_task(e);
	describe_program(e, n);
	e->words_count = 0;
	size = (u64)e->insns * 8;
	asm volatile("" : "+r"(size));
	if (n->gate == 1 && size) {
		if (size > sizeof(e->words))
			size = sizeof(e->words);
		if (!bpf_probe_read_kernel(e->words, size, &prog->insnsi))
			e->words_count = size / 8;
	}
	if (n->target && !bpf_probe_read_kernel(e->words, PLACE_BYTES, n->target))
		e->words_count = PLACE_BYTES / 8;
	bpf_ringbuf_submit(e, 0);
}

/* A pass: short. */
static __noinline void emit_pass(struct note *n)
{
	struct event *e;

	count(COUNT_PASSED);
	e = bpf_ringbuf_reserve(&events, EVENT_SHORT, 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	describe_task(e);
	describe_program(e, n);
	e->words_count = 0;
	bpf_ringbuf_submit(e, 0);
}

/* A program was to be attached where its rule does not name the place, or after its revocation. */
static __noinline void emit_place(struct record *r, u32 reason, const char *name, u64 how, u32 refused)
{
	struct event *e;

	count(refused ? COUNT_REFUSED : COUNT_AUDITED);
	e = bpf_ringbuf_reserve(&events, EVENT_SHORT, 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	describe_task(e);
	e->detail = how;
	e->gate = 3;
	e->reason = reason;
	e->refused = refused;
	e->class = r->class;
	e->image = r->image;
	e->prog_id = r->id;
	e->flags = e->prog_type = e->attach_type = e->insns = e->btf_id = e->words_count = 0;
	bpf_probe_read_kernel(e->name, sizeof(e->name), name);
	bpf_ringbuf_submit(e, 0);
}

/* A way into kernel memory; its number is the detail. */
static __noinline void emit_way(u32 way, u32 refused)
{
	struct event *e;

	count(refused ? COUNT_PROTECTED : COUNT_AUDITED);
	e = bpf_ringbuf_reserve(&events, EVENT_SHORT, 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	describe_task(e);
	e->detail = way;
	e->gate = 0;
	e->reason = REASON_KERNEL_MEMORY;
	e->refused = refused;
	e->class = e->image = e->flags = e->prog_type = e->attach_type = 0;
	e->insns = e->btf_id = e->prog_id = e->words_count = 0;
	__builtin_memset(e->name, 0, sizeof(e->name));
	bpf_ringbuf_submit(e, 0);
}

/* An attempt on the gate itself. */
static __noinline void emit_attempt(u32 gate, u32 reason, u64 detail)
{
	struct event *e;

	count(COUNT_PROTECTED);
	e = bpf_ringbuf_reserve(&events, EVENT_SHORT, 0);
	if (!e) {
		count(COUNT_LOST);
		return;
	}
	describe_task(e);
	e->detail = detail;
	e->gate = gate;
	e->reason = reason;
	e->refused = 1;
	e->class = e->image = e->flags = e->prog_type = e->attach_type = 0;
	e->insns = e->btf_id = e->prog_id = e->words_count = 0;
	__builtin_memset(e->name, 0, sizeof(e->name));
	bpf_ringbuf_submit(e, 0);
}
