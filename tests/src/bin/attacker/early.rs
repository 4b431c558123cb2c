//! Gets hold of the enforcer at the very beginning of its process, and keeps what it got.
//!
//! A tracer sees the first instruction of a program (`PTRACE_O_TRACEEXEC`), from which on its memory can be opened.

#![expect(unsafe_code, reason = "system calls on another process")]

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        fs::FileExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, ExitStatus},
};

/// Starts `command`, opens its memory when it begins, and leaves it alone. Once somebody opens `fifo`, writes into that
/// memory: says how many bytes were written at the beginning, and how many now.
pub fn hold(fifo: &str, command: &[String]) -> io::Result<()> {
    let pid = start(command)?;
    until_it_begins(pid)?;
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let end = stack.and_then(|line| line.split(['-', ' ']).nth(1));
    let end = u64::from_str_radix(end.unwrap_or_default(), 16).map_err(io::Error::other)?;
    let write = || -> io::Result<usize> {
        // The last word of the stack is nothing that anybody reads.
        memory.write_at(&[0; 8], end - 8)
    };
    let first = write()?;
    // SAFETY: PTRACE_DETACH takes no pointers.
    done(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) })?;
    println!("process {pid}: {first} bytes written");
    fs::read(fifo)?;
    match write() {
        Ok(count) => println!("later: {count} bytes written"),
        Err(error) => println!("later: {error}"),
    }
    Ok(())
}

/// Starts `command` and traces it, whatever it executes, until this process is killed or it ends.
pub fn trace(command: &[String]) -> io::Result<()> {
    let pid = start(command)?;
    println!("process {pid}");
    loop {
        let (_, status) = wait(pid)?;
        let Some(signal) = status.stopped_signal() else {
            return Ok(());
        };
        // What stops it for the tracer's sake is no signal.
        let passed = if signal == libc::SIGTRAP || signal == libc::SIGSTOP {
            0
        } else {
            signal
        };
        // SAFETY: PTRACE_CONT takes no pointers.
        done(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, passed) })?;
    }
}

/// Traced from before it executes anything.
fn start(words: &[String]) -> io::Result<i32> {
    let (program, words) = words
        .split_first()
        .ok_or_else(|| io::Error::other("no command"))?;
    let mut command = Command::new(OsStr::new(program));
    command.args(words);
    // SAFETY: between fork and exec it makes one system call.
    unsafe {
        command.pre_exec(|| done(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)));
    }
    let child = command.spawn()?;
    Ok(child.id().cast_signed())
}

/// Whoever asked to be traced stops at the first instruction of what it executes.
fn until_it_begins(pid: i32) -> io::Result<()> {
    match wait(pid)?.1.stopped_signal() {
        Some(libc::SIGTRAP) => Ok(()),
        other => Err(io::Error::other(format!("stopped by {other:?}"))),
    }
}

fn wait(pid: i32) -> io::Result<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: the kernel writes one number.
    let found = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    done(found.into())?;
    Ok((found, ExitStatus::from_raw(status)))
}

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
