//! A process that keeps descriptors of links until it is killed, so that nobody else lets go of them.
//!
//! When the last descriptor or pin of a link goes, the kernel takes its program off the hook. It allocates memory for
//! that, which can fail for a task that has SIGKILL pending (mm/percpu.c, `pcpu_alloc()`: `mutex_lock_killable()`),
//! and then warns (kernel/bpf/syscall.c, `bpf_tracing_link_release()`) and frees the program while the hook still
//! calls it. Since Linux 6.5 a worker of the kernel's does this for pins (commit ab5d47bd41b1), before that whoever
//! removes them. A task that was killed by then is safe: it has taken the signal, and the kernel drops further ones
//! (kernel/signal.c, `prepare_signal()`).

#![expect(
    unsafe_code,
    reason = "a child that executes nothing and keeps some descriptors"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};

/// Ends that process when it is dropped, and waits for its end.
pub struct Keeper(Pid);

impl Keeper {
    /// Starts one that has these descriptors of all that this process has. It ends with this thread at the latest.
    ///
    /// # Errors
    ///
    /// Those of `fork`.
    pub fn of<F: AsFd>(kept: &[F]) -> io::Result<Self> {
        let mut kept: Vec<u32> = kept
            .iter()
            .map(|kept| kept.as_fd().as_raw_fd().cast_unsigned())
            .collect();
        kept.sort_unstable();
        let parent = std::process::id().cast_signed();
        // SAFETY: the child reads what was there before, makes system calls, and never returns.
        match unsafe { libc::fork() } {
            0 => keep(&kept, parent),
            child => Pid::from_raw(child.max(0))
                .map(Self)
                .ok_or_else(io::Error::last_os_error),
        }
    }
}

fn keep(kept: &[u32], parent: i32) -> ! {
    let mut first = 0;
    // SAFETY: these system calls take no pointers, and nobody uses a descriptor that they close.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        for &fd in kept {
            if fd > first {
                libc::syscall(libc::SYS_close_range, first, fd - 1, 0);
            }
            first = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
        // It may have ended before the signal was asked for.
        while libc::getppid() == parent {
            libc::pause();
        }
        libc::_exit(0)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _it_may_have_been_killed = kill_process(self.0, Signal::KILL);
        let _nobody_else_waits = retry_on_intr(|| waitpid(Some(self.0), WaitOptions::empty()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _, pipe};

    use rustix::io::{Errno, ioctl_fionbio};

    use super::*;

    fn has_ended(mut reader: &PipeReader) -> bool {
        ioctl_fionbio(reader, true).unwrap();
        match reader.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_keeps_these_descriptors_and_no_others() {
        let [(one, kept), (mut other, not_kept), (two, also_kept)] =
            [(); 3].map(|()| pipe().unwrap());
        let keeper = Keeper::of(&[&also_kept, &kept]).unwrap();
        drop((kept, not_kept, also_kept));
        // Comes to its end when the child has closed it.
        assert_eq!(other.read(&mut [0]).unwrap(), 0);
        assert!(!has_ended(&one) && !has_ended(&two));
        drop(keeper);
        assert!(has_ended(&one) && has_ended(&two));
    }
}
