//! Programs that may answer at a hook before the gate is asked.
//!
//! Programs that change what a function returns (`BPF_MODIFY_RETURN`), and LSM programs, run one after another until
//! one returns something else than 0; the others are left out then. Most callers take any such answer for a
//! refusal. Those of three hooks take a positive one for none (`bpf_prog_new_fd()`, `bpf_map_new_fd()` and
//! `__sys_bpf()` of kernel/bpf/syscall.c), so whoever came before the gate can have it left out. Since 6.12 the
//! verifier lets no LSM program return such a number, but those of control groups (commit 5d99e198be27).
#![expect(
    unsafe_code,
    reason = "libbpf-rs iterates programs and does not say why it ends"
)]

use std::{
    collections::{BTreeMap, HashSet},
    io, iter,
    os::fd::AsFd as _,
    sync::OnceLock,
};

use libbpf_rs::{
    Error, ErrorKind, ProgramHandle, ProgramType,
    btf::{Btf, types::Func},
    libbpf_sys::{self, bpf_prog_info},
    query::ProgramInfo,
};

use crate::measure::object_info;

/// Hooks whose callers take a positive answer for none.
const HOOKS: [&str; 3] = ["bpf", "bpf_map", "bpf_prog"];
/// How the function of a hook is called: for programs that change what it returns, and for LSM programs.
const PREFIXES: [&str; 2] = ["security_", "bpf_lsm_"];

/// The hook at which a program of these kinds may answer before the gate. A program that is gone answers nowhere.
pub fn answered_by(program: &ProgramInfo) -> Option<String> {
    if !matches!(program.ty, ProgramType::Lsm | ProgramType::Tracing) {
        return None;
    }
    let functions = match functions() {
        Ok(functions) => functions,
        Err(error) => return Some(format!("a hook that cannot be named ({error})")),
    };
    match function_of(program.id) {
        Ok(function) => functions.get(&function).cloned(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("a hook that cannot be seen ({error})")),
    }
}

/// Programs that are not among these, and that the kernel does not show; and why: somebody's program may refuse them.
pub fn hidden(shown: &HashSet<u32>) -> Vec<(u32, Error)> {
    let all = iter::successors(next_program(0).ok(), |&id| next_program(id).ok());
    all.filter(|id| !shown.contains(id))
        .filter_map(|id| match ProgramHandle::from_prog_id(id) {
            Err(error) if error.kind() != ErrorKind::NotFound => Some((id, error)),
            // It came since, or is gone.
            _ => None,
        })
        .collect()
}

/// The kernel's id of the program after that one.
///
/// # Errors
///
/// `NotFound`: there is none.
pub fn next_program(after: u32) -> io::Result<u32> {
    let mut next = 0;
    // SAFETY: takes a number and where to put the next one.
    match unsafe { libbpf_sys::bpf_prog_get_next_id(after, &raw mut next) } {
        0 => Ok(next),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Names by their numbers in the running kernel's types, which are read when the first program asks.
fn functions() -> io::Result<&'static BTreeMap<u32, String>> {
    static FUNCTIONS: OnceLock<BTreeMap<u32, String>> = OnceLock::new();
    if let Some(known) = FUNCTIONS.get() {
        return Ok(known);
    }
    let btf = Btf::from_vmlinux().map_err(io::Error::other)?;
    let names = PREFIXES
        .iter()
        .flat_map(|prefix| HOOKS.map(|hook| format!("{prefix}{hook}")));
    let found = names.filter_map(|name| {
        let function = btf.type_by_name::<Func<'_>>(&name)?;
        Some((function.type_id().into(), name))
    });
    Ok(FUNCTIONS.get_or_init(|| found.collect()))
}

/// Number of the function that a program was loaded for, in the kernel's types or in those of a program or module;
/// 0: for none.
fn function_of(program: u32) -> libbpf_rs::Result<u32> {
    let program = ProgramHandle::from_prog_id(program)?;
    Ok(object_info::<bpf_prog_info>(program.as_fd())?.attach_btf_id)
}
