/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The gate's maps. Only the daemon can reach them once the gate is locked. */
#pragma once

/* The admitted set: everything that decides, swapped as one through slot 0. */
struct set_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* By size: clang leaves types that only an inner map names out of the BTF. */
	__uint(key_size, sizeof(struct key));
	__uint(value_size, sizeof(struct header));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct set_map);
} set SEC(".maps");

/* Instructions of admitted images; append-only, an id is never used twice. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct chunk_key);
	__type(value, struct chunk);
} words SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct map_key);
	__type(value, struct map_spec);
} specs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct data_key);
	__type(value, struct data);
} contents SEC(".maps");

/* key.chunk is the tunable's number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct data_key);
	__type(value, struct tunable);
} tunables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, u32);
	__type(value, struct origin);
} origins SEC(".maps");

/* Each reference to a map of images with two or more maps, in the order of instructions. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct chunk_key);
	__type(value, struct chunk);
} refs SEC(".maps");

/* Of images with maps by index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, u32);
	__type(value, struct result);
} results SEC(".maps");

/* What was seen of programs that are being verified for a loader with threads, by aux. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct bound);
} bounds SEC(".maps");

/* Where an image may be attached; key.map is the pattern's number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct map_key);
	__uint(value_size, PLACE_BYTES);
} places SEC(".maps");

/* Arrays of programs, by id. User space deletes those that are gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, struct array);
} arrays SEC(".maps");

/* Nothing but zeros: a new entry of `bounds` is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct bound);
} unbound SEC(".maps");

/* One record per loaded program. Preallocated: room that was promised is there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 98304);
	__type(key, u64);
	__type(value, struct record);
} records SEC(".maps");

/* Loads under way on kernels without bpf_prog_load, by thread. A lost entry refuses. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct pending);
} pendings SEC(".maps");

/* Has any thread with this remainder of its id ever loaded? Most calls of capable() end here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOADER_SLOTS);
	__type(key, u32);
	__type(value, u32);
} loaders SEC(".maps");

/* Which thread a program under way belongs to, by aux: an address that was freed and used
 * again by another thread's load must not be judged with the first thread's attributes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u32);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct guard);
} guards SEC(".maps");

/* Ids of the gate's own objects. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct own_key);
	__type(value, u32);
} own SEC(".maps");

/* Processes that run the daemon's executable: thread group -> start time of its leader. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u64);
} marks SEC(".maps");

/*
 * The process that may change what is in force. Preallocated, for a single entry: the kernel has no room for a
 * second one. No program looks here; user space takes it and gives it back.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct holder);
	__type(value, u32);
} holders SEC(".maps");

/* Generators: limits, files by inode, and processes. A file is forgotten with its inode. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, struct maker);
} makers SEC(".maps");

/* 1: a pin of the gate's went, which nobody may remove. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} lost SEC(".maps");

/* Threads that the gate has let pass, until the last word. Preallocated: as many as can be interrupted in between. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u32);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct pin);
} pinned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, struct volume);
} volumes SEC(".maps");

/* Preallocated: a mark is either there or refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct made);
} makers_running SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");
