//! Generators: one program, known by its contents, that makes BPF programs as it goes.
//!
//! Its identity says nothing about its input: `bpftrace -e` is arbitrary BPF. So what it loads
//! is not attested, is a class of its own, and is limited by what stands here.

use std::collections::BTreeSet;

use bundle::Digest;
use serde::Serialize;

/// Helpers that a generator's programs may not call unless the policy lists `forbid_calls`
/// itself: they change other programs' memory or course, or load further programs.
pub const FORBIDDEN: &[&str] = &[
    "bpf_override_return",
    "bpf_probe_write_user",
    "bpf_send_signal",
    "bpf_send_signal_thread",
    "bpf_sys_bpf",
];

/// Kinds of maps that a generator's programs may use unless the policy lists `map_types`
/// itself: storage, and ways out.
pub const MAP_TYPES: &[&str] = &[
    "array",
    "hash",
    "lpm_trie",
    "lru_hash",
    "lru_percpu_hash",
    "percpu_array",
    "percpu_hash",
    "perf_event_array",
    "ringbuf",
    "stack_trace",
];

/// Most maps of one program, unless the policy says otherwise; what the kernel takes.
pub const MAX_MAPS: u32 = 64;

/// Most instructions, unless the policy says otherwise: what unprivileged programs may have.
pub const MAX_INSNS: u32 = 4096;

/// Most instructions that a policy may allow: what the kernel takes.
pub const MOST_INSNS: u32 = 1_000_000;

/// Most generators of a policy.
pub const MOST: usize = 7;

/// Most libraries of one generator.
pub const MOST_LIBRARIES: usize = 128;

/// A file with what it must contain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PinnedFile {
    /// Where it is looked for.
    pub path: String,
    /// SHA-256 of its contents: any of these. Compared where neither of the two below
    /// says what the file is.
    pub sha256: BTreeSet<Digest>,
    /// Its fs-verity digest (SHA-256): any of these. Such a file is checked by the kernel with each
    /// page that it reads.
    pub fsverity: BTreeSet<Digest>,
    /// The root hash (SHA-256) of the dm-verity volume that it is on, below `path`: any of these.
    pub dmverity: BTreeSet<Digest>,
}

/// A program that may load what nobody signed, within limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generator {
    /// Name, unique among generators.
    pub name: String,
    /// Line on which it starts, from 1.
    pub line: usize,
    /// Its executable.
    pub exe: PinnedFile,
    /// Every other file that it may execute code of; none for a static executable.
    pub libraries: Vec<PinnedFile>,
    /// Program types that it may load.
    pub program_types: BTreeSet<String>,
    /// Helpers that its programs may not call; kernel functions they never may.
    pub forbid_calls: BTreeSet<String>,
    /// Kinds of maps that its programs may use.
    pub map_types: BTreeSet<String>,
    /// Most maps of one program.
    pub maps: u32,
    /// Most instructions of one program.
    pub max_insns: u32,
    /// The control group that it must run in, or below; `None`: anywhere.
    pub cgroup: Option<String>,
    /// The user that it must run as; `None`: anybody who may.
    pub uid: Option<u32>,
    /// Does it work only while a permit of the authority says so?
    pub permit: bool,
    /// Keys that the file leaves out, so that the values here are defaults.
    pub defaults: BTreeSet<&'static str>,
}
