//! The gate's programs are exchanged while threads load, and while whoever does it is killed.

use std::{
    collections::BTreeSet,
    env, io,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use enforcer::{
    gate::{Gate, GateError},
    kernel::BpfGate,
};

use super::{arm, check, evil, must_refuse, own, simple};

/// What a thread saw.
#[derive(Debug, Default)]
struct Seen {
    loads: usize,
    /// Of programs that nobody admitted.
    loaded: usize,
    /// Of admitted ones.
    refused: Vec<io::Error>,
}

/// Exchanges them: nobody who loads notices.
pub fn run() -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let programs = |gate: &BpfGate| -> Result<BTreeSet<u32>, GateError> {
        let loaded = gate.loaded()?.into_iter();
        Ok(loaded.filter(|p| p.own).map(|p| p.id).collect())
    };
    let first = programs(&gate)?;
    let ended = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|number| {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                // Those who exchange come first, or it takes long.
                own::give_way();
                while !ended.load(Ordering::Relaxed) {
                    if number == 0 {
                        // The verifier gives up where a signal waits: of a child that has ended.
                        let interrupted =
                            |error: &io::Error| error.raw_os_error() == Some(libc::EAGAIN);
                        let result = simple().load().err();
                        seen.refused
                            .extend(result.filter(|error| !interrupted(error)));
                    } else {
                        seen.loaded += usize::from(evil().load().is_ok());
                    }
                    seen.loads += 1;
                }
                seen
            })
        })
        .collect();
    let started = Instant::now();
    let exchanged = exchanging().and_then(|mut child| child.wait());
    let took = started.elapsed();
    let killed = killed_while_exchanging(took);
    ended.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = threads
        .into_iter()
        .map(|thread| thread.join().expect("threads only count"))
        .collect();
    let again = exchanging().and_then(|mut child| child.wait());
    let said = |result: io::Result<ExitStatus>| match result {
        Ok(status) if status.success() => Ok(format!("{} ms", took.as_millis())),
        other => Err(format!("{other:?}")),
    };
    let mut fine = check("the gate's programs are exchanged", said(exchanged));
    fine &= check("whoever does it is killed meanwhile", killed);
    fine &= check("then it is done from the beginning", said(again));
    let fair = |seen: &Seen| seen.loads > 0 && seen.loaded == 0 && seen.refused.is_empty();
    let verdict = |fine: bool, line: String| if fine { Ok(line) } else { Err(line) };
    fine &= check(
        "no program is let in meanwhile, and none refused that is admitted",
        verdict(seen.iter().all(fair), format!("{seen:?}")),
    );
    let now = programs(&gate)?;
    let line = format!("{} before, {} now", first.len(), now.len());
    let others = now.len() == first.len() && now.is_disjoint(&first);
    fine &= check(
        "they are as many as before, and all others",
        verdict(others, line),
    );
    fine &= check("unsigned is refused", must_refuse(&evil()));
    gate.disarm()?;
    Ok(fine)
}

/// Somebody who exchanges the gate's programs.
fn exchanging() -> io::Result<Child> {
    Command::new(env::current_exe()?).arg("exchange").spawn()
}

/// Kills those who exchange the gate's programs, each one a little later.
fn killed_while_exchanging(took: Duration) -> Result<String, String> {
    const TIMES: u32 = 4;
    let attempts = || -> io::Result<u32> {
        let mut killed = 0;
        for time in 0..TIMES {
            let mut child = exchanging()?;
            std::thread::sleep(took * (2 * time + 1) / (2 * TIMES));
            child.kill()?;
            killed += u32::from(!child.wait()?.success());
        }
        Ok(killed)
    };
    match attempts() {
        Ok(0) => Err("nobody was killed before it was done".into()),
        Ok(killed) => Ok(format!("{killed} of {TIMES}")),
        Err(error) => Err(error.to_string()),
    }
}
