/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One link to many functions of the kernel (kprobe.multi, kprobe.session, fentry.multi and its
 * like). Their names, addresses or BTF ids are a list in the caller's memory, of which each is
 * compared; another thread could write others between this look and the kernel's.
 */
#pragma once

/* More than any pattern but `*` covers: the kernel has about fifty thousand that can be traced. */
#define MAX_FUNCTIONS 16384

enum form { BY_NAME, BY_ADDRESS, BY_ID };

struct many {
	struct choice choice;	/* in the end the first function that no pattern covers */
	u64 list;
	struct btf *btf;	/* whose ids they are */
	u32 form;
	u32 places;
};

/* An address shows as the function that it is in, with ` [MODULE]` after it for a module's. */
static __always_inline void name_listed(struct many *m, u32 i, struct place_name *name)
{
	const char *text;
	u64 word = 0;
	long length = 0;

	if (m->form == BY_ID) {
		if (bpf_probe_read_user(&word, sizeof(u32), (void *)(m->list + i * sizeof(u32))))
			return;
		text = name_of_type(m->btf, word);
		if (text)
			length = bpf_probe_read_kernel_str(name->text, PLACE_BYTES, text);
	} else {
		if (bpf_probe_read_user(&word, sizeof(word), (void *)(m->list + i * sizeof(word))))
			return;
		if (m->form == BY_NAME)
			length = bpf_probe_read_user_str(name->text, PLACE_BYTES, (void *)word);
		else
			length = BPF_SNPRINTF(name->text, PLACE_BYTES, "%ps", word);
	}
	/* Cut off: another function's name may begin alike. */
	if (length <= 0 || length >= PLACE_BYTES)
		name->text[0] = 0;
}

static long check_function(u32 i, struct many *m)
{
	struct choice *c = &m->choice;

	__builtin_memset(&c->name, 0, sizeof(c->name));
	c->allowed = 0;
	name_listed(m, i, &c->name);
	if (c->name.text[0])
		bpf_loop(m->places, try_pattern, c, 0);
	return !c->allowed;
}

static __always_inline bool is_many_kprobes(u32 attach_type)
{
	return attach_type == BPF_TRACE_KPROBE_MULTI || attach_type == BPF_TRACE_KPROBE_SESSION;
}

/* The kernel goes by the program here, and not by what the command says. */
static __always_inline bool traces_many(struct bpf_prog *prog)
{
	u32 attach_type = BPF_CORE_READ(prog, expected_attach_type);

	return BPF_CORE_READ(prog, type) == BPF_PROG_TYPE_TRACING &&
	       attach_type >= BPF_TRACE_FENTRY_MULTI && attach_type <= BPF_TRACE_FSESSION_MULTI;
}

/* The name that is left says whether all are allowed: the last one then, else the first that is not. */
static __always_inline void name_functions(union attach_attr *attr, struct bpf_prog *prog,
					   struct record *r, struct many *m)
{
	u32 count;

	m->choice.image = r->image;
	m->places = r->places;
	if (traces_many(prog)) {
		m->form = BY_ID;
		m->btf = BPF_CORE_READ(prog, aux, attach_btf);
		m->list = BPF_PROBE_READ(attr, link_create.tracing_multi.ids);
		count = BPF_PROBE_READ(attr, link_create.tracing_multi.count);
	} else {
		m->form = BY_NAME;
		m->list = BPF_PROBE_READ(attr, link_create.kprobe_multi.names);
		count = BPF_PROBE_READ(attr, link_create.kprobe_multi.count);
		if (!m->list) {
			m->form = BY_ADDRESS;
			m->list = BPF_PROBE_READ(attr, link_create.kprobe_multi.addresses);
		}
	}
	if (count <= MAX_FUNCTIONS)
		bpf_loop(count, check_function, m, 0);
}

/*
 * Kernels to 7.3 take functions of the kernel alone. Later ones may take other programs' with more
 * in the command than is known here: no rule lets a program trace another.
 */
static __always_inline u32 refuse_many(int cmd, union attach_attr *attr, struct bpf_prog *prog)
{
	if (cmd != BPF_LINK_CREATE || !prog || !traces_many(prog) ||
	    mode_in_force() != MODE_ENFORCE)
		return 0;
	if (!BPF_PROBE_READ(attr, link_create.tracing_multi.later) &&
	    !BPF_PROBE_READ(attr, link_create.tracing_multi.much_later))
		return 0;
	emit_attempt(3, REASON_ATTACH_PROGRAM, cmd);
	return REASON_ATTACH_PROGRAM;
}
