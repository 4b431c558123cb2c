//! Tries what the gate must refuse, by raw `bpf()` calls, and says how each attempt ended.
//!
//! `attacker gate` first proves that every attempt succeeds in a kernel without a gate, then
//! arms one that admits a handful of programs, and tries again: what is admitted must load,
//! and everything else must fail with EPERM *and* an event of the one right reason. The gate
//! stays armed for the scripts that attack it from outside; `attacker steal` is their tool.
//!
//! Prints `CHECK` lines as `tests/kernel/guest/lib.sh` does.

#![expect(unsafe_code, reason = "the bpf() system call with hostile arguments")]

#[path = "attacker/bpf.rs"]
mod bpf;
#[path = "attacker/churn.rs"]
mod churn;
#[path = "attacker/cost.rs"]
mod cost;
#[path = "attacker/doors.rs"]
mod doors;
#[path = "attacker/follow.rs"]
mod follow;
#[path = "attacker/grab.rs"]
mod grab;
#[path = "attacker/light.rs"]
mod light;
#[path = "attacker/members.rs"]
mod members;
#[path = "attacker/place.rs"]
mod place;
#[path = "attacker/replace.rs"]
mod replace;
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

use std::{
    env, fs, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    process::ExitCode,
    time::Duration,
};

use bundle::{
    Digest,
    image::{Allowed, Contents, Identity, Image, MapSpec, TunableRange, index_maps},
};
use enforcer::{
    gate::{Admissions, Armed, Class, Entry, Event, Gate, GateError, Mode, ShapeRule},
    kernel::BpfGate,
};
use policy::Reason;

use bpf::{
    ARRAY, Attr, CGROUP_DEVICE, EXIT, EXT, HASH, INSN_ARRAY, LINK_CREATE, LINK_GET_FD_BY_ID, Load,
    MAP_CREATE, MAP_FREEZE, MAP_GET_FD_BY_ID, MAP_UPDATE_ELEM, OBJ_GET, PROG_ATTACH,
    PROG_GET_FD_BY_ID, PROG_LOAD, RAW_TRACEPOINT, RAW_TRACEPOINT_OPEN, RDONLY_PROG, SOCKET_FILTER,
    TRACING, XDP, data_map, load64, map, r0, touching,
};

const DATA: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 50, 0, 0, 0, 0, 0, 0, 0];

fn array_spec() -> MapSpec {
    MapSpec {
        name: "counts".into(),
        map_type: ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: (1, 1),
        flags: 0,
        flags_free: 0,
        contents: None,
    }
}

/// For the same instructions as `one`.
fn wide_spec() -> MapSpec {
    MapSpec {
        value_size: 32,
        ..array_spec()
    }
}

fn data_spec() -> MapSpec {
    MapSpec {
        name: ".rodata".into(),
        value_size: DATA.len() as u32,
        flags: RDONLY_PROG,
        contents: Some(Contents {
            bytes: DATA.to_vec(),
            tunables: vec![TunableRange {
                name: "limit".into(),
                offset: 8,
                size: 4,
                signed: false,
                allowed: Allowed::Range(10, 100),
            }],
        }),
        ..array_spec()
    }
}

fn entry(load: &Load, maps: Vec<MapSpec>, class: Class) -> Entry {
    let mut words = load.words.clone();
    index_maps(&mut words);
    Entry {
        image: Image {
            name: load.name.into(),
            identity: Identity {
                prog_type: load.prog_type,
                expected_attach_type: load.attach_type,
                attach_btf_id: load.btf_id,
                flags: load.flags,
            },
            words,
            maps,
            places: vec![],
            result: None,
            gpl: Some(load.licence.is_none()),
        },
        class,
        bundle: (class == Class::Signed).then(|| Digest::of(b"the attacker's bundle")),
    }
}

struct Attempt {
    what: &'static str,
    load: Box<dyn Fn() -> io::Result<OwnedFd>>,
    reason: Reason,
    /// Succeeds without a gate; else the kernel itself refuses it as well.
    harmless: bool,
}

fn attempt(
    what: &'static str,
    reason: Reason,
    load: impl Fn() -> io::Result<OwnedFd> + 'static,
) -> Attempt {
    Attempt {
        what,
        load: Box::new(load),
        reason,
        harmless: true,
    }
}

/// A longer program, so that comparing takes several blocks, the last one partial.
fn long(len: usize, differs_at: Option<usize>) -> Load {
    let mut words: Vec<u64> = (0..len - 2).map(|n| r0(n as u32)).collect();
    words.extend([r0(0), EXIT]);
    if let Some(at) = differs_at {
        words[at] ^= 1 << 32;
    }
    Load::new("long", SOCKET_FILTER, &words)
}

/// Refers to one map, with a number of its own in between.
fn table_words(fd: RawFd) -> Vec<u64> {
    let mut words = vec![r0(0x7ab1)];
    words.extend(touching(1, &[fd]));
    words
}

fn simple() -> Load {
    Load::new("simple", SOCKET_FILTER, &[r0(0x51), EXIT])
}

fn admitted() -> Vec<Entry> {
    let one = touching(1, &[7]);
    let two = touching(1, &[7, 8]);
    let again = touching(1, &[7, 7]);
    let thrice = touching(1, &[7, 7, 7]);
    let data = touching(2, &[7]);
    let load = |name, words: &[u64]| Load::new(name, SOCKET_FILTER, words);
    vec![
        entry(&simple(), vec![], Class::Signed),
        entry(&long(1000, None), vec![], Class::Signed),
        entry(&load("one", &one), vec![array_spec()], Class::Signed),
        entry(
            &load("two", &two),
            vec![array_spec(), array_spec()],
            Class::Signed,
        ),
        entry(&load("again", &again), vec![array_spec()], Class::Signed),
        entry(&load("thrice", &thrice), vec![array_spec()], Class::Signed),
        entry(&load("wide", &one), vec![wide_spec()], Class::Signed),
        entry(&load("data", &data), vec![data_spec()], Class::Signed),
        entry(&probe(), vec![], Class::Probe),
    ]
    .into_iter()
    .chain([entry(
        &load("table", &table_words(7)),
        vec![MapSpec {
            map_type: INSN_ARRAY,
            value_size: 16,
            ..array_spec()
        }],
        Class::Signed,
    )])
    .chain(swap::entries())
    .collect()
}

fn probe() -> Load {
    Load::new("probe", RAW_TRACEPOINT, &[r0(0), EXIT])
}

fn device() -> Load {
    Load::new("sd_devices", CGROUP_DEVICE, &[r0(1), EXIT])
}

/// A named load that must succeed.
type Good = (&'static str, Box<dyn Fn() -> io::Result<OwnedFd>>);

fn good() -> Vec<Good> {
    vec![
        ("an admitted program", Box::new(|| simple().load())),
        (
            "a long admitted program",
            Box::new(|| long(1000, None).load()),
        ),
        (
            "a program with a map",
            Box::new(|| {
                let a = map(ARRAY, 8, 0);
                Load::new("one", SOCKET_FILTER, &touching(1, &[a.as_raw_fd()])).load()
            }),
        ),
        (
            "the same program with another admitted map",
            Box::new(|| {
                let a = map(ARRAY, 32, 0);
                Load::new("wide", SOCKET_FILTER, &touching(1, &[a.as_raw_fd()])).load()
            }),
        ),
        (
            "a program with two maps",
            Box::new(|| {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), b.as_raw_fd()];
                Load::new("two", SOCKET_FILTER, &touching(1, &fds)).load()
            }),
        ),
        (
            "a program with two maps beside an idle thread",
            Box::new(|| {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), b.as_raw_fd()];
                beside_a_thread(|| Load::new("two", SOCKET_FILTER, &touching(1, &fds)).load())
            }),
        ),
        (
            "a program with dead code beside an idle thread",
            Box::new(|| {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), b.as_raw_fd()];
                beside_a_thread(|| swap::alternating(fds, true).load())
            }),
        ),
        (
            "a program that uses a map twice",
            Box::new(|| {
                let a = map(ARRAY, 8, 0);
                let fds = [a.as_raw_fd(), a.as_raw_fd()];
                Load::new("again", SOCKET_FILTER, &touching(1, &fds)).load()
            }),
        ),
        (
            "read-only data as signed",
            Box::new(|| data_load(&DATA, true)),
        ),
        (
            "read-only data with a tunable in range",
            Box::new(|| {
                let mut data = DATA;
                data[8] = 99;
                data_load(&data, true)
            }),
        ),
        ("a shape", Box::new(|| device().load())),
        ("a probe", Box::new(|| probe().load())),
    ]
}

/// Runs it in a process whose file table another thread shares.
fn beside_a_thread<T>(act: impl FnOnce() -> T) -> T {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let idle = std::thread::spawn(move || {
        let _closed = receiver.recv();
    });
    let result = act();
    drop(sender);
    idle.join().expect("the thread only waits");
    result
}

fn data_load(bytes: &[u8], freeze: bool) -> io::Result<OwnedFd> {
    let a = data_map(bytes, freeze);
    Load::new("data", SOCKET_FILTER, &touching(2, &[a.as_raw_fd()])).load()
}

fn one_map(make: impl Fn() -> OwnedFd + 'static) -> impl Fn() -> io::Result<OwnedFd> {
    move || {
        let a = make();
        Load::new("one", SOCKET_FILTER, &touching(1, &[a.as_raw_fd()])).load()
    }
}

fn bad() -> Vec<Attempt> {
    let mut all = vec![
        attempt("an unsigned program", Reason::Unsigned, || evil().load()),
        attempt("an admitted program as XDP", Reason::OtherType, || {
            Load::new("simple", XDP, &[r0(0x51), EXIT]).load()
        }),
        attempt(
            "one instruction changed",
            Reason::InstructionDiffers,
            || long(1000, Some(700)).load(),
        ),
        attempt("one more instruction", Reason::InstructionDiffers, || {
            long(1001, None).load()
        }),
        attempt(
            "a second map where one was signed",
            Reason::MapReference,
            || {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), a.as_raw_fd(), b.as_raw_fd()];
                Load::new("thrice", SOCKET_FILTER, &touching(1, &fds)).load()
            },
        ),
        attempt("odd load flags", Reason::LoadFlags, || {
            Load {
                flags: 1,
                ..simple()
            }
            .load()
        }),
        attempt("a map by index", Reason::MapIndex, || {
            let a = map(ARRAY, 8, 0);
            Load {
                fd_array: vec![a.as_raw_fd()],
                ..Load::new("index", SOCKET_FILTER, &touching(5, &[0]))
            }
            .load()
        }),
        attempt("one map where two were signed", Reason::MapCount, || {
            let a = map(ARRAY, 8, 0);
            let b = a.try_clone().expect("descriptors can be copied");
            let fds = [a.as_raw_fd(), b.as_raw_fd()];
            Load::new("two", SOCKET_FILTER, &touching(1, &fds)).load()
        }),
        attempt(
            "a hash instead of an array",
            Reason::MapKind,
            one_map(|| map(HASH, 8, 0)),
        ),
        attempt(
            "a larger map",
            Reason::MapSize,
            one_map(|| map(ARRAY, 16, 0)),
        ),
        attempt(
            "a map with other flags",
            Reason::MapFlags,
            one_map(|| map(ARRAY, 8, RDONLY_PROG)),
        ),
        attempt("data that is not frozen", Reason::NotFrozen, || {
            data_load(&DATA, false)
        }),
        attempt("other data", Reason::DataDiffers, || {
            let mut data = DATA;
            data[3] = 9;
            data_load(&data, true)
        }),
        attempt("a tunable out of range", Reason::TunableRange, || {
            let mut data = DATA;
            data[8] = 101;
            data_load(&data, true)
        }),
        attempt("a shape with a helper call", Reason::Unsigned, || {
            // call ktime_get_ns; r0 = 1; exit
            Load::new("calls", CGROUP_DEVICE, &[5 << 32 | 0x85, r0(1), EXIT]).load()
        }),
    ];
    // 6.19 and later.
    if Attr::new()
        .u32(0, INSN_ARRAY)
        .u32(4, 4)
        .u32(8, 16)
        .u32(12, 1)
        .open(MAP_CREATE)
        .is_ok()
    {
        all.push(attempt("a jump table", Reason::MapKind, || {
            let table = map(INSN_ARRAY, 16, 0);
            Attr::new()
                .u32(0, table.as_raw_fd() as u32)
                .call(MAP_FREEZE)?;
            Load::new("table", SOCKET_FILTER, &table_words(table.as_raw_fd())).load()
        }));
    }
    for (what, reason, load) in [
        (
            "an admitted program under another licence",
            Reason::OtherType,
            Load {
                licence: Some(c"Proprietary"),
                ..simple()
            },
        ),
        (
            "kernel-side relocation",
            Reason::KernelCore,
            Load {
                core_relos: 1,
                ..simple()
            },
        ),
        (
            "a module's function",
            Reason::ModuleBtf,
            Load {
                fd_array: vec![0, 0],
                // call kfunc 1 of the BTF at fd_array[1]
                ..Load::new(
                    "module",
                    SOCKET_FILTER,
                    &[1 << 32 | 1 << 16 | 0x2085, r0(0), EXIT],
                )
            },
        ),
        (
            "a tracer of another program",
            Reason::AttachProgram,
            Load {
                attach_type: 24, // BPF_TRACE_FENTRY
                btf_id: 1,
                ..Load::new("trace", TRACING, &[r0(0), EXIT])
            },
        ),
        (
            "a replacement that nobody signed",
            Reason::Unsigned,
            Load {
                btf_id: 1,
                ..Load::new("replace", EXT, &[r0(0x66), EXIT])
            },
        ),
    ] {
        all.push(Attempt {
            what,
            reason,
            harmless: false,
            load: Box::new(move || {
                let mut load = load.clone();
                let target = simple().load()?;
                if [EXT, TRACING].contains(&load.prog_type) {
                    load.attach_fd = target.as_raw_fd() as u32;
                }
                load.load()
            }),
        });
    }
    all
}

/// Arms with what the given objects, or objects inside executables, measure to.
fn admit(files: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let admissions = measured(files)?;
    let started = std::time::Instant::now();
    arm_with(&mut BpfGate::open()?, &admissions)?;
    println!("armed in {:?}", started.elapsed());
    Ok(())
}

/// What the given objects, or objects inside executables, measure to, and loaders' probes.
fn measured(files: &[String]) -> Result<Admissions, Box<dyn std::error::Error>> {
    let mut admissions = Admissions {
        entries: enforcer::probes::entries(),
        ..Admissions::default()
    };
    for file in files {
        let bytes = fs::read(file)?;
        let objects = if bundle::embedded::is_object(&bytes) {
            vec![bytes]
        } else if bundle::light::is_skeleton(&bytes) {
            vec![bundle::light::read(&bytes)?.to_object()]
        } else {
            bundle::embedded::find_in(file, &bytes)
                .iter()
                .map(|found| bytes[found.range.clone()].to_vec())
                .collect()
        };
        for elf in objects {
            let mut object = bundle::inventory::read(file, &elf)?;
            let variables = object
                .data
                .iter_mut()
                .filter(|data| data.readonly)
                .flat_map(|data| &mut data.variables);
            // As `pack --tunable-volatile` would.
            variables.for_each(|variable| variable.tunable = variable.volatile);
            let measured = enforcer::measure::measure(&elf, &object)?;
            for program in &measured.unmeasured {
                println!("unmeasured {file} {}: {}", program.name, program.why);
            }
            let light = measured.others.len();
            println!(
                "measured {file}: {}, and {light} other layouts",
                measured.images.len()
            );
            admissions
                .entries
                .extend(
                    measured
                        .images
                        .into_iter()
                        .chain(measured.others)
                        .map(|image| Entry {
                            image,
                            class: Class::Signed,
                            bundle: Some(Digest::of(file.as_bytes())),
                        }),
                );
        }
    }
    Ok(admissions)
}

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

/// A table of records that is full refuses, and has room again when programs go.
fn fill() -> Result<bool, GateError> {
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
    let again = (0..500).find(|_| {
        std::thread::sleep(Duration::from_millis(10));
        simple().load().is_ok()
    });
    fine &= check(
        "when programs go there is room again",
        again
            .map(|tries| format!("after {} ms", tries * 10))
            .ok_or_else(|| "none after 5 s".into()),
    );
    gate.disarm()?;
    Ok(fine)
}

/// Holds `count` programs at once; the ring of events is long full by then.
fn hold_many(count: usize) -> Result<bool, GateError> {
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
fn race(rounds: usize) -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let threads: Vec<_> = (0..4)
        .map(|number| {
            std::thread::spawn(move || {
                let (mut wrongly_loaded, mut wrongly_refused) = (0, 0);
                for round in 0..rounds {
                    if (number + round) % 2 == 0 {
                        wrongly_refused += usize::from(long(1000, None).load().is_err());
                    } else {
                        wrongly_loaded += usize::from(long(1000, Some(999)).load().is_ok());
                    }
                }
                (wrongly_loaded, wrongly_refused)
            })
        })
        .collect();
    let counts: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("threads only count"))
        .collect();
    let fine = check(
        "threads that race each get their own verdict",
        if counts.iter().all(|&count| count == (0, 0)) {
            Ok(format!("4 threads, {rounds} loads each"))
        } else {
            Err(format!("(wrongly loaded, wrongly refused): {counts:?}"))
        },
    );
    gate.disarm()?;
    Ok(fine)
}

fn evil() -> Load {
    Load::new("evil", SOCKET_FILTER, &[r0(0x666), EXIT])
}

/// Arms and disarms `rounds` times. Once one unsigned program was loaded after disarming, none
/// is refused any more; before that, each one is refused.
fn cycle(rounds: usize) -> Result<bool, GateError> {
    let mut odd = Vec::new();
    for round in 0..rounds {
        let mut gate = BpfGate::open()?;
        arm(&mut gate)?;
        let mut witness = BpfGate::open()?;
        drain(&mut witness);
        gate.disarm()?;
        let after: Vec<bool> = (0..200)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                evil().load().is_ok()
            })
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

fn drain(gate: &mut BpfGate) -> Vec<Event> {
    let mut events = Vec::new();
    if let Err(error) = gate.events(Duration::ZERO, &mut |event| events.push(event)) {
        check("events can be read", Err(explain(&error)));
    }
    events
}

fn explain(error: &GateError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    let text: Vec<_> = causes.map(ToString::to_string).collect();
    text.join(": ")
}

fn try_bad(gate: &mut BpfGate, attempt: &Attempt) -> bool {
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

fn run_gate() -> Result<bool, GateError> {
    let mut fine = true;
    for (what, load) in good() {
        fine &= check(
            &format!("{what} loads without a gate"),
            load()
                .map(|_| String::new())
                .map_err(|error| error.to_string()),
        );
    }
    for attempt in bad().iter().filter(|attempt| attempt.harmless) {
        fine &= check(
            &format!("{} loads without a gate", attempt.what),
            (attempt.load)()
                .map(|_| String::new())
                .map_err(|error| error.to_string()),
        );
    }
    let before = simple().load();
    let mut gate = BpfGate::open()?;
    let admissions = admissions();
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
    for (what, load) in good() {
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
    for attempt in bad() {
        fine &= try_bad(&mut gate, &attempt);
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

fn admissions() -> Admissions {
    Admissions {
        entries: admitted(),
        shapes: vec![ShapeRule {
            name: "device filters".into(),
            prog_types: vec![CGROUP_DEVICE],
            helpers: vec![],
            max_maps: 0,
            max_insns: 4096,
        }],
        ..Admissions::default()
    }
}

fn try_attaching(gate: &mut BpfGate) -> bool {
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
fn try_changes(gate: &mut BpfGate, armed: &Armed) -> Result<bool, GateError> {
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

fn must_refuse(load: &Load) -> Result<String, String> {
    match load.load() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(error.to_string()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("it was loaded".into()),
    }
}

/// Tries to get hold of the gate's own objects, from another executable.
fn steal() -> bool {
    let mut fine = true;
    for pin in fs::read_dir("/sys/fs/bpf/bpfseal")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = pin.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.starts_with("map_") {
            continue;
        }
        let text = std::ffi::CString::new(path.to_string_lossy().as_bytes()).unwrap_or_default();
        let result = Attr::new().u64(0, text.as_ptr() as u64).call(OBJ_GET);
        fine &= check(&format!("{name} cannot be opened"), denied(result));
    }
    for (what, command, next) in [
        ("map", MAP_GET_FD_BY_ID, 12),
        ("program", PROG_GET_FD_BY_ID, 11),
        ("link", LINK_GET_FD_BY_ID, 31),
    ] {
        let mut id = 0;
        let (mut denied, mut open) = (0, 0);
        while let Some(found) = next_id(next, id) {
            id = found;
            match Attr::new().u32(0, id).call(command) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => denied += 1,
                _ => open += 1,
            }
        }
        fine &= check(
            &format!("the gate's {what}s cannot be had by id"),
            if denied > 0 {
                Ok(format!("{denied} denied, {open} others open"))
            } else {
                Err(format!("none denied, {open} open"))
            },
        );
    }
    fine
}

/// `BPF_*_GET_NEXT_ID`: the kernel writes `next_id` behind `start_id`.
fn next_id(command: u32, after: u32) -> Option<u32> {
    let mut attr = [0u32; 3];
    attr[0] = after;
    // SAFETY: the kernel reads and writes within these 12 bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            attr.as_mut_ptr(),
            size_of_val(&attr),
        )
    };
    (result == 0).then_some(attr[1])
}

fn denied(result: io::Result<i32>) -> Result<String, String> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(error.to_string()),
        other => Err(format!("{other:?}")),
    }
}

/// Attaches to a process as a debugger.
fn trace(pid: i32) -> bool {
    // SAFETY: PTRACE_ATTACH takes no pointers.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    let error = io::Error::last_os_error();
    check(
        "the daemon cannot be traced",
        if result < 0 && error.raw_os_error() == Some(libc::EPERM) {
            Ok(error.to_string())
        } else {
            Err(format!("{result} {error}"))
        },
    )
}

/// Opens a file for reading, and empties it by that.
fn truncate(path: &str) -> ExitCode {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = fs::File::options()
        .read(true)
        .custom_flags(libc::O_TRUNC)
        .open(path);
    match opened {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
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
        Some("gate") => done(run_gate()),
        Some("admit") => match admit(&words[1..]) {
            Ok(()) => true,
            Err(error) => check("objects are measured and admitted", Err(error.to_string())),
        },
        Some("watch") => watch().is_ok(),
        Some("cost") => done(cost::run()),
        Some("swap") => done(swap::run(number(&words))),
        Some("place") => done(place::run()),
        Some("members") => done(members::run()),
        Some("tokens") => done(tokens::run()),
        Some("ways") => done(ways::run()),
        Some("follow") => follow::run(words.get(1).map_or("", String::as_str)),
        Some("truncate") => return truncate(words.get(1).map_or("", String::as_str)),
        Some("doors") => done(doors::run()),
        Some("grab") => grab::run(
            number(&words) as i32,
            words.get(2).is_some_and(|word| word == "guarded"),
        ),
        Some("links") => grab::links(),
        Some("slots") => done(slots::run()),
        Some("light") => done(light::run(&words[1..])),
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
        Some("cycle") => done(cycle(number(&words))),
        Some("fill") => done(fill()),
        Some("many") => done(hold_many(number(&words))),
        Some("race") => done(race(number(&words))),
        Some("steal") => steal(),
        Some("trace") => trace(words.get(1).and_then(|pid| pid.parse().ok()).unwrap_or(0)),
        Some("load") => check("load", must_refuse(&evil())),
        Some("hold") => {
            std::thread::sleep(Duration::from_secs(30));
            true
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
                "attacker gate|admit FILE…|watch|cost|fill|many N|race N|swap N|churn N|stale N|place|members|ways|tokens|replace FOLDER|doors|slots|grab PID [guarded]|links|light HEADER FIXTURE|keyring PEM|signed BUNDLE SERIAL PEM|native BUNDLE SERIAL KEY PEM OBJECT…|follow PROGRAM|truncate FILE|cycle N|steal|trace PID|load|hold|disarm"
            );
            return ExitCode::from(2);
        }
    };
    // The script has printed what failed; its own code says only that it came to its end.
    let _ = fine;
    ExitCode::SUCCESS
}
