//! Gets at a generator's process from outside, then lets it load: whatever a tracer could have
//! written into it, its programs are nobody's.

#![expect(unsafe_code, reason = "system calls on another process")]

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use super::check;

/// What is done to the process while it waits.
type Way = (&'static str, fn(i32) -> io::Result<()>);

const WAYS: &[Way] = &[
    ("attached to and left again", |pid| {
        // SAFETY: PTRACE_SEIZE and PTRACE_DETACH take no pointers here.
        number(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })?;
        // SAFETY: as above.
        number(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) })?;
        // SAFETY: waits for our own child; no status is asked for.
        number(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) }.into())?;
        // SAFETY: as above.
        number(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) })
    }),
    ("whose memory was opened", |pid| {
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        drop(memory);
        Ok(())
    }),
    ("whose memory was written", |pid| {
        let start = first_address(pid)?;
        let mut byte = [0u8; 1];
        let ours = libc::iovec {
            iov_base: byte.as_mut_ptr().cast(),
            iov_len: 1,
        };
        let theirs = libc::iovec {
            iov_base: start as *mut libc::c_void,
            iov_len: 1,
        };
        // SAFETY: one byte of ours; the kernel checks the other process' address. The first
        // page is not writable, so that EFAULT is the answer, after the right was checked.
        let done = unsafe { libc::process_vm_writev(pid, &ours, 1, &theirs, 1, 0) };
        match done {
            -1 if io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT) => {
                Err(io::Error::last_os_error())
            }
            _ => Ok(()),
        }
    }),
    ("whose descriptor was taken", |pid| {
        // SAFETY: numbers only.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        number(process)?;
        // SAFETY: numbers only.
        number(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, 0, 0) })
    }),
];

fn number(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn first_address(pid: i32) -> io::Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let start = maps.split('-').next().unwrap_or_default();
    usize::from_str_radix(start, 16).map_err(io::Error::other)
}

fn start(path: &str, traced: bool) -> io::Result<Child> {
    let mut command = Command::new(path);
    command
        .arg("wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if traced {
        // SAFETY: between fork and exec, one system call.
        unsafe {
            command.pre_exec(|| number(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)));
        }
    }
    command.spawn()
}

/// Lets it go on and returns what it says.
fn finish(child: &mut Child) -> io::Result<String> {
    child.stdin.take().map(|mut input| input.write_all(b"x"));
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    child.wait()?;
    Ok(said.trim().to_owned())
}

pub fn run(path: &str) -> bool {
    let mut fine = check(
        "a generator that nobody touches loads",
        expect(
            start(path, false).and_then(|mut child| finish(&mut child)),
            "loaded",
        ),
    );
    for (what, way) in WAYS {
        let said = start(path, false).and_then(|mut child| {
            // It is there once it reads; its executable is then the generator's.
            while !fs::read_to_string(format!("/proc/{}/syscall", child.id()))?.starts_with("0 ") {
                std::thread::yield_now();
            }
            way(child.id() as i32)?;
            finish(&mut child)
        });
        fine &= check(
            &format!("a generator {what} loads nothing"),
            expect(said, "errno 1"),
        );
    }
    let traced = start(path, true).and_then(|mut child| {
        let pid = child.id() as i32;
        // SAFETY: waits for our own child, which stops at exec; no status is asked for.
        number(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) }.into())?;
        // SAFETY: no pointers.
        number(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) })?;
        finish(&mut child)
    });
    fine & check(
        "a generator that was started under a tracer loads nothing",
        expect(traced, "errno 1"),
    )
}

fn expect(said: io::Result<String>, want: &str) -> Result<String, String> {
    match said {
        Ok(said) if said == want => Ok(said),
        other => Err(format!("{other:?}")),
    }
}
