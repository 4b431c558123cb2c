//! The kernel's own names and numbers (`include/uapi/linux/bpf.h` up to 7.3): program types,
//! attach types, map types, helpers, and the first release that has each.

use std::fmt;

/// A kernel release, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release(pub u16, pub u16);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The name of a helper, `bpf_` included; `None` for a number that no kernel has.
pub fn helper_name(id: u32) -> Option<&'static str> {
    let index = (id as usize).checked_sub(1)?;
    HELPERS.get(index).map(|(name, _)| *name)
}

/// The number of a helper, with or without `bpf_` before its name.
pub fn helper_id(name: &str) -> Option<u32> {
    let bare = name.strip_prefix("bpf_").unwrap_or(name);
    let index = HELPERS.iter().position(|(known, _)| &known[4..] == bare)?;
    Some(index as u32 + 1)
}

/// The first release with a helper.
pub fn helper_release(id: u32) -> Option<Release> {
    let index = (id as usize).checked_sub(1)?;
    HELPERS.get(index).map(|(_, release)| *release)
}

/// The name of an `enum bpf_map_type`.
pub fn map_type_name(number: u32) -> Option<&'static str> {
    MAP_TYPES.get(number as usize).map(|(name, _)| *name)
}

/// The number of a map type.
pub fn map_type(name: &str) -> Option<u32> {
    position(MAP_TYPES, name)
}

/// The first release with a map type.
pub fn map_type_release(name: &str) -> Option<Release> {
    release(MAP_TYPES, name)
}

/// The name of an `enum bpf_prog_type`.
pub fn program_type_name(number: u32) -> Option<&'static str> {
    PROGRAM_TYPES.get(number as usize).map(|(name, _)| *name)
}

/// The number of a program type.
pub fn program_type(name: &str) -> Option<u32> {
    position(PROGRAM_TYPES, name)
}

/// The first release with a program type.
pub fn program_type_release(name: &str) -> Option<Release> {
    release(PROGRAM_TYPES, name)
}

/// The name of an `enum bpf_attach_type`.
pub fn attach_type_name(number: u32) -> Option<&'static str> {
    ATTACH_TYPES.get(number as usize).copied()
}

/// The number of an attach type.
pub fn attach_type(name: &str) -> Option<u32> {
    let index = ATTACH_TYPES.iter().position(|known| *known == name)?;
    Some(index as u32)
}

/// The first release with an attach type, where that is later than its program type.
pub fn attach_type_release(name: &str) -> Option<Release> {
    release(LATER_ATTACH_TYPES, name)
}

fn position(table: &[(&str, Release)], name: &str) -> Option<u32> {
    let index = table.iter().position(|(known, _)| *known == name)?;
    Some(index as u32)
}

fn release(table: &[(&str, Release)], name: &str) -> Option<Release> {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, release)| *release)
}

/// By number, from 1.
#[rustfmt::skip]
const HELPERS: &[(&str, Release)] = &[
    ("bpf_map_lookup_elem", Release(3, 19)),
    ("bpf_map_update_elem", Release(3, 19)),
    ("bpf_map_delete_elem", Release(3, 19)),
    ("bpf_probe_read", Release(4, 1)),
    ("bpf_ktime_get_ns", Release(4, 1)),
    ("bpf_trace_printk", Release(4, 1)),
    ("bpf_get_prandom_u32", Release(4, 1)),
    ("bpf_get_smp_processor_id", Release(4, 1)),
    ("bpf_skb_store_bytes", Release(4, 1)),
    ("bpf_l3_csum_replace", Release(4, 1)),
    ("bpf_l4_csum_replace", Release(4, 1)),
    ("bpf_tail_call", Release(4, 2)),
    ("bpf_clone_redirect", Release(4, 2)),
    ("bpf_get_current_pid_tgid", Release(4, 2)),
    ("bpf_get_current_uid_gid", Release(4, 2)),
    ("bpf_get_current_comm", Release(4, 2)),
    ("bpf_get_cgroup_classid", Release(4, 3)),
    ("bpf_skb_vlan_push", Release(4, 3)),
    ("bpf_skb_vlan_pop", Release(4, 3)),
    ("bpf_skb_get_tunnel_key", Release(4, 3)),
    ("bpf_skb_set_tunnel_key", Release(4, 3)),
    ("bpf_perf_event_read", Release(4, 3)),
    ("bpf_redirect", Release(4, 4)),
    ("bpf_get_route_realm", Release(4, 4)),
    ("bpf_perf_event_output", Release(4, 4)),
    ("bpf_skb_load_bytes", Release(4, 5)),
    ("bpf_get_stackid", Release(4, 6)),
    ("bpf_csum_diff", Release(4, 6)),
    ("bpf_skb_get_tunnel_opt", Release(4, 6)),
    ("bpf_skb_set_tunnel_opt", Release(4, 6)),
    ("bpf_skb_change_proto", Release(4, 8)),
    ("bpf_skb_change_type", Release(4, 8)),
    ("bpf_skb_under_cgroup", Release(4, 8)),
    ("bpf_get_hash_recalc", Release(4, 8)),
    ("bpf_get_current_task", Release(4, 8)),
    ("bpf_probe_write_user", Release(4, 8)),
    ("bpf_current_task_under_cgroup", Release(4, 9)),
    ("bpf_skb_change_tail", Release(4, 9)),
    ("bpf_skb_pull_data", Release(4, 9)),
    ("bpf_csum_update", Release(4, 9)),
    ("bpf_set_hash_invalid", Release(4, 9)),
    ("bpf_get_numa_node_id", Release(4, 10)),
    ("bpf_skb_change_head", Release(4, 10)),
    ("bpf_xdp_adjust_head", Release(4, 10)),
    ("bpf_probe_read_str", Release(4, 11)),
    ("bpf_get_socket_cookie", Release(4, 12)),
    ("bpf_get_socket_uid", Release(4, 12)),
    ("bpf_set_hash", Release(4, 13)),
    ("bpf_setsockopt", Release(4, 13)),
    ("bpf_skb_adjust_room", Release(4, 13)),
    ("bpf_redirect_map", Release(4, 14)),
    ("bpf_sk_redirect_map", Release(4, 14)),
    ("bpf_sock_map_update", Release(4, 14)),
    ("bpf_xdp_adjust_meta", Release(4, 15)),
    ("bpf_perf_event_read_value", Release(4, 15)),
    ("bpf_perf_prog_read_value", Release(4, 15)),
    ("bpf_getsockopt", Release(4, 15)),
    ("bpf_override_return", Release(4, 16)),
    ("bpf_sock_ops_cb_flags_set", Release(4, 16)),
    ("bpf_msg_redirect_map", Release(4, 17)),
    ("bpf_msg_apply_bytes", Release(4, 17)),
    ("bpf_msg_cork_bytes", Release(4, 17)),
    ("bpf_msg_pull_data", Release(4, 17)),
    ("bpf_bind", Release(4, 17)),
    ("bpf_xdp_adjust_tail", Release(4, 18)),
    ("bpf_skb_get_xfrm_state", Release(4, 18)),
    ("bpf_get_stack", Release(4, 18)),
    ("bpf_skb_load_bytes_relative", Release(4, 18)),
    ("bpf_fib_lookup", Release(4, 18)),
    ("bpf_sock_hash_update", Release(4, 18)),
    ("bpf_msg_redirect_hash", Release(4, 18)),
    ("bpf_sk_redirect_hash", Release(4, 18)),
    ("bpf_lwt_push_encap", Release(4, 18)),
    ("bpf_lwt_seg6_store_bytes", Release(4, 18)),
    ("bpf_lwt_seg6_adjust_srh", Release(4, 18)),
    ("bpf_lwt_seg6_action", Release(4, 18)),
    ("bpf_rc_repeat", Release(4, 18)),
    ("bpf_rc_keydown", Release(4, 18)),
    ("bpf_skb_cgroup_id", Release(4, 18)),
    ("bpf_get_current_cgroup_id", Release(4, 18)),
    ("bpf_get_local_storage", Release(4, 19)),
    ("bpf_sk_select_reuseport", Release(4, 19)),
    ("bpf_skb_ancestor_cgroup_id", Release(4, 19)),
    ("bpf_sk_lookup_tcp", Release(4, 20)),
    ("bpf_sk_lookup_udp", Release(4, 20)),
    ("bpf_sk_release", Release(4, 20)),
    ("bpf_map_push_elem", Release(4, 20)),
    ("bpf_map_pop_elem", Release(4, 20)),
    ("bpf_map_peek_elem", Release(4, 20)),
    ("bpf_msg_push_data", Release(4, 20)),
    ("bpf_msg_pop_data", Release(5, 0)),
    ("bpf_rc_pointer_rel", Release(5, 0)),
    ("bpf_spin_lock", Release(5, 1)),
    ("bpf_spin_unlock", Release(5, 1)),
    ("bpf_sk_fullsock", Release(5, 1)),
    ("bpf_tcp_sock", Release(5, 1)),
    ("bpf_skb_ecn_set_ce", Release(5, 1)),
    ("bpf_get_listener_sock", Release(5, 1)),
    ("bpf_skc_lookup_tcp", Release(5, 2)),
    ("bpf_tcp_check_syncookie", Release(5, 2)),
    ("bpf_sysctl_get_name", Release(5, 2)),
    ("bpf_sysctl_get_current_value", Release(5, 2)),
    ("bpf_sysctl_get_new_value", Release(5, 2)),
    ("bpf_sysctl_set_new_value", Release(5, 2)),
    ("bpf_strtol", Release(5, 2)),
    ("bpf_strtoul", Release(5, 2)),
    ("bpf_sk_storage_get", Release(5, 2)),
    ("bpf_sk_storage_delete", Release(5, 2)),
    ("bpf_send_signal", Release(5, 3)),
    ("bpf_tcp_gen_syncookie", Release(5, 3)),
    ("bpf_skb_output", Release(5, 5)),
    ("bpf_probe_read_user", Release(5, 5)),
    ("bpf_probe_read_kernel", Release(5, 5)),
    ("bpf_probe_read_user_str", Release(5, 5)),
    ("bpf_probe_read_kernel_str", Release(5, 5)),
    ("bpf_tcp_send_ack", Release(5, 6)),
    ("bpf_send_signal_thread", Release(5, 6)),
    ("bpf_jiffies64", Release(5, 6)),
    ("bpf_read_branch_records", Release(5, 7)),
    ("bpf_get_ns_current_pid_tgid", Release(5, 7)),
    ("bpf_xdp_output", Release(5, 7)),
    ("bpf_get_netns_cookie", Release(5, 7)),
    ("bpf_get_current_ancestor_cgroup_id", Release(5, 7)),
    ("bpf_sk_assign", Release(5, 7)),
    ("bpf_ktime_get_boot_ns", Release(5, 8)),
    ("bpf_seq_printf", Release(5, 8)),
    ("bpf_seq_write", Release(5, 8)),
    ("bpf_sk_cgroup_id", Release(5, 8)),
    ("bpf_sk_ancestor_cgroup_id", Release(5, 8)),
    ("bpf_ringbuf_output", Release(5, 8)),
    ("bpf_ringbuf_reserve", Release(5, 8)),
    ("bpf_ringbuf_submit", Release(5, 8)),
    ("bpf_ringbuf_discard", Release(5, 8)),
    ("bpf_ringbuf_query", Release(5, 8)),
    ("bpf_csum_level", Release(5, 8)),
    ("bpf_skc_to_tcp6_sock", Release(5, 9)),
    ("bpf_skc_to_tcp_sock", Release(5, 9)),
    ("bpf_skc_to_tcp_timewait_sock", Release(5, 9)),
    ("bpf_skc_to_tcp_request_sock", Release(5, 9)),
    ("bpf_skc_to_udp6_sock", Release(5, 9)),
    ("bpf_get_task_stack", Release(5, 9)),
    ("bpf_load_hdr_opt", Release(5, 10)),
    ("bpf_store_hdr_opt", Release(5, 10)),
    ("bpf_reserve_hdr_opt", Release(5, 10)),
    ("bpf_inode_storage_get", Release(5, 10)),
    ("bpf_inode_storage_delete", Release(5, 10)),
    ("bpf_d_path", Release(5, 10)),
    ("bpf_copy_from_user", Release(5, 10)),
    ("bpf_snprintf_btf", Release(5, 10)),
    ("bpf_seq_printf_btf", Release(5, 10)),
    ("bpf_skb_cgroup_classid", Release(5, 10)),
    ("bpf_redirect_neigh", Release(5, 10)),
    ("bpf_per_cpu_ptr", Release(5, 10)),
    ("bpf_this_cpu_ptr", Release(5, 10)),
    ("bpf_redirect_peer", Release(5, 10)),
    ("bpf_task_storage_get", Release(5, 11)),
    ("bpf_task_storage_delete", Release(5, 11)),
    ("bpf_get_current_task_btf", Release(5, 11)),
    ("bpf_bprm_opts_set", Release(5, 11)),
    ("bpf_ktime_get_coarse_ns", Release(5, 11)),
    ("bpf_ima_inode_hash", Release(5, 11)),
    ("bpf_sock_from_file", Release(5, 11)),
    ("bpf_check_mtu", Release(5, 12)),
    ("bpf_for_each_map_elem", Release(5, 13)),
    ("bpf_snprintf", Release(5, 13)),
    ("bpf_sys_bpf", Release(5, 14)),
    ("bpf_btf_find_by_name_kind", Release(5, 14)),
    ("bpf_sys_close", Release(5, 14)),
    ("bpf_timer_init", Release(5, 15)),
    ("bpf_timer_set_callback", Release(5, 15)),
    ("bpf_timer_start", Release(5, 15)),
    ("bpf_timer_cancel", Release(5, 15)),
    ("bpf_get_func_ip", Release(5, 15)),
    ("bpf_get_attach_cookie", Release(5, 15)),
    ("bpf_task_pt_regs", Release(5, 15)),
    ("bpf_get_branch_snapshot", Release(5, 16)),
    ("bpf_trace_vprintk", Release(5, 16)),
    ("bpf_skc_to_unix_sock", Release(5, 16)),
    ("bpf_kallsyms_lookup_name", Release(5, 16)),
    ("bpf_find_vma", Release(5, 17)),
    ("bpf_loop", Release(5, 17)),
    ("bpf_strncmp", Release(5, 17)),
    ("bpf_get_func_arg", Release(5, 17)),
    ("bpf_get_func_ret", Release(5, 17)),
    ("bpf_get_func_arg_cnt", Release(5, 17)),
    ("bpf_get_retval", Release(5, 18)),
    ("bpf_set_retval", Release(5, 18)),
    ("bpf_xdp_get_buff_len", Release(5, 18)),
    ("bpf_xdp_load_bytes", Release(5, 18)),
    ("bpf_xdp_store_bytes", Release(5, 18)),
    ("bpf_copy_from_user_task", Release(5, 18)),
    ("bpf_skb_set_tstamp", Release(5, 18)),
    ("bpf_ima_file_hash", Release(5, 18)),
    ("bpf_kptr_xchg", Release(5, 19)),
    ("bpf_map_lookup_percpu_elem", Release(5, 19)),
    ("bpf_skc_to_mptcp_sock", Release(5, 19)),
    ("bpf_dynptr_from_mem", Release(5, 19)),
    ("bpf_ringbuf_reserve_dynptr", Release(5, 19)),
    ("bpf_ringbuf_submit_dynptr", Release(5, 19)),
    ("bpf_ringbuf_discard_dynptr", Release(5, 19)),
    ("bpf_dynptr_read", Release(5, 19)),
    ("bpf_dynptr_write", Release(5, 19)),
    ("bpf_dynptr_data", Release(5, 19)),
    ("bpf_tcp_raw_gen_syncookie_ipv4", Release(6, 0)),
    ("bpf_tcp_raw_gen_syncookie_ipv6", Release(6, 0)),
    ("bpf_tcp_raw_check_syncookie_ipv4", Release(6, 0)),
    ("bpf_tcp_raw_check_syncookie_ipv6", Release(6, 0)),
    ("bpf_ktime_get_tai_ns", Release(6, 1)),
    ("bpf_user_ringbuf_drain", Release(6, 1)),
    ("bpf_cgrp_storage_get", Release(6, 2)),
    ("bpf_cgrp_storage_delete", Release(6, 2)),
];

/// By number, from 0.
#[rustfmt::skip]
const MAP_TYPES: &[(&str, Release)] = &[
    ("unspec", Release(3, 19)),
    ("hash", Release(3, 19)),
    ("array", Release(3, 19)),
    ("prog_array", Release(4, 2)),
    ("perf_event_array", Release(4, 3)),
    ("percpu_hash", Release(4, 6)),
    ("percpu_array", Release(4, 6)),
    ("stack_trace", Release(4, 6)),
    ("cgroup_array", Release(4, 8)),
    ("lru_hash", Release(4, 10)),
    ("lru_percpu_hash", Release(4, 10)),
    ("lpm_trie", Release(4, 11)),
    ("array_of_maps", Release(4, 12)),
    ("hash_of_maps", Release(4, 12)),
    ("devmap", Release(4, 14)),
    ("sockmap", Release(4, 14)),
    ("cpumap", Release(4, 15)),
    ("xskmap", Release(4, 18)),
    ("sockhash", Release(4, 18)),
    ("cgroup_storage", Release(4, 19)),
    ("reuseport_sockarray", Release(4, 19)),
    ("percpu_cgroup_storage", Release(4, 20)),
    ("queue", Release(4, 20)),
    ("stack", Release(4, 20)),
    ("sk_storage", Release(5, 2)),
    ("devmap_hash", Release(5, 4)),
    ("struct_ops", Release(5, 6)),
    ("ringbuf", Release(5, 8)),
    ("inode_storage", Release(5, 10)),
    ("task_storage", Release(5, 11)),
    ("bloom_filter", Release(5, 16)),
    ("user_ringbuf", Release(6, 1)),
    ("cgrp_storage", Release(6, 2)),
    ("arena", Release(6, 9)),
    ("insn_array", Release(6, 19)),
];

/// By number, from 0.
#[rustfmt::skip]
const PROGRAM_TYPES: &[(&str, Release)] = &[
    ("unspec", Release(3, 19)),
    ("socket_filter", Release(3, 19)),
    ("kprobe", Release(4, 1)),
    ("sched_cls", Release(4, 1)),
    ("sched_act", Release(4, 1)),
    ("tracepoint", Release(4, 7)),
    ("xdp", Release(4, 8)),
    ("perf_event", Release(4, 9)),
    ("cgroup_skb", Release(4, 10)),
    ("cgroup_sock", Release(4, 10)),
    ("lwt_in", Release(4, 10)),
    ("lwt_out", Release(4, 10)),
    ("lwt_xmit", Release(4, 10)),
    ("sock_ops", Release(4, 13)),
    ("sk_skb", Release(4, 14)),
    ("cgroup_device", Release(4, 15)),
    ("sk_msg", Release(4, 17)),
    ("raw_tracepoint", Release(4, 17)),
    ("cgroup_sock_addr", Release(4, 17)),
    ("lwt_seg6local", Release(4, 18)),
    ("lirc_mode2", Release(4, 18)),
    ("sk_reuseport", Release(4, 19)),
    ("flow_dissector", Release(4, 20)),
    ("cgroup_sysctl", Release(5, 2)),
    ("raw_tracepoint_writable", Release(5, 2)),
    ("cgroup_sockopt", Release(5, 3)),
    ("tracing", Release(5, 5)),
    ("struct_ops", Release(5, 6)),
    ("ext", Release(5, 6)),
    ("lsm", Release(5, 7)),
    ("sk_lookup", Release(5, 9)),
    ("syscall", Release(5, 14)),
    ("netfilter", Release(6, 4)),
];

/// By number, from 0.
#[rustfmt::skip]
const ATTACH_TYPES: &[&str] = &[
    "cgroup_inet_ingress",
    "cgroup_inet_egress",
    "cgroup_inet_sock_create",
    "cgroup_sock_ops",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "cgroup_device",
    "sk_msg_verdict",
    "cgroup_inet4_bind",
    "cgroup_inet6_bind",
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_sysctl",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "trace_raw_tp",
    "trace_fentry",
    "trace_fexit",
    "modify_return",
    "lsm_mac",
    "trace_iter",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname",
    "xdp_devmap",
    "cgroup_inet_sock_release",
    "xdp_cpumap",
    "sk_lookup",
    "xdp",
    "sk_skb_verdict",
    "sk_reuseport_select",
    "sk_reuseport_select_or_migrate",
    "perf_event",
    "trace_kprobe_multi",
    "lsm_cgroup",
    "struct_ops",
    "netfilter",
    "tcx_ingress",
    "tcx_egress",
    "trace_uprobe_multi",
    "cgroup_unix_connect",
    "cgroup_unix_sendmsg",
    "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername",
    "cgroup_unix_getsockname",
    "netkit_primary",
    "netkit_peer",
    "trace_kprobe_session",
    "trace_uprobe_session",
    "trace_fsession",
    "trace_fentry_multi",
    "trace_fexit_multi",
    "trace_fsession_multi",
];

#[rustfmt::skip]
const LATER_ATTACH_TYPES: &[(&str, Release)] = &[
    ("cgroup_inet_sock_create", Release(4, 10)),
    ("cgroup_inet4_post_bind", Release(4, 17)),
    ("cgroup_inet6_post_bind", Release(4, 17)),
    ("cgroup_udp4_sendmsg", Release(4, 18)),
    ("cgroup_udp6_sendmsg", Release(4, 18)),
    ("cgroup_udp4_recvmsg", Release(5, 2)),
    ("cgroup_udp6_recvmsg", Release(5, 2)),
    ("modify_return", Release(5, 7)),
    ("trace_iter", Release(5, 8)),
    ("cgroup_inet4_getpeername", Release(5, 8)),
    ("cgroup_inet6_getpeername", Release(5, 8)),
    ("cgroup_inet4_getsockname", Release(5, 8)),
    ("cgroup_inet6_getsockname", Release(5, 8)),
    ("xdp_devmap", Release(5, 8)),
    ("cgroup_inet_sock_release", Release(5, 9)),
    ("xdp_cpumap", Release(5, 9)),
    ("sk_skb_verdict", Release(5, 13)),
    ("sk_reuseport_select_or_migrate", Release(5, 14)),
    ("trace_kprobe_multi", Release(5, 18)),
    ("lsm_cgroup", Release(6, 0)),
    ("tcx_ingress", Release(6, 6)),
    ("tcx_egress", Release(6, 6)),
    ("trace_uprobe_multi", Release(6, 6)),
    ("cgroup_unix_connect", Release(6, 7)),
    ("cgroup_unix_sendmsg", Release(6, 7)),
    ("cgroup_unix_recvmsg", Release(6, 7)),
    ("cgroup_unix_getpeername", Release(6, 7)),
    ("cgroup_unix_getsockname", Release(6, 7)),
    ("netkit_primary", Release(6, 7)),
    ("netkit_peer", Release(6, 7)),
    ("trace_kprobe_session", Release(6, 10)),
    ("trace_uprobe_session", Release(6, 13)),
    ("trace_fsession", Release(7, 0)),
    ("trace_fentry_multi", Release(7, 3)),
    ("trace_fexit_multi", Release(7, 3)),
    ("trace_fsession_multi", Release(7, 3)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_of_the_uapi_header() {
        for (id, name) in [
            (1, "bpf_map_lookup_elem"),
            (36, "bpf_probe_write_user"),
            (58, "bpf_override_return"),
            (109, "bpf_send_signal"),
            (130, "bpf_ringbuf_output"),
            (181, "bpf_loop"),
            (211, "bpf_cgrp_storage_delete"),
        ] {
            assert_eq!(helper_name(id), Some(name));
            assert_eq!(helper_id(name), Some(id));
            assert_eq!(helper_id(&name[4..]), Some(id));
        }
        assert_eq!(
            (helper_name(0), helper_name(212), helper_id("no")),
            (None, None, None)
        );
        for (number, name) in [
            (0, "unspec"),
            (1, "hash"),
            (4, "perf_event_array"),
            (14, "devmap"),
            (25, "devmap_hash"),
            (27, "ringbuf"),
            (33, "arena"),
            (34, "insn_array"),
        ] {
            assert_eq!(map_type_name(number), Some(name));
            assert_eq!(map_type(name), Some(number));
        }
        for (number, name) in [
            (1, "socket_filter"),
            (2, "kprobe"),
            (6, "xdp"),
            (26, "tracing"),
            (29, "lsm"),
            (32, "netfilter"),
        ] {
            assert_eq!(program_type_name(number), Some(name));
            assert_eq!(program_type(name), Some(number));
        }
        for (number, name) in [
            (0, "cgroup_inet_ingress"),
            (24, "trace_fentry"),
            (27, "lsm_mac"),
            (37, "xdp"),
            (46, "tcx_ingress"),
            (58, "trace_fsession"),
            (60, "trace_fexit_multi"),
        ] {
            assert_eq!(attach_type_name(number), Some(name));
            assert_eq!(attach_type(name), Some(number));
        }
    }

    #[test]
    fn releases_never_fall_with_helper_numbers() {
        let releases: Vec<_> = (1..=211).map(|id| helper_release(id).unwrap()).collect();
        assert!(releases.is_sorted());
        for (name, release) in LATER_ATTACH_TYPES {
            assert!(attach_type(name).is_some(), "{name} {release}");
        }
    }

    #[test]
    fn first_releases() {
        assert_eq!(map_type_release("ringbuf"), Some(Release(5, 8)));
        assert_eq!(program_type_release("lsm"), Some(Release(5, 7)));
        assert_eq!(
            attach_type_release("trace_kprobe_multi"),
            Some(Release(5, 18))
        );
        assert_eq!(helper_release(181), Some(Release(5, 17)));
        assert!(Release(5, 8) < Release(5, 18) && Release(5, 18) < Release(6, 1));
    }
}
