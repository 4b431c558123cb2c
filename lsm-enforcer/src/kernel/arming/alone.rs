//! Arming for somebody who watches: maps and programs are there for a while before anybody guards them.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, ProgramHandle};

use super::{
    BpfGate, OWN_MAP, object, other, place,
    renewal::{LINK, inode, maps_of},
    takeover::open_pinned,
};
use crate::kernel::{
    rows,
    shared::{Fields, Guard},
};

/// What of the gate's maps decides, or says what does, and is empty before anything is admitted.
const EMPTY: &[&str] = &[
    "arrays",
    "asked",
    "bounds",
    "contents",
    "makers",
    "makers_running",
    "origins",
    "owners",
    "pendings",
    "places",
    "records",
    "refs",
    "results",
    "specs",
    "tunables",
    "volumes",
    "words",
];

/// Arrays that hold zeros then.
const ZERO: &[&str] = &["counters", "lost", "unbound"];

/// Others who ask for a map, and are refused it, hold it for a moment.
const TRIES: u32 = 100;

/// Where to begin counting images: whoever wrote into the maps before cannot know which come.
pub fn first_image() -> u32 {
    const LEAST: u32 = 1 << 16;
    LEAST + (RandomState::new().build_hasher().finish() as u32 >> 2)
}

/// Who may have a map: descriptors and pins, and programs and maps beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Uses {
    users: u64,
    references: u64,
}

impl BpfGate {
    /// Nobody gets hold of the gate's maps any more. Somebody may have done so before: each must be used by what this
    /// process made of it, and by nobody else.
    pub(super) fn must_be_alone(&self, loaded: &object::Loaded) -> io::Result<()> {
        let ours = loaded.programs()?;
        let used = maps_of(&ours.iter().map(ProgramHandle::id).collect());
        for (name, map) in &self.maps {
            let id = object::map_id(map)?;
            // This process has one descriptor and another one while it asks.
            let users = 2 + u64::from(object::pin_name(name).is_some());
            let want = Uses {
                users,
                references: users + used.get(&id).copied().unwrap_or(0),
            };
            let mut got = self.uses(id)?;
            for _ in 1..TRIES {
                if got == want {
                    break;
                }
                got = self.uses(id)?;
            }
            if got != want {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!(
                        "somebody else got hold of the gate's map {name} while it was armed ({got:?}, want {want:?}): \
                         /proc/PID/fdinfo of who did says map_id {id}; end it and arm again"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Nor does anybody remove a pin any more: what was made is behind each, and on its hook.
    /// `links` has the link of each program that needs a pin, and the pin's inode.
    pub(super) fn must_be_pinned(
        &self,
        loaded: &object::Loaded,
        links: &BTreeMap<String, (u32, u32)>,
    ) -> io::Result<()> {
        let gone = |what: &str| {
            let text = format!("somebody took {what} away while it was armed: arm again");
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        };
        for (name, map) in &self.maps {
            let Some(pin) = object::pin_name(name) else {
                continue;
            };
            let there = open_pinned(&self.pins, &pin)?;
            let there = there.as_ref().map(object::map_id).transpose()?;
            if there != Some(object::map_id(map)?) {
                return gone(&format!("the pin of the gate's map {name}"));
            }
        }
        let last: BTreeSet<u32> = self.last()?.iter().map(ProgramHandle::id).collect();
        for name in loaded.names() {
            let is_there = match links.get(&name) {
                Some(&(link, pin)) => {
                    self.link_of(&name).is_some_and(|found| found.id == link)
                        && inode(self.pins.pin(&format!("{LINK}{name}")))? == pin
                }
                None => loaded
                    .program(&name)?
                    .is_some_and(|program| last.contains(&program.id())),
            };
            if !is_there {
                return gone(&format!("the gate's program {name}"));
            }
        }
        Ok(())
    }

    /// The kernel side says it when the daemon asks for the map.
    fn uses(&self, id: u32) -> io::Result<Uses> {
        let mut guard = self.guard()?;
        guard.shown = id;
        self.write_guard(&guard)?;
        drop(MapHandle::from_map_id(id).map_err(other)?);
        let guard = self.guard()?;
        Ok(Uses {
            users: guard.users,
            references: guard.references,
        })
    }

    /// Whatever somebody wrote before is gone: `guard` is what this process knows by itself, and `own` what it made.
    pub(super) fn begin_anew(
        &self,
        mut guard: Guard,
        mut own: BTreeSet<(u32, u32)>,
    ) -> io::Result<()> {
        let maps = own.iter().filter(|(kind, _)| *kind == OWN_MAP);
        let ids: BTreeSet<u32> = maps.map(|&(_, id)| id).collect();
        guard.first_map = ids.first().copied().unwrap_or(0);
        guard.last_map = ids.last().copied().unwrap_or(0);
        // Which mount it is was asked in the open as well.
        guard.mount = 0;
        self.write_guard(&guard)?;
        place::show_mount();
        if self.guard()?.mount == 0 {
            return Err(io::Error::other(
                "the kernel did not see this process ask for the mount of the pins: somebody traces it, answers its system \
                 calls, or has mounted something there",
            ));
        }
        place::must_still_be_ours()?;
        let open = self.store(0).open()?;
        own.insert((OWN_MAP, object::map_id(&open.map)?));
        self.put_in_force(&open)?;
        let own = own
            .iter()
            .map(|&(kind, id)| Fields::default().u32s(&[kind, id]).done(8));
        self.keep_only("own", &own.collect())?;
        let me = std::process::id().to_ne_bytes().to_vec();
        self.keep_only("marks", &BTreeSet::from([me]))?;
        for name in EMPTY {
            self.keep_only(name, &BTreeSet::new())?;
        }
        for name in ZERO {
            let map = self.map(name)?;
            let zeros = vec![0; map.value_size() as usize];
            for index in 0..map.max_entries() {
                map.update(&index.to_ne_bytes(), &zeros, MapFlags::ANY)
                    .map_err(other)?;
            }
        }
        Ok(())
    }

    fn keep_only(&self, name: &str, keys: &BTreeSet<Vec<u8>>) -> io::Result<()> {
        let map = self.map(name)?;
        for (key, _) in rows::all(map)? {
            if !keys.contains(&key) {
                let _gone_already = map.delete(&key);
            }
        }
        let missing = |key: &&Vec<u8>| !matches!(map.lookup(key, MapFlags::ANY), Ok(Some(_)));
        match keys.iter().find(missing) {
            None => Ok(()),
            Some(_) => Err(io::Error::other(format!(
                "somebody took entries of the gate's map {name} away while it was armed: arm again"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map that nobody thought of would hold what somebody wrote into it before the gate was alone.
    #[test]
    fn each_map_is_made_anew_or_says_nothing() {
        // Written anew by name; the process's own lock; rows by inode, of images that nobody could know; a number of
        // a thread that has loaded once; what is told.
        let others = [
            "guards", "own", "set", "marks", "holders", "pinned", "loaders", "events",
        ];
        let mut known: Vec<&str> = [EMPTY, ZERO, &others].concat();
        known.sort_unstable();
        let maps = object::map_sizes().unwrap();
        assert_eq!(maps.into_keys().collect::<Vec<_>>(), known);
    }
}
