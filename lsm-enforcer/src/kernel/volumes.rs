//! Volumes of dm-verity: what a generator's file is known by where it is on one.
//!
//! The kernel compares every block that it reads from such a volume with a tree of hashes, whose root is in
//! the volume's table. So the root hash and the file's path on the volume say what the file contains, as
//! long as the volume keeps its table: the gate counts the tables that it is given (`bpf/volume.h`).

#![expect(unsafe_code, reason = "device-mapper is asked by ioctl()")]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use bundle::Digest;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::Errno,
};

use super::{
    place::kernel_dev,
    shared::{Fields, Reader},
};

/// Where device-mapper is asked.
const CONTROL: &str = "/dev/mapper/control";
/// `MISC_MAJOR`, `MAPPER_CTRL_MINOR`
const MISC: u32 = 10;
const CONTROL_MINOR: u32 = 236;
/// Bytes of `struct dm_ioctl`, and of the answer with it.
const HEADER: usize = 312;
const ANSWER: usize = 16 << 10;
/// Where `struct dm_ioctl` has what is asked and answered.
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGETS: usize = 20;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
/// `DM_STATUS_TABLE_FLAG`: the table, not what became of it.
const STATUS_TABLE: u32 = 1 << 4;
/// `DM_BUFFER_FULL_FLAG`
const BUFFER_FULL: u32 = 1 << 8;
/// `_IOWR(0xfd, 12, struct dm_ioctl)`
const DM_TABLE_STATUS: libc::c_ulong = 0xc138_fd0c;
/// `struct dm_target_spec`, and where it names the kind of target.
const TARGET: usize = 40;
const TARGET_TYPE: usize = 24;

/// File systems that have all of their files on the one device that they are mounted from.
const ON_ONE_DEVICE: &[i64] = &[0xef53, 0x7371_7368]; // ext4, squashfs

/// Options of a table that let nothing pass that differs, with the number of words that follow.
const OPTIONS: &[(&str, usize)] = &[
    ("restart_on_corruption", 0),
    ("panic_on_corruption", 0),
    ("restart_on_error", 0),
    ("panic_on_error", 0),
    ("ignore_zero_blocks", 0),
    ("try_verify_in_tasklet", 0),
    ("use_fec_from_device", 1),
    ("fec_blocks", 1),
    ("fec_start", 1),
    ("fec_roots", 1),
    ("root_hash_sig_key_desc", 1),
];

/// A device with dm-verity, at the moment when its table was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its number, as the kernel has it.
    pub device: u32,
    /// Its sequence number, of which each device has another one.
    pub disk: u64,
    /// How many tables it was given since arming.
    pub tables: u32,
}

impl Volume {
    /// The end of `struct maker`.
    pub fn fields(volume: Option<Self>, fields: Fields) -> Fields {
        let found = volume.unwrap_or(Self {
            device: 0,
            disk: 0,
            tables: 0,
        });
        fields
            .u64s(&[found.disk])
            .u32s(&[found.device, found.tables])
    }
}

/// The volume that `file`, which was opened as `path`, is on, and its root hash; `None` where it is on none.
///
/// # Errors
///
/// Where it is on one that says nothing about it: the table lets errors pass, or was exchanged; the path is
/// not the one on the volume.
pub fn of(file: &File, path: &str, tables: &MapHandle) -> io::Result<Option<(Volume, Digest)>> {
    let device = file.metadata()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let sysfs = format!("/sys/dev/block/{major}:{minor}");
    if !Path::new(&sysfs).join("dm").exists() {
        return Ok(None);
    }
    let disk = fs::read_to_string(format!("{sysfs}/diskseq"))?;
    let disk = disk.trim().parse().map_err(io::Error::other)?;
    let number = kernel_dev(device);
    // Counted before the table is read: what comes in between is seen by the gate.
    let tables = count(tables, number, disk)?;
    let volume = Volume {
        device: number,
        disk,
        tables,
    };
    let Some(table) = verity_table(major, minor)? else {
        return Ok(None);
    };
    let root = root_hash(&table).map_err(io::Error::other)?;
    if tables > 1 {
        return Err(io::Error::other(
            "its dm-verity volume was given another table since arming; close the volume and open it again",
        ));
    }
    let kind = rustix::fs::fstatfs(file)?.f_type as i64;
    if !ON_ONE_DEVICE.contains(&kind) {
        return Err(io::Error::other(format!(
            "`dmverity` is for ext4 and squashfs; a file system of type {kind:#x} may have files on other devices"
        )));
    }
    on_volume(file, path)?;
    Ok(Some((volume, root)))
}

/// Is that device one with dm-verity?
pub fn is_verity((major, minor): (u32, u32)) -> bool {
    Path::new(&format!("/sys/dev/block/{major}:{minor}/dm")).exists()
        && verity_table(major, minor).is_ok_and(|table| table.is_some())
}

fn count(tables: &MapHandle, device: u32, disk: u64) -> io::Result<u32> {
    let known = tables
        .lookup(&device.to_ne_bytes(), MapFlags::ANY)
        .map_err(io::Error::other)?;
    Ok(known.map_or(0, |bytes| {
        let mut reader = Reader(&bytes);
        match reader.u64() == disk {
            true => reader.u32(),
            false => 0,
        }
    }))
}

/// Is the file's path the one on the volume? Symbolic links and mounts of single folders could show
/// another file of the volume there. `/proc` is not asked: something else may be mounted there.
fn on_volume(file: &File, path: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let again = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let again = File::from(again.map_err(|error| match error {
        Errno::LOOP => io::Error::other("`dmverity` wants a path without symbolic links"),
        error => error.into(),
    })?);
    let (opened, found) = (file.metadata()?, again.metadata()?);
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Err(io::Error::other("it became another file just now"));
    }
    match mount_root(&again)?.as_str() {
        "/" => Ok(()),
        root => Err(io::Error::other(format!(
            "it is shown by a mount of {root}, not of its whole dm-verity volume"
        ))),
    }
}

/// Which folder of its file system the mount shows that `file` was opened by (`statmount()`, 6.8, kernel
/// commit 46eae99ef733).
fn mount_root(file: &File) -> io::Result<String> {
    let id = statx(
        file,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::from_bits_retain(UNIQUE_ID),
    )?
    .stx_mnt_id;
    let request = Fields::default()
        .u32s(&[24, 0])
        .u64s(&[id, MOUNT_ROOT])
        .done(24);
    let mut answer = vec![0u8; STRINGS + libc::PATH_MAX as usize];
    // SAFETY: the kernel reads the 24 bytes that the request says it has, and writes at most the
    // length of the answer.
    let result = unsafe {
        libc::syscall(
            STATMOUNT,
            request.as_ptr(),
            answer.as_mut_ptr(),
            answer.len(),
            0,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let at = STRINGS + Reader(&answer[ROOT_AT..]).u32() as usize;
    let text = answer
        .get(at..)
        .and_then(|text| text.split(|&byte| byte == 0).next());
    match text.and_then(|text| std::str::from_utf8(text).ok()) {
        Some(root) if Reader(&answer[MASK_AT..]).u64() & MOUNT_ROOT != 0 => Ok(root.to_owned()),
        _ => Err(io::Error::other(
            "the kernel does not say what its mount shows",
        )),
    }
}

/// `__NR_statmount`, on all machines.
const STATMOUNT: libc::c_long = 457;
/// `STATX_MNT_ID_UNIQUE`
const UNIQUE_ID: u32 = 0x4000;
/// `STATMOUNT_MNT_ROOT`
const MOUNT_ROOT: u64 = 8;
/// Where `struct statmount` says what it has, where the root's text is, and has texts.
const MASK_AT: usize = 8;
const ROOT_AT: usize = 104;
const STRINGS: usize = 512;

/// The parameters of a device's table, if that is one target of dm-verity.
///
/// `Documentation/admin-guide/device-mapper`, `include/uapi/linux/dm-ioctl.h`.
fn verity_table(major: u32, minor: u32) -> io::Result<Option<String>> {
    let control = File::open(CONTROL)
        .map_err(|error| io::Error::new(error.kind(), format!("{CONTROL}: {error}")))?;
    let kind = control.metadata()?;
    if !kind.file_type().is_char_device() || kind.rdev() != libc::makedev(MISC, CONTROL_MINOR) {
        return Err(io::Error::other(format!(
            "{CONTROL} is not device-mapper's"
        )));
    }
    let mut buffer = vec![0u8; ANSWER];
    let mut put = |at: usize, bytes: &[u8]| buffer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &4u32.to_ne_bytes()); // the interface's version
    put(DATA_SIZE, &(ANSWER as u32).to_ne_bytes());
    put(DATA_START, &(HEADER as u32).to_ne_bytes());
    put(FLAGS, &STATUS_TABLE.to_ne_bytes());
    let number = u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12);
    put(DEVICE, &number.to_ne_bytes());
    // SAFETY: the kernel reads and writes at most the `data_size` bytes that the header names.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), DM_TABLE_STATUS, buffer.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    parameters(&buffer).map_err(io::Error::other)
}

/// Out of the kernel's answer.
fn parameters(answer: &[u8]) -> Result<Option<String>, &'static str> {
    const SHORT: &str = "device-mapper's answer is too short";
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4)?;
        Some(Reader(bytes).u32())
    };
    let flags = number(FLAGS).ok_or(SHORT)?;
    if flags & BUFFER_FULL != 0 {
        return Err("the device's table is too long");
    }
    if number(TARGETS) != Some(1) {
        return Ok(None);
    }
    let start = number(DATA_START).ok_or(SHORT)? as usize;
    let text = |from: usize, to: usize| {
        let bytes = answer.get(from..to)?.split(|&byte| byte == 0).next()?;
        std::str::from_utf8(bytes).ok()
    };
    if text(start + TARGET_TYPE, start + TARGET) != Some("verity") {
        return Ok(None);
    }
    let found = text(start + TARGET, answer.len()).ok_or(SHORT)?;
    Ok(Some(found.to_owned()))
}

/// The root hash of a table of dm-verity that lets nothing pass that differs from it.
///
/// `Documentation/admin-guide/device-mapper/verity.rst`: version, device, device of hashes, two sizes of
/// blocks, blocks, first block of hashes, algorithm, root hash, salt; number of words that follow; options.
fn root_hash(table: &str) -> Result<Digest, String> {
    let words: Vec<&str> = table.split_ascii_whitespace().collect();
    let [_, _, _, _, _, _, _, algorithm, root, _, options @ ..] = &words[..] else {
        return Err(format!(
            "a table of dm-verity that is not understood: {table}"
        ));
    };
    if *algorithm != "sha256" {
        return Err(format!("its dm-verity is by {algorithm}, not by sha256"));
    }
    let mut options = options.iter().skip(1);
    while let Some(option) = options.next() {
        let Some((_, values)) = OPTIONS.iter().find(|(known, _)| known == option) else {
            return Err(format!(
                "its dm-verity volume has the option {option}, with which other contents may pass"
            ));
        };
        for _ in 0..*values {
            options.next();
        }
    }
    format!("sha256:{root}")
        .parse()
        .map_err(|_| format!("a root hash that is no SHA-256: {root}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "4392712ba01368efdf14b05c76f9e4df0d53664630b5d48632ed17a137f39076";

    fn table(more: &str) -> String {
        format!("1 8:1 8:2 4096 4096 262144 1 sha256 {ROOT} 1234000000{more}")
    }

    #[test]
    fn a_table_that_lets_errors_pass_has_no_root_hash() {
        let root = format!("sha256:{ROOT}").parse().unwrap();
        for more in [
            "",
            " 1 restart_on_corruption",
            " 9 panic_on_error use_fec_from_device 8:2 fec_blocks 9 fec_start 1 fec_roots 2",
        ] {
            assert_eq!(root_hash(&table(more)), Ok(root), "{more}");
        }
        for (more, want) in [
            (" 1 ignore_corruption", "the option ignore_corruption,"),
            (" 1 check_at_most_once", "the option check_at_most_once,"),
            (" 2 fec_roots 2 later", "the option later,"),
        ] {
            let said = root_hash(&table(more)).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
        let said = root_hash(&table("").replace("sha256", "sha1")).unwrap_err();
        assert_eq!(said, "its dm-verity is by sha1, not by sha256");
        assert!(root_hash("1 8:1").is_err());
        assert!(root_hash(&table("").replace(ROOT, "ab")).is_err());
    }

    #[test]
    fn only_one_target_of_dm_verity_counts() {
        let answer = |targets: u32, kind: &str, flags: u32| {
            let mut bytes = vec![0; HEADER + TARGET];
            bytes[TARGETS..TARGETS + 4].copy_from_slice(&targets.to_ne_bytes());
            bytes[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
            bytes[DATA_START..DATA_START + 4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
            let at = HEADER + TARGET_TYPE;
            bytes[at..at + kind.len()].copy_from_slice(kind.as_bytes());
            bytes.extend(b"1 8:1\0rest");
            bytes
        };
        let found = parameters(&answer(1, "verity", 0));
        assert_eq!(found, Ok(Some("1 8:1".to_owned())));
        assert_eq!(parameters(&answer(1, "linear", 0)), Ok(None));
        assert_eq!(parameters(&answer(2, "verity", 0)), Ok(None));
        assert!(parameters(&answer(1, "verity", BUFFER_FULL)).is_err());
        assert!(parameters(&answer(1, "verity", 0)[..HEADER + 30]).is_ok_and(|it| it.is_none()));
        assert!(parameters(&[]).is_err());
    }

    #[test]
    fn a_path_is_the_one_on_the_volume() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let link = folder.path().join("y");
        fs::write(&path, "abc").unwrap();
        fs::write(folder.path().join("z"), "abc").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = File::open(&path).unwrap();
        let says = |name: &str| {
            let path = folder.path().join(name);
            on_volume(&file, path.to_str().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(says("y"), "`dmverity` wants a path without symbolic links");
        assert_eq!(says("z"), "it became another file just now");
    }
}
