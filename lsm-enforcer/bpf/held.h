/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Putting a program into a map that runs it: an array for tail calls, a map of devices or processors
 * for redirected packets. The value is in the caller's memory, where a thread could exchange it.
 */
#pragma once

/* struct bpf_devmap_val, struct bpf_cpumap_val; without a program they may end after the first word. */
struct held {
	u32 device;
	u32 fd;
};

static __always_inline bool holds_programs(u32 map_type)
{
	return map_type == BPF_MAP_TYPE_PROG_ARRAY || map_type == BPF_MAP_TYPE_DEVMAP ||
	       map_type == BPF_MAP_TYPE_DEVMAP_HASH || map_type == BPF_MAP_TYPE_CPUMAP;
}

static __noinline u32 refuse_held(struct bpf_map *map, u64 value)
{
	u32 type = BPF_CORE_READ(map, map_type), id = BPF_CORE_READ(map, id), reason, caller;
	struct choice c = {};
	struct held held = {};
	struct array *array;
	struct record *r;

	if (type == BPF_MAP_TYPE_PROG_ARRAY) {
		if (bpf_probe_read_user(&held.fd, sizeof(held.fd), (void *)value))
			return refuse_unread(BPF_MAP_UPDATE_ELEM);
	} else if (BPF_CORE_READ(map, value_size) < sizeof(held)) {
		return 0;
	} else if (bpf_probe_read_user(&held, sizeof(held), (void *)value)) {
		return refuse_unread(BPF_MAP_UPDATE_ELEM);
	}
	r = record_of_fd(held.fd);
	reason = is_probe(r, BPF_MAP_UPDATE_ELEM) ?: is_gone(r, BPF_MAP_UPDATE_ELEM);
	if (reason || !r || !r->places)
		return reason;
	if (type == BPF_MAP_TYPE_PROG_ARRAY) {
		array = bpf_map_lookup_elem(&arrays, &id);
		caller = array ? array->image : MIXED_CALLERS;
		if (array && caller != MIXED_CALLERS && same_places(r->image, caller, r->places)) {
			__sync_lock_test_and_set(&array->holds, 1);
			if (array->image == caller)
				return 0;
		}
	} else if (type != BPF_MAP_TYPE_CPUMAP) {
		name_current_device(held.device, &c);
	}
	return refuse_place(r, &c, BPF_MAP_UPDATE_ELEM);
}
