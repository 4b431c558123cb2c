//! The gate's programs are exchanged for those of another build, while it is armed.
//!
//! The new ones are attached beside the old ones, with the same maps, and take their pins one by one. So
//! each hook has a program at every moment, and what both of them see, both judge: the second finds what the
//! first has written and comes to the same. A crash in between leaves hooks with programs of either build,
//! which is sound, too; the next start begins again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use libbpf_rs::{
    MapCore as _, ProgramHandle,
    query::{ProgInfoIter, ProgInfoQueryOptions},
};

use super::{
    BpfGate, Doing as _, OWN_LINK, OWN_MAP, OWN_PIN, OWN_PROG,
    begin::able,
    object::{self, Loaded, Maps},
    other,
};
use crate::{
    gate::GateError,
    kernel::{
        place,
        shared::{Fields, Guard, Reader},
    },
};

/// Names of pins: of what is in force, and of what is about to take its place.
pub(super) const LINK: &str = "link_";
const NEXT: &str = "next_";

impl BpfGate {
    /// Exchanges the programs for those of this build, whoever's they are.
    pub fn exchange(&self) -> Result<(), GateError> {
        let exchange = || {
            self.exchange_now().inspect_err(|_| {
                let _the_first_error_counts = self.forget_unfinished();
            })
        };
        self.changing_pins(&exchange)
            .doing("exchanging the gate's programs for those of this build")
    }

    fn exchange_now(&self) -> io::Result<()> {
        self.forget_unfinished()?;
        let loaded = self.load_beside()?;
        for map in loaded.maps()?.into_values() {
            self.own(OWN_MAP, object::map_id(&map)?)?;
        }
        for program in loaded.programs()? {
            self.own(OWN_PROG, program.id())?;
        }
        let mut names = HashSet::new();
        let is_late = self.asks_anew(&loaded)?;
        if is_late {
            self.give_up_the_last_word()?;
        }
        self.attach_last(&loaded)?;
        for (name, mut link) in loaded.attach()? {
            self.own(OWN_LINK, object::link_id(&link)?)?;
            let pin = self.pins.pin(&format!("{NEXT}{name}"));
            link.pin(&pin).map_err(other)?;
            self.own(OWN_PIN, inode(&pin)?)?;
            names.insert(name);
        }
        // Both have every hook now.
        self.keep_programs_of(LINK)?;
        self.give_up_pins(LINK)?;
        self.part(LINK, || {
            for name in &names {
                let pin = |kind: &str| self.pins.pin(&format!("{kind}{name}"));
                fs::rename(pin(NEXT), pin(LINK))?;
            }
            for (name, path) in self.pinned(LINK)? {
                if !names.contains(&name) && path.is_file() {
                    fs::remove_file(path)?;
                }
            }
            Ok(())
        })?;
        // Before that, whoever died would have left it to programs that nobody keeps.
        if is_late {
            self.take_the_last_word(&loaded)?;
        }
        let guard = Guard {
            build: object::build(),
            ..self.guard()?
        };
        self.write_guard(&guard)?;
        self.forget_unfinished()
    }

    /// Loads this build's programs over the maps that are pinned.
    fn load_beside(&self) -> io::Result<Loaded> {
        object::load(&able()?, &Maps::Pinned(&self.maps))
    }

    /// Meanwhile this thread of the daemon may remove pins, and what it loads is the gate's own. It works in the very
    /// folder of the pins, not where a path leads to by then.
    pub(super) fn changing_pins<T>(&self, change: &dyn Fn() -> io::Result<T>) -> io::Result<T> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let guard = self.guard()?;
        let _inside = self.pins.enter((guard.pins, guard.pins_dev))?;
        self.let_change(thread.cast_unsigned())?;
        let result = change();
        self.let_change(0)?;
        result
    }

    /// Which thread of this process may do so; 0: none.
    pub(super) fn let_change(&self, renewing: u32) -> io::Result<()> {
        self.write_guard(&Guard {
            renewing,
            renewer: place::start_ticks()?,
            ..self.guard()?
        })
    }

    /// These are about to go, and it is not the gate that goes.
    fn give_up_pins(&self, kind: &str) -> io::Result<()> {
        for path in self.pinned(kind)?.into_values() {
            let key = Fields::default().u32s(&[OWN_PIN, inode(&path)?]).done(8);
            let _never_was = self.map("own")?.delete(&key);
        }
        Ok(())
    }

    /// Pins of a kind, by what follows in their name.
    pub(super) fn pinned(&self, kind: &str) -> io::Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.pins.folder())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_prefix(kind)) {
                found.insert(name.to_owned(), path.clone());
            }
        }
        Ok(found)
    }

    /// Forgets what an exchange that did not come to its end has left, and what one that did has replaced.
    fn forget_unfinished(&self) -> io::Result<()> {
        let unfinished = self.pinned(NEXT)?;
        if !unfinished.is_empty() {
            let remove = |path| fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            self.keep_programs_of(NEXT)?;
            self.give_up_pins(NEXT)?;
            self.part(NEXT, || unfinished.values().try_for_each(remove))?;
        }
        let mut keep = HashSet::new();
        for map in self.maps.values() {
            keep.insert((OWN_MAP, object::map_id(map)?));
        }
        if let Some(set) = self.current_set()? {
            keep.insert((OWN_MAP, object::map_id(&set)?));
        }
        let mut programs = HashSet::new();
        for path in self.pinned(LINK)?.into_values() {
            keep.insert((OWN_PIN, inode(&path)?));
        }
        for link in self.links_of(LINK)? {
            let Ok(link) = link.info() else {
                continue;
            };
            keep.insert((OWN_LINK, link.id));
            programs.insert(link.prog_id);
        }
        programs.extend(self.kept_programs()?.into_keys());
        programs.extend(self.last()?.iter().map(ProgramHandle::id));
        keep.extend(maps_of(&programs).into_keys().map(|id| (OWN_MAP, id)));
        keep.extend(programs.into_iter().map(|id| (OWN_PROG, id)));
        let own = self.map("own")?;
        for key in own.keys() {
            let mut reader = Reader(&key);
            if !keep.contains(&(reader.u32(), reader.u32())) {
                own.delete(&key).map_err(other)?;
            }
        }
        Ok(())
    }
}

/// The BPF file system counts them in 32 bits.
pub(super) fn inode(pin: impl AsRef<Path>) -> io::Result<u32> {
    Ok(fs::symlink_metadata(pin)?.ino() as u32)
}

/// Kernel ids of the maps that these programs use, and by how many of them each is used.
pub(super) fn maps_of(programs: &HashSet<u32>) -> HashMap<u32, u64> {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let ours = ProgInfoIter::with_query_opts(options)
        .filter(|program| programs.contains(&program.id))
        .flat_map(|program| program.map_ids.into_iter().collect::<HashSet<_>>());
    let mut uses = HashMap::new();
    for map in ours {
        *uses.entry(map).or_default() += 1;
    }
    uses
}
