//! Tries what the gate must refuse, by raw `bpf()` calls, and says how each attempt ended.
//!
//! `attacker gate` first proves that every attempt succeeds in a kernel without a gate, then
//! arms one that admits a handful of programs, and tries again: what is admitted must load,
//! and everything else must fail with EPERM *and* an event of the one right reason. The gate
//! stays armed for the scripts that attack it from outside; `attacker steal` is their tool.
//!
//! Prints `CHECK` lines as `tests/kernel/guest/lib.sh` does.

#[path = "attacker/ask.rs"]
mod ask;
#[path = "attacker/attach.rs"]
mod attach;
#[path = "attacker/begun.rs"]
mod begun;
#[path = "attacker/bound.rs"]
mod bound;
#[path = "attacker/bpf.rs"]
mod bpf;
#[path = "attacker/churn.rs"]
mod churn;
#[path = "attacker/cost.rs"]
mod cost;
#[path = "attacker/crowd.rs"]
mod crowd;
#[path = "attacker/devices.rs"]
mod devices;
#[path = "attacker/doors.rs"]
mod doors;
#[path = "attacker/early.rs"]
mod early;
#[path = "attacker/follow.rs"]
mod follow;
#[path = "attacker/gate.rs"]
mod gate;
#[path = "attacker/grab.rs"]
mod grab;
#[path = "attacker/greedy.rs"]
mod greedy;
#[path = "attacker/hammer.rs"]
mod hammer;
#[path = "attacker/held.rs"]
mod held;
#[path = "attacker/instead.rs"]
mod instead;
#[path = "attacker/light.rs"]
mod light;
#[path = "attacker/loads.rs"]
mod loads;
#[path = "attacker/many.rs"]
mod many;
#[path = "attacker/measured.rs"]
mod measured;
#[path = "attacker/members.rs"]
mod members;
#[path = "attacker/mounts.rs"]
mod mounts;
#[path = "attacker/options.rs"]
mod options;
#[path = "attacker/otherwise.rs"]
mod otherwise;
#[path = "attacker/own.rs"]
mod own;
#[path = "attacker/place.rs"]
mod place;
#[path = "attacker/pose.rs"]
mod pose;
#[path = "attacker/register.rs"]
mod register;
#[path = "attacker/renew.rs"]
mod renew;
#[path = "attacker/replace.rs"]
mod replace;
#[path = "attacker/rewrite.rs"]
mod rewrite;
#[path = "attacker/routes.rs"]
mod routes;
#[path = "attacker/sets.rs"]
mod sets;
#[path = "attacker/signed.rs"]
mod signed;
#[path = "attacker/slots.rs"]
mod slots;
#[path = "attacker/stale.rs"]
mod stale;
#[path = "attacker/swap.rs"]
mod swap;
#[path = "attacker/tokens.rs"]
mod tokens;
#[path = "attacker/ways.rs"]
mod ways;

use std::{env, io, process::ExitCode, time::Duration};

use bundle::Digest;
use enforcer::{
    gate::{Admissions, Armed, Event, Gate, GateError, Mode},
    kernel::BpfGate,
};
use policy::Reason;

use bpf::{
    ARRAY, Attr, CGROUP_DEVICE, EXIT, EXT, HASH, INSN_ARRAY, LINK_CREATE, LINK_GET_FD_BY_ID, Load,
    MAP_CREATE, MAP_FREEZE, MAP_GET_FD_BY_ID, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, OBJ_GET,
    PROG_ATTACH, PROG_GET_FD_BY_ID, PROG_LOAD, RAW_TRACEPOINT, RAW_TRACEPOINT_OPEN, RDONLY_PROG,
    SOCKET_FILTER, TRACING, XDP, data_map, load64, map, r0, touching,
};
use gate::{must_refuse, try_bad};
use loads::{
    Attempt, admissions, array_spec, attempt, bad, bundle, entry, evil, good, long, probe, simple,
};
use measured::measured;

/// Where the gate has its pins.
const PINS: &str = "/sys/fs/bpf/bpfseal";

fn arm(gate: &mut BpfGate) -> Result<(), GateError> {
    arm_with(gate, &admissions())
}

fn arm_with(gate: &mut BpfGate, admissions: &Admissions) -> Result<(), GateError> {
    let armed = Armed::now(
        Digest::of(b"authority"),
        Digest::of(b"policy"),
        1,
        Mode::Enforce,
        Digest::of(b"host"),
    );
    gate.arm(&armed, admissions)
}

/// Prints what the gate reported, one line per event.
fn watch() -> Result<(), GateError> {
    BpfGate::open()?.events(Duration::ZERO, &mut |event| {
        println!(
            "event gate {} refused {} {:?} {:?} type {} attach {} btf {} flags {:#x} insns {} detail {} id {} {:?} {:?} comm {} words {:x?}",
            event.gate,
            event.refused,
            event.reason,
            event.class,
            event.identity.prog_type,
            event.identity.expected_attach_type,
            event.identity.attach_btf_id,
            event.identity.flags,
            event.insns,
            event.detail,
            event.prog_id,
            event.name,
            event.admitted,
            event.comm,
            if event.reason.is_some() { &event.words[..] } else { &[] },
        );
    })
}

/// Prints one protocol line.
fn check(name: &str, result: Result<String, String>) -> bool {
    let script = env::var("SCRIPT").unwrap_or_else(|_| "attacker".into());
    match &result {
        Ok(detail) => println!("CHECK ok {script} {name}: {detail}"),
        Err(detail) => println!("CHECK fail {script} {name}: {detail}"),
    }
    result.is_ok()
}

/// It must come within so many tries; each is one of `what`.
fn comes(name: &str, most: usize, what: &str, mut attempt: impl FnMut() -> bool) -> bool {
    let result = match (1..=most).find(|_| attempt()) {
        Some(tries) => Ok(format!("after {tries} {what}")),
        None => Err(format!("not after {most} {what}")),
    };
    check(name, result)
}

fn drain(gate: &mut BpfGate) -> Vec<Event> {
    let mut events = Vec::new();
    if let Err(error) = gate.events(Duration::ZERO, &mut |event| events.push(event)) {
        check("events can be read", Err(explain(&error)));
    }
    events
}

/// Without a gate: it must work.
fn works<T>(name: &str, result: io::Result<T>) -> bool {
    let result = result.map(|_| String::new());
    check(name, result.map_err(|error| error.to_string()))
}

/// With the gate armed: it must work without a refusal, or fail for this reason, at this gate.
fn judged<T>(
    gate: &mut BpfGate,
    name: &str,
    want: Option<(u8, Reason)>,
    attempt: impl FnOnce() -> io::Result<T>,
) -> bool {
    drain(gate);
    let result = attempt().map(drop);
    let refusal = drain(gate).into_iter().find(|event| event.refused);
    let seen = refusal
        .as_ref()
        .and_then(|event| Some((event.gate, event.reason?)));
    let verdict = match (&result, want) {
        (Ok(()), None) if refusal.is_none() => Ok(String::new()),
        (Err(error), Some((_, reason)))
            if seen == want && error.raw_os_error() == Some(libc::EPERM) =>
        {
            let name = refusal.map(|event| event.name).unwrap_or_default();
            Ok(format!("E{} at {name:?}", reason.number()))
        }
        _ => Err(format!("{result:?}, event {seen:?}, want {want:?}")),
    };
    check(name, verdict)
}

fn explain(error: &GateError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    let text: Vec<_> = causes.map(ToString::to_string).collect();
    text.join(": ")
}

/// Says that it is there, and stays until its input ends.
fn hold() -> io::Result<u64> {
    println!("held");
    io::copy(&mut io::stdin(), &mut io::sink())
}

/// What a script waited for.
fn ended(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// As a command did.
fn exits(code: io::Result<i32>) -> ExitCode {
    match code {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => ended(Err(error)),
    }
}

fn done(result: Result<bool, GateError>) -> bool {
    result.unwrap_or_else(|error| check("the gate works", Err(explain(&error))))
}

fn number(words: &[String]) -> usize {
    words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let fine = match words.first().map(String::as_str) {
        Some("gate") => done(gate::run()),
        Some("admit") => match measured::admit(&words[1..]) {
            Ok(()) => true,
            Err(error) => check("objects are measured and admitted", Err(error.to_string())),
        },
        Some("ask") => {
            ask::run();
            true
        }
        Some("watch") => watch().is_ok(),
        Some("cost") => done(cost::run()),
        Some("swap") => done(swap::run(number(&words))),
        Some("place") => done(place::run()),
        // The script looks at what they print.
        Some("attach") => match attach::run(&words[1..]) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => {
                println!("not attached: {error}");
                return ExitCode::FAILURE;
            }
        },
        Some("register") => match register::run(words.get(1).map_or("", String::as_str)) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => {
                println!("not loaded: {error}");
                return ExitCode::FAILURE;
            }
        },
        Some("members") => done(members::run()),
        Some("tokens") => done(tokens::run()),
        Some("ways") => done(ways::run()),
        Some("held") => done(held::run()),
        Some("follow") => follow::run(words.get(1).map_or("", String::as_str)),
        Some("early") => {
            let rest = words.get(2..).unwrap_or_default();
            return ended(match words.get(1).map(String::as_str) {
                Some("hold") if !rest.is_empty() => early::hold(&rest[0], &rest[1..]),
                _ => early::trace(rest),
            });
        }
        Some("cut-off") => check("arming is cut off", renew::cut_off(&words[1..])),
        Some("answer") => return ended(own::answer(words.get(1).map_or("", String::as_str))),
        Some("entry") => return ended(own::entry(words.get(1).map_or("", String::as_str))),
        Some("lease") => return ended(own::lease(words.get(1).map_or("", String::as_str))),
        Some(word @ ("beneath" | "detour" | "late" | "join")) => {
            let path = |at: usize| words.get(at).map_or("", String::as_str);
            return ended(match word {
                "beneath" => mounts::beneath(path(1), path(2)),
                "detour" => mounts::detour(path(1), path(2), path(3)),
                "late" => mounts::late(path(1), path(2), path(3)),
                _ => mounts::join(path(1), path(2)),
            });
        }
        Some("truncate") => return own::truncate(words.get(1).map_or("", String::as_str)),
        Some("begun") => done(begun::run()),
        Some("doors") => done(doors::run()),
        Some("grab") => grab::run(
            number(&words) as i32,
            words.get(2).is_some_and(|word| word == "guarded"),
        ),
        Some("links") => grab::links(),
        Some("pose") => done(pose::run()),
        Some(word @ ("open" | "step-down")) => return ended(pose::open(word == "step-down")),
        Some("apart") => {
            return exits(pose::apart(
                words.get(1).map_or("", String::as_str),
                &words[2..],
            ));
        }
        Some("slip") => return exits(greedy::slip(&words[1..])),
        Some("grasp") => match greedy::grasp(
            words.get(1).map_or("", String::as_str),
            words.get(2..).unwrap_or_default(),
        ) {
            Ok(fine) => fine,
            Err(error) => check(
                "descriptors are held while it is armed",
                Err(error.to_string()),
            ),
        },
        Some("greedy") => {
            return exits(greedy::run(
                words.get(1).map_or("", String::as_str),
                words.get(2..).unwrap_or_default(),
            ));
        }
        Some("otherwise") => {
            let word = |at: usize| words.get(at).map_or("", String::as_str);
            let result = otherwise::run(word(1), word(2), word(3));
            return ended(result.map_err(|error| io::Error::other(error.to_string())));
        }
        Some("keep") => return ended(pose::keep()),
        Some("bugged") => {
            let offset = words.get(2).and_then(|word| word.strip_prefix("0x"));
            let offset = offset.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            return exits(pose::bugged(
                words.get(1).map_or("", String::as_str),
                offset.unwrap_or(0),
                words.get(3..).unwrap_or_default(),
            ));
        }
        Some("filtered") => return exits(pose::filtered(&words[1..])),
        Some("sharing") => return exits(pose::sharing(&words[1..])),
        Some("window") => {
            match pose::window(words.get(1).map_or("", String::as_str), &words[2..]) {
                Ok(fine) => fine,
                Err(error) => check("what the daemon starts is watched", Err(error.to_string())),
            }
        }
        Some("hammer") => hammer::run(words.get(1).map_or("", String::as_str)),
        Some("kexec") => return ended(doors::kexec(number(&words) != 0)),
        Some("slots") => done(slots::run()),
        Some("instead") => match words.get(1..3) {
            Some([function, what]) => {
                return ended(match what.parse() {
                    Ok(seconds) => instead::later(function, seconds),
                    Err(_) => instead::run(function, what),
                });
            }
            _ => false,
        },
        Some("light") => done(light::run(&words[1..])),
        Some(word @ ("universal" | "unjudged")) => {
            let fixture = words.get(1).map_or("", String::as_str);
            match word {
                "universal" => done(light::judged(fixture)),
                _ => light::unjudged(fixture),
            }
        }
        Some("keyring") => match signed::keyring(&words[1..]) {
            Ok(serial) => {
                println!("{serial}");
                true
            }
            Err(error) => check("a restricted keyring", Err(error.to_string())),
        },
        Some("native") => done(signed::native(&words[1..])),
        Some("signed") => signed::run(&words[1..]),
        Some("replace") => done(replace::run(words.get(1).map_or("", String::as_str))),
        Some("stale") => done(stale::run(number(&words))),
        Some("churn") => done(churn::run(number(&words))),
        Some("cycle") => done(crowd::cycle(number(&words))),
        Some("fill") => done(crowd::fill()),
        Some("many") => done(crowd::hold_many(number(&words))),
        Some("race") => done(crowd::race(number(&words))),
        Some("swarm") => done(crowd::swarm(number(&words))),
        Some("exchange") => {
            let result = BpfGate::open().and_then(|gate| gate.exchange());
            return ended(result.map_err(|error| io::Error::other(explain(&error))));
        }
        Some("renew") => done(renew::run()),
        Some("rewrite") => done(rewrite::run(number(&words))),
        Some("sets") => done(sets::run(number(&words))),
        Some("steal") => own::steal(),
        Some("trace") => own::trace(words.get(1).and_then(|pid| pid.parse().ok()).unwrap_or(0)),
        Some("load") => check("load", must_refuse(&evil())),
        Some("hold") => hold().is_ok(),
        Some("grace") => return ended(own::grace()),
        Some("frozen") => {
            return ended(own::frozen(words.get(1).map_or("", String::as_str)));
        }
        Some("disarm") => match BpfGate::open().and_then(|mut gate| gate.disarm()) {
            Ok(()) => check(
                "after disarming everything loads",
                evil()
                    .load()
                    .map(|_| String::new())
                    .map_err(|error| error.to_string()),
            ),
            Err(error) => check("disarming works", Err(explain(&error))),
        },
        _ => {
            eprintln!(
                "attacker gate|admit FILE…|watch|cost|fill|many N|race N|swarm N|renew|exchange|swap N|churn N|stale N|place|attach HOW PIN DEVICE|register OBJECT|members|ways|held|tokens|replace FOLDER|doors|slots|grab PID [guarded]|links|light HEADER FIXTURE|keyring PEM|signed BUNDLE SERIAL PEM|native BUNDLE SERIAL KEY PEM OBJECT…|follow PROGRAM|slip COMMAND…|grasp ROOT COMMAND…|early hold FIFO COMMAND…|early trace COMMAND…|otherwise OBJECT PROGRAM FILE|truncate FILE|beneath SOURCE ON|detour FUSE TARGET ON|late SOURCE BETWEEN ON|join FROM TO|meet N SOURCE ON|cycle N|steal|trace PID|load|hold|grace|frozen GROUP|rewrite N|sets N|disarm"
            );
            return ExitCode::from(2);
        }
    };
    // The script has printed what failed; its own code says only that it came to its end.
    let _ = fine;
    ExitCode::SUCCESS
}
