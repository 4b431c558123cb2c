// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The gate's two passes over a stream of instructions, as a program that only BPF_PROG_TEST_RUN
 * runs: it attaches to nothing and decides nothing. Nanoseconds go to `times`.
 */
#include "../../../lsm-enforcer/bpf/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "../../../lsm-enforcer/bpf/reason.h"
#include "../../../lsm-enforcer/bpf/shared.h"
#include "../../../lsm-enforcer/bpf/maps.h"
#include "../../../lsm-enforcer/bpf/compare.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_LEN 50000

struct stream {
	u64 words[MAX_LEN];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stream);
} stream SEC(".maps");

struct times {
	u64 address;
	u64 fingerprint;
	u64 compare;
	u64 reason;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct times);
} times SEC(".maps");

struct arguments {
	u32 len;
};

SEC("syscall")
int compare_cost(struct arguments *arguments)
{
	u32 zero = 0, len = arguments->len;
	struct stream *s = bpf_map_lookup_elem(&stream, &zero);
	struct times *t = bpf_map_lookup_elem(&times, &zero);
	struct place place = {};
	u64 src, begin, middle;

	if (!s || !t || len > MAX_LEN)
		return 1;
	/* Through memory a pointer becomes a number, which is what the passes take. */
	t->address = (u64)s;
	src = *(volatile u64 *)&t->address;
	begin = bpf_ktime_get_ns();
	if (!fingerprint(src, len))
		return 1;
	middle = bpf_ktime_get_ns();
	t->reason = compare(src, len, 1, &place);
	t->compare = bpf_ktime_get_ns() - middle;
	t->fingerprint = middle - begin;
	return 0;
}
