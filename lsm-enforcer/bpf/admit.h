/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Gate 1: may these instructions reach the verifier? */
#pragma once

/* One load, as the hooks of this kernel let us see it. */
struct load {
	struct bpf_prog *prog;
	struct bpf_prog_aux *aux;
	u64 src;
	struct key key;
	u32 odd_flags;
	u32 core_relos;
	u32 fd_array;
	u32 attach_fd;
	u64 detail;
	u32 image;
	u32 class;
	u32 maps;
	u32 refs;
	u32 places;
	u32 fd_array_cnt;
	u32 indexed;
	u32 licence;
};

/* Facts that no admitted program has, whatever its instructions. */
static __noinline u32 refuse_facts(struct load *l)
{
	struct bpf_prog_aux *aux = l->aux;
	struct btf *btf;

	if (l->odd_flags)
		return REASON_LOAD_FLAGS;
	if (l->key.prog_type == BPF_PROG_TYPE_EXT) {
		/* The id of a function in the other program's BTF: gate 2 goes by its name. */
		l->key.btf_id = 0;
		return BPF_CORE_READ(aux, dst_prog) ? 0 : REASON_ATTACH_PROGRAM;
	}
	if (BPF_CORE_READ(aux, dst_prog))
		return REASON_ATTACH_PROGRAM;
	if (l->key.btf_id || l->attach_fd) {
		btf = BPF_CORE_READ(aux, attach_btf);
		if (btf && !BPF_CORE_READ(btf, kernel_btf))
			return REASON_MODULE_BTF;
		/* Another module, or the same one loaded anew, has another id, never used again. */
		if (btf && BPF_CORE_READ(btf, base_btf))
			l->key.btf = BPF_CORE_READ(btf, id);
	}
	return 0;
}

/* One scan, with the helpers that a shape allows. */
static __noinline u32 scan_program(struct load *l, struct header *shape)
{
	int seen = scan(l->src, l->key.len, shape);

	if (seen & SEEN_FAILED)
		return REASON_UNREADABLE;
	if (shape && !(seen & (SEEN_HARM | SEEN_MAP_INDEX)) && l->key.len <= shape->max_insns &&
	    (!(seen & SEEN_MAPS) || shape->maps)) {
		l->image = shape->image;
		l->class = CLASS_SHAPE;
		l->maps = shape->maps;
		return 0;
	}
	if (seen & SEEN_MODULE)
		return REASON_MODULE_BTF;
	if ((seen & SEEN_MAP_INDEX) || l->fd_array)
		return REASON_MAP_INDEX;
	return REASON_UNSIGNED;
}

/* Nothing admitted is like it: does a shape allow it, and if not, what is it? */
static __noinline u32 judge_stranger(struct load *l, void *index)
{
	struct key key = { .prog_type = l->key.prog_type, .use = USE_SHAPE };
	struct header *shape = 0;
	u32 reason = 0;
	int i;

	for (i = 0; i < MAX_SHAPES; i++) {
		key.len = i;
		shape = 0;
		if (!l->key.btf_id && !l->key.flags && !l->fd_array)
			shape = bpf_map_lookup_elem(index, &key);
		if (i && !shape)
			break;
		reason = scan_program(l, shape);
		if (!reason)
			break;
	}
	return reason;
}

/* The program that it claims to be, by name: only to say where they differ. */
static __noinline u32 find_named(struct load *l, void *index)
{
	struct key key = { .prog_type = l->key.prog_type, .use = USE_NAMED };
	struct bpf_prog_aux *aux = l->aux;
	struct header *named;
	struct place place = {};
	u64 name[2] = {};
	u32 len = l->key.len;

	bpf_probe_read_kernel(name, sizeof(name), &aux->name);
	if (!name[0])
		return 0;
	key.fingerprint = name[0] * FINGERPRINT_PRIME ^ name[1];
	named = bpf_map_lookup_elem(index, &key);
	if (!named)
		return 0;
	l->image = named->image;
	if (len > named->max_insns)
		len = named->max_insns;
	/* Without a difference one is the beginning of the other. */
	l->detail = compare(l->src, len, named->image, &place) ? place.at : len;
	return REASON_INSTRUCTION_DIFFERS;
}

static __noinline u32 judge_generated(struct load *l, void *index);

/*
 * The kernel has verified a signature over it. That covers neither type nor target, so only loaders
 * of light skeletons are let in by it, which have no target; and it is by whatever keyring the
 * caller has named, so only by those that the policy names.
 */
static __noinline u32 judge_native(struct load *l, void *index)
{
	struct bpf_prog_aux___signed *aux = (void *)l->aux;
	struct key key = { .use = USE_KEYRINGS };
	struct header *keyrings;
	u32 type;

	if (l->key.prog_type != BPF_PROG_TYPE_SYSCALL || l->key.attach_type || l->key.btf_id ||
	    l->attach_fd || l->core_relos || !bpf_core_field_exists(aux->sig.verdict) ||
	    BPF_CORE_READ(aux, sig.verdict) != BPF_SIG_VERIFIED)
		return REASON_UNSIGNED;
	keyrings = bpf_map_lookup_elem(index, &key);
	if (!keyrings)
		return REASON_UNSIGNED;
	type = BPF_CORE_READ(aux, sig.keyring_type);
	if (type > 31 || !(keyrings->mode >> type & 1))
		return REASON_KERNEL_KEYRING;
	l->image = keyrings->image;
	l->class = CLASS_NATIVE;
	l->maps = 1;
	l->refs = l->places = l->indexed = l->licence = 0;
	return 0;
}

/* The gate's own programs, which one thread of the daemon loads while they are exchanged. */
static __noinline u32 judge_own(struct load *l)
{
	u32 zero = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &zero);

	if (!g || !is_renewing(g))
		return REASON_UNSIGNED;
	l->class = CLASS_OWN;
	l->image = l->maps = l->refs = l->places = l->indexed = l->licence = 0;
	return 0;
}

static __noinline u32 judge_mismatch(struct load *l, void *index)
{
	struct key key = { .fingerprint = l->key.fingerprint, .len = l->key.len, .use = USE_ALIKE };
	struct header *alike = bpf_map_lookup_elem(index, &key);
	u32 reason, generated, native;

	if (l->key.btf) {
		if (alike)
			l->image = alike->image;
		return REASON_MODULE_BTF;
	}
	reason = judge_stranger(l, index);
	if (!reason)
		return 0;
	generated = judge_generated(l, index);
	if (generated != REASON_UNSIGNED)
		return generated;
	native = judge_native(l, index);
	if (native != REASON_UNSIGNED)
		return native;
	if (reason != REASON_UNSIGNED)
		return reason;
	if (alike) {
		l->image = alike->image;
		return alike->prog_type == l->key.prog_type ? REASON_ATTACH_TARGET : REASON_OTHER_TYPE;
	}
	return find_named(l, index) ?: REASON_UNSIGNED;
}

/* The images of one key, one after another; only how they share maps tells them apart. */
struct candidates {
	struct load *load;
	void *index;
	struct header *next;
	u32 reason;
};

static long compare_candidate(u32 i, struct candidates *c)
{
	struct load *l = c->load;
	struct header *h = c->next;
	struct key after = { .use = USE_OTHER };
	struct place place = {};

	if (!h)
		return 1;
	l->image = h->image;
	l->class = h->class;
	l->maps = h->maps;
	l->refs = h->refs;
	l->places = h->places;
	l->licence = h->licence;
	after.fingerprint = h->image;
	c->reason = compare(l->src, l->key.len, l->image, &place);
	l->detail = place.at;
	if (c->reason != REASON_MAP_REFERENCE)
		return 1;
	c->next = bpf_map_lookup_elem(c->index, &after);
	return 0;
}

/* Tools ask by a probe whether a function can be traced: the function does not matter. */
static __noinline void *find_any_target(struct load *l, void *index)
{
	struct key key = l->key;

	key.btf_id = 0;
	key.use = USE_ANY_TARGET;
	return bpf_map_lookup_elem(index, &key);
}

/*
 * A light skeleton: maps by index, and the kernel is to relocate. Instructions are compared as they
 * come; gate 2 compares what the kernel made of them, on kernels that tell.
 */
static __noinline void *find_indexed(struct load *l, void *index)
{
	struct key key = l->key;
	void *found;

	key.use = USE_INDEXED;
	found = bpf_map_lookup_elem(index, &key);
	l->indexed = found != 0;
	return found;
}

/* A table whose length is known comes first in the verifier's list, with what nothing refers to. */
static __always_inline bool is_array_in_order(struct load *l, struct header *h)
{
	return !l->fd_array_cnt || (h->mode && l->fd_array_cnt == h->maps);
}

/* 0: admitted; else the reason. */
static __always_inline u32 judge(struct load *l, void *index)
{
	struct candidates c = { .load = l, .index = index };
	u32 reason = refuse_facts(l);

	if (reason)
		return reason;
	l->key.fingerprint = fingerprint(l->src, l->key.len);
	if (!l->key.fingerprint)
		return REASON_UNREADABLE;
	if (l->fd_array || l->core_relos) {
		c.next = find_indexed(l, index);
		/* Without references by index it does not matter what stands there. */
		if (!c.next && l->core_relos)
			return REASON_KERNEL_CORE;
		if (c.next && !is_array_in_order(l, c.next))
			return REASON_MAP_INDEX;
	}
	if (!c.next && !l->fd_array_cnt)
		c.next = bpf_map_lookup_elem(index, &l->key);
	if (!c.next && l->key.btf_id && !l->fd_array)
		c.next = find_any_target(l, index);
	if (!c.next)
		return judge_own(l) ? judge_mismatch(l, index) : 0;
	bpf_loop(MAX_ALIKE, compare_candidate, &c, 0);
	return c.reason;
}

/* Remembers the verdict for gate 2. */
static __noinline u32 remember(struct load *l, u32 reason, u32 audited)
{
	u64 aux = (u64)l->aux;
	u64 id = bpf_get_current_pid_tgid();
	struct record r = {
		.image = l->image,
		.class = l->class,
		.state = reason && !audited ? STATE_REFUSED : STATE_ADMITTED,
		/* The table of descriptors is memory, and memory can be shared unseen. */
		.files = l->indexed || loader_shares_files() ? FILES_SHARED : FILES_OWN,
		.audited = audited,
		.reason = reason,
		.maps = l->maps,
		.refs = l->refs,
		.places = l->places,
		.indexed = l->indexed,
		.licence = l->licence,
		.module = l->key.btf != 0,
		.detail = l->detail,
		.pid = id >> 32,
		.uid = (u32)bpf_get_current_uid_gid(),
	};

	bpf_get_current_comm(r.comm, sizeof(r.comm));
	/* There is one already where the hook has the gate's programs of two builds. */
	if (!bpf_map_update_elem(&records, &aux, &r, BPF_NOEXIST))
		count(COUNT_RECORDS);
	else if (bpf_map_update_elem(&records, &aux, &r, BPF_ANY))
		return REASON_RECORDS_FULL;
	return 0;
}

static __noinline void report_load(struct load *l, u32 reason, u32 refused)
{
	struct note n = {
		.prog = l->prog,
		.aux = l->aux,
		.detail = l->detail,
		.gate = 1,
		.reason = reason,
		.refused = refused,
		.class = l->class,
		.image = l->image,
		.flags = l->key.flags,
	};

	emit_refusal(&n);
}

/* Judges, reports, remembers. Returns the reason to refuse, or 0. */
static __always_inline u32 admit(struct load *l)
{
	u32 zero = 0, reason, audited = 0;
	void *index = bpf_map_lookup_elem(&set, &zero);
	struct header *settings;

	if (!index)
		return REASON_NO_VERDICT;
	reason = judge(l, index);
	if (reason) {
		struct key key = { .use = USE_SETTINGS };

		settings = bpf_map_lookup_elem(index, &key);
		if (settings && settings->mode == MODE_OPEN)
			return 0;
		audited = settings && settings->mode == MODE_AUDIT;
		if (audited)
			l->class = CLASS_AUDITED;
		report_load(l, reason, !audited);
	}
	if (remember(l, reason, audited)) {
		l->detail = 0;
		report_load(l, REASON_RECORDS_FULL, 1);
		return REASON_RECORDS_FULL;
	}
	return audited ? 0 : reason;
}
