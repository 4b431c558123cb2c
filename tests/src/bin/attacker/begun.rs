//! A load that began before the gate was armed, and that its caller's memory lets end afterwards: the kernel writes
//! the verifier's log into a page that is not there until somebody says so (userfaultfd).
#![expect(unsafe_code, reason = "userfaultfd has no wrapper")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr, thread,
};

use enforcer::{
    gate::{Gate as _, GateError},
    kernel::BpfGate,
};

use super::{Attr, PROG_LOAD, SOCKET_FILTER, arm, check, evil};

const PAGE: usize = 4096;
// include/uapi/linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const REGISTER_MODE_MISSING: u64 = 1;

/// A page that is missing until it is given.
struct Missing {
    faults: OwnedFd,
    page: usize,
}

impl Missing {
    fn new() -> io::Result<Self> {
        // SAFETY: a new mapping; a call that takes a flag and gives a descriptor of nobody else's.
        let (page, faults) = unsafe {
            let page = libc::mmap(
                ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            let faults = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            if page == libc::MAP_FAILED || faults < 0 {
                return Err(io::Error::last_os_error());
            }
            (page.addr(), OwnedFd::from_raw_fd(faults as i32))
        };
        let missing = Self { faults, page };
        missing.ask(UFFDIO_API, [UFFD_API, 0, 0, 0])?;
        let register = [page as u64, PAGE as u64, REGISTER_MODE_MISSING, 0];
        missing.ask(UFFDIO_REGISTER, register)?;
        Ok(missing)
    }

    fn ask(&self, request: libc::c_ulong, mut argument: [u64; 4]) -> io::Result<()> {
        // SAFETY: each of the three requests reads and writes at most these 32 bytes.
        match unsafe { libc::ioctl(self.faults.as_raw_fd(), request, argument.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until somebody needs it.
    fn is_missed(&self) -> io::Result<()> {
        let mut message = [0u8; 32];
        rustix::io::read(&self.faults, &mut message)?;
        Ok(())
    }

    fn give(&self) -> io::Result<()> {
        self.ask(UFFDIO_ZEROPAGE, [self.page as u64, PAGE as u64, 0, 0])
    }
}

/// Loads an unsigned program; `meanwhile` runs while the verifier waits for its log.
fn load_slowly<T>(meanwhile: impl FnOnce() -> T) -> io::Result<(io::Result<OwnedFd>, T)> {
    let missing = Missing::new()?;
    let words = evil().words;
    thread::scope(|scope| {
        let loader = scope.spawn(|| {
            Attr::new()
                .u32(0, SOCKET_FILTER)
                .u32(4, words.len() as u32)
                .u64(8, words.as_ptr() as u64)
                .u64(16, c"GPL".as_ptr() as u64)
                .u32(24, 1)
                .u32(28, PAGE as u32)
                .u64(32, missing.page as u64)
                .open(PROG_LOAD)
        });
        missing.is_missed()?;
        let done = meanwhile();
        missing.give()?;
        Ok((loader.join().expect("a thread that only loads"), done))
    })
}

pub fn run() -> Result<bool, GateError> {
    let mut fine = check(
        "without a gate a load waits and is done",
        match load_slowly(|| ()) {
            Ok((Ok(_), ())) => Ok(String::new()),
            other => Err(format!("{other:?}")),
        },
    );
    let mut gate = BpfGate::open()?;
    let slow = load_slowly(|| arm(&mut gate));
    fine &= check(
        "what began before arming and ends after it is refused",
        match slow {
            Ok((Err(error), Ok(()))) if error.raw_os_error() == Some(libc::EPERM) => {
                Ok(error.to_string())
            }
            other => Err(format!("{other:?}")),
        },
    );
    gate.disarm()?;
    Ok(fine)
}
