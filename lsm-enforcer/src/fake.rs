//! A pretended kernel, authority, worker and machine for tests of the daemon.
//!
//! The kernel remembers what is pinned while enforcers come and go, judges loads as the
//! gates would, and can be told to fail.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    path::Path,
    rc::Rc,
    time::Duration,
};

use bundle::{
    Digest,
    explain::{Difference, What},
    image::{Contents, Identity, Image, MapSpec, ModuleBtf},
    inventory::{Endianness, Needs, Object},
};
use jiff::{SignedDuration, Timestamp};
use policy::{
    Reason,
    document::Statement,
    key::PublicKey,
    permit::{Action, Terms},
    probes::SignedProbes,
    protect::Switch,
    revocation::{Signatory, SignedRevocations},
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::{
    enforcer::{ArmRequest, Enforcer, Tools},
    failure::Failure,
    gate::{
        Admissions, Armed, Class, Counters, Coverage, Entry, Event, Gate, GateError, GeneratorRule,
        GeneratorState, Loaded, Mode, Revoked,
    },
    host::{Executable, Host, Obstacle},
    links::{Attachment, Holder},
    sample::Sample,
    store::{Document, Store},
    trust::Trusted,
    workshop::{Approved, Finding, Limits, Measured, Stream, Task, Verdict, Workshop},
};

/// The kernel and the machine, shared by all that run on it.
#[derive(Clone, Default)]
pub struct World(Rc<RefCell<State>>);

/// What the world remembers.
#[derive(Default)]
pub struct State {
    /// Pins.
    pub armed: Option<Armed>,
    /// What may load.
    pub admissions: Admissions,
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
    /// The next `replace` fails.
    pub replace_fails: bool,
    /// Programs in the kernel.
    pub loaded: Vec<Loaded>,
    /// Hooks that are missing.
    pub missing: Vec<String>,
    /// Attachments; `detached` says whether the kernel would let go.
    pub attached: Vec<Attachment>,
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
            let module = entry.image.module.as_ref();
            let there = module.is_none_or(|module| {
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

    fn coverage(&self) -> Result<Coverage, GateError> {
        Ok(Coverage {
            rung: "a pretended kernel".to_owned(),
            missing: self.change(|state| state.missing.clone()),
            blind: Vec::new(),
            warnings: Vec::new(),
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
            is_static: true,
        }
    }

    fn hooks(&self) -> Vec<String> {
        let armed = self.change(|state| state.armed.is_some());
        let names = ["gate1_load", "gate2_prog", "gate_bpf", "guard_map"];
        names
            .iter()
            .filter(|_| armed)
            .map(|&name| name.to_owned())
            .collect()
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
}

/// A key pair of a pretended party.
pub struct Party {
    pair: Ed25519KeyPair,
    /// Its public half.
    pub public: PublicKey,
}

impl Party {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        // RFC 8410, section 10.1: the SubjectPublicKeyInfo of an Ed25519 key.
        let mut spki = hex::decode("302a300506032b6570032100").unwrap();
        spki.extend(pair.public_key().as_ref());
        let public = PublicKey::from_spki(&spki).unwrap();
        Self { pair, public }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(self.pair.sign(bytes).as_ref().to_vec())
    }

    /// The public key as a file.
    pub fn pem(&self) -> String {
        self.public.to_pem()
    }
}

/// Who commands the gate.
pub fn authority() -> Party {
    Party::new(1)
}

/// Somebody else.
pub fn somebody() -> Party {
    Party::new(2)
}

/// Pretended worker: a bundle is `name=… version=… programs=a,b`, and the policy admits the
/// names in `scope`.
pub struct Bench(World);

impl Bench {
    /// A program whose target any module has, and nobody else.
    fn for_module(&self, program: &str) -> Result<Image, String> {
        let module = self.0.change(|state| state.modules.keys().next().cloned());
        match module {
            None => Err(format!("no loaded module has {program}")),
            module => Ok(Image {
                module,
                ..image(program)
            }),
        }
    }
}

impl Workshop for Bench {
    fn verify(&self, task: &Task<'_>) -> Result<Verdict, Failure> {
        let text = String::from_utf8(task.bundle.to_vec()).unwrap();
        let bundle = words(&text);
        let Some(name) = bundle.get("name") else {
            return Err(Failure::refused(Reason::MalformedBundle, "no index.json"));
        };
        let policy = Trusted::verify(task.document, &authority().public)?;
        let exception = policy.policy().exception_for(Digest::of(task.bundle));
        let exception = exception.filter(|exception| exception.holds(task.now));
        if exception.is_none() && policy.policy().rule_for(name).is_none() {
            return Err(Failure::refused(
                Reason::NoRule,
                format!("no rule covers {name:?}"),
            ));
        }
        Ok(Verdict {
            bundle: Digest::of(task.bundle),
            name: Some(name.clone()),
            version: bundle.get("version").cloned(),
            scope: task.scope.unwrap_or(name).to_owned(),
            rule: exception.map_or_else(
                || "rule \"all\", line 1".to_owned(),
                |exception| exception.reference().to_string(),
            ),
            signers: vec!["release".to_owned()],
            signatories: vec![Signatory::Key(somebody().public.id())],
            at_least: usize::from(exception.is_none()),
            until: exception.map(|exception| exception.until),
            objects: vec![Approved {
                name: "object.bpf.o".to_owned(),
                elf: bundle["programs"].as_bytes().to_vec(),
                size: bundle["programs"].len(),
                inventory: object(),
                limits: Limits::default(),
            }],
        })
    }

    fn measure(&self, object: &Approved) -> Result<Vec<Measured>, Failure> {
        let programs = String::from_utf8(object.elf.clone()).unwrap();
        Ok(programs
            .split(',')
            .map(|program| Measured {
                program: program.to_owned(),
                image: match program {
                    "unmeasurable" => Err("no such function in this kernel".to_owned()),
                    _ if program.starts_with("nf_") => self.for_module(program),
                    _ => Ok(image(program)),
                },
                others: match program {
                    "laidout" => vec![other_layout(program)],
                    _ => Vec::new(),
                },
                unchecked: None,
            })
            .collect())
    }

    /// A kernel whose file's name says what it lacks.
    fn measure_for(&self, object: &Approved, kernel: &Path) -> Result<Vec<Measured>, Failure> {
        let mut measured = self.measure(object)?;
        for program in &mut measured {
            if kernel.ends_with(&program.program) {
                program.image = Err("no such function in that kernel".to_owned());
            }
        }
        Ok(measured)
    }

    /// A stream is its program's image, or the image in yet another layout.
    fn explain(
        &self,
        object: &Approved,
        measured: &[Measured],
        stream: &Stream,
    ) -> Result<Vec<Finding>, Failure> {
        let images = measured.iter().filter_map(|m| m.image.as_ref().ok());
        let findings = images.map(|image| {
            let proven = Image {
                words: stream.words.clone(),
                ..image.clone()
            };
            let fits = stream.words.last() == Some(&0x95);
            Finding {
                object: object.name.clone(),
                program: image.name.clone(),
                difference: (!fits).then(|| Difference {
                    program: image.name.clone(),
                    at: Some(0),
                    function: None,
                    what: What::Extra { count: 1 },
                }),
                functions: vec![(image.name.clone(), 0)],
                image: fits.then_some(proven),
            }
        });
        Ok(findings.collect())
    }
}

fn words(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The machine's id.
pub const HOST: &str = "0123456789abcdef";

/// A policy signed by the authority that admits packages by name.
pub fn policy(version: u64, mode: &str, admit: &str) -> Document {
    policy_by(authority(), version, mode, admit)
}

/// A policy signed by anybody.
pub fn policy_by(signer: Party, version: u64, mode: &str, admit: &str) -> Document {
    signed(signer, &policy_text(version, mode, admit))
}

/// The text of such a policy.
pub fn policy_text(version: u64, mode: &str, admit: &str) -> String {
    let pem = somebody().pem();
    format!(
        "version = {version}\nmode = {mode:?}\n[keys.release]\npem = {pem:?}\n[[rule]]\nname = \"all\"\n\
         scope = {admit:?}\nsigned_by = {{ of = [\"release\"] }}\n"
    )
}

/// Any text, signed as a policy.
pub fn signed(signer: Party, text: &str) -> Document {
    let nothing = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
    let statement = Statement::about(text, &nothing).unwrap();
    let signature = statement
        .seal(&signer.public, |bytes| signer.sign(bytes))
        .unwrap();
    Document {
        text: text.to_owned(),
        signature,
    }
}

/// Arming with that policy.
pub fn request(document: Document) -> ArmRequest {
    ArmRequest {
        document,
        authority: authority().pem(),
        audit_only: false,
        confirm_within: None,
        permit: None,
    }
}

/// A permit by the authority for this host and the first hour of the day.
pub fn permit(action: Action, nonce: u8) -> String {
    permit_by(authority(), HOST, action, nonce)
}

/// A permit by the authority, for a generator where there is one.
pub fn permit_for(generator: Option<&str>, action: Action, nonce: u8) -> String {
    sealed(authority(), generator, HOST, action, nonce)
}

/// A permit by anybody for any host.
pub fn permit_by(signer: Party, host: &str, action: Action, nonce: u8) -> String {
    sealed(signer, None, host, action, nonce)
}

fn sealed(signer: Party, generator: Option<&str>, host: &str, action: Action, nonce: u8) -> String {
    let terms = Terms {
        action,
        generator: generator.map(str::to_owned),
        host: host.to_owned(),
        not_before: "2026-11-22T00:00:00Z".parse().unwrap(),
        not_after: "2026-11-22T01:00:00Z".parse().unwrap(),
        nonce: [nonce; 8],
        reason: "a test".to_owned(),
    };
    terms.seal(|bytes| signer.sign(bytes)).unwrap()
}

/// An object with nothing in it.
pub fn object() -> Object {
    Object {
        name: "object.bpf.o".to_owned(),
        digest: Digest::of(b""),
        size: 0,
        endianness: Endianness::Little,
        license: None,
        btf: true,
        btf_ext: true,
        programs: Vec::new(),
        subprograms: Vec::new(),
        maps: Vec::new(),
        data: Vec::new(),
        externs: Vec::new(),
        needs: Needs::default(),
    }
}

/// The same program as another loader makes it.
pub fn other_layout(name: &str) -> Image {
    Image {
        words: vec![0xbf, 0x95],
        ..image(name)
    }
}

/// An image with read-only data, an event map and a hash.
pub fn image(name: &str) -> Image {
    let map = |name: &str, map_type, max_entries, contents| MapSpec {
        name: name.to_owned(),
        map_type,
        key_size: 4,
        value_size: 8,
        max_entries: (max_entries, max_entries),
        flags: 0,
        flags_free: 0,
        contents,
    };
    let rodata = Contents {
        bytes: vec![0; 8],
        tunables: Vec::new(),
    };
    Image {
        name: name.to_owned(),
        identity: Identity {
            prog_type: 5,
            expected_attach_type: 0,
            attach_btf_id: 0,
            flags: 0,
        },
        words: vec![0xb7, 0x95],
        maps: vec![
            map("opensnoo.rodata", 2, 1, Some(rodata)),
            map("events", 27, 4096, None),
            map("start", 1, 10, None),
        ],
        places: Vec::new(),
        result: None,
        gpl: None,
        module: None,
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

/// A revocation list of the authority's with these rows.
pub fn revocations(version: u64, rows: &str) -> String {
    revocations_by(authority(), version, rows)
}

/// A revocation list by anybody.
pub fn revocations_by(signer: Party, version: u64, rows: &str) -> String {
    let text = format!("version = {version}\nissued = \"2026-11-22T00:00:00Z\"\n{rows}");
    SignedRevocations::seal(&text, &signer.public, |bytes| signer.sign(bytes)).unwrap()
}

/// A list of one probe program, by anybody.
pub fn probes_by(signer: Party, version: u64, name: &str) -> String {
    let text = format!(
        "version = {version}\nissued = \"2026-11-22T00:00:00Z\"\n[[probe]]\nname = {name:?}\n\
         reason = \"asks\"\nprogram_type = \"xdp\"\nwords = [\"0000000000000095\"]\n"
    );
    SignedProbes::seal(&text, &signer.public, |bytes| signer.sign(bytes)).unwrap()
}
