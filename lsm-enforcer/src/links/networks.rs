//! Network namespaces: what is attached to a device without a link shows, and comes off, only to who is inside.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    net::{AddressFamily, SocketType, netdevice, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::mounts::{self, Mount};

/// Devices of this thread's network namespace with their numbers.
pub fn interfaces() -> Vec<(String, i32)> {
    // Not /sys/class/net, which shows the namespace of who mounted it.
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let Ok(socket) = socket(AddressFamily::UNIX, SocketType::DGRAM, None) else {
        return Vec::new();
    };
    names(&devices)
        .filter_map(|name| Some((name, netdevice::name_to_index(&socket, name).ok()?)))
        .map(|(name, index)| (name.to_owned(), index as i32))
        .collect()
}

/// Names in `/proc/net/dev`, below two lines of headings. The kernel has no colon in a name.
fn names(devices: &str) -> impl Iterator<Item = &str> {
    let lines = devices.lines().skip(2);
    lines.filter_map(|line| Some(line.split_once(':')?.0.trim()))
}

/// Visits network namespaces other than this thread's: those of processes, and those that are mounted (`ip netns`);
/// each is shown by its number. A thread of its own enters them, so that this one stays where it is.
pub fn visit_others(visit: &mut (dyn FnMut(u64) + Send)) {
    let mut found = find(Path::new("/proc"), &mounts::of_type("nsfs"));
    let Some(here) = number_of_link(Path::new("/proc/thread-self/ns/net")) else {
        return;
    };
    found.remove(&here);
    thread::scope(|scope| {
        let walk = || {
            for (number, paths) in found.iter().take(MOST) {
                // A process may have ended meanwhile. Where none lets it in, this thread is still in another one.
                if paths.iter().any(|path| enter(*number, path).is_ok()) {
                    visit(*number);
                }
            }
        };
        let started = thread::Builder::new().spawn_scoped(scope, walk);
        let _what_was_shown_counts = started.map(thread::ScopedJoinHandle::join);
    });
}

/// Number of each, and the paths that lead to it.
fn find(proc: &Path, mounts: &[Mount]) -> BTreeMap<u64, Vec<PathBuf>> {
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    let of_processes = processes.filter_map(|process| {
        process.file_name().to_str()?.parse::<u32>().ok()?;
        let path = process.path().join("ns/net");
        Some((number_of_link(&path)?, path))
    });
    let mounted = mounts
        .iter()
        .filter_map(|mount| Some((number(&mount.root)?, mount.point.clone())));
    let mut found: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for (number, path) in mounted.chain(of_processes) {
        found.entry(number).or_default().push(path);
    }
    found
}

fn number_of_link(path: &Path) -> Option<u64> {
    number(fs::read_link(path).ok()?.to_str()?)
}

/// `net:[4026531840]`
fn number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

fn enter(number: u64, path: &Path) -> io::Result<()> {
    // What somebody put in its place meanwhile must not block.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.ino() != number {
        return Err(io::Error::other("another one is in its place"));
    }
    Ok(move_into_link_name_space(
        file.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// More than a host of containers has: so many take seconds.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_namespace_is_found_once() {
        let proc = tempfile::tempdir().unwrap();
        for (process, target) in [
            ("1", "net:[40]"),
            ("7", "net:[41]"),
            ("8", "net:[41]"),
            ("9", "mnt:[43]"),
            ("self", "net:[44]"),
        ] {
            let folder = proc.path().join(process).join("ns");
            fs::create_dir_all(&folder).unwrap();
            symlink(target, folder.join("net")).unwrap();
        }
        fs::create_dir(proc.path().join("10")).unwrap();
        let lines = "50 25 0:4 net:[42] /run/netns/blue rw shared:5 - nsfs nsfs rw\n\
                     51 25 0:4 mnt:[45] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
                     52 25 0:27 net:[46] /sys/fs/bpf rw - bpf bpf rw\n";
        let found = find(proc.path(), &mounts::parse(lines, "nsfs"));
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [40, 41, 42]);
        assert_eq!(found[&40], [proc.path().join("1/ns/net")]);
        assert_eq!(found[&41].len(), 2);
        assert_eq!(found[&42], [PathBuf::from("/run/netns/blue")]);
    }

    #[test]
    fn devices_are_read_below_the_headings() {
        let devices = "Inter-|   Receive         |  Transmit\n face |bytes    packets|bytes\n    \
                       lo:  94 1 0\neth0.7@x: 1 2\nbroken\n";
        assert_eq!(names(devices).collect::<Vec<_>>(), ["lo", "eth0.7@x"]);
    }

    #[test]
    fn another_one_in_its_place_is_not_entered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = enter(0, file.path()).unwrap_err().to_string();
        assert_eq!(error, "another one is in its place");
    }
}
