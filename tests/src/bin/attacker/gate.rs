//! Each admitted program loads, each other one is refused with its reason; before and after.

use std::os::fd::AsRawFd;

use bundle::Digest;
use enforcer::{
    gate::{Armed, Class, Gate, GateError, Mode},
    kernel::BpfGate,
};
use policy::Reason;

use super::{
    Attempt, Attr, LINK_CREATE, Load, PROG_ATTACH, RAW_TRACEPOINT_OPEN, admissions, bad, bound,
    check, drain, evil, good, probe, simple,
};

pub fn try_bad(gate: &mut BpfGate, attempt: &Attempt) -> bool {
    drain(gate);
    let result = (attempt.load)();
    let events = drain(gate);
    let reason = events
        .iter()
        .find(|event| event.refused)
        .and_then(|event| event.reason);
    let detail = events
        .iter()
        .find(|event| event.refused)
        .map_or(0, |event| event.detail);
    let verdict = match (result, reason) {
        (Ok(_), _) => Err("it was loaded".into()),
        (Err(error), _) if attempt.harmless && error.raw_os_error() != Some(libc::EPERM) => {
            Err(format!("{error}"))
        }
        (Err(_), Some(reason)) if reason == attempt.reason => {
            Ok(format!("E{} at {detail}", reason.number()))
        }
        (Err(error), reason) => Err(format!(
            "{error}, event {reason:?} instead of {:?}",
            attempt.reason
        )),
    };
    check(&format!("{} is refused", attempt.what), verdict)
}

pub fn run() -> Result<bool, GateError> {
    let mut fine = true;
    let good: Vec<_> = good().into_iter().chain(bound::good()).collect();
    let bad: Vec<_> = bad().into_iter().chain(bound::bad()).collect();
    for (what, load) in &good {
        fine &= check(
            &format!("{what} loads without a gate"),
            load()
                .map(|_| String::new())
                .map_err(|error| error.to_string()),
        );
    }
    for attempt in bad.iter().filter(|attempt| attempt.harmless) {
        fine &= check(
            &format!("{} loads without a gate", attempt.what),
            (attempt.load)()
                .map(|_| String::new())
                .map_err(|error| error.to_string()),
        );
    }
    let before = simple().load();
    let mut gate = BpfGate::open()?;
    let mut admissions = admissions();
    admissions.entries.extend(bound::entries());
    let armed = Armed::now(
        Digest::of(b"authority"),
        Digest::of(b"policy"),
        1,
        Mode::Enforce,
        Digest::of(b"host"),
    );
    gate.arm(&armed, &admissions)?;
    fine &= check(
        "what was pinned reads back",
        match gate.armed()? {
            Some(pinned) if pinned == armed => Ok(String::new()),
            other => Err(format!("{other:?}")),
        },
    );
    fine &= check(
        "a harmless unsigned program is refused",
        gate.probe_refused()?
            .then(String::new)
            .ok_or_else(|| "it was loaded".into()),
    );
    for (what, load) in &good {
        drain(&mut gate);
        let result = load();
        let events = drain(&mut gate);
        let seen = events
            .iter()
            .any(|event| event.gate == 2 && !event.refused && event.prog_id > 0);
        fine &= check(
            &format!("{what} loads"),
            match (result, seen) {
                (Ok(_), true) => Ok(String::new()),
                (Ok(_), false) => Err(format!("no event of its pass: {events:?}")),
                (Err(error), _) => Err(format!("{error}: {:?}", events.first())),
            },
        );
    }
    for attempt in &bad {
        fine &= try_bad(&mut gate, attempt);
    }
    fine &= try_attaching(&mut gate);
    let held = simple().load();
    let listed = gate.loaded()?;
    let classes: Vec<_> = listed
        .iter()
        .filter(|one| one.name == "simple")
        .map(|one| one.class)
        .collect();
    fine &= check(
        "programs are listed with how they came in",
        if classes == [Some(Class::Before), Some(Class::Signed)] {
            Ok(String::new())
        } else {
            Err(format!("{classes:?}"))
        },
    );
    drop((before, held));
    fine &= try_changes(&mut gate, &armed)?;
    println!("counters {:?}", gate.counters()?);
    Ok(fine)
}

pub fn try_attaching(gate: &mut BpfGate) -> bool {
    let Ok(fd) = probe().load() else {
        return check("a probe loads for attaching", Err("refused".into()));
    };
    let number = fd.as_raw_fd() as u32;
    let ways: [(&str, u32, Attr, i32); 3] = [
        ("link", LINK_CREATE, Attr::new().u32(0, number), libc::EBADF),
        (
            "raw tracepoint",
            RAW_TRACEPOINT_OPEN,
            Attr::new()
                .u64(0, c"sys_enter".as_ptr() as u64)
                .u32(8, number),
            libc::EPERM,
        ),
        (
            "attach command",
            PROG_ATTACH,
            Attr::new().u32(4, number),
            libc::EPERM,
        ),
    ];
    let mut fine = true;
    for (what, command, attr, want) in ways {
        drain(gate);
        let result = attr.call(command);
        let reason = drain(gate).first().and_then(|event| event.reason);
        fine &= check(
            &format!("a probe is not attached by {what}"),
            match result {
                Err(error)
                    if error.raw_os_error() == Some(want)
                        && reason == Some(Reason::ProbeAttach) =>
                {
                    Ok(error.to_string())
                }
                other => Err(format!("{other:?}, event {reason:?}")),
            },
        );
    }
    fine
}

/// A second process' view, replacing, audit mode.
pub fn try_changes(gate: &mut BpfGate, armed: &Armed) -> Result<bool, GateError> {
    let mut fine = true;
    let audit = Armed {
        mode: Mode::Audit,
        policy_version: 2,
        ..armed.clone()
    };
    gate.amend(&audit)?;
    fine &= check(
        "audit mode lets an unsigned program pass",
        evil()
            .load()
            .map(|_| String::new())
            .map_err(|error| error.to_string()),
    );
    gate.amend(armed)?;
    fine &= check("after audit mode it enforces", must_refuse(&evil()));
    let mut fewer = admissions();
    fewer.entries.retain(|entry| entry.image.name != "simple");
    gate.replace(armed, &fewer)?;
    fine &= check("a withdrawn program is refused", must_refuse(&simple()));
    gate.replace(armed, &admissions())?;
    let mut second = BpfGate::open()?;
    fine &= check(
        "a second process takes over",
        match second.armed()? {
            Some(pinned) if pinned == *armed => Ok(String::new()),
            other => Err(format!("{other:?}")),
        },
    );
    drain(&mut second);
    fine &= check(
        "an admitted program loads after all that",
        simple()
            .load()
            .map(|_| String::new())
            .map_err(|error| error.to_string()),
    );
    Ok(fine)
}

pub fn must_refuse(load: &Load) -> Result<String, String> {
    match load.load() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(error.to_string()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("it was loaded".into()),
    }
}
