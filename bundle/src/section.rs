//! What a section's name says about the programs in it: the conventions of libbpf 1.8.

/// What a section's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convention<'a> {
    /// Program type, as in `enum bpf_prog_type`, lower case without its prefix.
    pub program_type: &'static str,
    /// Expected attach type, as in `enum bpf_attach_type`, lower case without `bpf_`;
    /// `None` where loading needs none.
    pub attach_type: Option<&'static str>,
    /// What follows the first slash, where the convention gives it a meaning.
    pub target: Option<&'a str>,
    /// Loaded with `BPF_F_SLEEPABLE`.
    pub sleepable: bool,
    /// Loaded with `BPF_F_XDP_HAS_FRAGS`.
    pub fragments: bool,
    /// The name starts with `?`: not loaded unless the loader asks.
    pub optional: bool,
    /// Attached by BTF id, to the kernel or to another program.
    pub by_btf: bool,
}

/// Reads a section's name. One that is nobody's convention is of type `unspec`.
pub fn convention(section: &str) -> Convention<'_> {
    let (optional, name) = match section.strip_prefix('?') {
        Some(name) => (true, name),
        None => (false, section),
    };
    let found = CONVENTIONS
        .iter()
        .find_map(|row| row.matches(name).map(|target| (row, target)));
    match found {
        Some((row, target)) => Convention {
            program_type: row.program_type,
            attach_type: (!row.attach_type.is_empty()).then_some(row.attach_type),
            target,
            sleepable: row.has(SLEEPABLE),
            fragments: row.has(FRAGMENTS),
            optional,
            by_btf: row.has(BY_BTF),
        },
        None => Convention {
            program_type: "unspec",
            attach_type: None,
            target: None,
            sleepable: false,
            fragments: false,
            optional,
            by_btf: false,
        },
    }
}

struct Row {
    name: &'static str,
    program_type: &'static str,
    attach_type: &'static str,
    flags: u8,
}

impl Row {
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// `Some` if `name` follows this row: the target, where there is one.
    fn matches<'a>(&self, name: &'a str) -> Option<Option<&'a str>> {
        let rest = name.strip_prefix(self.name)?;
        if rest.is_empty() {
            return Some(None);
        }
        let target = rest.strip_prefix('/').filter(|_| self.has(TARGET))?;
        Some(Some(target).filter(|target| !target.is_empty()))
    }
}

const fn row(
    name: &'static str,
    program_type: &'static str,
    attach_type: &'static str,
    flags: u8,
) -> Row {
    Row {
        name,
        program_type,
        attach_type,
        flags,
    }
}

/// A target may follow after a slash.
const TARGET: u8 = 1;
const SLEEPABLE: u8 = 2;
const FRAGMENTS: u8 = 4;
const BY_BTF: u8 = 8;

const TS: u8 = TARGET | SLEEPABLE;
const TB: u8 = TARGET | BY_BTF;
const TBS: u8 = TARGET | BY_BTF | SLEEPABLE;

#[rustfmt::skip]
const CONVENTIONS: &[Row] = &[
    row("socket", "socket_filter", "", 0),
    row("sk_reuseport/migrate", "sk_reuseport", "sk_reuseport_select_or_migrate", 0),
    row("sk_reuseport", "sk_reuseport", "sk_reuseport_select", 0),
    row("kprobe", "kprobe", "", TARGET),
    row("uprobe", "kprobe", "", TARGET),
    row("uprobe.s", "kprobe", "", TS),
    row("kretprobe", "kprobe", "", TARGET),
    row("uretprobe", "kprobe", "", TARGET),
    row("uretprobe.s", "kprobe", "", TS),
    row("kprobe.multi", "kprobe", "trace_kprobe_multi", TARGET),
    row("kretprobe.multi", "kprobe", "trace_kprobe_multi", TARGET),
    row("kprobe.session", "kprobe", "trace_kprobe_session", TARGET),
    row("uprobe.multi", "kprobe", "trace_uprobe_multi", TARGET),
    row("uretprobe.multi", "kprobe", "trace_uprobe_multi", TARGET),
    row("uprobe.session", "kprobe", "trace_uprobe_session", TARGET),
    row("uprobe.multi.s", "kprobe", "trace_uprobe_multi", TS),
    row("uretprobe.multi.s", "kprobe", "trace_uprobe_multi", TS),
    row("uprobe.session.s", "kprobe", "trace_uprobe_session", TS),
    row("ksyscall", "kprobe", "", TARGET),
    row("kretsyscall", "kprobe", "", TARGET),
    row("usdt", "kprobe", "", TARGET),
    row("usdt.s", "kprobe", "", TS),
    row("tc/ingress", "sched_cls", "tcx_ingress", 0),
    row("tc/egress", "sched_cls", "tcx_egress", 0),
    row("tcx/ingress", "sched_cls", "tcx_ingress", 0),
    row("tcx/egress", "sched_cls", "tcx_egress", 0),
    row("tc", "sched_cls", "", 0),
    row("classifier", "sched_cls", "", 0),
    row("action", "sched_act", "", 0),
    row("netkit/primary", "sched_cls", "netkit_primary", 0),
    row("netkit/peer", "sched_cls", "netkit_peer", 0),
    row("tracepoint", "tracepoint", "", TARGET),
    row("tp", "tracepoint", "", TARGET),
    row("raw_tracepoint", "raw_tracepoint", "", TARGET),
    row("raw_tp", "raw_tracepoint", "", TARGET),
    row("raw_tracepoint.w", "raw_tracepoint_writable", "", TARGET),
    row("raw_tp.w", "raw_tracepoint_writable", "", TARGET),
    row("tp_btf", "tracing", "trace_raw_tp", TB),
    row("fentry", "tracing", "trace_fentry", TB),
    row("fmod_ret", "tracing", "modify_return", TB),
    row("fexit", "tracing", "trace_fexit", TB),
    row("fentry.s", "tracing", "trace_fentry", TBS),
    row("fmod_ret.s", "tracing", "modify_return", TBS),
    row("fexit.s", "tracing", "trace_fexit", TBS),
    row("fsession", "tracing", "trace_fsession", TB),
    row("fsession.s", "tracing", "trace_fsession", TBS),
    row("fentry.multi", "tracing", "trace_fentry_multi", TB),
    row("fexit.multi", "tracing", "trace_fexit_multi", TB),
    row("fsession.multi", "tracing", "trace_fsession_multi", TB),
    row("fentry.multi.s", "tracing", "trace_fentry_multi", TBS),
    row("fexit.multi.s", "tracing", "trace_fexit_multi", TBS),
    row("fsession.multi.s", "tracing", "trace_fsession_multi", TBS),
    row("freplace", "ext", "", TB),
    row("lsm", "lsm", "lsm_mac", TB),
    row("lsm.s", "lsm", "lsm_mac", TBS),
    row("lsm_cgroup", "lsm", "lsm_cgroup", TB),
    row("iter", "tracing", "trace_iter", TB),
    row("iter.s", "tracing", "trace_iter", TBS),
    row("syscall", "syscall", "", SLEEPABLE),
    row("xdp.frags/devmap", "xdp", "xdp_devmap", FRAGMENTS),
    row("xdp/devmap", "xdp", "xdp_devmap", 0),
    row("xdp.frags/cpumap", "xdp", "xdp_cpumap", FRAGMENTS),
    row("xdp/cpumap", "xdp", "xdp_cpumap", 0),
    row("xdp.frags", "xdp", "xdp", FRAGMENTS),
    row("xdp", "xdp", "xdp", 0),
    row("perf_event", "perf_event", "", 0),
    row("lwt_in", "lwt_in", "", 0),
    row("lwt_out", "lwt_out", "", 0),
    row("lwt_xmit", "lwt_xmit", "", 0),
    row("lwt_seg6local", "lwt_seg6local", "", 0),
    row("sockops", "sock_ops", "cgroup_sock_ops", 0),
    row("sk_skb/stream_parser", "sk_skb", "sk_skb_stream_parser", 0),
    row("sk_skb/stream_verdict", "sk_skb", "sk_skb_stream_verdict", 0),
    row("sk_skb/verdict", "sk_skb", "sk_skb_verdict", 0),
    row("sk_skb", "sk_skb", "", 0),
    row("sk_msg", "sk_msg", "sk_msg_verdict", 0),
    row("lirc_mode2", "lirc_mode2", "lirc_mode2", 0),
    row("flow_dissector", "flow_dissector", "flow_dissector", 0),
    row("cgroup_skb/ingress", "cgroup_skb", "cgroup_inet_ingress", 0),
    row("cgroup_skb/egress", "cgroup_skb", "cgroup_inet_egress", 0),
    row("cgroup/skb", "cgroup_skb", "", 0),
    row("cgroup/sock_create", "cgroup_sock", "cgroup_inet_sock_create", 0),
    row("cgroup/sock_release", "cgroup_sock", "cgroup_inet_sock_release", 0),
    row("cgroup/sock", "cgroup_sock", "cgroup_inet_sock_create", 0),
    row("cgroup/post_bind4", "cgroup_sock", "cgroup_inet4_post_bind", 0),
    row("cgroup/post_bind6", "cgroup_sock", "cgroup_inet6_post_bind", 0),
    row("cgroup/bind4", "cgroup_sock_addr", "cgroup_inet4_bind", 0),
    row("cgroup/bind6", "cgroup_sock_addr", "cgroup_inet6_bind", 0),
    row("cgroup/connect4", "cgroup_sock_addr", "cgroup_inet4_connect", 0),
    row("cgroup/connect6", "cgroup_sock_addr", "cgroup_inet6_connect", 0),
    row("cgroup/connect_unix", "cgroup_sock_addr", "cgroup_unix_connect", 0),
    row("cgroup/sendmsg4", "cgroup_sock_addr", "cgroup_udp4_sendmsg", 0),
    row("cgroup/sendmsg6", "cgroup_sock_addr", "cgroup_udp6_sendmsg", 0),
    row("cgroup/sendmsg_unix", "cgroup_sock_addr", "cgroup_unix_sendmsg", 0),
    row("cgroup/recvmsg4", "cgroup_sock_addr", "cgroup_udp4_recvmsg", 0),
    row("cgroup/recvmsg6", "cgroup_sock_addr", "cgroup_udp6_recvmsg", 0),
    row("cgroup/recvmsg_unix", "cgroup_sock_addr", "cgroup_unix_recvmsg", 0),
    row("cgroup/getpeername4", "cgroup_sock_addr", "cgroup_inet4_getpeername", 0),
    row("cgroup/getpeername6", "cgroup_sock_addr", "cgroup_inet6_getpeername", 0),
    row("cgroup/getpeername_unix", "cgroup_sock_addr", "cgroup_unix_getpeername", 0),
    row("cgroup/getsockname4", "cgroup_sock_addr", "cgroup_inet4_getsockname", 0),
    row("cgroup/getsockname6", "cgroup_sock_addr", "cgroup_inet6_getsockname", 0),
    row("cgroup/getsockname_unix", "cgroup_sock_addr", "cgroup_unix_getsockname", 0),
    row("cgroup/sysctl", "cgroup_sysctl", "cgroup_sysctl", 0),
    row("cgroup/getsockopt", "cgroup_sockopt", "cgroup_getsockopt", 0),
    row("cgroup/setsockopt", "cgroup_sockopt", "cgroup_setsockopt", 0),
    row("cgroup/dev", "cgroup_device", "cgroup_device", 0),
    row("struct_ops", "struct_ops", "", TARGET),
    row("struct_ops.s", "struct_ops", "", TS),
    row("sk_lookup", "sk_lookup", "sk_lookup", 0),
    row("netfilter", "netfilter", "netfilter", 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// One line per convention: section, type, attach type, target, flags.
    const EVERY: &str = "\
socket socket_filter - - -
sk_reuseport/migrate sk_reuseport sk_reuseport_select_or_migrate - -
sk_reuseport sk_reuseport sk_reuseport_select - -
kprobe/some_target kprobe - some_target -
uprobe/some_target kprobe - some_target -
uprobe.s/some_target kprobe - some_target s
kretprobe/some_target kprobe - some_target -
uretprobe/some_target kprobe - some_target -
uretprobe.s/some_target kprobe - some_target s
kprobe.multi/some_target kprobe trace_kprobe_multi some_target -
kretprobe.multi/some_target kprobe trace_kprobe_multi some_target -
kprobe.session/some_target kprobe trace_kprobe_session some_target -
uprobe.multi/some_target kprobe trace_uprobe_multi some_target -
uretprobe.multi/some_target kprobe trace_uprobe_multi some_target -
uprobe.session/some_target kprobe trace_uprobe_session some_target -
uprobe.multi.s/some_target kprobe trace_uprobe_multi some_target s
uretprobe.multi.s/some_target kprobe trace_uprobe_multi some_target s
uprobe.session.s/some_target kprobe trace_uprobe_session some_target s
ksyscall/some_target kprobe - some_target -
kretsyscall/some_target kprobe - some_target -
usdt/some_target kprobe - some_target -
usdt.s/some_target kprobe - some_target s
tc/ingress sched_cls tcx_ingress - -
tc/egress sched_cls tcx_egress - -
tcx/ingress sched_cls tcx_ingress - -
tcx/egress sched_cls tcx_egress - -
tc sched_cls - - -
classifier sched_cls - - -
action sched_act - - -
netkit/primary sched_cls netkit_primary - -
netkit/peer sched_cls netkit_peer - -
tracepoint/some_target tracepoint - some_target -
tp/some_target tracepoint - some_target -
raw_tracepoint/some_target raw_tracepoint - some_target -
raw_tp/some_target raw_tracepoint - some_target -
raw_tracepoint.w/some_target raw_tracepoint_writable - some_target -
raw_tp.w/some_target raw_tracepoint_writable - some_target -
tp_btf/some_target tracing trace_raw_tp some_target b
fentry/some_target tracing trace_fentry some_target b
fmod_ret/some_target tracing modify_return some_target b
fexit/some_target tracing trace_fexit some_target b
fentry.s/some_target tracing trace_fentry some_target sb
fmod_ret.s/some_target tracing modify_return some_target sb
fexit.s/some_target tracing trace_fexit some_target sb
fsession/some_target tracing trace_fsession some_target b
fsession.s/some_target tracing trace_fsession some_target sb
fentry.multi/some_target tracing trace_fentry_multi some_target b
fexit.multi/some_target tracing trace_fexit_multi some_target b
fsession.multi/some_target tracing trace_fsession_multi some_target b
fentry.multi.s/some_target tracing trace_fentry_multi some_target sb
fexit.multi.s/some_target tracing trace_fexit_multi some_target sb
fsession.multi.s/some_target tracing trace_fsession_multi some_target sb
freplace/some_target ext - some_target b
lsm/some_target lsm lsm_mac some_target b
lsm.s/some_target lsm lsm_mac some_target sb
lsm_cgroup/some_target lsm lsm_cgroup some_target b
iter/some_target tracing trace_iter some_target b
iter.s/some_target tracing trace_iter some_target sb
syscall syscall - - s
xdp.frags/devmap xdp xdp_devmap - f
xdp/devmap xdp xdp_devmap - -
xdp.frags/cpumap xdp xdp_cpumap - f
xdp/cpumap xdp xdp_cpumap - -
xdp.frags xdp xdp - f
xdp xdp xdp - -
perf_event perf_event - - -
lwt_in lwt_in - - -
lwt_out lwt_out - - -
lwt_xmit lwt_xmit - - -
lwt_seg6local lwt_seg6local - - -
sockops sock_ops cgroup_sock_ops - -
sk_skb/stream_parser sk_skb sk_skb_stream_parser - -
sk_skb/stream_verdict sk_skb sk_skb_stream_verdict - -
sk_skb/verdict sk_skb sk_skb_verdict - -
sk_skb sk_skb - - -
sk_msg sk_msg sk_msg_verdict - -
lirc_mode2 lirc_mode2 lirc_mode2 - -
flow_dissector flow_dissector flow_dissector - -
cgroup_skb/ingress cgroup_skb cgroup_inet_ingress - -
cgroup_skb/egress cgroup_skb cgroup_inet_egress - -
cgroup/skb cgroup_skb - - -
cgroup/sock_create cgroup_sock cgroup_inet_sock_create - -
cgroup/sock_release cgroup_sock cgroup_inet_sock_release - -
cgroup/sock cgroup_sock cgroup_inet_sock_create - -
cgroup/post_bind4 cgroup_sock cgroup_inet4_post_bind - -
cgroup/post_bind6 cgroup_sock cgroup_inet6_post_bind - -
cgroup/bind4 cgroup_sock_addr cgroup_inet4_bind - -
cgroup/bind6 cgroup_sock_addr cgroup_inet6_bind - -
cgroup/connect4 cgroup_sock_addr cgroup_inet4_connect - -
cgroup/connect6 cgroup_sock_addr cgroup_inet6_connect - -
cgroup/connect_unix cgroup_sock_addr cgroup_unix_connect - -
cgroup/sendmsg4 cgroup_sock_addr cgroup_udp4_sendmsg - -
cgroup/sendmsg6 cgroup_sock_addr cgroup_udp6_sendmsg - -
cgroup/sendmsg_unix cgroup_sock_addr cgroup_unix_sendmsg - -
cgroup/recvmsg4 cgroup_sock_addr cgroup_udp4_recvmsg - -
cgroup/recvmsg6 cgroup_sock_addr cgroup_udp6_recvmsg - -
cgroup/recvmsg_unix cgroup_sock_addr cgroup_unix_recvmsg - -
cgroup/getpeername4 cgroup_sock_addr cgroup_inet4_getpeername - -
cgroup/getpeername6 cgroup_sock_addr cgroup_inet6_getpeername - -
cgroup/getpeername_unix cgroup_sock_addr cgroup_unix_getpeername - -
cgroup/getsockname4 cgroup_sock_addr cgroup_inet4_getsockname - -
cgroup/getsockname6 cgroup_sock_addr cgroup_inet6_getsockname - -
cgroup/getsockname_unix cgroup_sock_addr cgroup_unix_getsockname - -
cgroup/sysctl cgroup_sysctl cgroup_sysctl - -
cgroup/getsockopt cgroup_sockopt cgroup_getsockopt - -
cgroup/setsockopt cgroup_sockopt cgroup_setsockopt - -
cgroup/dev cgroup_device cgroup_device - -
struct_ops/some_target struct_ops - some_target -
struct_ops.s/some_target struct_ops - some_target s
sk_lookup sk_lookup sk_lookup - -
netfilter netfilter netfilter - -";

    fn describe(section: &str) -> String {
        let Convention {
            program_type,
            attach_type,
            target,
            sleepable,
            fragments,
            optional,
            by_btf,
        } = convention(section);
        let mut flags = String::new();
        for (on, letter) in [
            (sleepable, 's'),
            (fragments, 'f'),
            (optional, '?'),
            (by_btf, 'b'),
        ] {
            if on {
                flags.push(letter);
            }
        }
        let flags = if flags.is_empty() { "-" } else { &flags };
        let attach = attach_type.unwrap_or("-");
        format!(
            "{section} {program_type} {attach} {} {flags}",
            target.unwrap_or("-")
        )
    }

    #[test]
    fn every_convention_of_libbpf() {
        for line in EVERY.lines() {
            let section = line.split(' ').next().unwrap();
            assert_eq!(describe(section), line);
        }
        assert_eq!(CONVENTIONS.len(), EVERY.lines().count());
    }

    #[test]
    fn near_misses_and_special_forms() {
        for line in [
            "?kprobe/vfs_read kprobe - vfs_read ?",
            "?lsm.s/file_open lsm lsm_mac file_open s?b",
            "kprobe kprobe - - -",
            "kprobe/ kprobe - - -",
            "kprobe/a/b kprobe - a/b -",
            "kprobe_x unspec - - -",
            "kprobe.multi/tcp_* kprobe trace_kprobe_multi tcp_* -",
            "kprobe.session.s/x unspec - - -",
            "tc/other unspec - - -",
            "xdp/other unspec - - -",
            "xdp_prog unspec - - -",
            "socket/http unspec - - -",
            "usdt//bin/x:p:q kprobe - /bin/x:p:q -",
            "cgroup/connect4/x unspec - - -",
            "struct_ops/select_cpu struct_ops - select_cpu -",
            "struct_ops.s/init struct_ops - init s",
            "perf_event/x unspec - - -",
            "?? unspec - - ?",
            ".text unspec - - -",
        ] {
            let section = line.split(' ').next().unwrap();
            assert_eq!(describe(section), line);
        }
    }
}
