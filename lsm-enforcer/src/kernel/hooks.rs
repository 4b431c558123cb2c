//! Programs that may answer at a hook before the gate is asked.
//!
//! Programs that change what a function returns (`BPF_MODIFY_RETURN`), and LSM programs, run one after another until
//! one returns something else than 0; the others are left out then. Most callers take any such answer for a refusal,
//! and a function that returns nothing is left out whatever they answer. Those of some hooks take a positive one for
//! none (`bpf_prog_new_fd()`, `bpf_map_new_fd()` and `__sys_bpf()` of kernel/bpf/syscall.c), so whoever came before the
//! gate can have it left out. Since 6.12 the verifier lets no LSM program return such a number, but those of control
//! groups (commit 5d99e198be27).
#![expect(
    unsafe_code,
    reason = "libbpf-rs iterates programs and does not say why it ends"
)]

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::fd::AsFd as _,
    sync::OnceLock,
};

use libbpf_rs::{
    ErrorKind, ProgramHandle, ProgramType,
    btf::{Btf, types::Func},
    libbpf_sys::{self, bpf_prog_info},
    query::ProgramInfo,
};

use crate::measure::object_info;

/// Hooks whose callers take a positive answer for none: the last but one in `readv()`, `writev()`, `sendfile()` and
/// `splice()`, the last one in `kexec_load()`.
const HOOKS: [&str; 5] = [
    "bpf",
    "bpf_map",
    "bpf_prog",
    "file_permission",
    "kernel_load_data",
];
/// How the function of a hook is called: for programs that change what it returns, and for LSM programs.
const PREFIXES: [&str; 2] = ["security_", "bpf_lsm_"];
/// Functions that ask hooks by which the gate learns what happened, and that return nothing: who changes what they
/// return has them left out. And bpf() itself, where the kernel lets programs answer for system calls
/// (`CONFIG_FUNCTION_ERROR_INJECTION`).
const OTHERS: [&str; 7] = [
    "security_bpf_prog_free",
    "security_bprm_committed_creds",
    "security_inode_free",
    "security_task_free",
    "__x64_sys_bpf",
    "__ia32_sys_bpf",
    "__arm64_sys_bpf",
];

/// So often a program is asked for that is not shown.
const TRIES: u32 = 100;

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

/// Programs that are not among those `shown`, and that the kernel hides; and why: somebody's program may have it do so.
/// The gate's own, `attached`, are there.
pub fn hidden(shown: &HashSet<u32>, attached: &[u32]) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    // Those that came since have higher numbers.
    let last = shown.iter().chain(attached).max().copied().unwrap_or(0);
    let mut before = 0;
    loop {
        let id = match next_program(before) {
            Ok(id) => id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => {
                found.push((before + 1, error.to_string()));
                break;
            }
        };
        if !shown.contains(&id) {
            let why = match why_hidden(id) {
                None if id <= last => Some("it was not listed".to_owned()),
                why => why,
            };
            found.extend(why.filter(|_| is_listed(id)).map(|why| (id, why)));
        }
        before = id;
    }
    // The kernel, or somebody, ended the list too early.
    let ended = attached.iter().filter(|id| !shown.contains(id));
    found.extend(ended.map(|&id| (id, "the list of programs ends before it".to_owned())));
    found
}

/// What the kernel says instead of showing it. One that is refused at this moment is on the list until it is freed.
fn why_hidden(id: u32) -> Option<String> {
    let mut why = None;
    for _ in 0..TRIES {
        why = ProgramHandle::from_prog_id(id).err();
        if why.is_none() || !is_listed(id) {
            return None;
        }
    }
    why.map(|error| error.to_string())
}

fn is_listed(id: u32) -> bool {
    next_program(id - 1).ok() == Some(id)
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
        .flat_map(|prefix| HOOKS.map(|hook| format!("{prefix}{hook}")))
        .chain(OTHERS.map(str::to_owned));
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
