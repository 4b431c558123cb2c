/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who calls through an array of programs.
 *
 * A program that is called from another runs where that one is attached. So one whose rule names
 * places is put only into an array all of whose callers have the same places, and calls through an array
 * that holds one only if it has them, too. Gate 2 sees who calls, when it has judged a program's maps.
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

/* Has the other image the places of this one, `count` of them, and no more? */
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
	u32 reason;
};

/*
 * Whoever puts a program there says so before looking at the callers again, and a caller from
 * elsewhere before looking at what is there: with both at once one of them is refused.
 */
static long note_caller(u32 i, struct callers *c)
{
	struct array fresh = { .image = c->record->image }, *array;
	struct bpf_map *map = 0;
	u32 id;

	c->reason = REASON_UNREADABLE;
	if (bpf_probe_read_kernel(&map, sizeof(map), &c->used[i]) || !map)
		return 1;
	c->reason = 0;
	if (BPF_CORE_READ(map, map_type) != BPF_MAP_TYPE_PROG_ARRAY)
		return 0;
	id = BPF_CORE_READ(map, id);
	if (!bpf_map_update_elem(&arrays, &id, &fresh, BPF_NOEXIST))
		return 0;
	array = bpf_map_lookup_elem(&arrays, &id);
	if (!array) {
		/* Who calls would be forgotten. */
		c->reason = REASON_RECORDS_FULL;
		return 1;
	}
	if (same_places(fresh.image, array->image, c->record->places))
		return 0;
	if (!array->holds)
		__sync_lock_test_and_set(&array->image, MIXED_CALLERS);
	if (array->holds)
		c->reason = REASON_ATTACH_PLACE;
	return c->reason != 0;
}

/* 0, or why the program may not call through its arrays. */
static __noinline u32 note_callers(struct bpf_prog_aux *aux, struct record *r)
{
	struct callers c = { .used = BPF_CORE_READ(aux, used_maps), .record = r };

	bpf_loop(BPF_CORE_READ(aux, used_map_cnt), note_caller, &c, 0);
	return c.reason;
}
