//! The admitted set is replaced again and again while threads load: some programs are in every set, some in
//! none, and no moment shows.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use enforcer::{
    gate::{Admissions, Armed, Gate, GateError},
    kernel::BpfGate,
};

use super::{
    admissions, arm_with, check, evil, explain,
    loads::{DATA, data_load},
    long,
    rewrite::Outcome,
    simple,
};

type Loads = [fn() -> io::Result<OwnedFd>; 3];

/// In every set; the last one has a map, whose contents are compared.
const ADMITTED: Loads = [
    || simple().load(),
    || long(1000, None).load(),
    || data_load(&DATA, true),
];

/// In no set.
const UNSIGNED: Loads = [
    || evil().load(),
    || long(1000, Some(700)).load(),
    || {
        let mut data = DATA;
        data[3] = 9;
        data_load(&data, true)
    },
];

/// What is always admitted, and nothing else.
fn fewer() -> Admissions {
    let mut fewer = admissions();
    let always = ["simple", "long", "data"];
    fewer
        .entries
        .retain(|entry| always.contains(&entry.image.name.as_str()));
    fewer
}

/// Loads them in turn until it has ended.
fn knock(loads: Loads, is_right: bool, ended: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    for load in loads.into_iter().cycle() {
        outcome.count(load().map(|_| is_right));
        if ended.load(Ordering::Relaxed) {
            break;
        }
    }
    outcome
}

/// Replaces the set, and in between what is pinned beside it.
fn replace(gate: &mut BpfGate, rounds: usize) -> Result<(), GateError> {
    let sets = [admissions(), fewer()];
    let mut armed = gate.armed()?.expect("the gate is armed");
    for round in 0..rounds {
        armed.policy_version += 1;
        gate.replace(&armed, &sets[round % 2])?;
        gate.amend(&Armed {
            revocation: round as u64,
            ..armed.clone()
        })?;
    }
    Ok(())
}

pub fn run(rounds: usize) -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm_with(&mut gate, &admissions())?;
    let ended = AtomicBool::new(false);
    let (replaced, admitted, unsigned) = thread::scope(|scope| {
        let admitted = scope.spawn(|| knock(ADMITTED, true, &ended));
        let unsigned = scope.spawn(|| knock(UNSIGNED, false, &ended));
        let replaced = replace(&mut gate, rounds);
        ended.store(true, Ordering::Relaxed);
        let join =
            |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("threads only count");
        (replaced, join(admitted), join(unsigned))
    });
    let always = Outcome {
        right: admitted.right.max(rounds),
        ..Outcome::default()
    };
    let never = Outcome {
        refused: unsigned.refused.max(rounds),
        ..Outcome::default()
    };
    let line = format!("{rounds} times, {admitted:?}, {unsigned:?}");
    let fine = check(
        "while the set is replaced nothing gets in, and what is admitted always does",
        match replaced {
            Err(error) => Err(explain(&error)),
            Ok(()) if (&admitted, &unsigned) == (&always, &never) => Ok(line),
            Ok(()) => Err(line),
        },
    );
    gate.disarm()?;
    Ok(fine)
}
