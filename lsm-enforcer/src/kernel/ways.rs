//! Tries the ways into kernel memory that `[protect]` closes, so that nothing comes of it where
//! one is open.

#![expect(
    unsafe_code,
    reason = "system calls that would load modules and kernels"
)]

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
};

use policy::protect::Switch;

/// How /sys/power/disk says that hibernation is refused.
const HIBERNATION_REFUSED: &str = "[disabled]";
/// A port that nothing but firmware writes: rights to it are asked for and given back.
const POST_CODES: libc::c_ulong = 0x80;

/// `None`: there is no attempt that would do no harm.
pub fn attempt(way: Switch) -> Option<io::Result<()>> {
    Some(match way {
        Switch::UnsignedModules => load_no_module(),
        Switch::Kexec => load_no_kernel(),
        Switch::DevMem => File::options()
            .read(true)
            .write(true)
            .open("/dev/mem")
            .map(drop),
        Switch::IoPorts => ask_for_a_port(),
        Switch::Kcore => File::open("/proc/kcore").map(drop),
        Switch::Hibernation => fs::read_to_string("/sys/power/disk").and_then(|modes| match modes
            .contains(HIBERNATION_REFUSED)
        {
            true => Err(io::Error::from_raw_os_error(libc::EPERM)),
            false => Ok(()),
        }),
        Switch::Msr
        | Switch::Pci
        | Switch::Debugger
        | Switch::AcpiTables
        | Switch::HardwareParameters => return None,
    })
}

/// Zeros are no module: the kernel asks whether they are signed, and only then what they are.
fn load_no_module() -> io::Result<()> {
    let zeros = [0u8; 256];
    // SAFETY: the kernel reads 256 bytes and a string that live through the call.
    ended(unsafe {
        libc::syscall(
            libc::SYS_init_module,
            zeros.as_ptr(),
            zeros.len(),
            c"".as_ptr(),
        )
    })
}

/// This program is no kernel.
fn load_no_kernel() -> io::Result<()> {
    const NO_INITRAMFS: libc::c_ulong = 4;
    let file = File::open("/proc/self/exe")?;
    // SAFETY: the string lives through the call.
    ended(unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            file.as_raw_fd(),
            -1,
            1usize,
            c"".as_ptr(),
            NO_INITRAMFS,
        )
    })
}

fn ask_for_a_port() -> io::Result<()> {
    // SAFETY: rights of this thread to one port, which it does not use.
    ended(unsafe { libc::syscall(libc::SYS_ioperm, POST_CODES, 1usize, 1) })?;
    // SAFETY: gives them back.
    ended(unsafe { libc::syscall(libc::SYS_ioperm, POST_CODES, 1usize, 0) })
}

fn ended(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
