//! Pins of programs and of links to them, in the BPF file systems that are mounted here. They keep a program in the
//! kernel without any process.
#![expect(
    unsafe_code,
    reason = "libbpf-rs wants to know what a pin is of before it opens it"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use libbpf_rs::libbpf_sys::{self, BPF_F_RDONLY};
use serde::{Deserialize, Serialize};

use super::{
    holders::program_of,
    mounts::{self, Mount},
};
use crate::kernel::PINS;

/// What holds a program in a BPF file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pin {
    /// Where it is.
    pub path: String,
    /// Is it of a link to the program, and not of the program itself?
    pub is_link: bool,
}

/// Pins of these programs, by program id: as far as they are in BPF file systems of this mount namespace, and this
/// process may open them.
pub fn pins(programs: &[u32]) -> BTreeMap<u32, Vec<Pin>> {
    let mut found: BTreeMap<u32, Vec<Pin>> = BTreeMap::new();
    let own = fs::metadata(PINS).map(|folder| (folder.dev(), folder.ino()));
    for path in files(mounts::of_type("bpf"), own.ok()) {
        let Some((program, is_link)) = pinned(&path).filter(|(id, _)| programs.contains(id)) else {
            continue;
        };
        let path = path.display().to_string();
        found
            .entry(program)
            .or_default()
            .push(Pin { path, is_link });
    }
    found
}

/// Files of these file systems, each in one place, without those in the folder `own`. Symbolic links are not followed.
fn files(mut mounts: Vec<Mount>, own: Option<(u64, u64)>) -> Vec<PathBuf> {
    // The whole first: other mounts show parts of it.
    mounts.sort_by_key(|mount| mount.root.len());
    let mut seen: BTreeSet<(u64, u64)> = own.into_iter().collect();
    let mut files = Vec::new();
    let mut looked_at = 0;
    for mount in mounts {
        let mut folders = vec![(mount.point, 0)];
        while let Some((path, depth)) = folders.pop() {
            let Ok(folder) = open_folder(&path, mount.device, &mut seen) else {
                continue;
            };
            // By the descriptor, which is the folder that was looked at.
            let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
            for entry in entries.into_iter().flatten().flatten() {
                looked_at += 1;
                if looked_at > MOST {
                    return files;
                }
                let path = path.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_file() => files.push(path),
                    Ok(kind) if kind.is_dir() && depth < DEEPEST => folders.push((path, depth + 1)),
                    _ => {}
                }
            }
        }
    }
    files
}

/// Something may be mounted over it, or in a folder's place: the file system must be that of the mount.
fn open_folder(path: &Path, device: u64, seen: &mut BTreeSet<(u64, u64)>) -> io::Result<File> {
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)?;
    let found = folder.metadata()?;
    if found.dev() != device || !seen.insert((found.dev(), found.ino())) {
        return Err(io::Error::other("elsewhere, or seen already"));
    }
    Ok(folder)
}

/// The program, and whether a link to it is pinned; `None`: a map, or what cannot be opened.
fn pinned(path: &Path) -> Option<(u32, bool)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // The daemon may read what others own, and not write it; but a link is opened for both or not at all.
    let object = open(&path, BPF_F_RDONLY).or_else(|_| open(&path, 0)).ok()?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd())).ok()?;
    read(&text)
}

fn read(fdinfo: &str) -> Option<(u32, bool)> {
    let is_link = fdinfo.lines().any(|line| line.starts_with("link_id:"));
    Some((program_of(fdinfo)?, is_link))
}

fn open(path: &CString, flags: u32) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_obj_get_opts {
        sz: size_of::<libbpf_sys::bpf_obj_get_opts>() as _,
        file_flags: flags,
        ..Default::default()
    };
    // SAFETY: a path that ends with zero, and options of the size that they say.
    let fd = unsafe { libbpf_sys::bpf_obj_get_opts(path.as_ptr(), &raw const options) };
    match fd {
        // SAFETY: the descriptor was made by the line above and is nobody else's.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Loaders make two or three folders below each other.
const DEEPEST: usize = 16;
/// More than a host has; each takes some ten microseconds to open.
const MOST: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_found_once_and_nothing_outside() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = inside.path();
        for path in ["a/b", "own", "other"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["top", "a/b/pin", "own/gate", "other/pin"] {
            fs::write(root.join(path), "").unwrap();
        }
        fs::write(outside.path().join("file"), "").unwrap();
        symlink(outside.path(), root.join("a/folder")).unwrap();
        symlink("top", root.join("a/file")).unwrap();
        let device = fs::metadata(root).unwrap().dev();
        let mount = |device, path: &str, point: &Path| Mount {
            device,
            root: path.to_owned(),
            point: point.to_owned(),
        };
        let own = fs::metadata(root.join("own")).unwrap();
        let mut found = files(
            vec![
                // Shows a part of the next one.
                mount(device, "/a", &root.join("a")),
                mount(device, "/", root),
                // Covered by something else, and one that is gone.
                mount(device + 1, "/", outside.path()),
                mount(device, "/", Path::new("/nowhere")),
            ],
            Some((own.dev(), own.ino())),
        );
        found.sort();
        let want = ["a/b/pin", "other/pin", "top"].map(|path| root.join(path));
        assert_eq!(found, want);
    }

    #[test]
    fn folders_without_end_have_one() {
        let root = tempfile::tempdir().unwrap();
        let deep = |count| root.path().join(vec!["d"; count].join("/"));
        fs::create_dir_all(deep(DEEPEST + 1)).unwrap();
        fs::write(deep(DEEPEST).join("last"), "").unwrap();
        fs::write(deep(DEEPEST + 1).join("too-deep"), "").unwrap();
        let mount = Mount {
            device: fs::metadata(root.path()).unwrap().dev(),
            root: "/".to_owned(),
            point: root.path().to_owned(),
        };
        assert_eq!(files(vec![mount], None), [deep(DEEPEST).join("last")]);
    }

    #[test]
    fn programs_and_links_are_told_from_maps() {
        let link = "pos:\t0\nlink_type:\ttracing\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t12\n";
        for (fdinfo, want) in [
            (link, Some((12, true))),
            ("pos:\t0\nprog_type:\t5\nprog_id:\t12\n", Some((12, false))),
            ("pos:\t0\nmap_type:\t3\nmap_id:\t9\n", None),
            ("pos:\t0\nlink_type:\tstruct_ops\nlink_id:\t3\n", None),
        ] {
            assert_eq!(read(fdinfo), want, "{fdinfo}");
        }
    }
}
