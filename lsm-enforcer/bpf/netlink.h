/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Attaching by netlink: XDP on a device, classifiers and actions of tc, routes that encapsulate. The
 * hook sees the kernel's copy of the messages.
 *
 * Where in a message a program is named differs from module to module: actions stand in filters of
 * every kind, routes in lists of next hops. But each attribute begins at a multiple of four bytes,
 * nested or not. So it is enough to look at each word that could begin one.
 */
#pragma once

#define NETLINK_ROUTE 0
#define NETLINK_PROGRAMS 256
#define MESSAGE_HEADER 16
#define RTM_NEWLINK 16
#define RTM_SETLINK 19
#define RTM_NEWROUTE 24
#define RTM_NEWTFILTER 44
#define RTM_NEWACTION 48
#define RTM_NEWNEXTHOP 104
#define LINK_HEADER 16
#define LINK_ATTRIBUTES 1024
#define IFLA_NET_NS_PID 19
#define IFLA_NET_NS_FD 28
#define IFLA_TARGET_NETNSID 46
/* Attributes that hold a program's descriptor. */
#define IFLA_XDP_FD 1
#define LWT_BPF_PROG_FD 1
#define SEG6_LOCAL_BPF_PROG 1
#define TCA_ACT_BPF_FD 5
#define TCA_BPF_FD 6
#define ATTRIBUTE_TYPE 0x3fff
/* Magic "device" of filters that several devices share. */
#define SHARED_BLOCK 0xffffffffu
#define ALIGN4(n) (((n) + 3) & ~3u)

struct message {
	u64 data;
	u32 size;
	u32 at;
	u32 body;
	u32 end;	/* of this message */
	u32 type;
	u32 index;	/* of the device, where the message is about one */
	u32 fd;
	u32 has_program;
	u32 complete;	/* the end of the datagram was reached */
};

static __always_inline bool is_about_link(u32 type)
{
	return type == RTM_NEWLINK || type == RTM_SETLINK;
}

static __always_inline bool names_programs(u32 type)
{
	return is_about_link(type) || type == RTM_NEWTFILTER || type == RTM_NEWACTION ||
	       type == RTM_NEWROUTE || type == RTM_NEWNEXTHOP;
}

static __always_inline int begin_message(struct message *m)
{
	struct {
		u32 size;
		u16 type;
		u16 flags;
	} header;

	m->at = m->end;
	/* As the kernel: nothing after a message of a wrong length counts. */
	m->complete = 1;
	if (m->at >= m->size || bpf_probe_read_kernel(&header, sizeof(header), (void *)(m->data + m->at)))
		return 1;
	if (header.size < MESSAGE_HEADER || header.size > m->size - m->at)
		return 1;
	m->complete = 0;
	m->body = m->at + MESSAGE_HEADER;
	m->end = m->at + ALIGN4(header.size);
	m->type = header.type;
	m->index = 0;
	m->at = m->end;
	if (!names_programs(m->type) || header.size < MESSAGE_HEADER + 8)
		return 0;
	m->at = m->body;
	return bpf_probe_read_kernel(&m->index, sizeof(m->index), (void *)(m->data + m->body + 4)) != 0;
}

/* Would the kernel take this program where an attribute of this type stands? */
static __always_inline bool holds_program(u32 attribute, struct bpf_prog *prog)
{
	u32 type = BPF_CORE_READ(prog, type);

	if (attribute == TCA_BPF_FD)
		return type == BPF_PROG_TYPE_SCHED_CLS;
	if (attribute == TCA_ACT_BPF_FD)
		return type == BPF_PROG_TYPE_SCHED_ACT;
	return type == BPF_PROG_TYPE_XDP || type == BPF_PROG_TYPE_LWT_SEG6LOCAL ||
	       (type >= BPF_PROG_TYPE_LWT_IN && type <= BPF_PROG_TYPE_LWT_XMIT);
}

/* Not static, as `advance_glob`. */
__noinline int advance_message(struct message *m)
{
	struct {
		u16 size;
		u16 type;
		u32 value;
	} attribute;
	struct bpf_prog *prog;
	u32 type;

	if (!m)
		return 1;
	if (m->at + sizeof(attribute) > m->end)
		return begin_message(m);
	if (bpf_probe_read_kernel(&attribute, sizeof(attribute), (void *)(m->data + m->at)))
		return 1;
	m->at += 4;
	type = attribute.type & ATTRIBUTE_TYPE;
	if (attribute.size < sizeof(attribute) ||
	    (type != IFLA_XDP_FD && type != TCA_ACT_BPF_FD && type != TCA_BPF_FD))
		return 0;
	prog = prog_of_fd(attribute.value);
	if (!prog || !record_of_fd(attribute.value) || !holds_program(type, prog))
		return 0;
	m->fd = attribute.value;
	m->has_program = 1;
	return 1;
}

static long step_message(u32 i, struct message *m)
{
	return advance_message(m) != 0;
}

/* Attributes of the first level of a message about a device. */
struct attributes {
	u64 data;
	u32 at;
	u32 end;
	u32 elsewhere;	/* the device is in another network namespace */
	u32 complete;
};

static long step_attribute(u32 i, struct attributes *a)
{
	struct {
		u16 size;
		u16 type;
	} attribute;
	u32 type;

	a->complete = a->at + sizeof(attribute) > a->end;
	if (a->complete ||
	    bpf_probe_read_kernel(&attribute, sizeof(attribute), (void *)(a->data + a->at)))
		return 1;
	type = attribute.type & ATTRIBUTE_TYPE;
	a->complete = attribute.size < sizeof(attribute);
	a->elsewhere = type == IFLA_NET_NS_PID || type == IFLA_NET_NS_FD ||
		       type == IFLA_TARGET_NETNSID;
	a->at += ALIGN4(attribute.size);
	return a->complete || a->elsewhere;
}

/* Is it a device of the sender's network namespace, given by number? */
static __always_inline bool has_device(struct message *m)
{
	struct attributes a = {
		.data = m->data,
		.at = m->body + LINK_HEADER,
		.end = m->end,
	};

	if (m->type == RTM_NEWTFILTER)
		return m->index && m->index != SHARED_BLOCK;
	if (!is_about_link(m->type) || !m->index)
		return false;
	bpf_loop(LINK_ATTRIBUTES, step_attribute, &a, 0);
	return a.complete && !a.elsewhere;
}

/* The programs of one datagram, one after another. */
struct datagram {
	struct message message;
	u64 net;
	u32 reason;
};

static long check_message(u32 i, struct datagram *d)
{
	struct message *m = &d->message;
	struct choice c = {};
	struct record *r;
	struct bpf_prog *prog;
	u32 type;

	m->has_program = 0;
	bpf_loop(m->size / 4 + 2, step_message, m, 0);
	if (!m->has_program)
		return 1;
	r = record_of_fd(m->fd);
	d->reason = is_probe(r, m->index) ?: is_gone(r, m->index);
	if (d->reason)
		return 1;
	if (!r || !r->places)
		return 0;
	prog = prog_of_fd(m->fd);
	type = prog ? BPF_CORE_READ(prog, type) : 0;
	/* Actions are shared by devices, and what is routed has none yet. */
	if ((type == BPF_PROG_TYPE_XDP || type == BPF_PROG_TYPE_SCHED_CLS) && has_device(m))
		name_device(d->net, m->index, &c.name);
	d->reason = refuse_place(r, &c, m->index);
	return d->reason != 0;
}

static __always_inline u32 refuse_netlink(struct sock *sk, struct sk_buff *skb)
{
	struct datagram d = {};

	if (BPF_CORE_READ(sk, sk_protocol) != NETLINK_ROUTE)
		return 0;
	d.message.data = (u64)BPF_CORE_READ(skb, data);
	d.message.size = BPF_CORE_READ(skb, len);
	d.net = (u64)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	bpf_loop(NETLINK_PROGRAMS, check_message, &d, 0);
	if (d.reason || d.message.complete)
		return d.reason;
	/* More than was looked at. */
	return refuse_unread(d.message.type);
}
