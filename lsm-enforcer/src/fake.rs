//! A pretended kernel, authority, worker and machine for tests of the daemon.
//!
//! The kernel remembers what is pinned while enforcers come and go, judges loads as the
//! gates would, and can be told to fail.

mod bench;
mod documents;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use bundle::{
    Digest,
    image::{Identity, ModuleBtf},
};
use jiff::{SignedDuration, Timestamp};
use policy::{Reason, protect::Switch};

use crate::{
    enforcer::{Enforcer, Tools},
    gate::{
        Admissions, Armed, Class, Counters, Coverage, Entry, Event, Gate, GateError, GeneratorRule,
        GeneratorState, Held, Hold, Loaded, Mode, Revoked, Role,
    },
    host::{Executable, Host, Obstacle},
    links::{Attachment, Holder, Pin, Spot},
    sample::Sample,
    store::Store,
};

pub use bench::{Bench, image};
pub use documents::{
    HOST, authority, permit, permit_by, permit_for, policy, policy_by, policy_text, probes_by,
    request, revocations, revocations_by, signed, somebody,
};

/// The kernel and the machine, shared by all that run on it.
#[derive(Clone, Default)]
pub struct World(Rc<RefCell<State>>);

/// Whose programs are in the kernel.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Programs {
    /// This build's.
    #[default]
    Own,
    /// Another build's.
    Others,
    /// Another build's, and the kernel does not take this one's.
    Stuck,
}

/// What the world remembers.
#[derive(Default)]
pub struct State {
    /// Could somebody have got hold of the process?
    pub is_traced: bool,
    /// Programs of the gate that somebody took off their hooks.
    pub taken: Vec<String>,
    /// Pins.
    pub armed: Option<Armed>,
    /// What may load.
    pub admissions: Admissions,
    /// Bundles that were marked as revoked.
    pub revoked: BTreeSet<Digest>,
    /// Every change of what is pinned, in order: mode, policy version, number of entries.
    pub history: Vec<(Mode, u64, usize)>,
    /// Events that nobody took yet.
    pub events: Vec<Event>,
    /// Counters.
    pub counters: Counters,
    /// Seconds since boot.
    pub since_boot: u64,
    /// Seconds by which somebody moved the calendar.
    pub calendar_shift: i64,
    /// The machine's id, as `/etc/machine-id` says now.
    pub machine_id: String,
    /// What stands in the way.
    pub obstacles: Vec<Obstacle>,
    /// Boot parameter.
    pub audit_at_boot: bool,
    /// The gate is attached but never called (`ftrace_enabled=0` on Linux 6.1).
    pub toothless: bool,
    /// It is not called, and somebody else refuses every load.
    pub others_refuse: bool,
    /// The next `replace` fails.
    pub replace_fails: bool,
    /// Programs in the kernel.
    pub loaded: Vec<Loaded>,
    /// Hooks that are missing.
    pub missing: Vec<String>,
    /// Attachments; `detached` says whether the kernel would let go.
    pub attached: Vec<Attachment>,
    /// Where programs are.
    pub spots: Vec<Spot>,
    /// Where programs are pinned, by their ids.
    pub pins: BTreeMap<u32, Vec<Pin>>,
    /// Processes that change the gate, the last one first: each one at one look.
    pub holders: Vec<(u32, Role)>,
    /// Whose programs are in the kernel.
    pub programs: Programs,
    /// How often what is gone was forgotten.
    pub sweeps: usize,
    /// Files that took the daemon's place, with what they contain.
    pub adopted: Vec<(PathBuf, Vec<u8>)>,
    /// Types of loaded modules, by the kernel's number.
    pub modules: BTreeMap<ModuleBtf, u32>,
    /// Ways into kernel memory that can be tried.
    pub ways: BTreeMap<Switch, Way>,
}

/// How a way into kernel memory is on this machine.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// The gate closes it if the policy says so.
    Guarded,
    /// Whatever the policy says.
    Open,
    /// This process is refused by others.
    NoRight,
    /// This kernel has none.
    Absent,
}

impl World {
    /// A good machine with a day since boot.
    pub fn new() -> Self {
        let world = Self::default();
        world.change(|state| {
            state.since_boot = 86_400;
            state.machine_id = HOST.to_owned();
        });
        world
    }

    /// Changes or reads the state.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.borrow_mut())
    }

    /// A process starts: `run`, or a command.
    pub fn enforcer(&self, folder: &Path) -> Enforcer {
        let tools = Tools {
            gate: Box::new(self.clone()),
            workshop: Box::new(Bench(self.clone())),
            host: Box::new(self.clone()),
            probes: vec![Entry {
                image: image("probe"),
                class: Class::Probe,
                bundle: None,
            }],
        };
        Enforcer::open(Store::open(folder).unwrap(), tools).unwrap()
    }

    /// Does an unsigned program load now? Leaves an event, as a real load does.
    pub fn load(&self, name: &str) -> bool {
        self.change(|state| state.load(name))
    }
}

impl State {
    fn load(&mut self, name: &str) -> bool {
        let admitted = self.admissions.entries.iter().any(|entry| {
            let there = entry.image.modules().all(|module| {
                let meant = self.admissions.modules.get(module);
                meant.is_some() && meant == self.modules.get(module)
            });
            entry.image.name == name && there
        });
        let mode = match &self.armed {
            Some(armed) if !self.toothless && !admitted => armed.mode,
            _ => {
                self.counters.passed += 1;
                return true;
            }
        };
        let refused = mode == Mode::Enforce;
        match mode {
            Mode::Enforce => self.counters.refused += 1,
            Mode::Audit => self.counters.audited += 1,
        }
        self.events.push(Event {
            name: name.to_owned(),
            refused,
            ..event()
        });
        !refused
    }

    fn pin(&mut self, armed: &Armed) {
        self.armed = Some(armed.clone());
        self.history.push((
            armed.mode,
            armed.policy_version,
            self.admissions.entries.len(),
        ));
    }
}

impl Gate for World {
    fn must_be_ours_alone(&self) -> Result<(), String> {
        match self.change(|state| state.is_traced) {
            false => Ok(()),
            true => Err("process 7 traces this one".to_owned()),
        }
    }

    fn hold(&mut self, _: Role) -> Result<Hold, GateError> {
        let holder = self.change(|state| state.holders.pop());
        Ok(holder.map_or(Hold::Ours, |(pid, role)| {
            Hold::Theirs(Held {
                pid,
                role,
                process: None,
            })
        }))
    }

    fn armed(&self) -> Result<Option<Armed>, GateError> {
        Ok(self.change(|state| state.armed.clone()))
    }

    fn arm(&mut self, armed: &Armed, admissions: &Admissions) -> Result<(), GateError> {
        self.change(|state| {
            state.admissions = admissions.clone();
            state.pin(armed);
        });
        Ok(())
    }

    fn replace(&mut self, armed: &Armed, admissions: &Admissions) -> Result<(), GateError> {
        self.change(|state| {
            if std::mem::take(&mut state.replace_fails) {
                return Err(GateError {
                    doing: "cannot write the images".to_owned(),
                    source: io::Error::from_raw_os_error(libc::ENOMEM),
                });
            }
            state.admissions = admissions.clone();
            state.pin(armed);
            Ok(())
        })
    }

    fn revoke(&mut self, gone: &Revoked) -> Result<(), GateError> {
        self.change(|state| {
            state.revoked.extend(&gone.bundles);
            state.admissions.entries.retain(|entry| {
                !entry.bundle.is_some_and(|bundle| {
                    gone.bundles.contains(&bundle)
                        || gone.programs.contains(&(bundle, entry.image.name.clone()))
                })
            });
        });
        Ok(())
    }

    fn amend(&mut self, armed: &Armed) -> Result<(), GateError> {
        self.change(|state| state.pin(armed));
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), GateError> {
        self.change(|state| {
            state.armed = None;
            state.admissions = Admissions::default();
        });
        Ok(())
    }

    fn events(&mut self, _: Duration, each: &mut dyn FnMut(Event)) -> Result<(), GateError> {
        let events = self.change(|state| std::mem::take(&mut state.events));
        events.into_iter().for_each(each);
        Ok(())
    }

    fn admitted(&self) -> Result<BTreeSet<Digest>, GateError> {
        let bundles = |state: &mut State| {
            let entries = &state.admissions.entries;
            entries.iter().filter_map(|entry| entry.bundle).collect()
        };
        Ok(self.change(bundles))
    }

    fn loaded(&self) -> Result<Vec<Loaded>, GateError> {
        Ok(self.change(|state| state.loaded.clone()))
    }

    fn hooks(&self) -> Result<Vec<String>, GateError> {
        let armed = self.change(|state| state.armed.is_some());
        let names = ["gate1_load", "gate2_prog", "gate_bpf", "guard_map"];
        let attached = names.iter().filter(|_| armed);
        Ok(attached.map(|&name| name.to_owned()).collect())
    }

    fn sweep(&self) -> Result<(), GateError> {
        self.change(|state| state.sweeps += 1);
        Ok(())
    }

    fn renew(&self) -> Result<bool, GateError> {
        self.change(|state| match state.programs {
            Programs::Own => Ok(false),
            Programs::Others => {
                state.programs = Programs::Own;
                Ok(true)
            }
            Programs::Stuck => Err(GateError {
                doing: "exchanging programs".to_owned(),
                source: io::Error::other("the verifier says no"),
            }),
        })
    }

    fn continues(&self, executable: &[u8]) -> bool {
        !executable.starts_with(b"strange")
    }

    fn adopt(&mut self, path: &Path, content: &[u8]) -> Result<(), GateError> {
        self.change(|state| state.adopted.push((path.to_owned(), content.to_owned())));
        Ok(())
    }

    fn coverage(&self) -> Result<Coverage, GateError> {
        Ok(Coverage {
            rung: "a pretended kernel".to_owned(),
            missing: self.change(|state| state.missing.clone()),
            blind: Vec::new(),
            warnings: Vec::new(),
            taken: self.change(|state| state.taken.clone()),
        })
    }

    fn counters(&self) -> Result<Counters, GateError> {
        Ok(self.change(|state| state.counters))
    }

    fn look_at_generators(
        &mut self,
        armed: &Armed,
        rules: &[GeneratorRule],
    ) -> Result<Vec<GeneratorState>, GateError> {
        let since_boot = self.since_boot();
        let state = |rule: &GeneratorRule| {
            let until = armed.permitted.get(&rule.name).copied();
            let until = until.filter(|until| rule.permit && *until > since_boot);
            GeneratorState {
                name: rule.name.clone(),
                why_not: (rule.permit && until.is_none())
                    .then(|| "it needs a permit, and none is in force".to_owned()),
                until,
            }
        };
        Ok(rules.iter().map(state).collect())
    }

    fn probe_refused(&self) -> Result<bool, GateError> {
        if self.change(|state| state.others_refuse) {
            return Ok(true);
        }
        let loads = self.load("selftest");
        // The real one leaves events of the daemon's own process, which are not logged.
        self.change(|state| state.events.retain(|event| event.name != "selftest"));
        Ok(!loads)
    }
}

impl Host for World {
    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.change(|state| state.since_boot))
    }

    fn now(&self) -> Timestamp {
        let boot: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let since =
            self.change(|state| i64::try_from(state.since_boot).unwrap() + state.calendar_shift);
        boot + SignedDuration::from_secs(since)
    }

    fn id(&self) -> String {
        self.change(|state| state.machine_id.clone())
    }

    fn modules(&self) -> BTreeMap<ModuleBtf, u32> {
        self.change(|state| state.modules.clone())
    }

    fn obstacles(&self) -> Vec<Obstacle> {
        self.change(|state| state.obstacles.clone())
    }

    fn audit_at_boot(&self) -> bool {
        self.change(|state| state.audit_at_boot)
    }

    fn load(&self, sample: &Sample) -> io::Result<()> {
        let fits = self.change(|state| {
            let enforces = state
                .armed
                .as_ref()
                .is_some_and(|armed| armed.mode == Mode::Enforce);
            let shaped = state
                .admissions
                .shapes
                .iter()
                .any(|rule| rule.prog_types.contains(&sample.prog_type));
            !enforces || shaped
        });
        if fits {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }
    }

    fn try_way(&self, way: Switch) -> Option<io::Result<()>> {
        self.change(|state| {
            let closed = state.armed.as_ref()?.protect.is_on(way);
            match state.ways.get(&way).copied() {
                None => None,
                Some(Way::NoRight) => Some(Err(io::Error::from_raw_os_error(libc::EPERM))),
                Some(Way::Guarded) if closed => {
                    state.counters.protected += 1;
                    Some(Err(io::Error::from_raw_os_error(libc::EPERM)))
                }
                Some(Way::Guarded | Way::Open) => Some(Ok(())),
                Some(Way::Absent) => Some(Err(io::Error::from_raw_os_error(libc::ENOENT))),
            }
        })
    }

    fn executable(&self) -> Executable {
        Executable {
            path: "/usr/sbin/bpfseal-enforcer".to_owned(),
            is_replaced: false,
            is_static: true,
        }
    }

    fn detach(&self, programs: &[u32]) -> Vec<Attachment> {
        let attached = self.change(|state| state.attached.clone());
        let (gone, left): (Vec<_>, Vec<_>) = attached
            .into_iter()
            .partition(|a| programs.contains(&a.program) && a.detached);
        let refused = left.iter().filter(|a| programs.contains(&a.program));
        let done = gone.iter().chain(refused).cloned().collect();
        self.change(|state| state.attached = left);
        done
    }

    fn spots(&self, programs: &[u32]) -> Vec<Spot> {
        let spots = self.change(|state| state.spots.clone());
        spots
            .into_iter()
            .filter(|spot| programs.contains(&spot.program))
            .collect()
    }

    fn holders(&self, programs: &[u32]) -> BTreeMap<u32, Vec<Holder>> {
        let agent = Holder {
            pid: 7,
            exe: "/usr/sbin/agent".to_owned(),
        };
        programs
            .iter()
            .map(|&id| (id, vec![agent.clone()]))
            .collect()
    }

    fn pins(&self, programs: &[u32]) -> BTreeMap<u32, Vec<Pin>> {
        let mut pins = self.change(|state| state.pins.clone());
        pins.retain(|id, _| programs.contains(id));
        pins
    }
}

/// An unsigned tracepoint program by a tool.
pub fn event() -> Event {
    Event {
        at: Duration::from_secs(90),
        refused: true,
        reason: Some(Reason::Unsigned),
        gate: 1,
        class: None,
        name: "evil".to_owned(),
        identity: Identity {
            prog_type: 5,
            expected_attach_type: 0,
            attach_btf_id: 0,
            flags: 0,
        },
        insns: 12,
        detail: 0,
        prog_id: 0,
        bundle: None,
        admitted: None,
        words: vec![0x95],
        // No process has this id: pid_max is at most 4,194,304.
        pid: 4_194_305,
        tid: 4_194_305,
        uid: 0,
        comm: "bpftool".to_owned(),
        cgroup: 1,
    }
}
