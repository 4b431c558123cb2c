/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reading and comparing instruction streams. All state is on the stack: a per-CPU buffer
 * would be shared by tasks that preempt each other in here.
 *
 * A word is one 8-byte instruction slot, little-endian: code, registers, offset, immediate.
 * Every judgement is made word by word without memory of the word before: the second half
 * of an ld_imm64 that looks like something else is only judged more strictly, since the
 * verifier refuses any second half that has a code.
 */
#pragma once

#define CODE(w) ((w) & 0xff)
#define SRC(w) (((w) >> 12) & 0xf)
#define OFF(w) (((w) >> 16) & 0xffff)
#define IMM(w) ((u32)((w) >> 32))
#define LD_IMM64 0x18
#define CALL 0x85
#define CALLX 0x8d
#define GOTOX 0x0d
/* src_reg of LD_IMM64 */
#define PSEUDO_MAP_FD 1
#define PSEUDO_MAP_VALUE 2
#define PSEUDO_BTF_ID 3
#define PSEUDO_FUNC 4
#define PSEUDO_MAP_IDX 5
#define PSEUDO_MAP_IDX_VALUE 6
/* src_reg of CALL */
#define PSEUDO_CALL 1
#define PSEUDO_KFUNC_CALL 2

/* -1 where all went well, as a real branch: clang's arithmetic loses the verifier's range. */
static __always_inline int deny(u32 reason)
{
	int r;

	asm volatile("%0 = 0; if %1 == 0 goto +1; %0 = -1;" : "=&r"(r) : "r"((u64)reason));
	return r;
}

/* Reads `words` words of a program from `at` on; what lies after its end is zero. */
static __always_inline int read_block(u64 *block, const u32 words, u64 src, u32 len, u32 at)
{
	u64 size = (u64)(len - at) * 8;

	asm volatile("" : "+r"(size));
	if (size >= words * 8)
		return bpf_probe_read_kernel(block, words * 8, (void *)(src + (u64)at * 8));
	__builtin_memset(block, 0, words * 8);
	if (size == 0 || size > words * 8)
		return -1;
	return bpf_probe_read_kernel(block, size, (void *)(src + (u64)at * 8));
}

/* Pass 1: an unkeyed fingerprint that only finds a candidate. */
struct pass1 {
	u64 src;
	u64 hash;
	u32 len;
	u32 failed;
};

static long fingerprint_block(u32 i, struct pass1 *p)
{
	u64 block[FINGERPRINT_WORDS];
	u64 hash = p->hash;
	u32 at = i * FINGERPRINT_WORDS;
	int k;

	if (read_block(block, FINGERPRINT_WORDS, p->src, p->len, at)) {
		p->failed = 1;
		return 1;
	}
#pragma unroll
	for (k = 0; k < FINGERPRINT_WORDS; k++) {
		u64 w = block[k];

		if (CODE(w) == LD_IMM64 && (SRC(w) == PSEUDO_MAP_FD || SRC(w) == PSEUDO_MAP_VALUE))
			w = (u32)w;
		hash = (hash ^ w) * FINGERPRINT_PRIME;
		hash ^= hash >> 32;
	}
	p->hash = hash;
	return 0;
}

/*
 * Functions that are not static are verified once, by themselves, instead of at each call
 * and in each round of a loop around it: that is most of what loading the gate costs.
 */
__noinline u64 fingerprint(u64 src, u32 len)
{
	struct pass1 p = { .src = src, .len = len };

	bpf_loop((len + FINGERPRINT_WORDS - 1) / FINGERPRINT_WORDS, fingerprint_block, &p, 0);
	return p.failed ? 0 : p.hash | 1;
}

/* Pass 2: every word against the stored image. */
struct pass2 {
	u64 src;
	u32 len;
	u32 image;
	u32 reason;
	u32 at;
};

/*
 * The words differ: the only legal way is a map reference, where the image has MAP_MARK and
 * the position of the first reference to the same map. The descriptors must be equal, so one
 * map of the image is one descriptor; that two maps are not one is seen by their count at
 * gate 2. A descriptor never has the mark, so a word equal to the image's loads nothing.
 */
__noinline int differ(struct pass2 *p, u64 got, u64 want, u32 at)
{
	u64 first;

	if (!p)
		return 1;
	p->at = at;
	p->reason = REASON_INSTRUCTION_DIFFERS;
	if ((u32)got != (u32)want || CODE(want) != LD_IMM64 || !(IMM(want) & MAP_MARK))
		return 1;
	if (SRC(want) != PSEUDO_MAP_FD && SRC(want) != PSEUDO_MAP_VALUE)
		return 1;
	if (IMM(got) & MAP_MARK)
		return 1;
	if ((IMM(want) & ~MAP_MARK) != at) {
		if (bpf_probe_read_kernel(&first, sizeof(first),
					  (void *)(p->src + (u64)(IMM(want) & ~MAP_MARK) * 8)))
			return 1;
		if (IMM(first) != IMM(got)) {
			p->reason = REASON_MAP_REFERENCE;
			return 1;
		}
	}
	p->reason = 0;
	return 0;
}

static long compare_chunk(u32 i, struct pass2 *p)
{
	struct chunk_key key = { .image = p->image, .chunk = i };
	struct chunk *chunk = bpf_map_lookup_elem(&words, &key);
	u64 block[COMPARE_WORDS];
	u32 at = i * CHUNK_WORDS;
	int b, k;

	if (!chunk) {
		p->reason = REASON_NO_VERDICT;
		return 1;
	}
#pragma unroll
	for (b = 0; b < CHUNK_WORDS / COMPARE_WORDS; b++) {
		if (at >= p->len)
			return 1;
		if (read_block(block, COMPARE_WORDS, p->src, p->len, at)) {
			p->reason = REASON_UNREADABLE;
			return 1;
		}
#pragma unroll
		for (k = 0; k < COMPARE_WORDS; k++) {
			u64 want = chunk->words[b * COMPARE_WORDS + k];

			if (block[k] != want && differ(p, block[k], want, at + k))
				return 1;
		}
		at += COMPARE_WORDS;
	}
	return 0;
}

struct place {
	u64 at;
};

/* 0, or the reason and where. Words after the end are zero on both sides. */
__noinline int compare(u64 src, u32 len, u32 image, struct place *place)
{
	struct pass2 p = { .src = src, .len = len, .image = image };

	if (!place)
		return REASON_UNREADABLE;
	bpf_loop((len + CHUNK_WORDS - 1) / CHUNK_WORDS, compare_chunk, &p, 0);
	place->at = p.at;
	return p.reason;
}

/* What a program that nobody admitted is made of: for shapes, and for the reason's name. */
struct scan {
	u64 src;
	u64 helpers[4];	/* allowed */
	u32 len;
	u32 failed;
	u32 maps;	/* map references seen */
	u32 map_index;	/* references by index into fd_array seen */
	u32 module;	/* references to a module's BTF seen */
	u32 harm;	/* calls that are not allowed, or references to kernel objects */
	u32 after_btf;
	u32 functions;	/* are functions of its own allowed? */
};

__noinline int look(struct scan *s, u64 w)
{
	if (!s)
		return 1;
	if (s->after_btf && IMM(w))
		s->module = 1;
	s->after_btf = 0;
	if (CODE(w) == LD_IMM64 && SRC(w)) {
		if (SRC(w) == PSEUDO_MAP_FD || SRC(w) == PSEUDO_MAP_VALUE) {
			s->maps = 1;
		} else if (SRC(w) == PSEUDO_MAP_IDX || SRC(w) == PSEUDO_MAP_IDX_VALUE) {
			s->maps = s->map_index = 1;
		} else if (SRC(w) != PSEUDO_FUNC || !s->functions) {
			s->after_btf = SRC(w) == PSEUDO_BTF_ID;
			s->harm = 1;
		}
	} else if (CODE(w) == CALL) {
		u32 id = IMM(w);
		u64 allowed = 0;

		if (id < 64)
			allowed = s->helpers[0];
		else if (id < 128)
			allowed = s->helpers[1];
		else if (id < 192)
			allowed = s->helpers[2];
		else if (id < 256)
			allowed = s->helpers[3];
		if (SRC(w) == PSEUDO_CALL && s->functions)
			return 0;
		if (SRC(w) || !(allowed >> (id & 63) & 1))
			s->harm = 1;
		if (SRC(w) == PSEUDO_KFUNC_CALL && OFF(w))
			s->module = 1;
	} else if (CODE(w) == CALLX || CODE(w) == GOTOX) {
		s->harm = 1;
	}
	return 0;
}

static long scan_block(u32 i, struct scan *s)
{
	u64 block[SCAN_WORDS];
	int k;

	if (read_block(block, SCAN_WORDS, s->src, s->len, i * SCAN_WORDS)) {
		s->failed = 1;
		return 1;
	}
#pragma unroll
	for (k = 0; k < SCAN_WORDS; k++)
		look(s, block[k]);
	return 0;
}

enum seen {
	SEEN_FAILED = 1,
	SEEN_MAPS = 2,
	SEEN_MAP_INDEX = 4,
	SEEN_MODULE = 8,
	SEEN_HARM = 16,
};

/* What the program is made of, judged by the helpers that `shape` allows, or none. */
__noinline int scan(u64 src, u32 len, struct header *shape)
{
	struct scan s = { .src = src, .len = len };

	if (shape) {
		s.helpers[0] = shape->helpers[0];
		s.helpers[1] = shape->helpers[1];
		s.helpers[2] = shape->helpers[2];
		s.helpers[3] = shape->helpers[3];
		s.functions = shape->mode;
	}
	bpf_loop((len + SCAN_WORDS - 1) / SCAN_WORDS, scan_block, &s, 0);
	return (s.failed ? SEEN_FAILED : 0) | (s.maps ? SEEN_MAPS : 0) |
	       (s.map_index ? SEEN_MAP_INDEX : 0) | (s.module ? SEEN_MODULE : 0) |
	       (s.harm ? SEEN_HARM : 0);
}
