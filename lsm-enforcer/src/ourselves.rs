//! This same executable, started again.

#![expect(unsafe_code, reason = "executes a descriptor between fork and exec")]

use std::{
    ffi::{CString, OsStr, c_char},
    fs::File,
    io, iter,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    process::Command,
    ptr,
    sync::{Mutex, PoisonError},
};

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, Rlimit, setrlimit},
};

use crate::kernel;

/// Inode and device of a file.
pub(crate) type Identity = (u64, u32);

/// Which files the gate obeys, if this process has opened one: two in the middle of an upgrade.
static OBEYED: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// The gate that this process opened obeys these files.
pub(crate) fn obeyed(files: Vec<Identity>) {
    *OBEYED.lock().unwrap_or_else(PoisonError::into_inner) = files;
}

/// Without a gate any file will do.
fn must_be_obeyed(file: Identity, obeyed: &[Identity]) -> io::Result<()> {
    match obeyed.is_empty() || obeyed.contains(&file) {
        true => Ok(()),
        false => Err(io::Error::other(
            "/proc/self/exe is not the file that the gate obeys: somebody mounted something over it",
        )),
    }
}

/// A command that runs this executable with these words and no environment.
///
/// The path says nothing: somebody may have mounted over `/proc`. So the file is opened, and where a gate is
/// armed it must be the one that the gate obeys; then the descriptor is executed, not a path.
///
/// # Errors
///
/// It is another file, or cannot be opened.
pub fn again<W: AsRef<OsStr>>(words: &[W]) -> io::Result<Command> {
    let file = File::open("/proc/self/exe")?;
    let found = kernel::identity(&file.metadata()?);
    let obeyed = OBEYED.lock().unwrap_or_else(PoisonError::into_inner);
    must_be_obeyed(found, &obeyed)?;
    let words: Vec<CString> = iter::once(OsStr::new("bpfseal-enforcer"))
        .chain(words.iter().map(AsRef::as_ref))
        .map(|word| CString::new(word.as_bytes()).map_err(io::Error::other))
        .collect::<io::Result<_>>()?;
    let mut command = Command::new("/proc/self/exe");
    command.env_clear();
    let execute = move || {
        let mut arguments: [*const c_char; MOST] = [ptr::null(); MOST];
        for (place, word) in arguments[..MOST - 1].iter_mut().zip(&words) {
            *place = word.as_ptr();
        }
        let environment: [*const c_char; 1] = [ptr::null()];
        // SAFETY: both lists end with NULL, and what they point to lives in this closure.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and exec it makes a list on its stack and one system call.
    unsafe { command.pre_exec(execute) };
    Ok(command)
}

/// Keeps this process's memory off swap devices: whoever has made one reads and writes there what he likes. Pages are
/// kept when they are first used.
///
/// # Errors
///
/// Those of `setrlimit` and `mlockall`.
pub(crate) fn stay_in_memory() -> io::Result<()> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Memlock, unlimited)?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(())
}

/// Words of a command, with its name and the end of the list.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_gate_is_armed_only_its_files_are_a_part_of_us() {
        let (one, next, evil) = ((7, 1), (8, 1), (7, 2));
        for (file, obeyed, want) in [
            (evil, &[][..], true),
            (one, &[one], true),
            // Whoever died in the middle of an upgrade leaves either of them.
            (next, &[one, next], true),
            (evil, &[one, next], false),
        ] {
            assert_eq!(must_be_obeyed(file, obeyed).is_ok(), want, "{file:?}");
        }
    }

    #[test]
    fn it_runs_this_very_file() {
        let output = again(&["--list"]).unwrap().output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("ourselves::tests::it_runs_this_very_file: test"),
            "{text}"
        );
    }
}
