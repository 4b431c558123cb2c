//! BPF objects compiled from `tests/fixtures/bpf` when this crate was built.

use std::path::{Path, PathBuf};

/// Every fixture's name, without `.bpf.o`, sorted.
pub const NAMES: &[&str] = &[
    "allow_device",
    "call_module",
    "classify",
    "congest",
    "count_exec",
    "dispatch",
    "divert",
    "drop_port",
    "hide_itself",
    "hold_back",
    "keep_out",
    "nested",
    "order",
    "pass_all",
    "refuse_ptrace",
    "replace_slot",
    "tamper_exec",
    "tamper_nested",
    "throw_error",
    "trace_many",
    "trace_module",
    "trace_unlink",
    "universal_loader",
    "watch_open",
];

/// The folder that has them.
pub fn folder() -> &'static Path {
    Path::new(env!("BPFSEAL_FIXTURES"))
}

/// Where a fixture's object file is, or would be if there were one of that name.
pub fn object(name: &str) -> PathBuf {
    folder().join(format!("{name}.bpf.o"))
}
