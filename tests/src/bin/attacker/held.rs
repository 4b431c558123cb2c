//! Programs that are reached through an array: a program called from another runs where that one is
//! attached, so it is put only where all callers have its places.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use bundle::image::MapSpec;
use enforcer::{
    gate::{Admissions, Class, Entry, Gate as _, GateError},
    kernel::BpfGate,
};
use policy::Reason;

use super::{
    Attr, EXIT, Load, MAP_UPDATE_ELEM, SOCKET_FILTER, admissions, arm_with, array_spec, check,
    comes, entry, judged, map, own, r0, touching, works,
};

/// `BPF_MAP_TYPE_PROG_ARRAY`
const PROG_ARRAY: u32 = 3;

/// Where a program may run, and a number that tells it from others.
#[derive(Clone, Copy)]
struct Program {
    places: &'static [&'static str],
    number: u32,
}

const HERE: &[&str] = &["here", "also-here*"];
const ELSEWHERE: &[&str] = &["here", "elsewhere"];
const CALLER: Program = Program {
    places: HERE,
    number: 0xca1,
};
const CALLER_ELSEWHERE: Program = Program {
    places: ELSEWHERE,
    number: 0xca2,
};
const CALLER_ANYWHERE: Program = Program {
    places: &[],
    number: 0xca3,
};
const CALLER_FEWER: Program = Program {
    places: &["here"],
    number: 0xca4,
};
const CALLED: Program = Program {
    places: HERE,
    number: 0xcd1,
};
const CALLED_ELSEWHERE: Program = Program {
    places: ELSEWHERE,
    number: 0xcd2,
};
const CALLED_ANYWHERE: Program = Program {
    places: &[],
    number: 0xcd3,
};

impl Program {
    fn calling(self, array: i32) -> Load {
        let mut words = vec![r0(self.number)];
        words.extend(touching(1, &[array]));
        Load::new("caller", SOCKET_FILTER, &words)
    }

    fn called(self) -> Load {
        Load::new("called", SOCKET_FILTER, &[r0(self.number), EXIT])
    }

    fn entry(self, load: &Load, maps: Vec<MapSpec>) -> Entry {
        let mut entry = entry(load, maps, Class::Signed);
        entry.image.places = self.places.iter().copied().map(str::to_owned).collect();
        entry
    }
}

fn probe() -> Load {
    Load::new("probe", SOCKET_FILTER, &[r0(0xcd4), EXIT])
}

fn entries() -> Vec<Entry> {
    let spec = || MapSpec {
        map_type: PROG_ARRAY,
        value_size: 4,
        ..array_spec()
    };
    let callers = [CALLER, CALLER_ELSEWHERE, CALLER_ANYWHERE, CALLER_FEWER];
    let called = [CALLED, CALLED_ELSEWHERE, CALLED_ANYWHERE];
    let mut all: Vec<Entry> = callers
        .into_iter()
        .map(|program| program.entry(&program.calling(7), vec![spec()]))
        .collect();
    all.extend(
        called
            .into_iter()
            .map(|program| program.entry(&program.called(), vec![])),
    );
    all.push(entry(&probe(), vec![], Class::Probe));
    all
}

fn put(array: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let key = 0u32;
    let value = program.as_raw_fd();
    Attr::new()
        .u32(0, array.as_raw_fd() as u32)
        .u64(8, (&raw const key) as u64)
        .u64(16, (&raw const value) as u64)
        .call(MAP_UPDATE_ELEM)
        .map(drop)
}

/// Loads a caller of an array that holds a program already.
fn late(caller: Program) -> io::Result<OwnedFd> {
    let array = map(PROG_ARRAY, 4, 0);
    let _first = CALLER.calling(array.as_raw_fd()).load()?;
    put(&array, &CALLED.called().load()?)?;
    caller.calling(array.as_raw_fd()).load()
}

struct Try {
    what: &'static str,
    callers: &'static [Program],
    called: fn() -> Load,
    reason: Option<Reason>,
}

impl Try {
    fn run(&self) -> io::Result<()> {
        let array = map(PROG_ARRAY, 4, 0);
        let callers: io::Result<Vec<_>> = self
            .callers
            .iter()
            .map(|caller| caller.calling(array.as_raw_fd()).load())
            .collect();
        let callers = callers?;
        let result = put(&array, &(self.called)().load()?);
        drop(callers);
        result
    }
}

fn tries() -> [Try; 9] {
    let elsewhere = Some(Reason::AttachPlace);
    [
        Try {
            what: "a program where its callers have its places",
            callers: &[CALLER],
            called: || CALLED.called(),
            reason: None,
        },
        Try {
            what: "a program for anywhere",
            callers: &[CALLER, CALLER_ELSEWHERE],
            called: || CALLED_ANYWHERE.called(),
            reason: None,
        },
        Try {
            what: "a program for elsewhere",
            callers: &[CALLER],
            called: || CALLED_ELSEWHERE.called(),
            reason: elsewhere,
        },
        Try {
            what: "a program that nobody calls yet",
            callers: &[],
            called: || CALLED.called(),
            reason: elsewhere,
        },
        Try {
            what: "a program of which one caller is elsewhere",
            callers: &[CALLER, CALLER_ELSEWHERE],
            called: || CALLED.called(),
            reason: elsewhere,
        },
        Try {
            what: "a program of which one caller, the first, is elsewhere",
            callers: &[CALLER_ELSEWHERE, CALLER],
            called: || CALLED.called(),
            reason: elsewhere,
        },
        Try {
            what: "a program of which one caller has fewer places",
            callers: &[CALLER, CALLER_FEWER],
            called: || CALLED.called(),
            reason: elsewhere,
        },
        Try {
            what: "a program whose caller is anywhere",
            callers: &[CALLER_ANYWHERE],
            called: || CALLED.called(),
            reason: elsewhere,
        },
        Try {
            what: "a probe",
            callers: &[CALLER],
            called: probe,
            reason: Some(Reason::ProbeAttach),
        },
    ]
}

pub fn run() -> Result<bool, GateError> {
    let mut fine = true;
    for one in tries() {
        let name = format!("{} is put into an array without a gate", one.what);
        fine &= works(&name, one.run());
    }
    fine &= works(
        "a caller comes later without a gate",
        late(CALLER_ELSEWHERE),
    );
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries.extend(entries());
    arm_with(&mut gate, &all)?;
    for one in tries() {
        let how = match one.reason {
            None => "is put into an array",
            Some(_) => "is refused in an array",
        };
        let want = one.reason.map(|reason| (3, reason));
        fine &= judged(&mut gate, &format!("{} {how}", one.what), want, || {
            one.run()
        });
    }
    let caller = "a caller of an array that holds a program";
    let name = format!("{caller} with its places loads");
    fine &= judged(&mut gate, &name, None, || late(CALLER));
    for (other, which) in [
        (CALLER_ELSEWHERE, "for elsewhere"),
        (CALLER_ANYWHERE, "for anywhere"),
        (CALLER_FEWER, "with fewer places"),
    ] {
        let name = format!("{caller} {which} is refused");
        let want = Some((2, Reason::AttachPlace));
        fine &= judged(&mut gate, &name, want, || late(other));
    }
    gate.disarm()?;
    fine &= full(&all)?;
    Ok(fine)
}

/// Arrays that are gone are forgotten, or nobody who calls through one would load any more.
fn full(admissions: &Admissions) -> Result<bool, GateError> {
    const ROOM: u32 = 16;
    let mut gate = BpfGate::open()?.with_max_programs(ROOM);
    arm_with(&mut gate, admissions)?;
    // Each program is gone before the next one comes.
    let next = || -> io::Result<()> {
        own::grace()?;
        let array = map(PROG_ARRAY, 4, 0);
        CALLER.calling(array.as_raw_fd()).load().map(drop)
    };
    let mut fine = check(
        "callers of arrays load as long as there is room",
        (0..ROOM)
            .try_for_each(|_| next())
            .map(|()| format!("{ROOM}"))
            .map_err(|error| error.to_string()),
    );
    let want = Some((2, Reason::RecordsFull));
    fine &= judged(&mut gate, "one too many is refused", want, next);
    let name = "when arrays that are gone are forgotten there is room again";
    fine &= comes(name, 500, "looks", || {
        gate.sweep().is_ok() && next().is_ok()
    });
    gate.disarm()?;
    Ok(fine)
}
