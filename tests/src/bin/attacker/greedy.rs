//! Gets hold of what is the gate's as soon as it is there, before anybody guards it.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    ops::Range,
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    process::{Pid, Signal, kill_process},
};

use super::{
    Attr, MAP_GET_FD_BY_ID, OBJ_GET, PINS, PROG_GET_FD_BY_ID, check,
    own::{self, denied, next_id},
    renew,
};

const OBJ_PIN: u32 = 6;
const PROG_DETACH: u32 = 9;
const PROG_GET_NEXT_ID: u32 = 11;
const MAP_GET_NEXT_ID: u32 = 12;
const OBJ_GET_INFO_BY_FD: u32 = 15;
/// Where `struct bpf_map_info` and `struct bpf_prog_info` have the name.
const MAP_NAME: Range<usize> = 24..40;
const PROG_NAME: Range<usize> = 64..80;
/// The gate's programs without a pin, and what they are attached as (`BPF_LSM_CGROUP`, `BPF_CGROUP_SYSCTL`).
const LAST: [(&str, u32); 4] = [
    ("last_word", 43),
    ("last_prog", 43),
    ("last_map", 43),
    ("last_sysctl", 18),
];

fn name(object: &OwnedFd, place: Range<usize>) -> io::Result<String> {
    let mut info = [0u8; 80];
    Attr::new()
        .u32(0, object.as_raw_fd() as u32)
        .u32(4, place.end as u32)
        .u64(8, info.as_mut_ptr() as u64)
        .call(OBJ_GET_INFO_BY_FD)?;
    let text = String::from_utf8_lossy(&info[place]);
    Ok(text.trim_end_matches('\0').to_owned())
}

/// Calls `each` with every program that comes, until somebody says stop.
fn watch_programs(stop: &AtomicBool, mut each: impl FnMut(OwnedFd, String)) {
    let next = |after: u32| next_id(PROG_GET_NEXT_ID, after);
    let mut last = std::iter::successors(Some(0), |&id| next(id))
        .last()
        .unwrap_or(0);
    while !stop.load(Ordering::Relaxed) {
        let Some(id) = next(last) else { continue };
        last = id;
        if let Ok(program) = Attr::new().u32(0, id).open(PROG_GET_FD_BY_ID)
            && let Ok(name) = name(&program, PROG_NAME)
        {
            each(program, name);
        }
    }
}

/// Runs a command that arms, keeps descriptors of the gate's programs that have no pin, and then tries to take them
/// off the root of the control groups, which is mounted at `root`.
pub fn grasp(root: &str, command: &[String]) -> io::Result<bool> {
    let (first, words) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let stop = AtomicBool::new(false);
    let (status, held) = thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            let mut held = Vec::new();
            watch_programs(&stop, |program, name| held.push((program, name)));
            held
        });
        let status = Command::new(first).args(words).status();
        stop.store(true, Ordering::Relaxed);
        (status, greedy.join().expect("a thread that only asks"))
    });
    let mut fine = check(
        "it is armed meanwhile",
        match status?.success() {
            true => Ok(format!("{} programs held", held.len())),
            false => Err("it failed".to_owned()),
        },
    );
    let group = File::open(root)?;
    for (wanted, kind) in LAST {
        let found = held.iter().find(|(_, name)| name == wanted);
        let result = match found {
            None => Err(io::Error::other("nobody got hold of it")),
            Some((program, _)) => Attr::new()
                .u32(0, group.as_raw_fd() as u32)
                .u32(4, program.as_raw_fd() as u32)
                .u32(8, kind)
                .call(PROG_DETACH),
        };
        let name = format!("whoever has a descriptor of {wanted} does not take it off its hook");
        fine &= check(&name, denied(result));
    }
    Ok(fine)
}

/// Runs a command that arms. Before the gate guards its pins, one of its programs leaves its hook: the pin of another's
/// link takes the place of its own. Ends as the command does.
pub fn slip(command: &[String]) -> io::Result<i32> {
    let (first, words) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let watch = inotify::init(CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, "/sys/fs/bpf", WatchFlags::CREATE)?;
    own::go_first_on_one_processor()?;
    let mut child = Command::new(first).args(words).spawn()?;
    let pid = Pid::from_child(&child);
    renew::until(&watch, &child, |event| {
        let name = event.file_name().unwrap_or_default().to_string_lossy();
        if name == "bpfseal" {
            inotify::add_watch(&watch, PINS, WatchFlags::CREATE)?;
        }
        Ok(name == "link_note_mprotect")
    })?;
    kill_process(pid, Signal::STOP)?;
    let pin = |name: &str| CString::new(format!("{PINS}/{name}")).map_err(io::Error::other);
    let (from, to) = (pin("link_note_mmap")?, pin("link_guard_trace")?);
    let link = Attr::new().u64(0, from.as_ptr() as u64).open(OBJ_GET)?;
    fs::remove_file(format!("{PINS}/link_guard_trace"))?;
    Attr::new()
        .u64(0, to.as_ptr() as u64)
        .u32(8, link.as_raw_fd() as u32)
        .call(OBJ_PIN)?;
    drop(link);
    kill_process(pid, Signal::CONT)?;
    Ok(child.wait()?.code().unwrap_or(-1))
}

/// The first new map of that name, until somebody says stop.
fn wait_for(wanted: &str, stop: &AtomicBool) -> Option<OwnedFd> {
    let next = |after: u32| next_id(MAP_GET_NEXT_ID, after);
    let mut last = std::iter::successors(Some(0), |&id| next(id)).last()?;
    while !stop.load(Ordering::Relaxed) {
        let Some(id) = next(last) else { continue };
        last = id;
        let map = Attr::new().u32(0, id).open(MAP_GET_FD_BY_ID);
        if let Ok(map) = map
            && name(&map, MAP_NAME).is_ok_and(|name| name == wanted)
        {
            return Some(map);
        }
    }
    None
}

/// Runs a command, and keeps a descriptor of the first map of that name that comes meanwhile. Ends as the command does.
pub fn run(wanted: &str, command: &[String]) -> io::Result<i32> {
    let (first, words) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let stop = AtomicBool::new(false);
    let (status, map) = thread::scope(|scope| {
        let greedy = scope.spawn(|| wait_for(wanted, &stop));
        let status = Command::new(first).args(words).status();
        stop.store(true, Ordering::Relaxed);
        (status, greedy.join().expect("a thread that only asks"))
    });
    match map {
        Some(_held) => Ok(status?.code().unwrap_or(-1)),
        None => Err(io::Error::other("there was no such map")),
    }
}
