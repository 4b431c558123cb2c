//! This same executable, started again.

#![expect(unsafe_code, reason = "executes a descriptor between fork and exec")]

use std::{
    ffi::{CString, c_char},
    fs::File,
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    process::Command,
    ptr,
    sync::Mutex,
};

use crate::kernel::kernel_dev;

/// Inode and device of the file that the gate obeys, if this process has opened one.
static OBEYED: Mutex<Option<(u64, u32)>> = Mutex::new(None);

/// The gate that this process opened obeys that file.
pub(crate) fn is_obeyed(file: (u64, u32)) {
    *OBEYED.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(file);
}

/// A command that runs this executable with these words and no environment.
///
/// The path says nothing: somebody may have mounted over `/proc`. So the file is opened, and where a gate is
/// armed it must be the one that the gate obeys; then the descriptor is executed, not a path.
///
/// # Errors
///
/// It is another file, or cannot be opened.
pub fn again(words: &[&str]) -> io::Result<Command> {
    let file = File::open("/proc/self/exe")?;
    let found = file.metadata()?;
    let obeyed = *OBEYED.lock().unwrap_or_else(|broken| broken.into_inner());
    if obeyed.is_some_and(|obeyed| obeyed != (found.ino(), kernel_dev(found.dev()))) {
        return Err(io::Error::other(
            "/proc/self/exe is not the file that the gate obeys: somebody mounted something over it",
        ));
    }
    let words: Vec<CString> = ["bpfseal-enforcer"]
        .iter()
        .chain(words)
        .map(|&word| CString::new(word).map_err(io::Error::other))
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

/// Words of a command, with its name and the end of the list.
const MOST: usize = 8;
