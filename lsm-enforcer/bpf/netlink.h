/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Attaching by netlink: XDP on a device, BPF classifiers of tc. The hook sees the kernel's copy of
 * the message. Every message in it is walked, and of its attributes those that name a program.
 */
#pragma once

#define NETLINK_ROUTE 0
#define NETLINK_STEPS 1024
#define NETLINK_PROGRAMS 256
#define MESSAGE_HEADER 16
#define RTM_NEWLINK 16
#define RTM_SETLINK 19
#define RTM_NEWTFILTER 44
#define LINK_HEADER 16
#define FILTER_HEADER 20
#define IFLA_IFNAME 3
#define IFLA_NET_NS_PID 19
#define IFLA_NET_NS_FD 28
#define IFLA_XDP 43
#define IFLA_TARGET_NETNSID 46
#define IFLA_XDP_FD 1
#define TCA_OPTIONS 2
#define TCA_BPF_FD 6
/* Magic "device" of filters that several devices share. */
#define SHARED_BLOCK 0xffffffffu
#define ALIGN4(n) (((n) + 3) & ~3u)

struct message {
	u64 data;
	u32 size;
	u32 at;
	u32 end;	/* of this message */
	u32 nest_end;	/* of the attribute that is looked into */
	u32 is_link;
	u32 index;
	u32 fd;
	u32 has_fd;
	u32 elsewhere;	/* the device is named in another way, or in another namespace */
	u32 complete;	/* the end of a message that names a program was reached */
};

static __always_inline int begin_message(struct message *m)
{
	struct {
		u32 size;
		u16 type;
		u16 flags;
	} header;
	u32 body;

	m->complete = m->has_fd;
	if (m->complete)
		return 1;
	m->at = m->end;
	m->elsewhere = 0;
	if (m->at >= m->size || bpf_probe_read_kernel(&header, sizeof(header), (void *)(m->data + m->at)))
		return 1;
	if (header.size < MESSAGE_HEADER || header.size > m->size - m->at)
		return 1;
	body = m->at + MESSAGE_HEADER;
	m->end = m->at + ALIGN4(header.size);
	m->nest_end = 0;
	m->is_link = header.type == RTM_NEWLINK || header.type == RTM_SETLINK;
	if (!m->is_link && header.type != RTM_NEWTFILTER) {
		m->at = m->end;
		return 0;
	}
	if (bpf_probe_read_kernel(&m->index, sizeof(m->index), (void *)(m->data + body + 4)))
		return 1;
	m->at = body + (m->is_link ? LINK_HEADER : FILTER_HEADER);
	return 0;
}

/* Not static, as `advance_glob`. */
__noinline int advance_message(struct message *m)
{
	struct {
		u16 size;
		u16 type;
	} attribute;
	bool inside;
	u32 type;

	if (!m)
		return 1;
	inside = m->at < m->nest_end;
	if (m->at + sizeof(attribute) > m->end)
		return begin_message(m);
	if (bpf_probe_read_kernel(&attribute, sizeof(attribute), (void *)(m->data + m->at)))
		return 1;
	if (attribute.size < sizeof(attribute)) {
		m->at = m->end;
		return 0;
	}
	type = attribute.type & 0x3fff;
	if (!inside && type == (m->is_link ? IFLA_XDP : TCA_OPTIONS)) {
		m->nest_end = m->at + attribute.size;
		m->at += sizeof(attribute);
		return 0;
	}
	if (inside && type == (m->is_link ? IFLA_XDP_FD : TCA_BPF_FD)) {
		if (!bpf_probe_read_kernel(&m->fd, sizeof(m->fd),
					   (void *)(m->data + m->at + sizeof(attribute))))
			m->has_fd = 1;
	}
	if (!inside && m->is_link &&
	    (type == IFLA_NET_NS_PID || type == IFLA_NET_NS_FD || type == IFLA_TARGET_NETNSID))
		m->elsewhere = 1;
	m->at += ALIGN4(attribute.size);
	return 0;
}

static long step_message(u32 i, struct message *m)
{
	return advance_message(m) != 0;
}

/* The programs of one datagram, one after another. */
struct datagram {
	struct message message;
	u64 net;
	u32 reason;
	u32 done;
};

static long check_message(u32 i, struct datagram *d)
{
	struct message *m = &d->message;
	struct choice c = {};
	struct record *r;

	m->has_fd = 0;
	bpf_loop(NETLINK_STEPS, step_message, m, 0);
	d->done = !m->has_fd;
	if (d->done)
		return 1;
	r = record_of_fd(m->fd);
	if (is_probe(r, m->index)) {
		d->reason = REASON_PROBE_ATTACH;
		return 1;
	}
	d->reason = is_gone(r, m->index);
	if (d->reason)
		return 1;
	if (!r || !r->places)
		return 0;
	if (m->index && m->index != SHARED_BLOCK && !m->elsewhere)
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
	/* More programs at once than were looked at. */
	return d.reason ?: d.done ? 0 : REASON_ATTACH_PLACE;
}
