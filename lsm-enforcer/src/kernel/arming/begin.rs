//! The first arming: programs on their hooks, pins, and nothing admitted before the gate is alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use libbpf_rs::{Link, MapCore as _, MapFlags};

use super::{
    BpfGate, Handle as _, Maps, OWN_LINK, OWN_MAP, OWN_PIN, OWN_PROG, alone, last_word, loaded,
    object, other, place,
    renewal::{LINK, inode},
};
use crate::{
    gate::{Admissions, Armed},
    kernel::{ladder::Ladder, shared::Guard, shield},
    ourselves,
};

/// What this process made.
struct Pinned {
    /// The gate's own objects: kind and number.
    own: BTreeSet<(u32, u32)>,
    /// The link of each program that has one, and the inode of its pin.
    links: BTreeMap<String, (u32, u32)>,
}

impl BpfGate {
    pub(super) fn arm_now(&mut self, armed: &Armed, admissions: &Admissions) -> io::Result<()> {
        let ladder = able()?;
        ourselves::stay_in_memory()?;
        place::make_pins()?;
        let loaded = object::load(&ladder, &Maps::New(self.max_programs))?;
        self.parting = loaded.programs()?;
        self.maps = loaded.maps()?;
        let mut guard = Guard {
            next_image: alone::first_image(),
            // What is loaded before the gate is in force was there before.
            armed_at: u64::MAX,
            last_prog: u32::MAX,
            kprobes: ladder.kprobes,
            tracepoints: ladder.tracepoints,
            uprobes: ladder.uprobes,
            build: object::build(),
            layout: object::layout(),
            ..Guard::default()
        };
        place::survey(&mut guard)?;
        ourselves::obeyed(guard.files());
        self.write_guard(&guard)?;
        self.put_in_force(&self.store(0).open()?)?;
        self.map("marks")?
            .update(
                &std::process::id().to_ne_bytes(),
                &place::start_ticks()?.to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(other)?;
        self.hold_alone()?;
        last_word::forget_left()?;
        self.attach_last(&loaded)?;
        let links = loaded.attach()?;
        let Pinned { own, links } = self.pin(&loaded, links)?;
        place::show_mount();
        if self.guard()?.exe == 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the enforcer's file is on a file system that shows other devices than it has (btrfs, overlayfs), so \
                 the gate could not know it again: put it on ext4, XFS or tmpfs",
            ));
        }
        let mut seen = self.guard()?;
        seen.locked = true;
        self.write_guard(&seen)?;
        // In this order: a pin that was taken away makes room for a descriptor, and could be put back.
        self.must_be_pinned(&loaded, &links)?;
        place::must_still_be_ours()?;
        self.must_be_alone(&loaded)?;
        guard.locked = true;
        self.begin_anew(guard, own)?;
        shield::leave_to_the_gate();
        self.take_the_last_word(&loaded)?;
        self.write_admissions(armed, admissions)?;
        let mut guard = self.guard()?;
        guard.armed_at = place::boot_time();
        guard.last_prog = loaded::last_program();
        guard.complete = true;
        self.write_guard(&guard)?;
        self.parting.clear();
        Ok(())
    }

    /// Everything survives this process from here on.
    fn pin(&self, loaded: &object::Loaded, links: Vec<(String, Link)>) -> io::Result<Pinned> {
        let mut own = BTreeSet::new();
        let mut pinned = BTreeMap::new();
        let mut add = |kind, id| {
            own.insert((kind, id));
            self.own(kind, id)
        };
        // Who finds the set finds all of them.
        let (set, others): (Vec<_>, Vec<_>) =
            self.maps.iter().partition(|(name, _)| *name == "set");
        for (name, map) in others.into_iter().chain(set) {
            if let Some(pin) = object::pin_name(name) {
                let path = self.pins.pin(&format!("map_{pin}"));
                map.try_clone_handle()?
                    .pin(&path)
                    .map_err(|error| io::Error::other(format!("pinning {path}: {error}")))?;
            }
            add(OWN_MAP, object::map_id(map)?)?;
        }
        for program in loaded.programs()? {
            add(OWN_PROG, program.id())?;
        }
        for (name, mut link) in links {
            let pin = self.pins.pin(&format!("{LINK}{name}"));
            link.pin(&pin).map_err(other)?;
            let (id, inode) = (object::link_id(&link)?, inode(&pin)?);
            add(OWN_PIN, inode)?;
            add(OWN_LINK, id)?;
            pinned.insert(name, (id, inode));
        }
        Ok(Pinned { own, links: pinned })
    }
}

/// How far this kernel goes, if it can enforce at all.
pub fn able() -> io::Result<Ladder> {
    let ladder = Ladder::detect();
    match (ladder.rung, ladder.missing.first()) {
        (Some(_), None) => Ok(ladder),
        (_, why) => {
            let why = why.map_or("no rung", String::as_str);
            Err(io::Error::new(io::ErrorKind::Unsupported, why.to_owned()))
        }
    }
}
