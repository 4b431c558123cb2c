//! Where things are: the folder of pins, the daemon's executable, the mounts above.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::shared::Guard;

/// The folder of the gate's pins, in the BPF file system.
pub const PINS: &str = "/sys/fs/bpf/bpfseal";

/// The kernel's own encoding of a device number (`MKDEV`), which BPF programs see in
/// `super_block.s_dev`: 12 bits major, 20 bits minor.
fn kernel_dev(dev: u64) -> u32 {
    let major = libc::major(dev);
    let minor = libc::minor(dev);
    major << 20 | minor
}

/// Makes the folder of pins, mounting the BPF file system if nobody has.
pub fn make_pins() -> io::Result<()> {
    let root = Path::new("/sys/fs/bpf");
    let magic = rustix::fs::statfs(root)?.f_type;
    if magic as u64 != 0xcafe_4a11 {
        rustix::mount::mount("bpf", root, "bpf", rustix::mount::MountFlags::empty(), None)?;
    }
    fs::create_dir(PINS)
}

/// What the guard compares with, for this process and the folder of pins.
pub fn survey(guard: &mut Guard) -> io::Result<()> {
    let pins = fs::metadata(PINS)?;
    guard.pins = pins.ino();
    guard.pins_dev = kernel_dev(pins.dev());
    let exe = fs::metadata("/proc/self/exe")?;
    guard.exe = exe.ino();
    guard.exe_dev = kernel_dev(exe.dev());
    guard.mount_ns = fs::metadata("/proc/self/ns/mnt")?.ino() as u32;
    for (slot, above) in guard
        .over_dev
        .iter_mut()
        .zip(["/sys/fs/bpf", "/sys/fs", "/sys", "/"])
    {
        *slot = kernel_dev(fs::metadata(above)?.dev());
    }
    guard.static_exe = !fs::read_to_string("/proc/self/maps")?
        .lines()
        .any(|line| line.contains("/ld-") || line.contains("libc.so"));
    Ok(())
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

/// Removes every pin and the folder; goes on after errors and returns the first.
pub fn remove_pins() -> io::Result<()> {
    let mut first = Ok(());
    for entry in fs::read_dir(PINS)? {
        let removed = entry.and_then(|entry| fs::remove_file(entry.path()));
        first = first.and(removed);
    }
    first.and(fs::remove_dir(PINS))
}

/// Name of a pin.
pub fn pin(name: &str) -> String {
    format!("{PINS}/{name}")
}
