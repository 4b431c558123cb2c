//! Where things are: the folder of pins, the daemon's executable, the mounts above.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::{
    generators,
    pins::{self, PINS},
    shared::Guard,
    volumes,
};
use crate::ourselves::Identity;

/// The kernel's own encoding of a device number (`MKDEV`), which BPF programs see in
/// `super_block.s_dev`: 12 bits major, 20 bits minor.
pub fn kernel_dev(dev: u64) -> u32 {
    let major = libc::major(dev);
    let minor = libc::minor(dev);
    major << 20 | minor
}

/// Which file it is, as BPF programs see it.
pub fn identity(found: &fs::Metadata) -> Identity {
    (found.ino(), kernel_dev(found.dev()))
}

/// Makes the folder of pins, mounting the BPF file system if nobody has.
pub fn make_pins() -> io::Result<()> {
    let root = Path::new("/sys/fs/bpf");
    let magic = rustix::fs::statfs(root)?.f_type;
    if magic as u64 != 0xcafe_4a11 {
        rustix::mount::mount("bpf", root, "bpf", rustix::mount::MountFlags::empty(), None)?;
    }
    pins::must_stand_as_usual(&fs::read_to_string("/proc/self/mountinfo")?)?;
    fs::create_dir(PINS)
}

/// What the guard compares with, for this process and the folder of pins.
pub fn survey(guard: &mut Guard) -> io::Result<()> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    must_not_be_filtered(&status)?;
    must_not_be_traced(&status)?;
    (guard.pins, guard.pins_dev) = identity(&fs::metadata(PINS)?);
    let file = fs::File::open("/proc/self/exe")?;
    // Some kernels from 6.11 on let files be written that are executed.
    generators::nobody_writes(&file).map_err(|error| {
        io::Error::other(format!(
            "somebody has the enforcer's file open for writing ({error})"
        ))
    })?;
    (guard.exe, guard.exe_dev) = identity(&file.metadata()?);
    guard.mount_ns = fs::metadata("/proc/self/ns/mnt")?.ino() as u32;
    if fs::metadata("/proc/1/ns/mnt")?.ino() as u32 != guard.mount_ns {
        return Err(io::Error::other(
            "this process has a mount namespace of its own, with which the pins would go",
        ));
    }
    guard.static_exe = !fs::read_to_string("/proc/self/maps")?
        .lines()
        .any(|line| line.contains("/ld-") || line.contains("libc.so"));
    Ok(())
}

/// Once the pins are guarded, and this process with them: what was looked at before holds.
pub fn must_still_be_ours() -> io::Result<()> {
    must_not_be_traced(&fs::read_to_string("/proc/thread-self/status")?)?;
    pins::must_stand_as_usual(&fs::read_to_string("/proc/self/mountinfo")?)
}

/// Nobody is the daemon under a filter of system calls (bpf/guard.h, `note_exec`): who arms under one could not be
/// started again.
fn must_not_be_filtered(status: &str) -> io::Result<()> {
    match field(status, "Seccomp:") {
        None | Some("0") => Ok(()),
        Some(_) => Err(io::Error::other(
            "this process is under a filter of system calls (seccomp), under which no later one would be the daemon: \
             take SystemCallFilter=, SystemCallArchitectures= and their kin from the unit and from system.conf",
        )),
    }
}

/// Does the kernel verify each page of this executable that it reads from the disk?
pub fn is_verified() -> bool {
    let flags = rustix::fs::AtFlags::empty();
    let mask = rustix::fs::StatxFlags::BASIC_STATS;
    let found = rustix::fs::statx(rustix::fs::CWD, "/proc/self/exe", flags, mask);
    found.is_ok_and(|found| {
        let device = (found.stx_dev_major, found.stx_dev_minor);
        found
            .stx_attributes
            .contains(rustix::fs::StatxAttributes::VERITY)
            || volumes::is_verity(device)
    })
}

/// Is this executable on the root file system, which stays as long as anything runs from it?
pub fn is_on_root() -> bool {
    let device = |path: &str| fs::metadata(path).map(|found| found.dev());
    matches!((device("/proc/self/exe"), device("/")), (Ok(ours), Ok(root)) if ours == root)
}

/// Asks for the pins' file system to be unmounted, which the kernel side refuses: so it learns
/// which mount that is. Should it not refuse, this only asks whether anybody uses it.
pub fn show_mount() {
    let _refused = rustix::mount::unmount("/sys/fs/bpf", rustix::mount::UnmountFlags::EXPIRE);
}

/// When this process started, in clock ticks since boot, as the kernel side compares it.
pub fn start_ticks() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/stat has no start time"))
}

/// Boot-time clock in nanoseconds.
pub fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A field of `/proc/PID/status`; kernels that lack something leave it out.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    let mut lines = status.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.trim()))
}

/// Whoever traces the process that arms does with the gate what it could.
pub fn must_not_be_traced(status: &str) -> io::Result<()> {
    match field(status, "TracerPid:") {
        None | Some("0") => Ok(()),
        Some(tracer) => Err(io::Error::other(format!(
            "process {tracer} traces this one: end it and arm again"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_arms_under_a_filter_of_system_calls() {
        for (status, want) in [
            ("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n", true),
            ("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", false),
            // A kernel without.
            ("Name:\tx\n", true),
        ] {
            assert_eq!(must_not_be_filtered(status).is_ok(), want, "{status}");
        }
    }

    #[test]
    fn nobody_arms_while_somebody_traces_him() {
        assert!(must_not_be_traced("Name:\tx\nTracerPid:\t0\n").is_ok());
        assert!(must_not_be_traced("Name:\tx\nTracerPid:\t77\n").is_err());
    }
}
