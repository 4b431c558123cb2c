//! A second thread that exchanges maps while programs are verified: under their descriptors, or in the
//! table of descriptors that the caller keeps in its memory.
//!
//! What the verifier bound is read back from the kernel, instruction by instruction: a program
//! is right if its references are to the maps that the image says, in this order.
#![expect(unsafe_code, reason = "the bpf() system call with hostile arguments")]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use bundle::indexed::as_is;

use enforcer::{
    gate::{Class, Entry, Gate, GateError},
    kernel::BpfGate,
};

use super::{
    ARRAY, Attr, EXIT, Load, SOCKET_FILTER, admissions, arm_with, array_spec, check, entry, load64,
    map, r0,
    rewrite::{Outcome, meanwhile},
};

const OBJ_GET_INFO_BY_FD: u32 = 15;

/// References of the program that is raced for: enough for the verifier to be interrupted
/// between two of them.
const REFERENCES: usize = 4000;

/// `if r0 == 0 goto +2` over one reference, after `r0 = 0`: never run, so taken away.
const SKIP_TWO: u64 = 0x15 | 2 << 16;

/// How the program names its maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    /// The first reference is in dead code.
    Dead,
    /// By index into `fd_array`, as light skeletons do.
    Indexed,
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Dead, Self::Indexed];

    const fn told(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dead => ", with dead code",
            Self::Indexed => ", by index",
        }
    }
}

/// Two maps, referred to in turn.
pub fn alternating(fds: [i32; 2], form: Form) -> Load {
    let (source, named) = match form {
        Form::Indexed => (5, [0, 1]),
        Form::Plain | Form::Dead => (1, fds),
    };
    let mut words = Vec::new();
    if form == Form::Dead {
        words.extend([r0(0), SKIP_TWO, load64(source, named[0] as u32), 0]);
    }
    for number in 0..REFERENCES {
        words.extend([load64(source, named[number % 2] as u32), 0]);
    }
    words.extend([r0(0), EXIT]);
    let name = match form {
        Form::Plain => "alternating",
        Form::Dead => "dead",
        Form::Indexed => "indexed",
    };
    let mut load = Load::new(name, SOCKET_FILTER, &words);
    if form == Form::Indexed {
        load.fd_array = fds.into();
    }
    load
}

/// What of it the gate admits; by index only while `run` tries that.
pub fn entries() -> Vec<Entry> {
    vec![admitted(Form::Plain), admitted(Form::Dead)]
}

fn admitted(form: Form) -> Entry {
    let maps = vec![array_spec(), array_spec()];
    let mut entry = entry(&alternating([7, 8], form), maps, Class::Signed);
    if form == Form::Indexed {
        entry.image = as_is(entry.image);
    }
    entry
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

/// Loads again and again, while a thread exchanges the second map for the first and back.
fn race(rounds: usize, form: Form) -> Outcome {
    let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
    let fds = [
        a.try_clone().expect("descriptors can be copied"),
        b.try_clone().expect("descriptors can be copied"),
    ];
    let ids = [&a, &b].map(|map| map_id(map).expect("maps tell their id"));
    let sources = [a.as_raw_fd(), b.as_raw_fd()];
    let target = fds[1].as_raw_fd();
    let mut load = alternating([fds[0].as_raw_fd(), target], form);
    // SAFETY: the second of two numbers that live as long as `load` does; from here on only the kernel reads
    // them otherwise.
    let slot = (form == Form::Indexed)
        .then(|| unsafe { AtomicI32::from_ptr(load.fd_array.as_mut_ptr().add(1)) });
    let exchange = |turn: usize| match slot {
        Some(slot) => slot.store(sources[turn % 2], Ordering::Relaxed),
        None => {
            // SAFETY: two numbers; the target is `fds[1]`, which stays open.
            unsafe { libc::dup2(sources[turn % 2], target) };
        }
    };
    let want: Vec<u32> = (0..REFERENCES).map(|number| ids[number % 2]).collect();
    let is_over = |outcome: &Outcome| outcome.wrong + outcome.refused > 0;
    meanwhile(exchange, |turns| {
        turns.race(rounds, is_over, || {
            let found = load.load().and_then(|program| references(&program));
            found.map(|found| found == want)
        })
    })
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
                    let form = Form::ALL[(number + round) % 2];
                    match alternating(fds, form).load() {
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
    for form in Form::ALL {
        let outcome = race(rounds, form);
        fine &= check(
            &format!("without a gate a thread exchanges maps{}", form.told()),
            if outcome.wrong > 0 {
                Ok(format!("{outcome:?}"))
            } else {
                Err(format!("it never did: {outcome:?}"))
            },
        );
    }
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries.push(admitted(Form::Indexed));
    arm_with(&mut gate, &all)?;
    for form in Form::ALL {
        let outcome = race(rounds, form);
        fine &= check(
            &format!("a thread never gets another map in{}", form.told()),
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
