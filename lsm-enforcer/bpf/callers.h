/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who calls through an array of programs.
 *
 * A program that is called from another runs where that one is attached. So one whose rule names
 * places is put only into an array all of whose callers have the same places. Gate 2 sees who they are,
 * when it has judged a program's maps.
 */
#pragma once

/* Callers of one array that may go to different places; images begin at 1. */
#define MIXED_CALLERS 0

struct comparison {
	u32 one;
	u32 other;
	u32 differ;
};

static long compare_place(u32 i, struct comparison *c)
{
	struct map_key key = { .image = c->one, .map = i };
	struct map_key other_key = { .image = c->other, .map = i };
	struct place_name *one = bpf_map_lookup_elem(&places, &key);
	struct place_name *other = bpf_map_lookup_elem(&places, &other_key);
	u64 *words = (u64 *)one, *other_words = (u64 *)other;
	int k;

	c->differ = !one || !other;
	if (c->differ)
		return 1;
	for (k = 0; k < PLACE_BYTES / 8; k++)
		c->differ |= words[k] != other_words[k];
	return c->differ;
}

/* Do two images have the same places, `count` of them? */
static __noinline bool same_places(u32 one, u32 other, u32 count)
{
	struct map_key beyond = { .image = other, .map = count };
	struct comparison c = { .one = one, .other = other };

	if (one == other)
		return true;
	bpf_loop(count, compare_place, &c, 0);
	return !c.differ && !bpf_map_lookup_elem(&places, &beyond);
}

struct callers {
	struct bpf_map **used;
	struct record *record;
};

static long note_caller(u32 i, struct callers *c)
{
	struct bpf_map *map = 0;
	u32 id, image = c->record->image, *before;

	if (bpf_probe_read_kernel(&map, sizeof(map), &c->used[i]) || !map)
		return 1;
	if (BPF_CORE_READ(map, map_type) != BPF_MAP_TYPE_PROG_ARRAY)
		return 0;
	id = BPF_CORE_READ(map, id);
	before = bpf_map_lookup_elem(&arrays, &id);
	if (!before)
		bpf_map_update_elem(&arrays, &id, &image, BPF_ANY);
	else if (!same_places(*before, image, c->record->places))
		*before = MIXED_CALLERS;
	return 0;
}

static __noinline void note_callers(struct bpf_prog_aux *aux, struct record *r)
{
	struct callers c = { .used = BPF_CORE_READ(aux, used_maps), .record = r };

	bpf_loop(BPF_CORE_READ(aux, used_map_cnt), note_caller, &c, 0);
}
