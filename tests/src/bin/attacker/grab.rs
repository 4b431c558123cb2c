//! Takes what a process holds: its descriptors, its memory, its control. From any process but the
//! daemon that works for root; and what the gate's pinned links are good for.

#![expect(unsafe_code, reason = "system calls on another process")]

use std::{
    fs::{self, File},
    io,
};

use super::{Attr, OBJ_GET, PINS, check, evil, must_refuse};

// enum bpf_cmd
const PROG_DETACH: u32 = 9;
const LINK_UPDATE: u32 = 29;
const LINK_DETACH: u32 = 34;
/// Descriptors that are tried.
const MOST_FDS: i32 = 64;

type Attempt = (&'static str, fn(i32) -> io::Result<()>);

const ATTEMPTS: &[Attempt] = &[
    ("a descriptor is taken by pidfd_getfd", take_a_descriptor),
    ("memory is opened", |pid| {
        File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map(drop)
    }),
    ("memory is read by process_vm_readv", read_memory),
    ("it is traced", |pid| {
        // SAFETY: PTRACE_SEIZE and PTRACE_INTERRUPT take no pointers; the kernel detaches when this process ends.
        ended(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })
    }),
];

fn ended(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Any of them.
fn take_a_descriptor(pid: i32) -> io::Result<()> {
    // SAFETY: numbers alone.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    ended(pidfd)?;
    let mut last = io::Error::from_raw_os_error(libc::EBADF);
    for fd in 0..MOST_FDS {
        // SAFETY: numbers alone; what it returns stays open until this process ends.
        let taken = ended(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, fd, 0) });
        match taken {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The first bytes of its program.
fn read_memory(pid: i32) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = maps.split('-').next().unwrap_or_default();
    let address = usize::from_str_radix(start, 16).map_err(io::Error::other)?;
    let mut bytes = [0u8; 4];
    let here = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let there = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel writes at most four bytes to `bytes`.
    let read = unsafe { libc::process_vm_readv(pid, &here, 1, &there, 1, 0) };
    ended(read as libc::c_long)
}

fn is_denied(result: &io::Result<()>) -> bool {
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(errno, Some(libc::EPERM | libc::EACCES))
}

/// `guarded`: it is the daemon.
pub fn run(pid: i32, guarded: bool) -> bool {
    try_all(ATTEMPTS, pid, guarded)
}

/// Somebody of the daemon's who is about to execute a file: whoever traces him waits until he has.
pub fn before_it_runs(pid: i32) -> bool {
    try_all(&ATTEMPTS[..ATTEMPTS.len() - 1], pid, true)
}

fn try_all(attempts: &[Attempt], pid: i32, guarded: bool) -> bool {
    let mut fine = true;
    let whose = if guarded { "the daemon" } else { "anybody" };
    for (what, attempt) in attempts {
        let result = attempt(pid);
        let as_expected = match guarded {
            true => is_denied(&result),
            false => result.is_ok(),
        };
        let text = format!("{result:?}");
        let name = match guarded {
            true => format!("{whose}: not so that {what}"),
            false => format!("{whose}: {what}"),
        };
        fine &= check(&name, if as_expected { Ok(text) } else { Err(text) });
    }
    fine
}

/// Links: whoever has one can neither detach it nor put another program in.
pub fn links() -> bool {
    let mut fine = true;
    let mut tried = 0;
    for entry in fs::read_dir(PINS).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("link_") {
            continue;
        }
        let path = format!("{PINS}/{name}\0");
        let Ok(link) = Attr::new().u64(0, path.as_ptr() as u64).call(OBJ_GET) else {
            tried += 1;
            continue;
        };
        let fd = link as u32;
        let attempts = [
            Attr::new().u32(0, fd).call(LINK_DETACH),
            Attr::new().u32(0, fd).u32(4, fd).call(LINK_UPDATE),
            Attr::new().u32(0, fd).u32(4, fd).call(PROG_DETACH),
        ];
        if attempts.iter().any(Result::is_ok) {
            fine &= check(&name, Err(format!("{attempts:?}")));
        }
        tried += 1;
    }
    fine &= check(
        "pinned links are neither detached nor updated",
        match tried {
            0 => Err("no links".into()),
            n => Ok(format!("{n} links")),
        },
    );
    fine & check("after that the gate refuses", must_refuse(&evil()))
}
