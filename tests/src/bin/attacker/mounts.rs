//! Mounts that nobody else makes: by a path that takes its time, onto a folder that was opened before something
//! was mounted on it, into another mount's peer group, and at the same moment as an unmount.

#![expect(unsafe_code, reason = "system calls without a wrapper in std")]

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Barrier,
    thread,
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

fn text(path: &str) -> io::Result<CString> {
    CString::new(path).map_err(io::Error::other)
}

fn ended(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// mount(2).
fn mount(source: &str, on: &str, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let [source, on, kind, data] = [text(source)?, text(on)?, text(kind)?, text(data)?];
    // SAFETY: four strings that live through the call.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            on.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    ended(result.into()).map(drop)
}

fn unmount_lazily(path: &str) -> io::Result<()> {
    let path = text(path)?;
    // SAFETY: a string that lives through the call.
    ended(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

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
    mount("detour", fuse, "fuse", 0, &options)?;
    let link = format!("{fuse}/to");
    let wait = || {
        println!("it waits");
        io::stdin().read_line(&mut String::new()).map(drop)
    };
    thread::scope(|scope| {
        scope.spawn(|| serve(&device, target, &wait).expect("the kernel is answered"));
        let mounted = mount(&link, on, "", libc::MS_BIND | libc::MS_REC, "");
        unmount_lazily(fuse)?;
        mounted
    })
}

/// A copy of the mount at `source`, which stands nowhere yet.
fn copied(source: &str) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let source = text(source)?;
    // SAFETY: a string that lives through the call.
    let tree = ended(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            source.as_ptr(),
            OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint,
        )
    })?;
    // SAFETY: the call made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(tree as i32) })
}

fn move_mount(from: (i32, &str), to: (i32, &str), flags: libc::c_uint) -> io::Result<()> {
    let (source, target) = (text(from.1)?, text(to.1)?);
    // SAFETY: two strings that live through the call.
    ended(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.0,
            source.as_ptr(),
            to.0,
            target.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Moves a copy of `source` to beneath what is mounted on `on` (6.5 and later).
pub fn beneath(source: &str, on: &str) -> io::Result<()> {
    const EMPTY_PATH_AND_BENEATH: libc::c_uint = 0x04 | 0x200;
    let copy = copied(source)?;
    move_mount(
        (copy.as_raw_fd(), ""),
        (libc::AT_FDCWD, on),
        EMPTY_PATH_AND_BENEATH,
    )
}

/// Opens `on`, mounts `between` on it, and moves a copy of `source` onto what was opened.
pub fn late(source: &str, between: &str, on: &str) -> io::Result<()> {
    const EMPTY_PATHS: libc::c_uint = 0x04 | 0x40;
    let path = text(on)?;
    // SAFETY: a string that lives through the call.
    let opened =
        ended(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into())?;
    // SAFETY: the call made this descriptor.
    let opened = unsafe { OwnedFd::from_raw_fd(opened as i32) };
    let copy = copied(source)?;
    mount(between, on, "", libc::MS_BIND, "")?;
    move_mount(
        (copy.as_raw_fd(), ""),
        (opened.as_raw_fd(), ""),
        EMPTY_PATHS,
    )
}

/// Puts the mount at `to` into the peer group of the one at `from`.
pub fn join(from: &str, to: &str) -> io::Result<()> {
    const SET_GROUP: libc::c_uint = 0x100;
    move_mount((libc::AT_FDCWD, from), (libc::AT_FDCWD, to), SET_GROUP)
}

/// Mounts all of `source` in a folder of `on` while `on` is unmounted lazily, as often as asked. Says how often both
/// were done.
pub fn meet(rounds: usize, source: &str, on: &str) -> io::Result<()> {
    let inside = format!("{on}/inside");
    let (mut both, mut neither) = (0, 0);
    for _ in 0..rounds {
        mount("meet", on, "tmpfs", 0, "")?;
        fs::create_dir(&inside)?;
        let both_are_there = Barrier::new(2);
        let (mounted, unmounted) = thread::scope(|scope| {
            let mounter = scope.spawn(|| {
                both_are_there.wait();
                mount(source, &inside, "", libc::MS_BIND | libc::MS_REC, "")
            });
            let unmounter = scope.spawn(|| {
                both_are_there.wait();
                unmount_lazily(on)
            });
            let never = "a thread that only mounts or unmounts";
            (mounter.join().expect(never), unmounter.join().expect(never))
        });
        match (mounted, unmounted) {
            (Ok(()), Ok(())) => both += 1,
            (Err(_), Err(_)) => neither += 1,
            _ => {}
        }
        // What is left: the copies of other mounts' mounts are unmounted nowhere else.
        if fs::exists(&inside)? {
            mount("", on, "", libc::MS_PRIVATE | libc::MS_REC, "")?;
            unmount_lazily(on)?;
        }
    }
    println!("{rounds} times: both {both}, neither {neither}");
    Ok(())
}
