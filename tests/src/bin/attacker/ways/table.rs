//! The ways themselves.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use super::{
    super::{
        Attr, LINK_CREATE, MAP_CREATE, MAP_UPDATE_ELEM, PROG_ATTACH, RAW_TRACEPOINT,
        RAW_TRACEPOINT_OPEN, SOCKET_FILTER, TRACING, XDP, devices, many, options, place, routes,
    },
    Attach, Goes, WAY, Way,
};

// enum bpf_cmd
const PROG_DETACH: u32 = 9;
const ITER_CREATE: u32 = 33;

// enum bpf_prog_type
const KPROBE: u32 = 2;
const SCHED_CLS: u32 = 3;
const SCHED_ACT: u32 = 4;
const PERF_EVENT: u32 = 7;
const CGROUP_SKB: u32 = 8;
const LWT_OUT: u32 = 11;
const SOCK_OPS: u32 = 13;
const SK_SKB: u32 = 14;
const SK_MSG: u32 = 16;
const FLOW_DISSECTOR: u32 = 22;
const SK_LOOKUP: u32 = 30;
const NETFILTER: u32 = 32;

// enum bpf_attach_type
pub const CGROUP_EGRESS: u32 = 1;
const CGROUP_SOCK_OPS: u32 = 3;
const SK_SKB_VERDICT: u32 = 5;
const SK_MSG_VERDICT: u32 = 7;
const FLOW_DISSECTOR_ATTACH: u32 = 17;
const TRACE_ITER: u32 = 28;
const XDP_DEVMAP: u32 = 33;
const XDP_CPUMAP: u32 = 35;
const SK_LOOKUP_ATTACH: u32 = 36;
const NETFILTER_ATTACH: u32 = 45;
const TCX_INGRESS: u32 = 46;
const NETKIT_PRIMARY: u32 = 54;

// enum bpf_map_type
const DEVMAP: u32 = 14;
const SOCKMAP: u32 = 15;
const CPUMAP: u32 = 16;
const DEVMAP_HASH: u32 = 25;

const ALLOW_MULTI: u32 = 2;
const GROUPS: &str = "/sys/fs/cgroup";

/// To a place without a name, by a program of that type.
fn way(what: &'static str, prog_type: u32, attach: Attach) -> Way {
    Way {
        what,
        prog_type,
        attach,
        ..WAY
    }
}

pub fn ways() -> Vec<Way> {
    let group = || Goes::To("/inside*", "/elsewhere/*");
    // One of the two functions is not enough.
    let functions = || Goes::To("vfs_*", "vfs_unl*");
    vec![
        Way {
            what: "an iterator",
            prog_type: TRACING,
            attach_type: TRACE_ITER,
            target: Some("bpf_iter_task"),
            goes: Goes::Bound,
            attach: iterate,
            ..WAY
        },
        Way {
            what: "many kprobes by name in one link",
            needs: Some("bpf_kprobe_multi_link"),
            prog_type: KPROBE,
            attach_type: many::KPROBES,
            goes: functions(),
            attach: |program| many::by_names(program, many::KPROBES),
            ..WAY
        },
        Way {
            what: "many kprobes by address in one link",
            needs: Some("bpf_kprobe_multi_link"),
            prog_type: KPROBE,
            attach_type: many::KPROBES,
            goes: functions(),
            attach: many::by_addresses,
            ..WAY
        },
        Way {
            what: "many kprobes in one session",
            needs: Some("bpf_session_run_ctx"),
            prog_type: KPROBE,
            attach_type: many::KPROBE_SESSION,
            goes: functions(),
            attach: |program| many::by_names(program, many::KPROBE_SESSION),
            ..WAY
        },
        Way {
            what: "entries of many functions",
            needs: Some("bpf_tracing_multi_link"),
            prog_type: TRACING,
            attach_type: many::ENTRIES,
            returns: 0,
            goes: functions(),
            attach: |program| many::by_ids(program, many::ENTRIES, 0),
            ..WAY
        },
        Way {
            what: "exits of many functions",
            needs: Some("bpf_tracing_multi_link"),
            prog_type: TRACING,
            attach_type: many::EXITS,
            returns: 0,
            goes: functions(),
            attach: |program| many::by_ids(program, many::EXITS, 0),
            ..WAY
        },
        Way {
            what: "sessions of many functions",
            needs: Some("bpf_tracing_multi_link"),
            prog_type: TRACING,
            attach_type: many::SESSION,
            returns: 0,
            goes: functions(),
            attach: |program| many::by_ids(program, many::SESSION, 0),
            ..WAY
        },
        Way {
            what: "many uprobes in one link",
            needs: Some("bpf_uprobe_multi_link"),
            prog_type: KPROBE,
            attach_type: many::UPROBES,
            attach: |program| many::busybox(program, many::UPROBES),
            ..WAY
        },
        Way {
            what: "many uprobes in one session",
            needs: Some("bpf_tracing_multi_link"),
            prog_type: KPROBE,
            attach_type: many::UPROBE_SESSION,
            attach: |program| many::busybox(program, many::UPROBE_SESSION),
            ..WAY
        },
        Way {
            what: "a raw tracepoint",
            prog_type: RAW_TRACEPOINT,
            goes: Goes::To("sys_enter", "sched_*"),
            attach: |program| {
                Attr::new()
                    .u64(0, c"sys_enter".as_ptr() as u64)
                    .u32(8, program.as_raw_fd() as u32)
                    .open(RAW_TRACEPOINT_OPEN)
                    .map(drop)
            },
            ..WAY
        },
        Way {
            what: "a perf event by ioctl",
            prog_type: PERF_EVENT,
            attach: |program| place::by_ioctl(program, place::perf_event(1, 0, 0, 0)),
            ..WAY
        },
        Way {
            what: "a perf event by link",
            needs: Some("bpf_perf_link"),
            prog_type: PERF_EVENT,
            attach: |program| place::by_link(program, place::perf_event(1, 0, 0, 0)),
            ..WAY
        },
        Way {
            what: "the look-up of sockets",
            prog_type: SK_LOOKUP,
            attach_type: SK_LOOKUP_ATTACH,
            attach: |program| {
                let net = File::open("/proc/self/ns/net")?;
                link(program, net.as_raw_fd() as u32, SK_LOOKUP_ATTACH)
            },
            ..WAY
        },
        Way {
            what: "the dissector of flows by command",
            prog_type: FLOW_DISSECTOR,
            attach_type: FLOW_DISSECTOR_ATTACH,
            returns: 0,
            attach: |program| command(program, 0, FLOW_DISSECTOR_ATTACH, 0),
            ..WAY
        },
        Way {
            what: "a map of sockets",
            prog_type: SK_SKB,
            attach_type: SK_SKB_VERDICT,
            attach: |program| {
                let map = sockets()?;
                command(program, map.as_raw_fd() as u32, SK_SKB_VERDICT, 0)
            },
            ..WAY
        },
        Way {
            what: "messages of a map of sockets",
            prog_type: SK_MSG,
            attach_type: SK_MSG_VERDICT,
            attach: |program| {
                let map = sockets()?;
                command(program, map.as_raw_fd() as u32, SK_MSG_VERDICT, 0)
            },
            ..WAY
        },
        way("a socket", SOCKET_FILTER, options::socket),
        way("sockets that share a port", SOCKET_FILTER, options::group),
        Way {
            what: "a map of sockets by link",
            needs: Some("sockmap_link"),
            prog_type: SK_SKB,
            attach_type: SK_SKB_VERDICT,
            attach: |program| {
                let map = sockets()?;
                link(program, map.as_raw_fd() as u32, SK_SKB_VERDICT)
            },
            ..WAY
        },
        Way {
            what: "the dissector of flows by link",
            prog_type: FLOW_DISSECTOR,
            attach_type: FLOW_DISSECTOR_ATTACH,
            returns: 0,
            attach: |program| {
                let net = File::open("/proc/self/ns/net")?;
                link(program, net.as_raw_fd() as u32, FLOW_DISSECTOR_ATTACH)
            },
            ..WAY
        },
        Way {
            what: "a control group by command",
            prog_type: CGROUP_SKB,
            attach_type: CGROUP_EGRESS,
            goes: group(),
            attach: |program| {
                let group = group_of("inside")?;
                command(
                    program,
                    group.as_raw_fd() as u32,
                    CGROUP_EGRESS,
                    ALLOW_MULTI,
                )
            },
            ..WAY
        },
        Way {
            what: "a control group by link",
            prog_type: CGROUP_SKB,
            attach_type: CGROUP_EGRESS,
            goes: group(),
            attach: |program| {
                let group = group_of("inside")?;
                link(program, group.as_raw_fd() as u32, CGROUP_EGRESS)
            },
            ..WAY
        },
        Way {
            what: "a control group below another",
            prog_type: SOCK_OPS,
            attach_type: CGROUP_SOCK_OPS,
            goes: Goes::To("/inside/of/it", "/inside"),
            attach: |program| {
                let group = group_of("inside/of/it")?;
                command(
                    program,
                    group.as_raw_fd() as u32,
                    CGROUP_SOCK_OPS,
                    ALLOW_MULTI,
                )
            },
            ..WAY
        },
        Way {
            what: "a control group with a long path",
            prog_type: SOCK_OPS,
            attach_type: CGROUP_SOCK_OPS,
            goes: Goes::To("/inside/a-slice-*", "/inside/a-slice-*.scope"),
            attach: |program| {
                let name = format!("inside/a-slice-{}/a-container.scope", "x".repeat(60));
                let group = group_of(&name)?;
                link(program, group.as_raw_fd() as u32, CGROUP_SOCK_OPS)
            },
            ..WAY
        },
        Way {
            what: "all control groups",
            prog_type: SOCK_OPS,
            attach_type: CGROUP_SOCK_OPS,
            goes: Goes::To("/", "/?*"),
            attach: |program| {
                let root = File::open(GROUPS)?;
                link(program, root.as_raw_fd() as u32, CGROUP_SOCK_OPS)
            },
            ..WAY
        },
        Way {
            what: "tcx by link",
            needs: Some("tcx_link"),
            prog_type: SCHED_CLS,
            attach_type: TCX_INGRESS,
            goes: Goes::To("lo", "eth*"),
            attach: |program| link(program, LOOPBACK, TCX_INGRESS),
            ..WAY
        },
        Way {
            what: "tcx by command",
            needs: Some("tcx_link"),
            prog_type: SCHED_CLS,
            attach_type: TCX_INGRESS,
            goes: Goes::To("l*", "e*"),
            attach: |program| command(program, LOOPBACK, TCX_INGRESS, 0),
            ..WAY
        },
        Way {
            what: "netkit by link",
            needs: Some("netkit_link"),
            prog_type: SCHED_CLS,
            attach_type: NETKIT_PRIMARY,
            goes: Goes::To("nk*", "lo"),
            attach: |program| link(program, netkit()?, NETKIT_PRIMARY),
            ..WAY
        },
        Way {
            what: "netkit by command",
            needs: Some("netkit_link"),
            prog_type: SCHED_CLS,
            attach_type: NETKIT_PRIMARY,
            goes: Goes::To("nkwa*", "nkwa"),
            attach: |program| command(program, netkit()?, NETKIT_PRIMARY, 0),
            ..WAY
        },
        way("an action of tc", SCHED_ACT, routes::action),
        Way {
            returns: 0,
            ..way("a route", LWT_OUT, routes::route)
        },
        Way {
            returns: 0,
            ..way("a list of next hops", LWT_OUT, routes::next_hops)
        },
        way("the queues of a tun device", SOCKET_FILTER, devices::steer),
        way(
            "the packets of a tun device",
            SOCKET_FILTER,
            devices::filter,
        ),
        way("multiplexed connections", SOCKET_FILTER, devices::multiplex),
        way("a group of packet sockets", SOCKET_FILTER, devices::fan_out),
        Way {
            what: "a map of devices",
            prog_type: XDP,
            attach_type: XDP_DEVMAP,
            goes: Goes::To("lo", "eth*"),
            attach: |program| hold(program, DEVMAP, LOOPBACK),
            ..WAY
        },
        Way {
            what: "a map of devices by hash",
            prog_type: XDP,
            attach_type: XDP_DEVMAP,
            goes: Goes::To("lo", "eth*"),
            attach: |program| hold(program, DEVMAP_HASH, LOOPBACK),
            ..WAY
        },
        Way {
            what: "a map of processors",
            prog_type: XDP,
            attach_type: XDP_CPUMAP,
            attach: |program| hold(program, CPUMAP, 64),
            ..WAY
        },
        Way {
            what: "netfilter",
            needs: Some("bpf_nf_link"),
            prog_type: NETFILTER,
            attach_type: NETFILTER_ATTACH,
            attach: |program| {
                Attr::new()
                    .u32(0, program.as_raw_fd() as u32)
                    .u32(8, NETFILTER_ATTACH)
                    .u32(16, libc::AF_INET as u32)
                    .u32(24, 7) // priority
                    .open(LINK_CREATE)
                    .map(drop)
            },
            ..WAY
        },
    ]
}

/// The loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;

fn link(program: &OwnedFd, target: u32, attach_type: u32) -> io::Result<()> {
    Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(4, target)
        .u32(8, attach_type)
        .open(LINK_CREATE)
        .map(drop)
}

/// Puts it into a map that runs it, after a device or the length of a queue.
fn hold(program: &OwnedFd, kind: u32, first: u32) -> io::Result<()> {
    let map = Attr::new()
        .u32(0, kind)
        .u32(4, 4)
        .u32(8, 8)
        .u32(12, 1)
        .open(MAP_CREATE)?;
    let key = 0u32;
    let value = [first, program.as_raw_fd() as u32];
    Attr::new()
        .u32(0, map.as_raw_fd() as u32)
        .u64(8, (&raw const key) as u64)
        .u64(16, value.as_ptr() as u64)
        .call(MAP_UPDATE_ELEM)
        .map(drop)
}

/// `BPF_PROG_ATTACH`, and off again.
fn command(program: &OwnedFd, target: u32, attach_type: u32, flags: u32) -> io::Result<()> {
    let attr = Attr::new()
        .u32(0, target)
        .u32(4, program.as_raw_fd() as u32)
        .u32(8, attach_type);
    let detach = Attr::new()
        .u32(0, target)
        .u32(4, program.as_raw_fd() as u32)
        .u32(8, attach_type);
    attr.u32(12, flags).call(PROG_ATTACH)?;
    detach.call(PROG_DETACH).map(drop)
}

fn iterate(program: &OwnedFd) -> io::Result<()> {
    let link = Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(8, TRACE_ITER)
        .open(LINK_CREATE)?;
    Attr::new()
        .u32(0, link.as_raw_fd() as u32)
        .open(ITER_CREATE)
        .map(drop)
}

fn sockets() -> io::Result<OwnedFd> {
    Attr::new()
        .u32(0, SOCKMAP)
        .u32(4, 4)
        .u32(8, 4)
        .u32(12, 1)
        .open(MAP_CREATE)
}

pub fn group_of(path: &str) -> io::Result<File> {
    let path = Path::new(GROUPS).join(path);
    fs::create_dir_all(&path)?;
    File::open(path)
}

/// Makes a pair of devices, once; the number of the one that programs are attached to.
fn netkit() -> io::Result<u32> {
    let index = "/sys/class/net/nkway/ifindex";
    if !Path::new(index).exists() {
        let kind = place::attribute(1, b"netkit\0");
        let attributes = [
            place::attribute(3, b"nkway\0"),
            place::attribute(18 | 0x8000, &kind),
        ];
        let mut message = place::message(16, &[0, 0, 0, 0], &attributes.concat());
        message[6..8].copy_from_slice(&0x605_u16.to_ne_bytes()); // and NLM_F_CREATE, NLM_F_EXCL
        place::by_netlink(&[message])?;
    }
    let text = fs::read_to_string(index)?;
    text.trim().parse().map_err(io::Error::other)
}
