//! BPF tokens (6.9 and later): root lets a user namespace load programs by a BPF file system that it
//! delegates. What is loaded so is judged like all else, and a load that names a token is refused.
#![expect(unsafe_code, reason = "processes and mounts by system calls")]

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use enforcer::{
    gate::{Gate, GateError},
    kernel::BpfGate,
};
use libbpf_rs::btf::{Btf, types::Struct};
use policy::Reason;

use super::{EXIT, Load, PROG_LOAD, arm, bpf::Attr, check, drain, r0, simple};

const TOKEN_CREATE: u32 = 36;
const CGROUP_SKB: u32 = 8;
/// `BPF_F_TOKEN_FD`.
const TOKEN_FD: u32 = 1 << 16;

const SET_STRING: libc::c_long = 1;
const CREATE: libc::c_long = 6;

/// A system call that ends with 0 or a number; and what it said.
fn call(number: libc::c_long, arguments: [libc::c_long; 5]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: every caller passes what this call takes, and keeps what it points to.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        result if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A program of a type that an unprivileged user must not load.
fn packets() -> Load {
    Load {
        attach_type: 1, // egress
        ..Load::new("packets", CGROUP_SKB, &[r0(0x777), r0(1), EXIT])
    }
}

fn load_with(load: &Load, token: &OwnedFd) -> io::Result<OwnedFd> {
    Attr::new()
        .u32(0, load.prog_type)
        .u32(4, load.words.len() as u32)
        .u64(8, load.words.as_ptr() as u64)
        .u64(16, c"GPL".as_ptr() as u64)
        .u32(44, TOKEN_FD)
        .bytes(48, load.name.as_bytes())
        .u32(68, load.attach_type)
        .u32(144, token.as_raw_fd() as u32)
        .open(PROG_LOAD)
}

/// In a user namespace of its own: makes a token out of what the parent delegates, and loads. The
/// two share their descriptors; each waits for the other on a pipe.
fn as_somebody(load: &Load, [told, tell]: [i32; 2], shared: *mut [i32; 2]) -> io::Result<()> {
    call(
        libc::SYS_unshare,
        [
            // A mount namespace of its own, because fsopen(2) asks who owns it.
            libc::c_long::from(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET),
            0,
            0,
            0,
            0,
        ],
    )?;
    let name = c"bpf".as_ptr();
    let context = call(libc::SYS_fsopen, [name as libc::c_long, 0, 0, 0, 0])?;
    // SAFETY: the memory is shared with the parent, which reads it when it is told.
    unsafe { (*shared)[0] = context as i32 };
    say(tell)?;
    hear(told)?;
    // SAFETY: as above, the other way round.
    let mount = unsafe { (*shared)[1] };
    // SAFETY: the path is a literal; the result is new and nobody's.
    let root = unsafe {
        match libc::openat(mount, c".".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY) {
            fd if fd >= 0 => OwnedFd::from_raw_fd(fd),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    let token = Attr::new()
        .u32(4, root.as_raw_fd() as u32)
        .open(TOKEN_CREATE)?;
    load_with(load, &token).map(drop)
}

fn say(pipe: i32) -> io::Result<()> {
    // SAFETY: one byte that lives.
    match unsafe { libc::write(pipe, c"x".as_ptr().cast(), 1) } {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn hear(pipe: i32) -> io::Result<()> {
    let mut byte = 0u8;
    // SAFETY: one byte that lives.
    match unsafe { libc::read(pipe, (&raw mut byte).cast(), 1) } {
        1 => Ok(()),
        _ => Err(io::Error::other("the other process ended")),
    }
}

fn pipe() -> io::Result<[i32; 2]> {
    let mut ends = [0; 2];
    // SAFETY: two numbers are written.
    match unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } {
        0 => Ok(ends),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Delegates everything to the child's user namespace: what root may do.
fn delegate(child: i32, context: i32) -> io::Result<i32> {
    fs::write(format!("/proc/{child}/uid_map"), "0 0 1")?;
    let context = libc::c_long::from(context);
    for key in [
        c"delegate_cmds",
        c"delegate_maps",
        c"delegate_progs",
        c"delegate_attachs",
    ] {
        let (key, any) = (key.as_ptr(), c"any".as_ptr());
        let arguments = [
            context,
            SET_STRING,
            key as libc::c_long,
            any as libc::c_long,
            0,
        ];
        call(libc::SYS_fsconfig, arguments)?;
    }
    call(libc::SYS_fsconfig, [context, CREATE, 0, 0, 0])?;
    call(libc::SYS_fsmount, [context, 0, 0, 0, 0]).map(|fd| fd as i32)
}

/// Loads a program by a token; the error is the child's.
fn by_token(load: &Load) -> io::Result<()> {
    let (to_child, to_parent) = (pipe()?, pipe()?);
    // SAFETY: anonymous memory that both processes share; it is given back with the process.
    let shared = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if shared == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let shared = shared.cast::<[i32; 2]>();
    // A process of its own with this one's descriptors.
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    let child = call(libc::SYS_clone, [flags, 0, 0, 0, 0])? as i32;
    if child == 0 {
        let result = as_somebody(load, [to_child[0], to_parent[1]], shared);
        let code = result.map_or_else(|error| error.raw_os_error().unwrap_or(255), |()| 0);
        // A parent that still waits hears of the end.
        let _nobody_listens = say(to_parent[1]);
        // SAFETY: ends the child without the parent's destructors.
        unsafe { libc::_exit(code) };
    }
    hear(to_parent[0])?;
    // SAFETY: the child wrote before it said so.
    let context = unsafe { (*shared)[0] };
    let delegated = match context {
        0 => Err(io::Error::other("the child has no user namespace")),
        context => delegate(child, context),
    };
    if let Ok(mount) = delegated {
        // SAFETY: the child reads after it was told.
        unsafe { (*shared)[1] = mount };
    }
    say(to_child[1])?;
    let mut status = 0;
    // SAFETY: one number is written.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    let ends = to_child.into_iter().chain(to_parent).chain([context]);
    for fd in ends.filter(|fd| *fd > 0) {
        // SAFETY: nobody uses them any more.
        unsafe { libc::close(fd) };
    }
    let code = libc::WEXITSTATUS(status);
    match delegated {
        // SAFETY: as above.
        Ok(mount) => drop(unsafe { OwnedFd::from_raw_fd(mount) }),
        Err(error) if code == 0 || context > 0 => return Err(error),
        Err(_) => {}
    }
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

pub fn run() -> Result<bool, GateError> {
    let has_tokens =
        Btf::from_vmlinux().is_ok_and(|btf| btf.type_by_name::<Struct<'_>>("bpf_token").is_some());
    if !has_tokens {
        return Ok(check("before 6.9 there are no tokens", Ok(String::new())));
    }
    let said = |result: io::Result<()>| match result {
        Ok(()) => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    };
    let mut fine = check(
        "an unsigned program by a token loads without a gate",
        said(by_token(&packets())),
    );
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    for (what, load) in [
        ("an unsigned program by a token", packets()),
        ("an admitted program by a token", simple()),
    ] {
        drain(&mut gate);
        let result = by_token(&load);
        let reason = drain(&mut gate)
            .into_iter()
            .find(|event| event.refused)
            .and_then(|event| event.reason);
        fine &= check(
            &format!("{what} is refused"),
            match (&result, reason) {
                (Err(error), Some(Reason::LoadFlags))
                    if error.raw_os_error() == Some(libc::EPERM) =>
                {
                    Ok(error.to_string())
                }
                _ => Err(format!("{result:?}, event {reason:?}")),
            },
        );
    }
    gate.disarm()?;
    Ok(fine)
}
