//! Where the pins are now: in their folder, or under what somebody mounted over it.
//!
//! A mount on top of `/sys/fs/bpf` takes nothing away, the gate goes on; but by its path the
//! gate cannot be found any more. A thread in a mount namespace of its own takes such mounts
//! off, where nobody else sees it, and opens what is below.

#![expect(
    unsafe_code,
    reason = "a mount namespace, or a working directory, for one thread"
)]

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::place;
use crate::ourselves::Identity;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

/// The folder of the gate's pins, in the BPF file system.
pub const PINS: &str = "/sys/fs/bpf/bpfseal";
/// The BPF file system, and the folders above it on which something can be mounted.
const BPF: &str = "/sys/fs/bpf";
const ABOVE: [&str; 2] = ["/sys", "/sys/fs"];
/// Mounts that are taken off at most.
const MOST: usize = 64;

/// The folder of pins, as far as it can be found.
#[derive(Debug)]
pub struct Pins {
    folder: String,
    /// The BPF file system, if it was found under something.
    held: Option<File>,
    cover: Option<String>,
    /// Is it the working directory?
    entered: AtomicBool,
}

/// While this lives the folder of pins is the working directory, and its path no longer matters.
#[derive(Debug)]
pub struct Entered<'a>(&'a AtomicBool);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
        let _it_stays_where_it_is = rustix::process::chdir("/");
    }
}

impl Pins {
    /// Looks for it; where there is none yet, it is the place for a new one.
    pub fn find() -> Self {
        let usual = Self {
            folder: PINS.to_owned(),
            held: None,
            cover: None,
            entered: AtomicBool::new(false),
        };
        let covers = fs::read_to_string("/proc/self/mountinfo")
            .map(|mounts| covers(&mounts))
            .unwrap_or_default();
        let Some(top) = covers.last() else {
            return usual;
        };
        match thread::spawn(uncover).join() {
            Ok(Ok(Some(found))) => Self {
                folder: format!("/proc/self/fd/{}/bpfseal", found.as_raw_fd()),
                held: Some(found),
                cover: Some(top.clone()),
                entered: AtomicBool::new(false),
            },
            _ => usual,
        }
    }

    /// Is there anything?
    pub fn exist(&self) -> bool {
        Path::new(&self.folder).exists()
    }

    /// Is a gate pinned, whole or not?
    pub fn hold_a_gate(&self) -> bool {
        Path::new(&self.pin("map_set")).exists()
    }

    /// What is mounted over them, if the pins are below.
    pub fn cover(&self) -> Option<&str> {
        self.cover.as_deref().filter(|_| self.held.is_some())
    }

    /// Path of the folder, good while this value lives.
    pub fn folder(&self) -> &str {
        match self.entered.load(Ordering::Relaxed) {
            true => ".",
            false => &self.folder,
        }
    }

    /// Path of a pin.
    pub fn pin(&self, name: &str) -> String {
        format!("{}/{name}", self.folder())
    }

    /// Makes the folder with this inode this thread's working directory: whatever somebody mounts over its path from
    /// then on, pins come and go in this one.
    ///
    /// # Errors
    ///
    /// It is another folder.
    pub fn enter(&self, identity: Identity) -> io::Result<Entered<'_>> {
        let folder = File::open(&self.folder)?;
        if place::identity(&folder.metadata()?) != identity {
            let what = format!("{} is not the folder of the gate's pins", self.folder);
            return Err(io::Error::other(what));
        }
        // Whoever shares it could lead this thread elsewhere (clone(2), CLONE_FS), and exec leaves it shared.
        // SAFETY: it makes a copy for this thread and takes no pointers.
        if unsafe { libc::unshare(libc::CLONE_FS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        rustix::process::fchdir(&folder)?;
        self.entered.store(true, Ordering::Relaxed);
        Ok(Entered(&self.entered))
    }

    /// Removes every pin and the folder; goes on after errors and returns the first.
    pub fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for entry in fs::read_dir(&self.folder)? {
            // Folders are somebody else's.
            let removed = entry.and_then(|entry| match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            });
            first = first.and(removed);
        }
        first.and(fs::remove_dir(&self.folder))
    }
}

/// Mount points of what lies over the lowest BPF file system, as `/proc/self/mountinfo` has it.
fn covers(mountinfo: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let mut covers = Vec::new();
    for point in mountinfo.lines().filter_map(|line| line.split(' ').nth(4)) {
        let counts = [BPF, PINS].contains(&point) || ABOVE.contains(&point);
        // These are folders of what is mounted above them.
        let is_folder = ["/sys/fs", PINS].contains(&point);
        if counts && (is_folder || seen.contains(&point)) {
            covers.push(point.to_owned());
        }
        seen.push(point);
    }
    covers
}

/// Does the BPF file system stand on sysfs, and that on the root file system? Something in between, as a folder of a
/// process in `/proc`, can go without being unmounted, and takes what stands on it along.
pub fn must_stand_as_usual(mountinfo: &str) -> io::Result<()> {
    struct Mount<'m> {
        id: &'m str,
        parent: &'m str,
        root: &'m str,
        point: &'m str,
        kind: &'m str,
    }
    let mounts: Vec<Mount<'_>> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let words: Vec<&str> = before.split(' ').collect();
            Some(Mount {
                id: words.first()?,
                parent: words.get(1)?,
                root: words.get(3)?,
                point: words.get(4)?,
                kind: after.split(' ').next()?,
            })
        })
        .collect();
    let stands_on = |mount: &Mount<'_>| mounts.iter().find(|other| other.id == mount.parent);
    let is_bpf = |mount: &&Mount<'_>| mount.point == BPF && mount.kind == "bpf";
    let mut sys = mounts.iter().rfind(is_bpf);
    // Some hosts have it twice.
    while let Some(pins) = sys.filter(is_bpf) {
        sys = stands_on(pins);
    }
    let usual = sys.is_some_and(|sys| (sys.point, sys.root, sys.kind) == ("/sys", "/", "sysfs"))
        && sys
            .and_then(stands_on)
            .is_some_and(|root| root.point == "/");
    match usual {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "something is mounted between {BPF} and the root file system that does not belong there: \
             `findmnt -o TARGET,SOURCE,FSTYPE,ID,PARENT` shows what"
        ))),
    }
}

/// Runs in a thread of its own, whose mount namespace ends with it. The lowest pins count: what
/// lies over them came later.
fn uncover() -> io::Result<Option<File>> {
    // SAFETY: this thread alone gets a namespace; it does nothing but what follows.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let mut found = look();
    for _ in 0..MOST {
        let covers = covers(&fs::read_to_string("/proc/thread-self/mountinfo")?);
        let Some(next) = ABOVE
            .iter()
            .chain([&BPF, &PINS])
            .find(|&&point| covers.iter().any(|cover| cover == point))
        else {
            break;
        };
        unmount(*next, UnmountFlags::DETACH)?;
        found = look().or(found);
    }
    Ok(found)
}

fn look() -> Option<File> {
    let exist = Path::new(PINS).join("map_set").exists();
    exist.then(|| File::open(BPF).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_over_the_bpf_file_system_is_found() {
        let line = |point: &str, kind: &str| format!("30 24 0:27 / {point} rw - {kind} x rw\n");
        let base = [line("/sys", "sysfs"), line("/sys/fs/bpf", "bpf")].concat();
        for (more, want) in [
            (String::new(), vec![]),
            (line("/sys/fs/cgroup", "cgroup2"), vec![]),
            (line("/sys/fs/bpf", "tmpfs"), vec!["/sys/fs/bpf"]),
            (line("/sys/fs", "tmpfs"), vec!["/sys/fs"]),
            (line("/sys/fs/bpf/bpfseal", "bpf"), vec![PINS]),
            (
                line("/sys", "sysfs") + &line("/sys/fs/bpf", "bpf"),
                vec!["/sys", "/sys/fs/bpf"],
            ),
        ] {
            assert_eq!(covers(&(base.clone() + &more)), want, "{more}");
        }
    }

    #[test]
    fn pins_stand_on_sysfs_and_the_root_alone() {
        let root = "24 1 0:25 / / rw - ext4 x rw\n27 24 0:27 / /sys rw - sysfs x rw\n";
        let pins = "30 27 0:30 / /sys/fs/bpf rw shared:9 - bpf x rw\n";
        let twice = "31 30 0:31 / /sys/fs/bpf rw - bpf x rw\n";
        let slipped =
            "30 32 0:30 / /sys/fs/bpf rw - bpf x rw\n32 27 0:5 /77 /sys/fs/bpf rw - proc x rw\n";
        let other = "24 1 0:25 / / rw - ext4 x rw\n27 24 0:27 /a /sys rw - tmpfs x rw\n";
        for (mounts, want) in [
            ([root, pins].concat(), true),
            ([root, pins, twice].concat(), true),
            ([root, slipped].concat(), false),
            ([other, pins].concat(), false),
            (root.to_owned(), false),
        ] {
            assert_eq!(must_stand_as_usual(&mounts).is_ok(), want, "{mounts}");
        }
    }
}
