//! Gets hold of a map of the gate's as soon as it is there, before anybody guards it.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{Attr, MAP_GET_FD_BY_ID, own::next_id};

const MAP_GET_NEXT_ID: u32 = 12;
const OBJ_GET_INFO_BY_FD: u32 = 15;
/// Where `struct bpf_map_info` has the name, and its bytes up to there and with it.
const NAME: std::ops::Range<usize> = 24..40;

fn name(map: &OwnedFd) -> io::Result<String> {
    let mut info = [0u8; 128];
    Attr::new()
        .u32(0, map.as_raw_fd() as u32)
        .u32(4, info.len() as u32)
        .u64(8, info.as_mut_ptr() as u64)
        .call(OBJ_GET_INFO_BY_FD)?;
    let text = String::from_utf8_lossy(&info[NAME]);
    Ok(text.trim_end_matches('\0').to_owned())
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
            && name(&map).is_ok_and(|name| name == wanted)
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
