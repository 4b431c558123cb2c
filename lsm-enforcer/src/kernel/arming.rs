//! Arming, taking over, changing and disarming.

mod alone;
mod begin;
mod cover;
mod hold;
mod last_word;
mod parting;
mod renewal;
mod takeover;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    os::{fd::AsRawFd, unix::fs::MetadataExt as _},
    path::Path,
    time::Duration,
};

use bundle::Digest;
use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, ProgramHandle, RingBufferBuilder, query::LinkInfo,
};

pub(super) use begin::able;
pub use hold::stranger;
use renewal::LINK;

use super::{
    event, generators, ladder, loaded,
    object::{self, Maps},
    pins::Pins,
    place,
    shared::{Fields, Guard, Origin},
    shield,
    store::{self, Set, Store},
    successor,
};
use crate::gate::{
    Admissions, Armed, Counters, Coverage, Entry, Event, Gate, GateError, GeneratorRule,
    GeneratorState, Hold, Loaded, Mode, Revoked, Role, kept_name,
};

/// Programs that the gate can keep a record of at once, unless told: 12 MB of kernel memory.
const MAX_PROGRAMS: u32 = 98_304;

/// `enum own`.
const OWN_MAP: u32 = 1;
const OWN_PROG: u32 = 2;
const OWN_LINK: u32 = 3;
const OWN_PIN: u32 = 4;

/// `enum counter`.
const COUNT_TABLES_LOST: u32 = 6;

fn other(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error)
}

/// Says what was being done when the kernel said no.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, GateError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: &str) -> Result<T, GateError> {
        self.map_err(|source| GateError {
            doing: what.into(),
            source,
        })
    }
}

/// The gate in this machine's kernel. Its state is in pinned maps, not here: a second
/// process that opens it continues where the first one stopped.
pub struct BpfGate {
    maps: BTreeMap<String, MapHandle>,
    pins: Pins,
    origins: HashMap<u32, Origin>,
    max_programs: u32,
    role: Role,
    /// Files of generators: held, so that the kernel keeps their inodes.
    held: Vec<fs::File>,
    /// Programs that are not attached any more, see [`parting`].
    parting: Vec<ProgramHandle>,
}

impl BpfGate {
    /// How many programs an arming of this one keeps records of; one more is refused.
    #[must_use]
    pub fn with_max_programs(mut self, count: u32) -> Self {
        self.max_programs = count;
        self
    }

    fn map(&self, name: &str) -> io::Result<&MapHandle> {
        self.maps
            .get(name)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the gate is not armed"))
    }

    fn store(&self, next_image: u32) -> Store<'_> {
        Store {
            maps: &self.maps,
            next_image,
        }
    }

    fn guard(&self) -> io::Result<Guard> {
        let value = self
            .map("guards")?
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(other)?
            .unwrap_or_default();
        Ok(Guard::read(&value))
    }

    fn write_guard(&self, guard: &Guard) -> io::Result<()> {
        self.map("guards")?
            .update(&0u32.to_ne_bytes(), &guard.to_bytes(), MapFlags::ANY)
            .map_err(other)
    }

    /// Nothing is guarded, and no last word refuses anything.
    fn stop_guarding(&self) -> io::Result<()> {
        let written = self.guard().and_then(|guard| {
            self.write_guard(&Guard {
                locked: false,
                last_word: last_word::NONE,
                ..guard
            })
        });
        written.and(last_word::forget_left())
    }

    /// One of `enum counter`.
    fn counter(&self, which: u32) -> io::Result<u64> {
        let value = self
            .map("counters")?
            .lookup(&which.to_ne_bytes(), MapFlags::ANY)
            .map_err(other)?
            .and_then(|value| value.try_into().ok());
        Ok(value.map_or(0, u64::from_ne_bytes))
    }

    /// What is behind the pin of that program's link, if it is a link.
    fn link_of(&self, name: &str) -> Option<LinkInfo> {
        let pin = self.pins.pin(&format!("{LINK}{name}"));
        Link::open(pin).and_then(|link| link.info()).ok()
    }

    /// The same, if it is one of the gate's own.
    fn own_link(&self, name: &str) -> io::Result<Option<LinkInfo>> {
        let Some(link) = self.link_of(name) else {
            return Ok(None);
        };
        let key = Fields::default().u32s(&[OWN_LINK, link.id]).done(8);
        let known = self.map("own")?.lookup(&key, MapFlags::ANY);
        Ok(known.map_err(other)?.map(|_| link))
    }

    /// Those of the gate's programs that are pinned, by their names: of none another's link has the place.
    fn own_links(&self) -> io::Result<BTreeMap<&'static str, LinkInfo>> {
        let mut found = BTreeMap::new();
        // One link is there for one program, whatever begins like its name.
        let mut known = HashSet::new();
        for &name in object::ORDER {
            let Some(link) = self.own_link(name)? else {
                continue;
            };
            let program = ProgramHandle::from_prog_id(link.prog_id).map_err(other)?;
            if object::is_name(program.name(), name) && known.insert(link.id) {
                found.insert(name, link);
            }
        }
        Ok(found)
    }

    /// Which devices with dm-verity got how many tables, or why that is not known.
    fn tables(&self) -> io::Result<Result<&MapHandle, &'static str>> {
        if self.own_link("note_volume")?.is_none() {
            return Ok(Err(
                "`dmverity` needs Linux 6.12, which says when a volume is given another table",
            ));
        }
        if self.counter(COUNT_TABLES_LOST)? > 0 {
            return Ok(Err(
                "more volumes got dm-verity than the gate can count: until the next boot `sha256` has to pin it",
            ));
        }
        self.map("volumes").map(Ok)
    }

    fn current_set(&self) -> io::Result<Option<MapHandle>> {
        let Some(id) = self
            .map("set")?
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(other)?
            .and_then(|id| <[u8; 4]>::try_from(id).ok())
        else {
            return Ok(None);
        };
        MapHandle::from_map_id(u32::from_ne_bytes(id))
            .map(Some)
            .map_err(other)
    }

    fn own(&self, kind: u32, id: u32) -> io::Result<()> {
        if kind == OWN_MAP {
            // Other maps are told apart by this range alone, which costs next to nothing.
            let mut guard = self.guard()?;
            guard.first_map = match guard.first_map {
                0 => id,
                first => first.min(id),
            };
            guard.last_map = guard.last_map.max(id);
            self.write_guard(&guard)?;
        }
        self.map("own")?
            .update(
                &Fields::default().u32s(&[kind, id]).done(8),
                &1u32.to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(other)
    }

    /// Makes a prepared set the one in force. The kernel waits until nobody uses the old one.
    fn put_in_force(&self, set: &Set) -> io::Result<()> {
        let old = self.current_set()?.map(|map| object::map_id(&map));
        self.own(OWN_MAP, object::map_id(&set.map)?)?;
        self.map("set")?
            .update(
                &0u32.to_ne_bytes(),
                &set.map.as_fd_number().to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(other)?;
        if let Some(id) = old {
            let key = Fields::default().u32s(&[OWN_MAP, id?]).done(8);
            let _absent_on_the_first = self.map("own")?.delete(&key);
        }
        Ok(())
    }

    fn write_admissions(&mut self, armed: &Armed, admissions: &Admissions) -> io::Result<()> {
        let mut guard = self.guard()?;
        // Whoever died here has written images, and not how many.
        let written = self.store(0).origins()?.into_keys().max().unwrap_or(0);
        let mut store = self.store(guard.next_image.max(written + 1));
        let prepared = store.prepare(armed, admissions);
        guard.next_image = store.next_image;
        let has_places = |entry: &Entry| !entry.image.places.is_empty();
        guard.placed |= admissions.entries.iter().any(has_places);
        self.write_guard(&guard)?;
        let set = prepared?;
        self.put_in_force(&set)?;
        let mut keep: HashSet<u32> = set.images.iter().copied().collect();
        keep.extend(loaded::images(self.map("records")?)?);
        keep.extend(loaded::callers(self.map("arrays")?)?);
        let store = self.store(guard.next_image);
        store.forget_all_but(&|id| keep.contains(&id))?;
        self.origins = self.store(guard.next_image).origins()?;
        Ok(())
    }
}

/// The kernel detaches programs one by one, some time after their last pin is gone: a few
/// loads in a row must succeed. The kernel's work queue may have tens of thousands of freed
/// programs before them, which takes a slow machine many seconds.
fn wait_until_open() -> io::Result<()> {
    const IN_A_ROW: u32 = 3;
    const PATIENCE: Duration = Duration::from_secs(120);
    let start = std::time::Instant::now();
    let mut passed = 0;
    while start.elapsed() < PATIENCE {
        match super::probe::load_unsigned() {
            Ok(()) => passed += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => passed = 0,
            Err(error) => return Err(error),
        }
        if passed == IN_A_ROW {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

/// Small things that `MapHandle` does not offer.
trait Handle {
    fn as_fd_number(&self) -> i32;
    fn try_clone_handle(&self) -> io::Result<MapHandle>;
}

impl Handle for MapHandle {
    fn as_fd_number(&self) -> i32 {
        use std::os::fd::AsFd;
        self.as_fd().as_raw_fd()
    }

    fn try_clone_handle(&self) -> io::Result<MapHandle> {
        MapHandle::try_from(self).map_err(other)
    }
}

impl Gate for BpfGate {
    fn armed(&self) -> Result<Option<Armed>, GateError> {
        if self.maps.is_empty() {
            return Ok(None);
        }
        self.current_set()
            .and_then(|set| set.map_or(Ok(None), |set| store::armed::read(&set)))
            .map_err(|error| match ladder::has_lost_its_pins() {
                true => io::Error::other(ladder::LOST),
                false => error,
            })
            .doing("reading what is pinned")
    }

    fn hold(&mut self, role: Role) -> Result<Hold, GateError> {
        self.take_hold(role)
    }

    fn must_be_ours_alone(&self) -> Result<(), String> {
        shield::must_be_up()
    }

    fn arm(&mut self, armed: &Armed, admissions: &Admissions) -> Result<(), GateError> {
        if !self.maps.is_empty() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists)).doing("arming the gate");
        }
        if self.pins.exist() {
            // Somebody died before there was a gate; one that is armed does not let its pins go.
            self.pins
                .remove()
                .doing("removing what is in the place of the pins")?;
        }
        let result = self.arm_now(armed, admissions);
        if result.is_err() {
            shield::return_from_the_gate();
            // It may guard its pins already.
            let _the_first_error_counts = self.stop_guarding();
            self.maps.clear();
            if self.pins.exist() {
                let _the_first_error_counts = self.pins.remove();
            }
        }
        result.doing("arming the gate")
    }

    fn replace(&mut self, armed: &Armed, admissions: &Admissions) -> Result<(), GateError> {
        self.write_admissions(armed, admissions)
            .doing("replacing the admissions")
    }

    fn revoke(&mut self, gone: &Revoked) -> Result<(), GateError> {
        let is_gone = |origin: &Origin| {
            let named = |(bundle, name): &(Digest, String)| {
                origin.bundle == Some(*bundle) && kept_name(name) == origin.name
            };
            let whole = |bundle| gone.bundles.contains(&bundle);
            origin.bundle.is_some_and(whole) || gone.programs.iter().any(named)
        };
        let mark = || {
            let mut guard = self.guard()?;
            if !guard.revoked {
                guard.revoked = true;
                self.write_guard(&guard)?;
            }
            self.store(0).revoke(&is_gone)
        };
        mark().doing("marking what is revoked")
    }

    fn amend(&mut self, armed: &Armed) -> Result<(), GateError> {
        let amended = || {
            let current = self
                .current_set()?
                .ok_or_else(|| io::Error::other("no set is in force"))?;
            let set = self.store(0).amend(&current, armed)?;
            self.put_in_force(&set)
        };
        amended().doing("changing what is pinned")
    }

    fn disarm(&mut self) -> Result<(), GateError> {
        // Hooks go one after another, in an order that the kernel chooses, while others of them
        // still work: first none of them refuses or guards anything any more, then they go.
        let open = || {
            self.put_in_force(&self.store(0).open()?)?;
            shield::return_from_the_gate();
            self.stop_guarding()
        };
        open().doing("opening the gate")?;
        let programs = self.programs_of(LINK).doing("keeping the programs")?;
        self.parting.extend(programs);
        self.part(LINK, || self.pins.remove())
            .doing("removing the pins")?;
        self.maps.clear();
        self.held.clear();
        self.origins.clear();
        wait_until_open().doing("waiting until the gate is gone")
    }

    fn events(&mut self, timeout: Duration, each: &mut dyn FnMut(Event)) -> Result<(), GateError> {
        let origins = &self.origins;
        let found = RefCell::new(Vec::new());
        let read = || {
            let map = self.map("events")?;
            let mut builder = RingBufferBuilder::new();
            builder
                .add(map, |bytes| {
                    found.borrow_mut().push(event::read(bytes, origins));
                    0
                })
                .map_err(other)?;
            let ring = builder.build().map_err(other)?;
            ring.poll(timeout).map_err(other)
        };
        let result = read();
        found.into_inner().into_iter().for_each(each);
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.doing("reading events"),
        }
    }

    fn admitted(&self) -> Result<BTreeSet<Digest>, GateError> {
        let list = || match self.current_set()? {
            Some(set) => store::bundles(&set, &self.origins),
            None => Ok(BTreeSet::new()),
        };
        list().doing("reading what is admitted")
    }

    fn loaded(&self) -> Result<Vec<Loaded>, GateError> {
        let list = || {
            if self.maps.is_empty() {
                return loaded::list(None, &|_| false, &self.origins, Duration::ZERO);
            }
            let armed_at = Duration::from_nanos(self.guard()?.armed_at);
            let own = self.map("own")?;
            let is_own = |id| {
                let key = Fields::default().u32s(&[OWN_PROG, id]).done(8);
                own.lookup(&key, MapFlags::ANY)
                    .is_ok_and(|found| found.is_some())
            };
            let mut attached = Vec::new();
            for name in object::ORDER {
                attached.extend(self.own_link(name)?.map(|link| link.prog_id));
            }
            let known = loaded::Known {
                records: self.map("records")?,
                places: self.map("places")?,
                attached,
            };
            loaded::list(Some(&known), &is_own, &self.origins, armed_at)
        };
        list().doing("listing programs")
    }

    fn coverage(&self) -> Result<Coverage, GateError> {
        Ok(self.cover())
    }

    fn look_at_generators(
        &mut self,
        armed: &Armed,
        rules: &[GeneratorRule],
    ) -> Result<Vec<GeneratorState>, GateError> {
        let mut look = || -> io::Result<Vec<GeneratorState>> {
            let marks = generators::Marks {
                pinned: self.map("pinned")?,
                tables: self.tables()?,
            };
            let mut held = Vec::new();
            let mut states = Vec::new();
            for rule in rules {
                let until = match rule.permit {
                    true => armed.permitted.get(&rule.name).copied(),
                    false => Some(Duration::from_nanos(u64::MAX)),
                };
                let found = match store::image_of_generator(&self.origins, rule) {
                    None => Err(io::Error::other("it is not in force")),
                    Some(image) => {
                        let nanos = until.map_or(0, |until| until.as_nanos() as u64);
                        let makers = self.map("makers")?;
                        generators::pin(marks, rule, image)
                            .and_then(|looked| {
                                generators::limit(makers, rule, image, nanos, looked.volume)?;
                                Ok(looked.files)
                            })
                            .or_else(|error| generators::end(makers, image, nanos).and(Err(error)))
                    }
                };
                let permitted =
                    until.is_some_and(|until| until.as_nanos() > place::boot_time().into());
                let why_not = match found {
                    Err(error) => Some(error.to_string()),
                    Ok(files) => {
                        held.extend(files);
                        (!permitted).then(|| "it needs a permit, and none is in force".to_owned())
                    }
                };
                states.push(GeneratorState {
                    name: rule.name.clone(),
                    why_not,
                    until: until.filter(|_| rule.permit && permitted),
                });
            }
            generators::release(self.map("pinned")?, &self.held, &held)?;
            self.held = held;
            Ok(states)
        };
        look().doing("looking at generators")
    }

    fn sweep(&self) -> Result<(), GateError> {
        self.map("arrays")
            .and_then(loaded::callers)
            .map(drop)
            .doing("forgetting arrays of programs that are gone")?;
        self.let_go()
            .doing("letting go of programs that were exchanged")
    }

    fn hooks(&self) -> Result<Vec<String>, GateError> {
        if self.maps.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.own_links().doing("looking at the pinned links")?;
        let mut found: Vec<String> = links.into_keys().map(str::to_owned).collect();
        if self.has_the_last_word().doing("looking at the last word")? {
            let last = self.last().doing("looking at the last word")?;
            let name = |program: &ProgramHandle| program.name().to_string_lossy().into_owned();
            found.extend(last.iter().map(name));
        }
        found.sort();
        Ok(found)
    }

    fn renew(&self) -> Result<bool, GateError> {
        let others = || -> io::Result<bool> {
            if self.maps.is_empty() {
                return Ok(false);
            }
            // Somebody died while loading.
            if self.guard()?.renewing != 0 {
                self.let_change(0)?;
            }
            Ok(self.guard()?.build != object::build())
        };
        let others = others().doing("reading whose programs are pinned")?;
        if others {
            self.exchange()?;
        }
        Ok(others)
    }

    fn continues(&self, executable: &[u8]) -> bool {
        object::has_this_layout(executable)
    }

    fn adopt(&mut self, path: &Path, content: &[u8]) -> Result<(), GateError> {
        let adopt = || -> io::Result<()> {
            let mut guard = self.guard()?;
            let found = fs::metadata(path)?;
            if found.nlink() != 1 {
                // By which it may have been started, and that would be left as it is.
                let what = format!("{} has other names (hard links)", path.display());
                return Err(io::Error::other(what));
            }
            let now = place::identity(&found);
            if now == (guard.next_exe, guard.next_dev) {
                // Somebody died after the renaming.
                (guard.exe, guard.exe_dev) = now;
            }
            if now != (guard.exe, guard.exe_dev) {
                let what = format!("{} is not the file that the gate obeys", path.display());
                return Err(io::Error::other(what));
            }
            let next = successor::write(path, content)?;
            successor::guard(self.map("pinned")?, &next.file, content)?;
            // Until it has the name both are the daemon: a crash leaves one of them there.
            (guard.next_exe, guard.next_dev) = place::identity(&next.file.metadata()?);
            if guard.next_dev != guard.exe_dev {
                let what = "the next build's file is on another file system than the daemon's: somebody mounted something there";
                return Err(io::Error::other(what));
            }
            (guard.last_exe, guard.last_dev) = now;
            self.write_guard(&guard)?;
            next.take(path).inspect_err(|_| {
                (guard.next_exe, guard.next_dev) = (0, 0);
                let _the_first_error_counts = self.write_guard(&guard);
            })?;
            if place::identity(&fs::metadata(path)?) != (guard.next_exe, guard.next_dev) {
                // Both stay the daemon's, as after a crash here.
                let what = format!(
                    "{} is not the next build: somebody mounted something there",
                    path.display()
                );
                return Err(io::Error::other(what));
            }
            (guard.exe, guard.exe_dev) = (guard.next_exe, guard.next_dev);
            (guard.next_exe, guard.next_dev) = (0, 0);
            self.write_guard(&guard)
        };
        adopt().doing("putting another build in the place of the daemon's file")
    }

    fn counters(&self) -> Result<Counters, GateError> {
        let all = || {
            Ok(Counters {
                passed: self.counter(0)?,
                refused: self.counter(1)?,
                audited: self.counter(2)?,
                events_lost: self.counter(3)?,
                protected: self.counter(4)?,
                records: self.counter(5)?,
            })
        };
        all().doing("reading the counters")
    }

    fn probe_refused(&self) -> Result<bool, GateError> {
        match super::probe::load_unsigned() {
            Ok(()) => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
            Err(error) => Err(error).doing("loading an unsigned program to see it refused"),
        }
    }
}

/// A mode and digest for callers that need an [`Armed`] of this moment.
impl Armed {
    /// Armed now, with nothing spent and no deadline.
    pub fn now(authority: Digest, policy: Digest, version: u64, mode: Mode, host: Digest) -> Self {
        Self {
            authority,
            at: Duration::from_nanos(place::boot_time()),
            policy_version: version,
            policy,
            mode,
            confirm_by: None,
            host,
            spent: Vec::new(),
            revocation: 0,
            clock: 0,
            marks: BTreeMap::new(),
            protect: policy::protect::Switches::default(),
            permitted: BTreeMap::new(),
            probes: 0,
        }
    }
}
