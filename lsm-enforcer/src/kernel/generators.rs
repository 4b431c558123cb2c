//! Generators in the kernel: their limits, and the inodes of their files.
//!
//! A file is looked at once. From before that look until its inode leaves the kernel's memory
//! nobody writes it: the gate refuses to open it for writing, and a lease proves that nobody
//! had it open. So what was found then is what is executed later. The daemon holds the files
//! open, so that the inodes stay; without a daemon they may go, and the generator is then
//! nobody special until a daemon has looked again.

#![expect(
    unsafe_code,
    reason = "leases are taken by fcntl(), fs-verity is measured by ioctl()"
)]

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use bundle::Digest;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use sha2::{Digest as _, Sha256};

use super::{
    shared::{Fields, Reader},
    volumes::{self, Volume},
};
use crate::gate::{GeneratorRule, Pinned};

/// `PIN_LIBRARIES`: generators that one file may be a library of.
const PIN_LIBRARIES: usize = 7;
/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// File systems whose files change only by being opened for writing on this machine. With
/// others (overlay, network, FUSE) contents change behind the inode that is executed.
const GUARDED: &[(&str, i64)] = &[
    ("ext2, ext3, ext4", 0xef53),
    ("xfs", 0x5846_5342),
    ("btrfs", 0x9123_683e),
    ("f2fs", 0xf2f5_2010),
    ("tmpfs", 0x0102_1994),
    ("ramfs", 0x8584_58f6),
    ("squashfs", 0x7371_7368),
    ("erofs", 0xe0f5_e1e2),
];

/// The kernel side of files: which are pinned, and which volumes got how many tables, or why that is not
/// known.
#[derive(Clone, Copy)]
pub struct Marks<'a> {
    pub pinned: &'a MapHandle,
    pub tables: Result<&'a MapHandle, &'static str>,
}

/// A generator's files, to be held, and the dm-verity volume by which they are known, if any is.
#[derive(Default)]
pub struct Looked {
    pub files: Vec<File>,
    pub volume: Option<Volume>,
}

/// Looks at every file of a generator and marks its inode.
pub fn pin(marks: Marks<'_>, rule: &GeneratorRule, image: u32) -> io::Result<Looked> {
    let mut looked = Looked::default();
    looked.pin(marks, &rule.exe, image, true)?;
    for library in &rule.libraries {
        looked.pin(marks, library, image, false)?;
    }
    Ok(looked)
}

fn about(path: &str, what: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{path}: {what}"))
}

impl Looked {
    fn pin(
        &mut self,
        marks: Marks<'_>,
        wanted: &Pinned,
        image: u32,
        is_exe: bool,
    ) -> io::Result<()> {
        let path = &wanted.path;
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| about(path, error))?;
        let volume = volume(&file, wanted, marks.tables).map_err(|error| about(path, error))?;
        if let (Some(one), Some(other)) = (volume, self.volume)
            && one != other
        {
            let what = "the generator's files are on several dm-verity volumes";
            return Err(about(path, what));
        }
        self.volume = self.volume.or(volume);
        pin_file(marks.pinned, &file, wanted, volume.is_some(), image, is_exe)?;
        self.files.push(file);
        Ok(())
    }
}

/// The volume whose root hash says what the file is; `None`: something else has to.
fn volume(
    file: &File,
    wanted: &Pinned,
    tables: Result<&MapHandle, &'static str>,
) -> io::Result<Option<Volume>> {
    if wanted.dmverity.is_empty() {
        return Ok(None);
    }
    let found = match tables {
        Ok(tables) => volumes::of(file, &wanted.path, tables)?,
        Err(_) => None,
    };
    match found {
        Some((volume, root)) if wanted.dmverity.contains(&root) => Ok(Some(volume)),
        Some((_, root)) => {
            let what = format!("the root hash {root} of its dm-verity volume is not in the policy");
            Err(io::Error::other(what))
        }
        None if !wanted.sha256.is_empty() || !wanted.fsverity.is_empty() => Ok(None),
        None => {
            let why = tables.err().unwrap_or("it is on no dm-verity volume");
            Err(io::Error::other(why))
        }
    }
}

fn pin_file(
    map: &MapHandle,
    file: &File,
    wanted: &Pinned,
    is_known: bool,
    image: u32,
    is_exe: bool,
) -> io::Result<()> {
    let path = &wanted.path;
    let key = file.as_raw_fd().to_ne_bytes();
    let before = map.lookup(&key, MapFlags::ANY).map_err(other)?;
    let mut pin = before.as_deref().map(Pin::read).unwrap_or_default();
    if pin.has(image, is_exe) {
        return Ok(());
    }
    if !file.metadata()?.is_file() {
        return Err(about(path, "not a regular file"));
    }
    let kind = rustix::fs::fstatfs(file)?.f_type as i64;
    if !GUARDED.iter().any(|(_, magic)| *magic == kind) {
        return Err(about(
            path,
            format!("a file system of type {kind:#x} cannot be guarded against writes"),
        ));
    }
    let looked = keep_from_writers(map, file, &pin)
        .map_err(|error| about(path, error))
        .and_then(|()| match is_known {
            true => Ok(()),
            false => fits(path, file, wanted),
        });
    if let Err(error) = looked {
        if before.is_none() {
            let _nobodys_file = map.delete(&key);
        }
        return Err(error);
    }
    pin.add(image, is_exe).map_err(|what| about(path, what))?;
    write(map, &key, &pin)
}

/// Nobody opens the file for writing from here on, and nobody has it open so.
pub fn keep_from_writers(map: &MapHandle, file: &File, pin: &Pin) -> io::Result<()> {
    write(map, &file.as_raw_fd().to_ne_bytes(), pin)?;
    nobody_writes(file)
        .map_err(|error| io::Error::other(format!("somebody has it open for writing ({error})")))
}

/// A lease for reading is only given where nobody has the file open for writing.
pub fn nobody_writes(file: &File) -> io::Result<()> {
    for lease in [libc::F_RDLCK, libc::F_UNLCK] {
        // SAFETY: F_SETLEASE takes a number.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// By fs-verity where the file has it and the policy a digest for it: then the kernel checks each page
/// that it reads, also what was changed below the file system. Else by its contents as they are now.
fn fits(path: &str, mut file: &File, wanted: &Pinned) -> io::Result<()> {
    if !wanted.fsverity.is_empty() {
        match verity_digest(file).map_err(|error| about(path, error))? {
            Some(found) if wanted.fsverity.contains(&found) => return Ok(()),
            Some(found) => {
                let what = format!("its fs-verity digest {found} is not in the policy");
                return Err(about(path, what));
            }
            None if wanted.sha256.is_empty() => {
                return Err(about(path, "it has no fs-verity"));
            }
            None => {}
        }
    }
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    let found = Digest::from_bytes(hash.finalize().into());
    match wanted.sha256.contains(&found) {
        true => Ok(()),
        false => Err(about(
            path,
            format!("its digest {found} is not in the policy"),
        )),
    }
}

/// What `fsverity measure` prints; `None` where the file, or its file system, has none.
fn verity_digest(file: &File) -> io::Result<Option<Digest>> {
    let mut measured = Measured {
        algorithm: 0,
        size: 32,
        digest: [0; 32],
    };
    // SAFETY: the kernel writes at most `size` bytes behind the two numbers.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY, &mut measured) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP) => Ok(None),
            // SHA-512, which a policy cannot name.
            Some(libc::EOVERFLOW) => Err(io::Error::other("its fs-verity is not by SHA-256")),
            _ => Err(error),
        };
    }
    match (measured.algorithm, measured.size) {
        (FS_VERITY_HASH_ALG_SHA256, 32) => Ok(Some(Digest::from_bytes(measured.digest))),
        _ => Err(io::Error::other("its fs-verity is not by SHA-256")),
    }
}

/// `struct fsverity_digest`, with room for SHA-256.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 32],
}

/// `_IOWR('f', 134, struct fsverity_digest)`
const FS_IOC_MEASURE_VERITY: libc::c_ulong = 0xc004_6686;
const FS_VERITY_HASH_ALG_SHA256: u16 = 1;

/// Lets files be written again that were held and are of no generator any more.
pub fn release(map: &MapHandle, before: &[File], now: &[File]) -> io::Result<()> {
    let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
    let kept: Vec<(u64, u64)> = now.iter().map(identity).collect::<io::Result<_>>()?;
    for file in before {
        if !kept.contains(&identity(file)?) {
            let _gone_already = map.delete(&file.as_raw_fd().to_ne_bytes());
        }
    }
    Ok(())
}

/// When the generator's permit ends, where its limits were written before and its files cannot be looked
/// at now. `until`: boot-time nanoseconds.
pub fn end(map: &MapHandle, image: u32, until: u64) -> io::Result<()> {
    const UNTIL: std::ops::Range<usize> = 24..32;
    let key = image.to_ne_bytes();
    let Some(mut maker) = map.lookup(&key, MapFlags::ANY).map_err(other)? else {
        return Ok(());
    };
    maker[UNTIL].copy_from_slice(&until.to_ne_bytes());
    map.update(&key, &maker, MapFlags::ANY).map_err(other)
}

/// Writes a generator's limits. `until`: boot-time nanoseconds.
pub fn limit(
    map: &MapHandle,
    rule: &GeneratorRule,
    image: u32,
    until: u64,
    volume: Option<Volume>,
) -> io::Result<()> {
    let bits = |numbers: &[u32]| {
        let known = numbers.iter().filter(|&&number| number < 64);
        known.fold(0u64, |bits, number| bits | 1 << number)
    };
    let (cgroup, level) = match &rule.cgroup {
        None => (0, 0),
        Some(path) => {
            let folder = Path::new(CGROUPS).join(path.trim_start_matches('/'));
            let id = fs::metadata(&folder)
                .map_err(|error| about(path, format!("no such control group now ({error})")))?
                .ino();
            (id, path.matches('/').count() as u32)
        }
    };
    let limits = Fields::default()
        .u64s(&[bits(&rule.prog_types), bits(&rule.map_types), cgroup, until])
        .u32s(&[
            level,
            rule.uid.unwrap_or(u32::MAX),
            rule.max_maps,
            rule.max_insns,
        ]);
    map.update(
        &image.to_ne_bytes(),
        &Volume::fields(volume, limits).done(64),
        MapFlags::ANY,
    )
    .map_err(other)
}

/// `struct pin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    exe: u32,
    libraries: [u32; PIN_LIBRARIES],
}

impl Pin {
    fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        let exe = reader.u32();
        let libraries = std::array::from_fn(|_| reader.u32());
        Self { exe, libraries }
    }

    fn has(&self, image: u32, is_exe: bool) -> bool {
        match is_exe {
            true => self.exe == image,
            false => self.libraries.contains(&image),
        }
    }

    /// Ids rise, so the lowest is of a policy before.
    fn add(&mut self, image: u32, is_exe: bool) -> Result<(), String> {
        if is_exe {
            if self.exe > image {
                return Err("it is another generator's executable".into());
            }
            self.exe = image;
        } else if let Some(oldest) = self.libraries.iter_mut().min() {
            *oldest = image;
        }
        Ok(())
    }
}

fn write(map: &MapHandle, key: &[u8], pin: &Pin) -> io::Result<()> {
    let value = Fields::default()
        .u32s(&[pin.exe])
        .u32s(&pin.libraries)
        .done(32);
    map.update(key, &value, MapFlags::ANY).map_err(other)
}

fn other(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_library_of_many_generators_forgets_the_oldest() {
        let mut pin = Pin::default();
        for image in 1..=8 {
            pin.add(image, false).unwrap();
        }
        assert_eq!(pin.libraries.map(|n| n > 1), [true; PIN_LIBRARIES]);
        assert_eq!(Pin::read(&[1, 0, 0, 0, 2, 0, 0, 0]).libraries[0], 2);
    }

    #[test]
    fn other_contents_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x").display().to_string();
        fs::write(&path, "abc").unwrap();
        let mut wanted = Pinned {
            path: path.clone(),
            sha256: [Digest::of(b"abd")].into(),
            fsverity: BTreeSet::new(),
            dmverity: BTreeSet::new(),
        };
        let file = File::open(&path).unwrap();
        let said = fits(&path, &file, &wanted).unwrap_err().to_string();
        assert_eq!(
            said,
            format!(
                "{path}: its digest {} is not in the policy",
                Digest::of(b"abc")
            )
        );
        wanted.sha256 = [Digest::of(b"abc")].into();
        assert!(fits(&path, &File::open(&path).unwrap(), &wanted).is_ok());
        // Without fs-verity the contents decide, if the policy says what they are.
        wanted.fsverity = [Digest::of(b"tree")].into();
        assert!(fits(&path, &File::open(&path).unwrap(), &wanted).is_ok());
        wanted.sha256.clear();
        let said = fits(&path, &file, &wanted).unwrap_err().to_string();
        assert_eq!(said, format!("{path}: it has no fs-verity"));
        // So does a kernel that does not tell of tables.
        wanted.fsverity.clear();
        wanted.dmverity = [Digest::of(b"root")].into();
        let unknown = Err("nobody counts tables");
        let said = volume(&file, &wanted, unknown).unwrap_err().to_string();
        assert_eq!(said, "nobody counts tables");
        wanted.sha256 = [Digest::of(b"abc")].into();
        assert_eq!(volume(&file, &wanted, unknown).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_open_for_writing_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let writer = File::create(&path).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(
            nobody_writes(&file).unwrap_err().raw_os_error(),
            Some(libc::EAGAIN)
        );
        drop(writer);
        nobody_writes(&file).unwrap();
    }
}
