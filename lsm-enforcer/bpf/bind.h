/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Gate 2: is it bound to what was signed: maps, read-only data, target? Judged once per aux. */
#pragma once

/*
 * Map types that a shape's program may use: plain storage, nothing that steers control flow.
 * hash, array, percpu hash, percpu array, lru hash, lru percpu hash, lpm trie, ringbuf
 */
#define PLAIN_MAPS                                                                                 \
	(1ull << 1 | 1ull << 2 | 1ull << 5 | 1ull << 6 | 1ull << 9 | 1ull << 10 | 1ull << 11 |     \
	 1ull << 27)

struct binding {
	struct data_key key;	/* image, map, chunk */
	u64 data;		/* address of the contents */
	u32 size;
	u32 reason;
	u64 detail;
};

static long compare_data(u32 i, struct binding *b)
{
	struct data *want;
	u64 got[8];
	u64 n, at;
	int part, k;

	b->key.chunk = i;
	want = bpf_map_lookup_elem(&contents, &b->key);
	b->reason = REASON_NO_VERDICT;
	if (!want)
		return 1;
#pragma unroll
	for (part = 0; part < DATA_BYTES / 64; part++) {
		at = (u64)i * DATA_BYTES + part * 64;
		if (at >= b->size)
			break;
		n = b->size - at;
		asm volatile("" : "+r"(n));
		__builtin_memset(got, 0, sizeof(got));
		if (n > sizeof(got))
			n = sizeof(got);
		if (n == 0)
			break;
		b->reason = REASON_UNREADABLE;
		if (bpf_probe_read_kernel(got, n, (void *)(b->data + at)))
			return 1;
#pragma unroll
		for (k = 0; k < 8; k++) {
			if ((got[k] ^ want->want[part * 8 + k]) & want->mask[part * 8 + k]) {
				b->reason = REASON_DATA_DIFFERS;
				b->detail = at + k * 8;
				return 1;
			}
		}
	}
	b->reason = 0;
	return 0;
}

static long check_tunable(u32 i, struct binding *b)
{
	struct tunable *t;
	s64 value = 0;
	u32 size;
	int k;

	b->key.chunk = i;
	t = bpf_map_lookup_elem(&tunables, &b->key);
	b->reason = REASON_NO_VERDICT;
	if (!t)
		return 1;
	size = t->size;
	b->detail = t->offset;
	b->reason = REASON_UNREADABLE;
	if (size == 1) {
		if (bpf_probe_read_kernel(&value, 1, (void *)(b->data + t->offset)))
			return 1;
		value = t->is_signed ? (s64)(signed char)value : value;
	} else if (size == 2) {
		if (bpf_probe_read_kernel(&value, 2, (void *)(b->data + t->offset)))
			return 1;
		value = t->is_signed ? (s64)(short)value : value;
	} else if (size == 4) {
		if (bpf_probe_read_kernel(&value, 4, (void *)(b->data + t->offset)))
			return 1;
		value = t->is_signed ? (s64)(int)value : value;
	} else if (bpf_probe_read_kernel(&value, 8, (void *)(b->data + t->offset))) {
		return 1;
	}
	b->reason = 0;
	if (!t->count) {
		/* An unsigned 64-bit value over the signed range is never between two limits. */
		if (value >= t->values[0] && value <= t->values[1] &&
		    !(size == 8 && !t->is_signed && value < 0))
			return 0;
	} else {
#pragma unroll
		for (k = 0; k < 8; k++)
			if (k < t->count && value == t->values[k])
				return 0;
	}
	b->reason = REASON_TUNABLE_RANGE;
	return 1;
}

/* Are the maps in this one what was signed? */
static __always_inline u32 check_inner(struct bpf_map *outer, struct map_spec *spec)
{
	struct bpf_map *map = BPF_CORE_READ(outer, inner_map_meta);

	if (!spec->inner_type)
		return 0;
	if (!map || BPF_CORE_READ(map, map_type) != spec->inner_type)
		return REASON_MAP_KIND;
	if (BPF_CORE_READ(map, key_size) != spec->inner_key_size ||
	    BPF_CORE_READ(map, value_size) != spec->inner_value_size ||
	    BPF_CORE_READ(map, max_entries) != spec->inner_entries)
		return REASON_MAP_SIZE;
	return BPF_CORE_READ(map, map_flags) != spec->inner_flags ? REASON_MAP_FLAGS : 0;
}

/* One map against what was signed: 0, or the reason and where. */
__noinline int check_map(u64 address, u32 image, u32 number, struct place *place)
{
	struct binding b = { .key.image = image, .key.map = number };
	struct map_key key = { .image = image, .map = number };
	struct bpf_map *map = (void *)address;
	struct map_spec *spec = bpf_map_lookup_elem(&specs, &key);
	u32 entries, reason;

	if (!spec || !place)
		return REASON_NO_VERDICT;
	/* A jump table is code: as long as its contents are not compared, none is right. */
	if (BPF_CORE_READ(map, map_type) != spec->type || spec->type == JUMP_TABLES ||
	    spec->type > LAST_MAP_TYPE)
		return REASON_MAP_KIND;
	if (BPF_CORE_READ(map, key_size) != spec->key_size ||
	    BPF_CORE_READ(map, value_size) != spec->value_size)
		return REASON_MAP_SIZE;
	entries = BPF_CORE_READ(map, max_entries);
	if (entries < spec->min_entries || entries > spec->max_entries)
		return REASON_MAP_SIZE;
	if ((BPF_CORE_READ(map, map_flags) ^ spec->flags) & ~spec->flags_free)
		return REASON_MAP_FLAGS;
	reason = check_inner(map, spec);
	if (reason || !spec->size)
		return reason;
	if (!BPF_CORE_READ(map, frozen))
		return REASON_NOT_FROZEN;
	b.data = address + bpf_core_field_offset(struct bpf_array, value);
	b.size = spec->size;
	bpf_loop((spec->size + DATA_BYTES - 1) / DATA_BYTES, compare_data, &b, 0);
	if (!b.reason && spec->tunables)
		bpf_loop(spec->tunables, check_tunable, &b, 0);
	place->at = b.detail;
	return b.reason;
}

/* Only this program may use it: no other can change the data that the kernel's signature is over. */
#define EXCLUSIVE (1ull << 63)

/* A map of a program that nobody measured: of a kind in `kinds`. */
__noinline int check_kind(u64 address, u64 kinds)
{
	struct bpf_map *map = (void *)address;
	struct bpf_map___exclusive *owned = (void *)address;
	u32 type = BPF_CORE_READ(map, map_type);

	if (kinds & EXCLUSIVE && !(bpf_core_field_exists(owned->excl_prog_sha) &&
				   BPF_CORE_READ(owned, excl_prog_sha)))
		return REASON_MAP_KIND;
	return type < 63 && (kinds >> type & 1) ? 0 : REASON_MAP_KIND;
}

struct maps_of {
	struct bpf_map **used;
	u64 kinds;	/* all that matters, for what nobody signed */
	u32 image;
	u32 shape;
	u32 number;
	u32 reason;
	u64 at;
};

static long check_map_at(u32 i, struct maps_of *m)
{
	struct place place = {};
	u64 map = 0;

	m->number = i;
	m->reason = REASON_UNREADABLE;
	if (bpf_probe_read_kernel(&map, sizeof(map), &m->used[i]) || !map)
		return 1;
	m->reason = m->shape ? check_kind(map, m->kinds) : check_map(map, m->image, i, &place);
	m->at = place.at;
	return m->reason != 0;
}

/* Did the kernel make of the instructions what the image says? */
__noinline int is_result(u64 address, u32 image)
{
	struct bpf_prog_aux *aux = (void *)address;
	struct bpf_prog___digest *prog = (void *)BPF_CORE_READ(aux, prog);
	struct result *want = bpf_map_lookup_elem(&results, &image);
	struct result got = {};

	if (!want || !bpf_core_field_exists(prog->digest) ||
	    bpf_core_read(&got, sizeof(got), &prog->digest))
		return 0;
	return got.digest[0] == want->digest[0] && got.digest[1] == want->digest[1] &&
	       got.digest[2] == want->digest[2] && got.digest[3] == want->digest[3];
}

/* All that the kernel makes of a licence's text: may it call what is for GPL programs only? */
static __always_inline u32 licence_of(struct bpf_prog *prog)
{
	return BPF_CORE_READ_BITFIELD_PROBED(prog, gpl_compatible) ? LICENCE_GPL : LICENCE_OTHER;
}

/* Has it another callback for exceptions than none? From 6.7 on. */
static __noinline bool may_throw(struct bpf_prog_aux *aux)
{
	void *callback;

	/* The callback's own function has the one, the program that may throw the other. */
	if (bpf_core_field_exists(aux->exception_cb) && BPF_CORE_READ(aux, exception_cb))
		return true;
	if (!bpf_core_field_exists(aux->bpf_exception_cb))
		return false;
	callback = BPF_CORE_READ(aux, bpf_exception_cb);
	/* A program of several functions without one has its own beginning there. */
	return callback && callback != BPF_CORE_READ(aux, prog, bpf_func);
}

/* Does it write the registers, and so decide how its target goes on? From 6.18 on. */
static __always_inline bool writes_registers(struct bpf_prog_aux *aux)
{
	return bpf_core_field_exists(aux->kprobe_write_ctx) && BPF_CORE_READ(aux, kprobe_write_ctx);
}

static __always_inline void *set_in_force(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&set, &zero);
}

#define MOST_CALLED 256	/* MAX_KFUNC_BTFS */

struct calls {
	void *set;
	u64 descs;
	u32 count;
	u32 image;
	u32 reason;
};

/* As gate 1 does with targets: another module, or the same one loaded anew, has another number. */
static long compare_called(u32 i, struct calls *c)
{
	struct bpf_kfunc_btf *desc = (void *)c->descs + i * bpf_core_type_size(struct bpf_kfunc_btf);
	struct key key = { .use = USE_CALLS, .fingerprint = c->image };
	struct header *want;

	if (i >= c->count)
		return 1;
	key.len = BPF_CORE_READ(desc, offset);
	want = bpf_map_lookup_elem(c->set, &key);
	if (!want || want->mode != BPF_CORE_READ(desc, btf, id))
		c->reason = REASON_MODULE_BTF;
	return c->reason != 0;
}

/* 0 if the modules whose functions it calls are those that were meant. */
static __noinline u32 judge_calls(struct bpf_prog_aux *aux, u32 image)
{
	struct bpf_kfunc_btf_tab *tab = BPF_CORE_READ(aux, kfunc_btf_tab);
	struct calls c = { .image = image };

	if (!tab)
		return 0;
	c.set = set_in_force();
	if (!c.set)
		return REASON_NO_VERDICT;
	c.descs = (u64)tab + bpf_core_field_offset(struct bpf_kfunc_btf_tab, descs);
	c.count = BPF_CORE_READ(tab, nr_descs);
	bpf_loop(MOST_CALLED, compare_called, &c, 0);
	return c.reason;
}

/* No image says what its maps are. */
static __always_inline bool is_unmeasured(u32 class)
{
	return class == CLASS_SHAPE || class == CLASS_GENERATED || class == CLASS_NATIVE;
}

/* 0, or the reason; place says where: the map's number, and what of it. */
__noinline int judge_binding(u64 address, struct record *r, struct place *place)
{
	struct bpf_prog_aux *aux = (void *)address;
	struct btf *btf = BPF_CORE_READ(aux, attach_btf);
	u32 maps = BPF_CORE_READ(aux, used_map_cnt), reason;
	struct maps_of m = {};

	if (!r || !place)
		return REASON_NO_VERDICT;
	if (BPF_CORE_READ(aux, dst_prog) && BPF_CORE_READ(aux, prog, type) != BPF_PROG_TYPE_EXT)
		return REASON_ATTACH_TARGET;
	if (btf && (!BPF_CORE_READ(btf, kernel_btf) || (BPF_CORE_READ(btf, base_btf) && !r->module)))
		return REASON_MODULE_BTF;
	reason = judge_calls(aux, r->image);
	if (reason)
		return reason;
	if (may_throw(aux))
		return REASON_EXCEPTION_CALLBACK;
	if (r->licence && r->licence != licence_of(BPF_CORE_READ(aux, prog)))
		return REASON_OTHER_TYPE;
	if (r->indexed && !is_result(address, r->image))
		return REASON_CORE_RESULT;
	place->at = maps;
	m.shape = is_unmeasured(r->class);
	m.kinds = r->class == CLASS_NATIVE ? EXCLUSIVE | 1ull << BPF_MAP_TYPE_ARRAY : PLAIN_MAPS;
	if (r->class == CLASS_GENERATED) {
		u32 image = r->image;
		struct maker *maker = bpf_map_lookup_elem(&makers, &image);

		if (!maker)
			return REASON_NO_VERDICT;
		if (writes_registers(aux)) {
			place->at = LIMIT_REGISTERS;
			return REASON_GENERATOR_LIMIT;
		}
		m.kinds = maker->map_types;
	}
	if (maps > MAX_MAPS || (m.shape ? maps > r->maps : maps != r->maps))
		return REASON_MAP_COUNT;
	m.image = r->image;
	m.used = BPF_CORE_READ(aux, used_maps);
	bpf_loop(maps, check_map_at, &m, 0);
	place->at = (u64)m.number << 32 | (u32)m.at;
	return m.reason;
}

static __noinline void report_binding(struct bpf_prog *prog, struct record *r, u32 reason,
				      u32 refused, u64 detail)
{
	struct note n = {
		.prog = prog,
		.aux = BPF_CORE_READ(prog, aux),
		.detail = detail,
		.gate = 2,
		.reason = reason,
		.refused = refused,
		.class = r ? r->class : 0,
		.image = r ? r->image : 0,
	};

	if (reason)
		emit_refusal(&n);
	else
		emit_pass(&n);
}

static __noinline u32 mode_in_force(void)
{
	struct key key = { .use = USE_SETTINGS };
	void *index = set_in_force();
	struct header *settings;

	if (!index)
		return MODE_ENFORCE;
	settings = bpf_map_lookup_elem(index, &key);
	return settings ? settings->mode : MODE_ENFORCE;
}

/* In the place of the instructions goes the name of what was to be replaced. */
static __noinline void report_target(struct bpf_prog *prog, struct record *r, struct place_name *name)
{
	struct note n = {
		.prog = prog,
		.aux = BPF_CORE_READ(prog, aux),
		.target = name->text,
		.gate = 2,
		.reason = REASON_ATTACH_PROGRAM,
		.refused = mode_in_force() == MODE_ENFORCE,
		.class = r->class,
		.image = r->image,
	};

	emit_refusal(&n);
}

/* The same instructions may be admitted with several sets of maps: any one of them will do. */
struct siblings {
	struct bpf_prog_aux *aux;
	struct record *record;	/* a copy: two descriptors may be made at once */
	u64 detail;	/* of the first, which is the one to report */
	u32 first;
	u32 passed;
};

static long judge_sibling(u32 i, struct siblings *s)
{
	struct key after = { .use = USE_SIBLING };
	struct record *r = s->record;
	void *index = set_in_force();
	struct header *h;
	struct place place = {};
	u32 reason = is_revoked(r->image) ? REASON_UNSIGNED
					  : judge_binding((u64)s->aux, r, &place);

	if (!reason) {
		s->passed = 1;
		return 1;
	}
	if (!s->first) {
		s->first = reason;
		s->detail = place.at;
	}
	after.fingerprint = r->image;
	h = index && !is_unmeasured(r->class) ? bpf_map_lookup_elem(index, &after) : 0;
	if (!h)
		return 1;
	r->image = h->image;
	r->class = h->class;
	r->maps = h->maps;
	r->places = h->places;
	r->licence = h->licence;
	return 0;
}

static __always_inline u32 judge_siblings(struct bpf_prog_aux *aux, struct record *r, u64 *detail)
{
	struct record of = *r;
	struct siblings s = { .aux = aux, .record = &of };

	bpf_loop(MAX_ALIKE, judge_sibling, &s, 0);
	*detail = s.detail;
	if (!s.passed)
		return s.first ?: REASON_NO_VERDICT;
	r->image = of.image;
	r->class = of.class;
	r->maps = of.maps;
	r->places = of.places;
	r->licence = of.licence;
	return 0;
}

/* The verifier compared prototypes; whose function it is, only the rule can say. */
static __noinline u32 judge_replacement(struct bpf_prog *prog, struct record *r)
{
	struct bpf_prog_aux *aux = BPF_CORE_READ(prog, aux);
	struct bpf_prog *target = BPF_CORE_READ(aux, dst_prog);
	u64 target_aux = target ? (u64)BPF_CORE_READ(target, aux) : 0;
	struct choice c = {};

	if (may_replace(target_aux, BPF_CORE_READ(aux, attach_btf_id), r, &c))
		return 0;
	report_target(prog, r, &c.name);
	return REASON_ATTACH_PROGRAM;
}

/* Called for every new descriptor of every program. */
static __always_inline u32 bind(struct bpf_prog *prog, struct guard *g)
{
	struct bpf_prog_aux *aux = BPF_CORE_READ(prog, aux);
	u64 key = (u64)aux, detail = 0;
	struct record *r = bpf_map_lookup_elem(&records, &key);
	u32 reason, mode;

	if (!r) {
		/* A load may take as long as its caller's memory lets it: the number is given at its end. */
		if (BPF_CORE_READ(aux, load_time) < g->armed_at && BPF_CORE_READ(aux, id) <= g->last_prog)
			return 0;
		if (mode_in_force() != MODE_ENFORCE)
			return 0;
		report_binding(prog, 0, REASON_NO_VERDICT, 1, 0);
		return REASON_NO_VERDICT;
	}
	/* What a program left that is gone speaks for no other that got its address. */
	if (r->state == STATE_PASSED)
		return r->id == BPF_CORE_READ(aux, id) || mode_in_force() != MODE_ENFORCE ? 0
										     : REASON_NO_VERDICT;
	if (r->state == STATE_REFUSED)
		return mode_in_force() == MODE_OPEN ? 0 : r->reason ?: REASON_NO_VERDICT;
	r->id = BPF_CORE_READ(aux, id);
	if (r->class == CLASS_AUDITED || r->class == CLASS_OWN) {
		r->state = STATE_PASSED;
		return 0;
	}
	reason = judge_siblings(aux, r, &detail);
	if (!reason && r->files != FILES_OWN && r->maps > 1 && !is_unmeasured(r->class))
		reason = judge_references(key, r);
	if (!reason && prog->type == BPF_PROG_TYPE_EXT)
		reason = judge_replacement(prog, r);
	if (!reason)
		reason = note_callers(aux, r);
	mode = reason ? mode_in_force() : MODE_ENFORCE;
	if (mode != MODE_ENFORCE) {
		if (mode == MODE_AUDIT && reason != REASON_ATTACH_PROGRAM)
			report_binding(prog, r, reason, 0, detail);
		r->class = CLASS_AUDITED;
		r->state = STATE_PASSED;
		return 0;
	}
	if (reason != REASON_ATTACH_PROGRAM)
		report_binding(prog, r, reason, reason != 0, detail);
	r->reason = reason;
	r->state = reason ? STATE_REFUSED : STATE_PASSED;
	return reason;
}
