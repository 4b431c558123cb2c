//! Shapes: content that can do no harm, whoever makes it.
//!
//! systemd, runc and crun write device filters at run time, so nobody can sign them. A
//! shape admits such programs by what they are, and this module is the one place that
//! says what counts as harmless: see [`TYPES`], [`CALLS`] and [`MAX_INSNS`].

use std::{collections::BTreeSet, iter};

use serde::Serialize;

/// Program types that a shape may allow.
///
/// A `cgroup_device` program answers yes or no about devices for one cgroup; a
/// `socket_filter` without calls and maps equals classic BPF, which nobody gates. Every
/// other type can drop, redirect or observe what is not its loader's own.
pub const TYPES: &[&str] = &["cgroup_device", "socket_filter"];

/// Helpers that a shape may allow: they read the program's own context or a number, and
/// write nothing but the program's own stack.
pub const CALLS: &[&str] = &[
    "bpf_get_numa_node_id",
    "bpf_get_prandom_u32",
    "bpf_get_smp_processor_id",
    "bpf_jiffies64",
    "bpf_ktime_get_boot_ns",
    "bpf_ktime_get_coarse_ns",
    "bpf_ktime_get_ns",
    "bpf_skb_load_bytes",
    "bpf_skb_load_bytes_relative",
];

/// Most instructions: `BPF_MAXINSNS`, what unprivileged programs and classic BPF may have.
pub const MAX_INSNS: u32 = 4096;

/// Programs that anyone may load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Name, unique among shapes.
    pub name: String,
    /// Line on which it starts, from 1.
    pub line: usize,
    /// Program types, out of [`TYPES`].
    pub program_types: BTreeSet<String>,
    /// Helpers that they may call, out of [`CALLS`].
    pub calls: BTreeSet<String>,
    /// Most maps; always 0 in this version, because what a map holds nobody checks.
    pub maps: u32,
    /// Most instructions, at most [`MAX_INSNS`].
    pub max_insns: u32,
    /// Keys that the file leaves out, so that the values here are defaults.
    pub defaults: BTreeSet<&'static str>,
}

impl Shape {
    /// What a policy without `[[shape]]` allows: the device filters that systemd, runc and
    /// crun write. Refusing them does not protect a host, it switches protection off:
    /// systemd then runs every unit without its device policy.
    pub fn built_in() -> Self {
        Self {
            name: "device filters (built in)".to_owned(),
            line: 0,
            program_types: iter::once("cgroup_device".to_owned()).collect(),
            calls: BTreeSet::new(),
            maps: 0,
            max_insns: MAX_INSNS,
            defaults: ["calls", "maps", "max_insns", "name", "program_types"].into(),
        }
    }
}
