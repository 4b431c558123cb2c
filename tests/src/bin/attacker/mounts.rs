//! Mounts that nobody else makes: by a path that takes its time, onto a folder that was opened before something
//! was mounted on it, and into another mount's peer group.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use rustix::{
    fs::{CWD, Mode, OFlags, open},
    mount::{
        MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
        mount_bind_recursive, move_mount, open_tree, unmount,
    },
};

/// `enum fuse_opcode` of include/uapi/linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const READLINK: u32 = 5;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;
/// The version whose structs are used below; the kernel speaks all before its own.
const VERSION: (u32, u32) = (7, 31);
/// Room for whatever the kernel asks: `FUSE_MIN_READ_BUFFER` and a page of data.
const ROOM: usize = 0x2000 + 0x1000;

/// `struct fuse_attr` of a folder or of a symbolic link.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == 1 {
        libc::S_IFDIR | 0o755
    } else {
        libc::S_IFLNK | 0o777
    };
    let mut bytes = Vec::new();
    bytes.extend([node, 0, 0, 0, 0, 0].map(u64::to_ne_bytes).concat());
    bytes.extend(
        [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]
            .map(u32::to_ne_bytes)
            .concat(),
    );
    bytes
}

/// What a file system answers whose one entry is a link to `target`; `None`: nothing. `wait` holds up who looks it up.
fn answer(
    operation: u32,
    node: u64,
    target: &str,
    wait: &dyn Fn() -> io::Result<()>,
) -> io::Result<Option<Result<Vec<u8>, i32>>> {
    Ok(match operation {
        FORGET | BATCH_FORGET | INTERRUPT => None,
        INIT => {
            let mut bytes = [VERSION.0, VERSION.1, 0, 0].map(u32::to_ne_bytes).concat();
            bytes.resize(64, 0);
            // max_write
            bytes[20..24].copy_from_slice(&4096u32.to_ne_bytes());
            Some(Ok(bytes))
        }
        GETATTR => Some(Ok([vec![0; 16], attributes(node)].concat())),
        LOOKUP => {
            wait()?;
            let mut bytes = 2u64.to_ne_bytes().to_vec();
            bytes.resize(40, 0);
            bytes.extend(attributes(2));
            Some(Ok(bytes))
        }
        READLINK => Some(Ok(target.as_bytes().to_vec())),
        _ => Some(Err(libc::ENOSYS)),
    })
}

/// Answers the kernel until it asks no more.
fn serve(mut device: &File, target: &str, wait: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    let mut request = vec![0; ROOM];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            // Unmounted.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            Err(error) => return Err(error),
        };
        if length < HEADER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let number = |at: usize| -> [u8; 8] { std::array::from_fn(|byte| request[at + byte]) };
        let operation = u32::from_ne_bytes(std::array::from_fn(|byte| request[4 + byte]));
        let (unique, node) = (number(8), u64::from_ne_bytes(number(16)));
        let Some(said) = answer(operation, node, target, wait)? else {
            continue;
        };
        let (error, body) = match said {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(unique);
        reply.extend(body);
        device.write_all(&reply)?;
    }
}

/// Mounts what is at `target` on `on`, by a link in a file system at `fuse` that leads there once a line is read.
pub fn detour(fuse: &str, target: &str, on: &str) -> io::Result<()> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let options = CString::new(options).map_err(io::Error::other)?;
    mount(
        "detour",
        fuse,
        "fuse",
        MountFlags::empty(),
        options.as_c_str(),
    )?;
    let link = format!("{fuse}/to");
    let wait = || {
        println!("it waits");
        io::stdin().read_line(&mut String::new()).map(drop)
    };
    thread::scope(|scope| {
        scope.spawn(|| serve(&device, target, &wait).expect("the kernel is answered"));
        let mounted = mount_bind_recursive(link, on);
        unmount(fuse, UnmountFlags::DETACH)?;
        Ok(mounted?)
    })
}

/// A copy of the mount at `source`, which stands nowhere yet.
fn copied(source: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, source, flags)?)
}

/// Moves a copy of `source` to beneath what is mounted on `on` (6.5 and later).
pub fn beneath(source: &str, on: &str) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    Ok(move_mount(copied(source)?, "", CWD, on, flags)?)
}

/// Opens `on`, mounts `between` on it, and moves a copy of `source` onto what was opened.
pub fn late(source: &str, between: &str, on: &str) -> io::Result<()> {
    let opened = open(on, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let copy = copied(source)?;
    mount_bind(between, on)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(copy, "", opened, "", flags)?)
}

/// Puts the mount at `to` into the peer group of the one at `from`.
pub fn join(from: &str, to: &str) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_SET_GROUP;
    Ok(move_mount(CWD, from, CWD, to, flags)?)
}
