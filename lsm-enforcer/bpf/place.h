/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where is a program about to be attached, and is it a place that its rule allows? A place has a
 * name: of a kernel function, a tracepoint, a network device, a control group. What has none is not
 * allowed to programs whose rule names places.
 */
#pragma once

#define DEVICE_BUCKETS 256	/* NETDEV_HASHENTRIES */
#define MAX_DEVICES 4096
#define GLOB_STEPS 4096
#define DEVICE_NAME 16

struct place_name {
	char text[PLACE_BYTES] __attribute__((aligned(8)));
};

/* `*` in a pattern stands for any characters. */
struct glob {
	struct place_name pattern;
	struct place_name name;
	u32 p, n;
	u32 star, mark;
	u32 has_star;
	u32 matched;
};

/*
 * Not static: then it is verified once, with anything in `g`, and not for each position that a
 * loop can be at.
 */
__noinline int advance_glob(struct glob *g)
{
	u32 p, n;
	char want, got;

	if (!g)
		return 1;
	p = g->p;
	n = g->n;
	if (p >= PLACE_BYTES || n >= PLACE_BYTES)
		return 1;
	want = g->pattern.text[p];
	got = g->name.text[n];
	if (want == '*') {
		g->star = g->p = p + 1;
		g->mark = n;
		g->has_star = 1;
		return 0;
	}
	if (!got) {
		g->matched = !want;
		return 1;
	}
	if (want == got) {
		g->p = p + 1;
		g->n = n + 1;
		return 0;
	}
	if (!g->has_star)
		return 1;
	g->p = g->star;
	g->n = ++g->mark;
	return 0;
}

static long glob_step(u32 i, struct glob *g)
{
	return advance_glob(g) != 0;
}

__noinline int matches(struct place_name *pattern, struct place_name *name)
{
	struct glob g = {};

	if (!pattern || !name)
		return 0;
	g.pattern = *pattern;
	g.name = *name;
	bpf_loop(GLOB_STEPS, glob_step, &g, 0);
	return g.matched;
}

struct choice {
	struct place_name name;
	u32 image;
	u32 allowed;
};

static long try_pattern(u32 i, struct choice *c)
{
	struct map_key key = { .image = c->image, .map = i };
	struct place_name *pattern = bpf_map_lookup_elem(&places, &key);

	c->allowed = pattern && matches(pattern, &c->name);
	return !pattern || c->allowed;
}

/* Network devices of a namespace by number: the kernel's own hash table. */
struct device {
	struct hlist_node *node;
	u32 index;
	u32 found;
};

static long step_device(u32 i, struct device *d)
{
	struct net_device *device;

	if (!d->node)
		return 1;
	device = (void *)d->node - bpf_core_field_offset(struct net_device, index_hlist);
	d->found = BPF_CORE_READ(device, ifindex) == d->index;
	if (d->found)
		return 1;
	d->node = BPF_CORE_READ(device, index_hlist.next);
	return 0;
}

static __always_inline void name_device_at(struct net_device *device, struct place_name *name)
{
	bpf_probe_read_kernel(name->text, DEVICE_NAME, &device->name);
}

__noinline int name_device(u64 net_address, u32 index, struct place_name *name)
{
	struct net *net = (void *)net_address;
	struct hlist_head *heads = BPF_CORE_READ(net, dev_index_head);
	struct device d = { .index = index };
	struct net_device *device;

	if (!name)
		return 0;
	if (bpf_probe_read_kernel(&d.node, sizeof(d.node), heads + index % DEVICE_BUCKETS))
		return 0;
	bpf_loop(MAX_DEVICES, step_device, &d, 0);
	if (!d.found)
		return 0;
	device = (void *)d.node - bpf_core_field_offset(struct net_device, index_hlist);
	name_device_at(device, name);
	return 0;
}

#define GROUP_DEPTH 12
/* Ends a path that is longer than a name can be: only a `*` at the end of a pattern covers it. */
#define CUT_OFF 1

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___old *old = (void *)node;

	if (bpf_core_field_exists(old->parent))
		return BPF_CORE_READ(old, parent);
	return BPF_CORE_READ(node, __parent);
}

/*
 * The path of a control group from the root of the hierarchy, whatever the caller's namespace shows;
 * the root's is "/". The kernel itself refuses descriptors of anything else.
 */
__noinline int name_group(u64 node_address, struct place_name *name)
{
	struct kernfs_node *nodes[GROUP_DEPTH] = {};
	struct kernfs_node *node = (void *)node_address;
	char path[2 * PLACE_BYTES] = {};
	u32 at = 0;
	const char *text;
	long length;
	int i;

	if (!name || !node)
		return 0;
#pragma unroll
	for (i = 0; i < GROUP_DEPTH; i++) {
		struct kernfs_node *above = node ? parent_of(node) : 0;

		nodes[i] = above ? node : 0;
		node = above;
	}
	/* Deeper than any that systemd or an orchestrator makes. */
	if (node)
		return 0;
#pragma unroll
	for (i = GROUP_DEPTH - 1; i >= 0; i--) {
		if (!nodes[i])
			continue;
		at &= PLACE_BYTES - 1;
		path[at] = '/';
		text = BPF_CORE_READ(nodes[i], name);
		length = bpf_probe_read_kernel_str(path + at + 1, PLACE_BYTES, text);
		if (length <= 1)
			return 0;
		at += length;
		if (at >= PLACE_BYTES - 1) {
			path[PLACE_BYTES - 2] = CUT_OFF;
			break;
		}
	}
	if (!at)
		path[0] = '/';
	path[PLACE_BYTES - 1] = 0;
	__builtin_memcpy(name->text, path, PLACE_BYTES);
	return 0;
}

/*
 * The function or tracepoint of a perf event. A kprobe has a name if it was made for this event
 * alone, at the beginning of a function: one of tracefs can get further places at any time.
 */
__noinline int name_event(u64 event_address, struct guard *g, struct place_name *name)
{
	struct perf_event *event = (void *)event_address;
	struct trace_event_call *call = BPF_CORE_READ(event, tp_event);
	u32 flags = call ? BPF_CORE_READ(call, flags) : 0;
	struct trace_probe_event *probe_event;
	struct trace_kprobe *kprobe;
	struct trace_probe *probe;
	struct list_head *only;
	const char *text;
	long length;
	u64 end;

	/* Whoever makes a uprobe chooses its name. Where the kernel does not say which events are what, none has one. */
	if (!name || !call || !g || !g->kprobes || !g->uprobes || (flags & g->uprobes))
		return 0;
	if (flags & g->kprobes) {
		probe_event = (void *)call - bpf_core_field_offset(struct trace_probe_event, call);
		only = BPF_CORE_READ(probe_event, probes.next);
		probe = (void *)only - bpf_core_field_offset(struct trace_probe, list);
		kprobe = (void *)probe - bpf_core_field_offset(struct trace_kprobe, tp);
		if (BPF_CORE_READ(kprobe, rp.kp.offset) ||
		    BPF_CORE_READ(kprobe, devent.list.next) != &kprobe->devent.list)
			return 0;
		text = BPF_CORE_READ(kprobe, symbol);
		length = bpf_probe_read_kernel_str(name->text, PLACE_BYTES, text);
	} else {
		text = BPF_CORE_READ(call, class, system);
		length = bpf_probe_read_kernel_str(name->text, PLACE_BYTES / 2, text);
		end = length - 1;
		asm volatile("" : "+r"(end));
		if (end >= PLACE_BYTES / 2 - 1)
			goto none;
		name->text[end] = '/';
		text = flags & g->tracepoints ? BPF_CORE_READ(call, tp, name) : BPF_CORE_READ(call, name);
		length = bpf_probe_read_kernel_str(name->text + end + 1, PLACE_BYTES / 2, text);
		if (length >= PLACE_BYTES / 2)
			goto none;
	}
	if (length > 0 && length < PLACE_BYTES)
		return 0;
none:
	name->text[0] = 0;
	return 0;
}

/* Marked at once when it is revoked, before a set without it is written. */
__noinline int is_revoked(u32 image)
{
	struct origin *origin = bpf_map_lookup_elem(&origins, &image);

	return !origin || (origin->class & ORIGIN_REVOKED);
}

static __always_inline const char *name_of_type(struct btf *btf, u32 id)
{
	struct btf_type **types, *type = 0;

	if (!btf || id >= BPF_CORE_READ(btf, nr_types))
		return 0;
	types = BPF_CORE_READ(btf, types);
	if (bpf_probe_read_kernel(&type, sizeof(type), types + id) || !type)
		return 0;
	return BPF_CORE_READ(btf, strings) + BPF_CORE_READ(type, name_off);
}

/*
 * PROGRAM:FUNCTION, for a program that a bundle holds and that was admitted: its name as signed,
 * and the function's as its loader's BTF has it. Programs from before, and ours, have no name.
 */
__noinline int name_function(u64 target, u32 btf_id, struct place_name *name)
{
	struct bpf_prog_aux *aux = (void *)target;
	struct record *r = bpf_map_lookup_elem(&records, &target);
	struct origin *origin;
	const char *text;
	u32 image;
	long length;
	u64 end;

	if (!name || !r || r->state != STATE_PASSED || r->class != CLASS_SIGNED)
		return 0;
	image = r->image;
	if (is_revoked(image))
		return 0;
	origin = bpf_map_lookup_elem(&origins, &image);
	text = name_of_type(BPF_CORE_READ(aux, btf), btf_id);
	if (!origin || !text)
		return 0;
	length = bpf_probe_read_kernel_str(name->text, PLACE_BYTES / 2, origin->name);
	end = length - 1;
	asm volatile("" : "+r"(end));
	if (end >= PLACE_BYTES / 2 - 1)
		goto none;
	name->text[end] = ':';
	length = bpf_probe_read_kernel_str(name->text + end + 1, PLACE_BYTES / 2, text);
	if (length > 1 && length < PLACE_BYTES / 2)
		return 0;
none:
	name->text[0] = 0;
	return 0;
}

/* May a program of this image replace that function? Its name is put into the empty choice. */
static __noinline u32 may_replace(u64 target, u32 btf_id, struct record *r, struct choice *c)
{
	c->image = r->image;
	name_function(target, btf_id, &c->name);
	if (c->name.text[0])
		bpf_loop(r->places, try_pattern, c, 0);
	return c->allowed;
}
