//! What a worker gives up before it reads the first byte that somebody else made.
//!
//! It does so itself, right after `exec`: nothing hostile has been read then, and nothing
//! has to run between `fork` and `exec`. Afterwards it has no privileges, cannot gain any,
//! opens nothing, and can read, write, manage memory and end.
#![expect(unsafe_code, reason = "seccomp and ioctl have no safe wrapper")]

use std::{io, os::fd::AsRawFd as _};

use rustix::{
    event::{EventfdFlags, eventfd},
    process::{Gid, Resource, Rlimit, Uid, getuid, setrlimit},
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Gives up being the daemon, as far as the gate is concerned: whoever starts a worker himself has nothing of it.
pub fn step_down() -> io::Result<()> {
    let any = eventfd(0, EventfdFlags::CLOEXEC)?;
    request(any.as_raw_fd(), STEP_DOWN, 0)
}

/// What a worker says after its answer, which counts for nothing otherwise: [`must_have_answered`].
pub fn answered() -> io::Result<()> {
    request(libc::STDOUT_FILENO, ANSWERED, 0)
}

/// Before the answer of a worker is believed, which has ended and that nobody has waited for: did somebody put
/// breakpoints into it? The kernel writes those into any byte of its code and constants, and no hook refuses them.
pub fn must_have_answered(worker: u32) -> io::Result<()> {
    let any = eventfd(0, EventfdFlags::CLOEXEC)?;
    request(any.as_raw_fd(), WHETHER_ANSWERED, worker.into())
}

/// An error if the gate refuses. Nobody else knows these requests, and without a gate nobody is asked.
fn request(any: i32, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: numbers alone; no kind of descriptor knows these requests.
    if unsafe { libc::ioctl(any, request, argument) } == 0 {
        return Err(io::Error::other("something knows the gate's own requests"));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        _ => Ok(()),
    }
}

// In bpf/shared.h; the gate sees them in its hook before the descriptor's own code does.
const STEP_DOWN: libc::c_ulong = 0x6270_736c;
const ANSWERED: libc::c_ulong = 0x6270_736d;
const WHETHER_ANSWERED: libc::c_ulong = 0x6270_736e;

/// Gives up everything. An error means that the worker must not go on.
pub fn enter() -> io::Result<()> {
    for (resource, limit) in LIMITS {
        setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        )?;
    }
    if getuid().is_root() {
        // "nobody" on Debian and Fedora; it owns no file.
        let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    set_no_new_privs(true)?;
    filter()
}

/// Memory for the largest bundle several times; a minute of processor time, because
/// emulated machines are slow; no new file, no core.
const LIMITS: [(Resource, u64); 4] = [
    (Resource::As, 2 << 30),
    (Resource::Cpu, 60),
    (Resource::Fsize, 0),
    (Resource::Core, 0),
];

/// What a Rust program calls that reads standard input, computes and writes standard output.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mprotect,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// Classic BPF by hand: another architecture's numbers are refused, `mmap` and `mprotect`
/// never make memory executable, everything unlisted kills.
fn filter() -> io::Result<()> {
    let program = program();
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let bpf = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `bpf` points to `length` instructions that live until the call returns; the
    // kernel copies them. no_new_privs is set, so no privilege is needed.
    let code = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0 as libc::c_ulong,
            &raw const bpf,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn program() -> Vec<libc::sock_filter> {
    let mut program = vec![
        load(ARCH_OFFSET),
        jump(EQUAL, ARCH, 1, 0),
        verdict(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_OFFSET),
    ];
    for &number in ALLOWED {
        let number32 = u32::try_from(number).unwrap_or(u32::MAX);
        if [libc::SYS_mmap, libc::SYS_mprotect].contains(&number) {
            // The third argument of both is the protection.
            program.extend([
                jump(EQUAL, number32, 0, 4),
                load(THIRD_ARGUMENT_OFFSET),
                jump(SET, libc::PROT_EXEC.cast_unsigned(), 0, 1),
                verdict(libc::SECCOMP_RET_KILL_PROCESS),
                verdict(libc::SECCOMP_RET_ALLOW),
            ]);
        } else {
            program.extend([
                jump(EQUAL, number32, 0, 1),
                verdict(libc::SECCOMP_RET_ALLOW),
            ]);
        }
    }
    // The second argument is the request.
    program.extend([
        jump(EQUAL, libc::SYS_ioctl as u32, 0, 3),
        load(SECOND_ARGUMENT_OFFSET),
        jump(EQUAL, ANSWERED as u32, 0, 1),
        verdict(libc::SECCOMP_RET_ALLOW),
    ]);
    program.push(verdict(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

const fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: offset,
    } // BPF_LD | BPF_W | BPF_ABS
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

const fn verdict(k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k,
    } // BPF_RET | BPF_K
}

const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
// Offsets in `struct seccomp_data`; the low half of an argument comes first on
// little-endian machines, the only ones with an `ARCH` above.
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const SECOND_ARGUMENT_OFFSET: u32 = 24;
const THIRD_ARGUMENT_OFFSET: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_knows_the_requests_and_without_one_nobody_does() {
        let shared = include_str!("../bpf/shared.h");
        for (name, number) in [
            ("STEP_DOWN", STEP_DOWN),
            ("ANSWERED", ANSWERED),
            ("WHETHER_ANSWERED", WHETHER_ANSWERED),
        ] {
            let line = format!("#define {name} {number:#x}u\n");
            assert!(shared.contains(&line), "{line}");
        }
        step_down().unwrap();
        answered().unwrap();
        must_have_answered(std::process::id()).unwrap();
    }

    #[test]
    fn the_filter_begins_with_the_architecture_and_ends_with_death() {
        let program = program();
        assert_eq!(program[0].k, ARCH_OFFSET);
        let last = program.last().unwrap();
        assert_eq!((last.code, last.k), (0x06, libc::SECCOMP_RET_KILL_PROCESS));
        let forbidden = [
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_execve,
            libc::SYS_ptrace,
        ];
        assert!(forbidden.iter().all(|number| !ALLOWED.contains(number)));
        assert!(program.len() < 4096, "BPF_MAXINSNS");
    }
}
