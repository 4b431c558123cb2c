//! Programs that may answer at a hook before the gate is asked.
//!
//! Programs that change what a function returns (`BPF_MODIFY_RETURN`), and LSM programs, run one after another until
//! one returns something else than 0; the others are left out then. Most callers take any such answer for a
//! refusal. Those of three hooks take a positive one for none (`bpf_prog_new_fd()`, `bpf_map_new_fd()` and
//! `__sys_bpf()` of kernel/bpf/syscall.c), so whoever came before the gate can have it left out. Since 6.12 the
//! verifier lets no LSM program return such a number, but those of control groups (commit 5d99e198be27).
#![expect(
    unsafe_code,
    reason = "libbpf-rs does not say which function a program is for"
)]

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    sync::OnceLock,
};

use libbpf_rs::{
    ProgramType,
    btf::{Btf, types::Func},
    libbpf_sys::{self, bpf_prog_info},
    query::ProgramInfo,
};

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
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("a hook that cannot be seen ({error})")),
    }
}

/// Programs that are not among these, and that the kernel does not show; and why: somebody's program may refuse them.
pub fn hidden(shown: &HashSet<u32>) -> Vec<(u32, io::Error)> {
    let mut hidden = Vec::new();
    let mut id = 0;
    // SAFETY: takes a number and where to put the next one.
    while unsafe { libbpf_sys::bpf_prog_get_next_id(id, &raw mut id) } == 0 {
        if shown.contains(&id) {
            continue;
        }
        match opened(id) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => hidden.push((id, error)),
            // It came since, or is gone.
            _ => {}
        }
    }
    hidden
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
fn function_of(program: u32) -> io::Result<u32> {
    let fd = opened(program)?;
    let mut info = bpf_prog_info::default();
    let mut size = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `size` bytes, all of which are plain numbers; no pointer is set.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            fd.as_raw_fd(),
            ptr::from_mut(&mut info).cast(),
            &raw mut size,
        )
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(info.attach_btf_id)
}

fn opened(program: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes a number; what it returns is a new descriptor or negative.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(program) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
