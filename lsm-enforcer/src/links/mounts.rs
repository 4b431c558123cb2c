//! What is mounted in this mount namespace, as `/proc/self/mountinfo` has it (proc_pid_mountinfo(5)).

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// As `st_dev` has it.
    pub device: u64,
    /// Which part of the file system it shows.
    pub root: String,
    /// Where; what was mounted there later covers it.
    pub point: PathBuf,
}

/// Mounts of file systems of this type, in the order in which they were made.
pub fn of_type(kind: &str) -> Vec<Mount> {
    parse(
        &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        kind,
    )
}

/// Lines that are no mounts are left out.
pub fn parse(mountinfo: &str, kind: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut words = before.split(' ').skip(2);
            let (major, minor) = words.next()?.split_once(':')?;
            let device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
            let mount = Mount {
                device,
                root: words.next()?.to_owned(),
                point: unescaped(words.next()?),
            };
            (after.split(' ').next()? == kind).then_some(mount)
        })
        .collect()
}

/// Blanks and backslashes of paths are written as `\040`.
fn unescaped(word: &str) -> PathBuf {
    let mut rest = word.as_bytes();
    let mut bytes = Vec::new();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = match code {
            Some(_) => &after[3..],
            None => after,
        };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_type_are_found_with_device_and_place() {
        let lines = "24 1 0:22 / /proc rw - proc proc rw\n\
                     30 25 0:27 / /sys/fs/bpf rw,nosuid shared:4 master:1 - bpf bpf rw\n\
                     31 25 0:27 /a\\040b /my\\040pins\\134 rw - bpf none rw\n\
                     32 25 0:28 / /bpf rw - tmpfs bpf rw\n\
                     33 25 x:27 / /broken rw - bpf none rw\n\
                     34 25\n";
        let mount = |root: &str, point: &str| Mount {
            device: libc::makedev(0, 27),
            root: root.to_owned(),
            point: point.into(),
        };
        let want = [mount("/", "/sys/fs/bpf"), mount("/a\\040b", "/my pins\\")];
        assert_eq!(parse(lines, "bpf"), want);
        assert_eq!(parse("", "bpf"), []);
    }

    #[test]
    fn what_only_looks_escaped_stays() {
        assert_eq!(unescaped(r"/a\9\04"), PathBuf::from(r"/a\9\04"));
        assert_eq!(unescaped(r"/a\777b"), PathBuf::from(r"/a\777b"));
    }
}
