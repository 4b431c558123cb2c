//! Replacing functions of other programs: those that the rule names, and others; when loading,
//! and when attaching to another program than the one that was named when loading.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use bundle::Digest;
use enforcer::{
    gate::{Class, Entry, Gate, GateError},
    kernel::BpfGate,
};
use libbpf_rs::{
    ObjectBuilder,
    btf::{Btf, types},
};
use policy::Reason;

use super::{Attr, LINK_CREATE, admissions, arm_with, check, drain};

/// Functions of other programs, as `PROGRAM:FUNCTION`; the rule names the first two.
const ALLOWED: &str = "dispatch:slot_*";

struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn open(&self, name: &str) -> io::Result<libbpf_rs::OpenObject> {
        ObjectBuilder::default()
            .open_file(self.0.join(format!("{name}.bpf.o")))
            .map_err(io::Error::other)
    }

    /// Loads an object with one program.
    fn load(&self, name: &str) -> io::Result<OwnedFd> {
        first_program(self.open(name)?)
    }

    /// Loads the replacement for a function of `target`.
    fn load_for(&self, target: &OwnedFd, function: &str) -> io::Result<OwnedFd> {
        let mut object = self.open("replace_slot")?;
        for mut program in object.progs_mut() {
            program
                .set_attach_target(target.as_raw_fd(), Some(function.to_owned()))
                .map_err(io::Error::other)?;
        }
        first_program(object)
    }

    fn function(&self, object: &str, function: &str) -> io::Result<u32> {
        let file = self.0.join(format!("{object}.bpf.o"));
        let btf = Btf::from_path(file).map_err(io::Error::other)?;
        btf.type_by_name::<types::Func<'_>>(function)
            .map(|found| found.type_id().into())
            .ok_or_else(|| io::Error::other(format!("{object} has no function {function}")))
    }

    fn entry(&self, name: &str) -> io::Result<Entry> {
        let file = format!("{name}.bpf.o");
        let elf = std::fs::read(self.0.join(&file))?;
        let object = bundle::inventory::read(&file, &elf).map_err(io::Error::other)?;
        let measured = enforcer::measure::measure(&elf, &object).map_err(io::Error::other)?;
        let mut image = measured
            .images
            .into_iter()
            .next()
            .ok_or_else(|| io::Error::other(format!("{name}: {:?}", measured.unmeasured)))?;
        if name == "replace_slot" {
            image.places = vec![ALLOWED.to_owned()];
        }
        Ok(Entry {
            image,
            class: Class::Signed,
            bundle: Some(Digest::of(file.as_bytes())),
        })
    }
}

fn first_program(object: libbpf_rs::OpenObject) -> io::Result<OwnedFd> {
    let object = object.load().map_err(io::Error::other)?;
    let program = object.progs().next();
    program
        .ok_or_else(|| io::Error::other("it has no program"))?
        .as_fd()
        .try_clone_to_owned()
}

/// Attaches a replacement to where it was loaded for, or to a function of another program.
fn attach(program: &OwnedFd, target: Option<(&OwnedFd, u32)>) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().u32(0, program.as_raw_fd() as u32);
    if let Some((target, function)) = target {
        attr = attr.u32(4, target.as_raw_fd() as u32).u32(16, function);
    }
    attr.open(LINK_CREATE)
}

struct Try {
    what: &'static str,
    /// Object and function that it is loaded for, and attached to.
    load: (&'static str, &'static str),
    attach: Option<(&'static str, &'static str)>,
    refused: bool,
}

const TRIES: [Try; 6] = [
    Try {
        what: "a replacement where its rule says",
        load: ("dispatch", "slot_first"),
        attach: None,
        refused: false,
    },
    Try {
        what: "a replacement moved to another function that its rule names",
        load: ("dispatch", "slot_first"),
        attach: Some(("dispatch", "slot_second")),
        refused: false,
    },
    Try {
        what: "a replacement of another function",
        load: ("dispatch", "decide"),
        attach: None,
        refused: true,
    },
    Try {
        what: "a replacement of another program's function",
        load: ("divert", "slot_first"),
        attach: None,
        refused: true,
    },
    Try {
        what: "a replacement moved to another function",
        load: ("dispatch", "slot_first"),
        attach: Some(("dispatch", "decide")),
        refused: true,
    },
    Try {
        what: "a replacement moved to another program",
        load: ("dispatch", "slot_first"),
        attach: Some(("divert", "slot_first")),
        refused: true,
    },
];

fn run_one(folder: &Folder<'_>, one: &Try) -> io::Result<()> {
    let load_target = folder.load(one.load.0)?;
    let program = folder.load_for(&load_target, one.load.1)?;
    let Some((object, function)) = one.attach else {
        return attach(&program, None).map(drop);
    };
    let number = folder.function(object, function)?;
    let target = folder.load(object)?;
    attach(&program, Some((&target, number))).map(drop)
}

/// Everything works without a gate; with one, only what the rule names.
pub fn run(folder: &str) -> Result<bool, GateError> {
    libbpf_rs::set_print(None);
    let folder = Folder(Path::new(folder));
    let mut fine = true;
    for one in &TRIES {
        fine &= check(
            &format!("{} works without a gate", one.what),
            run_one(&folder, one)
                .map(|()| String::new())
                .map_err(|error| error.to_string()),
        );
    }
    let before = folder.load("dispatch");
    let mut all = admissions();
    all.entries.extend(enforcer::probes::entries());
    for name in ["dispatch", "divert", "replace_slot"] {
        match folder.entry(name) {
            Ok(entry) => all.entries.push(entry),
            Err(error) => {
                return Ok(check(
                    &format!("{name} is measured"),
                    Err(error.to_string()),
                ));
            }
        }
    }
    let mut gate = BpfGate::open()?;
    arm_with(&mut gate, &all)?;
    let mut judge = |what: String, refused: bool, result: io::Result<()>, gate: &mut BpfGate| {
        let events = drain(gate);
        let event = events.iter().find(|event| event.refused);
        let reason = event.map(|event| event.reason);
        let verdict = match (refused, &result, reason) {
            (false, Ok(()), None) => Ok(String::new()),
            (true, Err(_), Some(Some(Reason::AttachProgram))) => Ok("E413".to_owned()),
            (_, result, _) => Err(format!("{result:?}, event {event:?}")),
        };
        fine &= check(&what, verdict);
    };
    for one in &TRIES {
        drain(&mut gate);
        let result = run_one(&folder, one);
        let how = if one.refused { "is refused" } else { "works" };
        judge(
            format!("{} {how}", one.what),
            one.refused,
            result,
            &mut gate,
        );
    }
    // Nobody judged what was there before arming, so nothing says whose function it is.
    let result = before.and_then(|before| folder.load_for(&before, "slot_first").map(drop));
    judge(
        "a replacement in a program from before is refused".to_owned(),
        true,
        result,
        &mut gate,
    );
    gate.disarm()?;
    Ok(fine)
}
