//! Many programs at once and one after another: records, threads, arming again and again.

use std::{sync::Barrier, thread};

use enforcer::{
    gate::{Gate, GateError},
    kernel::BpfGate,
};
use policy::Reason;

use super::{Load, arm, check, comes, drain, evil, long, must_refuse, own::grace, simple};

/// A table of records that is full refuses, and has room again when programs go.
pub fn fill() -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?.with_max_programs(32);
    arm(&mut gate)?;
    let mut held = Vec::new();
    let full = (0..100).find_map(|_| match simple().load() {
        Ok(fd) => {
            held.push(fd);
            None
        }
        Err(error) => Some(error),
    });
    // Where the refusal takes effect after the verifier, a second event says that there was
    // no record.
    let reason = drain(&mut gate)
        .iter()
        .filter_map(|event| event.reason)
        .find(|&reason| reason == Reason::RecordsFull);
    let mut fine = check(
        "a program too many is refused",
        match full {
            Some(error)
                if error.raw_os_error() == Some(libc::EPERM)
                    && reason == Some(Reason::RecordsFull) =>
            {
                Ok(format!("after {}: E412", held.len()))
            }
            other => Err(format!("{other:?}, event {reason:?}, {} held", held.len())),
        },
    );
    held.clear();
    // Programs are freed after a grace period.
    let name = "when programs go there is room again";
    fine &= comes(name, 500, "grace periods", || {
        grace().is_ok() && simple().load().is_ok()
    });
    gate.disarm()?;
    Ok(fine)
}

/// Holds `count` programs at once; the ring of events is long full by then.
pub fn hold_many(count: usize) -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let mut held = Vec::new();
    let mut stopped = None;
    while held.len() < count && stopped.is_none() {
        match simple().load() {
            Ok(fd) => held.push(fd),
            Err(error) => stopped = Some(error),
        }
    }
    let counters = gate.counters()?;
    let mut fine = check(
        &format!("{count} programs are held at once"),
        match stopped {
            None if counters.records >= count as u64 => Ok(format!("{counters:?}")),
            stopped => Err(format!("{stopped:?} after {}, {counters:?}", held.len())),
        },
    );
    fine &= check(
        "with the ring of events full it still refuses",
        must_refuse(&evil()),
    );
    drop(held);
    gate.disarm()?;
    Ok(fine)
}

/// Threads that load good and bad programs at the same time: no verdict goes to the wrong one.
pub fn race(rounds: usize) -> Result<bool, GateError> {
    compete(4, rounds, || long(1000, None), || long(1000, Some(999)))
}

/// The same with so many threads that some wait in each place where the kernel lets a load wait, and programs so
/// short that thousands come.
pub fn swarm(rounds: usize) -> Result<bool, GateError> {
    compete(128, rounds, simple, evil)
}

fn compete(
    threads: usize,
    rounds: usize,
    good: fn() -> Load,
    bad: fn() -> Load,
) -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let start = Barrier::new(threads);
    let run = &|number: usize| {
        start.wait();
        let (mut wrongly_loaded, mut wrongly_refused) = (0, 0);
        for round in 0..rounds {
            if (number + round).is_multiple_of(2) {
                wrongly_refused += usize::from(good().load().is_err());
            } else {
                wrongly_loaded += usize::from(bad().load().is_ok());
            }
        }
        (wrongly_loaded, wrongly_refused)
    };
    let counts: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("threads only count"))
            .collect()
    });
    let fine = check(
        &format!("{threads} threads that race each get their own verdict"),
        if counts.iter().all(|&count| count == (0, 0)) {
            Ok(format!("{rounds} loads each"))
        } else {
            Err(format!("(wrongly loaded, wrongly refused): {counts:?}"))
        },
    );
    gate.disarm()?;
    Ok(fine)
}

/// Arms and disarms `rounds` times. Once one unsigned program was loaded after disarming, none
/// is refused any more; before that, each one is refused.
pub fn cycle(rounds: usize) -> Result<bool, GateError> {
    let mut odd = Vec::new();
    for round in 0..rounds {
        let mut gate = BpfGate::open()?;
        arm(&mut gate)?;
        let mut witness = BpfGate::open()?;
        drain(&mut witness);
        gate.disarm()?;
        let after: Vec<bool> = (0..200)
            .map(|_| grace().is_ok() && evil().load().is_ok())
            .collect();
        if after.contains(&false) {
            let reasons: Vec<_> = drain(&mut witness)
                .into_iter()
                .map(|event| (event.gate, event.reason, event.refused))
                .collect();
            let tail = &reasons[reasons.len().saturating_sub(12)..];
            odd.push(format!("round {round}: {after:?}, {tail:?}"));
        }
    }
    Ok(check(
        &format!("{rounds} times nothing is refused after disarming"),
        if odd.is_empty() {
            Ok(String::new())
        } else {
            Err(odd.join("; "))
        },
    ))
}
