//! A second thread that exchanges maps under their descriptors while programs are verified.
//!
//! What the verifier bound is read back from the kernel, instruction by instruction: a program
//! is right if its references are to the maps that the image says, in this order.
#![expect(unsafe_code, reason = "the bpf() system call with hostile arguments")]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use enforcer::{
    gate::{Class, Entry, Gate, GateError},
    kernel::BpfGate,
};

use super::{
    ARRAY, Attr, EXIT, Load, SOCKET_FILTER, admissions, arm_with, array_spec, check, entry, load64,
    map, r0,
};

const OBJ_GET_INFO_BY_FD: u32 = 15;

/// References of the program that is raced for: enough for the verifier to be interrupted
/// between two of them.
const REFERENCES: usize = 4000;

/// `if r0 == 0 goto +2` over one reference, after `r0 = 0`: never run, so taken away.
const SKIP_TWO: u64 = 0x15 | 2 << 16;

/// Two maps, referred to in turn. With `dead`, the first reference is in dead code.
pub fn alternating(fds: [i32; 2], dead: bool) -> Load {
    let mut words = Vec::new();
    if dead {
        words.extend([r0(0), SKIP_TWO, load64(1, fds[0] as u32), 0]);
    }
    for number in 0..REFERENCES {
        words.extend([load64(1, fds[number % 2] as u32), 0]);
    }
    words.extend([r0(0), EXIT]);
    let name = if dead { "dead" } else { "alternating" };
    Load::new(name, SOCKET_FILTER, &words)
}

/// What of it the gate admits.
pub fn entries() -> Vec<Entry> {
    [false, true]
        .map(|dead| {
            let maps = vec![array_spec(), array_spec()];
            entry(&alternating([7, 8], dead), maps, Class::Signed)
        })
        .into()
}

/// Ids of the maps that a loaded program's instructions refer to, in order.
fn references(program: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut words = vec![0u64; 3 * REFERENCES];
    let mut info = [0u64; 28];
    info[2] = (words.len() as u64 * 8) << 32; // xlated_prog_len
    info[4] = words.as_mut_ptr() as u64;
    Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(4, size_of_val(&info) as u32)
        .u64(8, info.as_mut_ptr() as u64)
        .call(OBJ_GET_INFO_BY_FD)?;
    words.truncate((info[2] >> 32) as usize / 8);
    Ok(words
        .into_iter()
        .filter(|&word| bundle::image::is_map_reference(word))
        .map(|word| (word >> 32) as u32)
        .collect())
}

fn map_id(map: &OwnedFd) -> io::Result<u32> {
    let mut info = [0u32; 20];
    Attr::new()
        .u32(0, map.as_raw_fd() as u32)
        .u32(4, size_of_val(&info) as u32)
        .u64(8, info.as_mut_ptr() as u64)
        .call(OBJ_GET_INFO_BY_FD)?;
    Ok(info[1])
}

/// How a number of loads ended.
#[derive(Debug, Default)]
struct Outcome {
    right: usize,
    wrong: usize,
    refused: usize,
    errors: Vec<String>,
}

/// Loads again and again, while a thread exchanges the second map for the first and back.
fn race(rounds: usize, dead: bool) -> Outcome {
    let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
    let fds = [
        a.try_clone().expect("descriptors can be copied"),
        b.try_clone().expect("descriptors can be copied"),
    ];
    let ids = [&a, &b].map(|map| map_id(map).expect("maps tell their id"));
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, target) = (Arc::clone(&stop), fds[1].as_raw_fd());
        let sources = [a.as_raw_fd(), b.as_raw_fd()];
        thread::spawn(move || {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                // SAFETY: three numbers; the target is `fds[1]`, which stays open.
                unsafe { libc::dup2(sources[turn % 2], target) };
            }
            // SAFETY: as above.
            unsafe { libc::dup2(sources[1], target) };
        })
    };
    let mut outcome = Outcome::default();
    let load = alternating([fds[0].as_raw_fd(), fds[1].as_raw_fd()], dead);
    let want: Vec<u32> = (0..REFERENCES).map(|number| ids[number % 2]).collect();
    for _ in 0..rounds {
        match load.load().and_then(|program| references(&program)) {
            Ok(found) if found == want => outcome.right += 1,
            Ok(_) => outcome.wrong += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => outcome.refused += 1,
            Err(error) => outcome.errors.push(error.to_string()),
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the thread only exchanges");
    outcome
}

/// Several threads load at once and exchange nothing: all must succeed.
fn peaceful(rounds: usize) -> Outcome {
    let threads: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let mut outcome = Outcome::default();
                for round in 0..rounds {
                    let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                    let fds = [a.as_raw_fd(), b.as_raw_fd()];
                    match alternating(fds, (number + round) % 2 == 0).load() {
                        Ok(_) => outcome.right += 1,
                        Err(error) => outcome.errors.push(error.to_string()),
                    }
                }
                outcome
            })
        })
        .collect();
    threads
        .into_iter()
        .fold(Outcome::default(), |mut all, thread| {
            let one = thread.join().expect("threads only load");
            all.right += one.right;
            all.errors.extend(one.errors);
            all
        })
}

/// Without a gate the thread wins now and then; with one it never does.
pub fn run(rounds: usize) -> Result<bool, GateError> {
    let mut fine = true;
    for dead in [false, true] {
        let outcome = race(rounds, dead);
        fine &= check(
            &format!("without a gate a thread exchanges maps{}", told(dead)),
            if outcome.wrong > 0 {
                Ok(format!("{outcome:?}"))
            } else {
                Err(format!("it never did: {outcome:?}"))
            },
        );
    }
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries.extend(entries());
    arm_with(&mut gate, &all)?;
    for dead in [false, true] {
        let outcome = race(rounds, dead);
        fine &= check(
            &format!("a thread never gets another map in{}", told(dead)),
            if outcome.wrong == 0 && outcome.errors.is_empty() && outcome.refused > 0 {
                Ok(format!("{outcome:?}"))
            } else {
                Err(format!("{outcome:?}"))
            },
        );
    }
    let outcome = peaceful(rounds / 2);
    fine &= check(
        "threads that exchange nothing load programs with two maps",
        if outcome.errors.is_empty() && outcome.right == 4 * (rounds / 2) {
            Ok(format!("{} loads", outcome.right))
        } else {
            Err(format!("{outcome:?}"))
        },
    );
    gate.disarm()?;
    Ok(fine)
}

fn told(dead: bool) -> &'static str {
    if dead { ", with dead code" } else { "" }
}
