/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which map does each instruction use? The verifier resolves descriptors one instruction after
 * another, so a thread that shares the loader's file table can exchange a map in between. What
 * the verifier really bound stands in its own instructions: the address of a map, or of a place
 * in a map's value, as the constant of an ld_imm64.
 *
 * The image says which map each reference is to, in the order of instructions. Rewriting keeps
 * this order and adds no reference; it only takes away those in dead code. Where none is taken
 * away, gate 2 finds as many references as the image has. Otherwise the instructions are looked
 * at as they are about to be taken away, while the references still have their marks.
 */
#pragma once

#define WALK_WORDS 16

static __always_inline u32 loader_shares_files(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, files, count.counter) != 1;
}

/* Of an ld_imm64 that refers to a map, by descriptor or by index. */
static __always_inline bool is_map_source(u32 source)
{
	return source == PSEUDO_MAP_FD || source == PSEUDO_MAP_VALUE || source == PSEUDO_MAP_IDX ||
	       source == PSEUDO_MAP_IDX_VALUE;
}

struct walk {
	u64 src;
	u64 aux;
	u64 used;	/* aux->used_maps; 0: they are not known yet, and references have marks */
	u32 len;
	u32 image;
	u32 refs;	/* of the image */
	u32 next;
	u32 failed;
	u32 spare;
};

/* One ld_imm64. */
__noinline int match_reference(struct walk *w, u64 first, u64 second)
{
	struct chunk_key key = {};
	struct bound *bound;
	struct chunk *chunk;
	u64 want, map, aux, used = 0;
	u32 number;

	if (!w)
		return 1;
	if (w->used ? SRC(first) != 0 : !is_map_source(SRC(first)))
		return 0;
	if (w->next >= w->refs) {
		w->failed |= !w->used;
		return 1;
	}
	key.image = w->image;
	key.chunk = w->next / CHUNK_WORDS;
	chunk = bpf_map_lookup_elem(&refs, &key);
	if (!chunk) {
		w->failed = 1;
		return 1;
	}
	want = chunk->words[w->next % CHUNK_WORDS];
	number = REF_NUMBER(want);
	map = (u64)IMM(second) << 32 | IMM(first);
	if (want & REF_VALUE)
		map -= (u32)want + bpf_core_field_offset(struct bpf_array, value);
	if (w->used) {
		/* Any other constant is not a reference, or not the right one: then one will be missing. */
		if (!bpf_probe_read_kernel(&used, sizeof(used), (u64 *)w->used + number) && used == map)
			w->next++;
		return 0;
	}
	aux = w->aux;
	bound = bpf_map_lookup_elem(&bounds, &aux);
	if (!bound || !(SRC(first) & PSEUDO_MAP_VALUE) != !(want & REF_VALUE) ||
	    (bound->maps[number] && bound->maps[number] != map)) {
		w->failed = 1;
		return 1;
	}
	bound->maps[number] = map;
	w->next++;
	return 0;
}

static long walk_block(u32 i, struct walk *w)
{
	u64 block[WALK_WORDS + 1];
	u32 at = i * WALK_WORDS;
	int k;

	if (at >= w->len || read_block(block, WALK_WORDS + 1, w->src, w->len, at)) {
		w->failed = 1;
		return 1;
	}
#pragma unroll
	for (k = 0; k < WALK_WORDS; k++)
		if (CODE(block[k]) == LD_IMM64 && match_reference(w, block[k], block[k + 1]))
			return 1;
	return 0;
}

/* Are all of the image's references there, each to the right map? */
__noinline int walk(u64 prog_address, u64 aux, struct record *r, u64 used)
{
	struct bpf_prog *prog = (void *)prog_address;
	struct walk w = {
		.src = prog_address + bpf_core_field_offset(struct bpf_prog, insnsi),
		.aux = aux,
		.used = used,
	};

	if (!r)
		return 0;
	w.len = BPF_CORE_READ(prog, len);
	w.image = r->image;
	w.refs = r->refs;
	bpf_loop((w.len + WALK_WORDS - 1) / WALK_WORDS, walk_block, &w, 0);
	return !w.failed && w.next == w.refs;
}

/* Dead code is about to be taken away for the first time. */
static __always_inline void see_references(struct bpf_prog *prog)
{
	/* As numbers: functions that are verified by themselves take no kernel pointers. */
	struct bpf_prog_aux *of = BPF_CORE_READ(prog, aux);
	u64 aux = (u64)of;
	struct record *r;
	struct bound *zeros;
	u32 zero = 0;

	r = bpf_map_lookup_elem(&records, &aux);
	zeros = bpf_map_lookup_elem(&unbound, &zero);
	if (!r || !zeros || r->files != FILES_SHARED || r->maps < 2)
		return;
	r->files = FILES_BROKEN;
	if (bpf_map_update_elem(&bounds, &aux, zeros, BPF_ANY))
		return;
	if (walk((u64)BPF_CORE_READ(of, prog), aux, r, 0))
		r->files = FILES_BOUND;
}

/* Is each map that was seen the one that the verifier lists under its number? */
struct listing {
	u64 used;
	u64 aux;
	u32 differs;
};

static long compare_listed(u32 i, struct listing *l)
{
	struct bound *bound = bpf_map_lookup_elem(&bounds, &l->aux);
	u64 used = 0;

	l->differs = 1;
	if (!bound || i >= MAX_MAPS ||
	    bpf_probe_read_kernel(&used, sizeof(used), (u64 *)l->used + i) || used != bound->maps[i])
		return 1;
	l->differs = 0;
	return 0;
}

/* For a loader with threads: 0, or the reason. */
static __noinline u32 judge_references(u64 address, struct record *r)
{
	struct bpf_prog_aux *aux = (void *)address;
	struct listing l = { .aux = address };

	l.used = (u64)BPF_CORE_READ(aux, used_maps);
	if (r->files == FILES_SHARED)
		return walk((u64)BPF_CORE_READ(aux, prog), address, r, l.used) ? 0 : REASON_SHARED_FILES;
	if (r->files == FILES_BROKEN)
		return REASON_MAP_REFERENCE;
	bpf_loop(r->maps, compare_listed, &l, 0);
	return l.differs ? REASON_MAP_REFERENCE : 0;
}
