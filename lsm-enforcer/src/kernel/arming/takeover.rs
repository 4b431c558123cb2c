//! A gate that is pinned already: whoever opens it continues, if its maps mean what this build's do.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, ProgramHandle, ProgramType};

use super::{
    BpfGate, Doing as _, MAX_PROGRAMS, OWN_MAP, object, other,
    renewal::{LINK, maps_of},
};
use crate::{
    gate::{Gate as _, GateError, Role},
    kernel::{pins::Pins, probe, shared::Fields, shield, store},
    ourselves,
};

/// Maps that decide, and those by which one sees what was decided.
const VITAL: [&str; 7] = [
    "set", "guards", "records", "origins", "own", "counters", "events",
];

impl BpfGate {
    /// Takes over a gate that is armed, or stands before a kernel without one.
    pub fn open() -> Result<Self, GateError> {
        libbpf_rs::set_print(None);
        let mut gate = Self {
            maps: BTreeMap::new(),
            pins: Pins::find(),
            origins: HashMap::new(),
            max_programs: MAX_PROGRAMS,
            role: Role::default(),
            held: Vec::new(),
            parting: Vec::new(),
        };
        if gate.pins.hold_a_gate() {
            let stays = ourselves::stay_in_memory();
            gate.take_over().doing("taking over the pinned gate")?;
            stays.doing("keeping this process in memory")?;
            gate.forget_half_armed()?;
            gate.finish_disarming()?;
            // What was half armed guarded nobody.
            if !gate.maps.is_empty() {
                shield::leave_to_the_gate();
            }
        }
        Ok(gate)
    }

    /// Somebody died while arming: what is there refuses nothing that it ought to refuse, and nobody guards it.
    fn forget_half_armed(&mut self) -> Result<(), GateError> {
        let arming = || -> io::Result<bool> {
            if self.maps.is_empty() || self.guard()?.complete {
                return Ok(false);
            }
            match self.holding()? {
                Some(held) => Err(io::Error::other(format!(
                    "process {} is arming it: wait for it",
                    held.pid
                ))),
                None => Ok(true),
            }
        };
        if arming().doing("looking whether the gate was armed to the end")? {
            self.disarm()?;
        }
        Ok(())
    }

    /// Somebody died while disarming, when the gate was open already: it must not look armed.
    fn finish_disarming(&mut self) -> Result<(), GateError> {
        if self.maps.is_empty() {
            return Ok(());
        }
        let open = || match self.current_set()? {
            Some(set) => store::is_open(&set),
            None => Ok(false),
        };
        if open().doing("reading whether the gate is being disarmed")? {
            self.disarm()?;
        }
        Ok(())
    }

    fn take_over(&mut self) -> io::Result<()> {
        // What somebody else has put into the folder does not matter.
        let mut maps = BTreeMap::new();
        for (name, want) in object::map_sizes()? {
            let map = open_pinned(&self.pins, &name)?;
            must_have_size(&name, map.as_ref(), want)?;
            maps.extend(map.map(|map| (name, map)));
        }
        self.maps = maps;
        let guard = self.guard()?;
        // While it is armed or disarmed it has only some of its links, and may have none; nothing is refused then.
        let in_force = guard.locked || probe::load_unsigned().is_err();
        if in_force {
            self.must_be_in_use().inspect_err(|_| self.maps.clear())?;
        }
        if guard.layout != object::layout() {
            self.maps.clear();
            return Err(another_build("its maps hold other things"));
        }
        self.origins = self.store(0).origins()?;
        ourselves::obeyed(self.guard()?.files());
        Ok(())
    }

    /// Whoever mounts a BPF file system of his own over the pins can have maps there that look like the gate's.
    /// The gate's programs are the kernel's word: what they do not use is not the gate's.
    fn must_be_in_use(&self) -> io::Result<()> {
        let programs = self.programs_of(LINK)?;
        let lsm = programs
            .iter()
            .filter(|program| program.prog_type() == ProgramType::Lsm);
        let used = maps_of(&lsm.map(ProgramHandle::id).collect());
        let wrong = |name: &str| {
            let what = format!(
                "{name} in {} is no map that the gate's programs use: somebody put other things over \
                 its pins, `findmnt -R /sys/fs/bpf` shows where",
                self.pins.folder()
            );
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let mut ids = BTreeMap::new();
        for (name, map) in &self.maps {
            let info = map.info().map_err(other)?;
            // One of the gate's could stand in for another.
            if info.name().map_err(other)? != name {
                return Err(wrong(name));
            }
            ids.insert(name.as_str(), info.info.id);
        }
        for name in VITAL {
            if !ids.get(name).is_some_and(|id| used.contains_key(id)) {
                return Err(wrong(name));
            }
        }
        // Those that no program of this kernel uses are on the gate's list.
        for (name, id) in ids {
            let key = Fields::default().u32s(&[OWN_MAP, id]).done(8);
            let listed = self.map("own")?.lookup(&key, MapFlags::ANY);
            if listed.map_err(other)?.is_none() {
                return Err(wrong(name));
            }
        }
        Ok(())
    }
}

/// The map of that pin; `None`: there is none.
pub(super) fn open_pinned(pins: &Pins, name: &str) -> io::Result<Option<MapHandle>> {
    let path = pins.pin(&format!("map_{name}"));
    match MapHandle::from_pinned_path(path) {
        Ok(map) => Ok(Some(map)),
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == libbpf_rs::ErrorKind::PermissionDenied => {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it opens for the file that armed it alone, and for processes of root's that began after \
                 that, in the machine's own namespaces: start the command again",
            ))
        }
        Err(error) => Err(io::Error::other(format!("{name}: {error}"))),
    }
}

/// Another build's gate may keep other things in its maps: nothing of it is read or written then.
fn must_have_size(name: &str, map: Option<&MapHandle>, want: (u32, u32)) -> io::Result<()> {
    let got = map.map(|map| (map.key_size(), map.value_size()));
    if got == Some(want) {
        return Ok(());
    }
    let got = got.map_or("none".to_owned(), |(key, value)| {
        format!("{key} and {value}")
    });
    let (key, value) = want;
    Err(another_build(&format!(
        "map {name} has keys and values of {got} bytes, this build's have {key} and {value}"
    )))
}

fn another_build(what: &str) -> io::Error {
    io::Error::other(format!(
        "it was armed by another build: {what}; disarm with that build and a permit, or reboot"
    ))
}
