//! The seam to the kernel: everything the daemon asks of the gate goes through [`Gate`].
//!
//! `BpfGate` is the real one; tests of the daemon use a fake.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};

use bundle::{
    Digest,
    image::{Image, ModuleBtf},
};
use jiff::Timestamp;
use policy::{Reason, protect::Switches};

use crate::failure::Failure;

/// What the gate does with a load that fails its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuse it.
    Enforce,
    /// Let it pass and report it.
    Audit,
}

/// One admitted program and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the kernel compares with.
    pub image: Image,
    /// What kind of admission this is.
    pub class: Class,
    /// Digest of the bundle's manifest; `None` for probes and known filters.
    pub bundle: Option<Digest>,
}

/// Why a program may load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A signed bundle holds it.
    Signed,
    /// A loader's feature probe: exact, and never attachable where a gate sees it.
    Probe,
    /// It has a shape that the policy allows for anyone.
    Shape,
    /// It was loaded before the gate was armed.
    Before,
    /// Audit mode let it pass.
    Audited,
    /// A generator of the policy made it: within limits, and not attested.
    Generated,
    /// The kernel has verified its signature, by a keyring that the policy names.
    Native,
    /// Made at run time and always the same: a device filter, let in word for word.
    Known,
}

/// Content rules for programs that anyone may load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeRule {
    /// Name in the policy.
    pub name: String,
    /// `enum bpf_prog_type`s.
    pub prog_types: Vec<u32>,
    /// Helper ids that may be called; kfuncs never.
    pub helpers: Vec<u32>,
    /// Most maps.
    pub max_maps: u32,
    /// Most instructions.
    pub max_insns: u32,
}

/// A file with what it must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Where it is looked for.
    pub path: String,
    /// SHA-256 of its contents: any of these.
    pub sha256: BTreeSet<Digest>,
    /// Its fs-verity digest: any of these; decides where the file has one.
    pub fsverity: BTreeSet<Digest>,
    /// The root hash of the dm-verity volume that it is on: any of these; decides where it is on one.
    pub dmverity: BTreeSet<Digest>,
}

/// A program that may load what nobody signed, within limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorRule {
    /// Name in the policy.
    pub name: String,
    /// Its executable.
    pub exe: Pinned,
    /// All else that it may execute code of.
    pub libraries: Vec<Pinned>,
    /// `enum bpf_prog_type`s.
    pub prog_types: Vec<u32>,
    /// Helper ids that may be called; kfuncs never.
    pub helpers: Vec<u32>,
    /// `enum bpf_map_type`s.
    pub map_types: Vec<u32>,
    /// Most maps of one program.
    pub max_maps: u32,
    /// Most instructions of one program.
    pub max_insns: u32,
    /// Only in this control group, or below it.
    pub cgroup: Option<String>,
    /// Only as this user.
    pub uid: Option<u32>,
    /// Only while a permit says so.
    pub permit: bool,
}

/// A generator as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GeneratorState {
    /// Name in the policy.
    pub name: String,
    /// Why its programs are not let in now; `None`: they are.
    pub why_not: Option<String>,
    /// Boot-time clock when its permit ends.
    pub until: Option<Duration>,
}

/// Everything that may load. Replaced as a whole: the gate is never open in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admissions {
    /// Signed programs and probes.
    pub entries: Vec<Entry>,
    /// Shapes.
    pub shapes: Vec<ShapeRule>,
    /// Generators; nobody until [`Gate::look_at_generators`] has found their files.
    pub generators: Vec<GeneratorRule>,
    /// Keyrings by which the kernel may verify loaders: `enum bpf_sig_keyring`s (7.2).
    pub keyrings: BTreeSet<u32>,
    /// The kernel's numbers of the types of loaded modules, where an entry means one of them.
    pub modules: BTreeMap<ModuleBtf, u32>,
}

/// What is to load no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Bundles, whole.
    pub bundles: BTreeSet<Digest>,
    /// Programs of other bundles, by the bundle and their name.
    pub programs: BTreeSet<(Digest, String)>,
}

/// What was pinned at arming and cannot change until disarmed or rebooted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    /// SHA-256 of the authority's SPKI.
    pub authority: Digest,
    /// Boot-time clock (`CLOCK_BOOTTIME`) when the gate was armed.
    pub at: Duration,
    /// Version of the policy in force; never falls without a permit.
    pub policy_version: u64,
    /// Digest of the policy in force.
    pub policy: Digest,
    /// Mode in force.
    pub mode: Mode,
    /// Boot-time clock by which a provisional arming must be confirmed, else it falls back
    /// to audit; `None`: confirmed. Pinned, so that root cannot invent a deadline later.
    pub confirm_by: Option<Duration>,
    /// SHA-256 of the host's id when the gate was armed, so that a permit for another host
    /// does not fit after somebody wrote that host's id into `/etc/machine-id`.
    pub host: Digest,
    /// First eight bytes of each permit's digest that was used, at most [`MAX_SPENT`];
    /// pinned, so that deleting the state folder does not make a permit fresh again.
    pub spent: Vec<u64>,
    /// Version of the revocation list in force; 0: none yet. Never falls.
    pub revocation: u64,
    /// By how many seconds the calendar was ahead of the boot-time clock, at most: setting the
    /// calendar back does not bring a time back that was over already.
    pub clock: i64,
    /// Highest version admitted so far, by package name: pinned, so that an old state folder
    /// does not bring an old version back.
    pub marks: BTreeMap<String, String>,
    /// Ways into kernel memory that are closed.
    pub protect: Switches,
    /// Generators that a permit lets work, and the boot-time clock when it ends.
    pub permitted: BTreeMap<String, Duration>,
    /// Version of the list of probe programs in force; 0: none yet. Never falls.
    pub probes: u64,
}

impl Armed {
    /// The calendar, or what it must show at least, at `since_boot`.
    pub fn time(&self, calendar: Timestamp, since_boot: Duration) -> Timestamp {
        let seconds = i64::try_from(since_boot.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(self.clock.saturating_add(seconds))
            .map_or(calendar, |least| calendar.max(least))
    }

    /// By how many seconds the calendar is ahead of the boot-time clock.
    pub fn ahead(calendar: Timestamp, since_boot: Duration) -> i64 {
        let seconds = i64::try_from(since_boot.as_secs()).unwrap_or(i64::MAX);
        calendar.as_second().saturating_sub(seconds)
    }
}

/// Most bytes of package names and versions that are pinned, as JSON: some ten thousand packages.
pub const MAX_MARKS: usize = 1 << 20;

/// Most permits that one arming takes; after that only disarming is left.
pub const MAX_SPENT: usize = 16;

/// What this kernel lets the gate see, detected from BTF and by probing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Coverage {
    /// The step of the kernel ladder, as a person would say it: `bpf_prog_load hook (6.9 and later)`.
    pub rung: String,
    /// What this kernel lacks and without which nothing can be enforced, one clause each.
    pub missing: Vec<String>,
    /// What this rung cannot see, one clause each.
    pub blind: Vec<String>,
    /// What is not as it should be, and does not open the gate.
    pub warnings: Vec<String>,
    /// Programs of the gate, which is armed, that are not where they were put.
    pub taken: Vec<String>,
}

/// One attempt that the gate judged and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Boot-time clock.
    pub at: Duration,
    /// Was it refused? False in audit mode.
    pub refused: bool,
    /// Why; `None` where it passed and the pass is reported.
    pub reason: Option<Reason>,
    /// Which gate: 1 admission, 2 binding, 3 attachment, 0 self-protection.
    pub gate: u8,
    /// How it was admitted, where it was.
    pub class: Option<Class>,
    /// `bpf_attr.prog_name`, or what a self-protection hook names.
    pub name: String,
    /// Program type, expected attach type, BTF id, flags.
    pub identity: bundle::image::Identity,
    /// Instructions of the program.
    pub insns: u32,
    /// Index of the first differing instruction, map index, or other number the reason needs.
    pub detail: u64,
    /// Kernel's program id; 0 before it has one.
    pub prog_id: u32,
    /// Bundle of the admitted program it is, or was compared with; `None` for probes and shapes,
    /// and where nothing came near.
    pub bundle: Option<Digest>,
    /// Name of that admitted program, probe or shape.
    pub admitted: Option<String>,
    /// The first words of the program as loaded, at most 64, fds masked.
    pub words: Vec<u64>,
    /// Process id (thread group), thread id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User id.
    pub uid: u32,
    /// Command name of the thread.
    pub comm: String,
    /// Control group id.
    pub cgroup: u64,
}

/// As much of the name of an admitted program as the gate keeps: 64 bytes.
pub fn kept_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(64)]
}

/// One program now in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Kernel's id.
    pub id: u32,
    /// Program type.
    pub prog_type: u32,
    /// Name.
    pub name: String,
    /// Kernel's tag, hex.
    pub tag: String,
    /// User who loaded it.
    pub uid: u32,
    /// Boot-time clock when it was loaded.
    pub at: Duration,
    /// Is it one of the gate's own?
    pub own: bool,
    /// How it came in; `None`: the gate has no record although it should.
    pub class: Option<Class>,
    /// Bundle that holds it.
    pub bundle: Option<Digest>,
    /// [`kept_name`] of the admitted program that it is; `name` is what the loader chose.
    pub admitted: Option<String>,
    /// Thread group that loaded it, where recorded.
    pub pid: Option<u32>,
    /// Command name that loaded it, where recorded.
    pub comm: Option<String>,
    /// Hook of the kernel on which the gate relies, and at which it may answer in the gate's place.
    pub instead_at: Option<String>,
    /// Patterns of the places where its rule lets it be attached; none: anywhere.
    pub places: Vec<String>,
}

/// Numbers since arming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Loads that passed.
    pub passed: u64,
    /// Loads refused.
    pub refused: u64,
    /// Loads that audit mode let pass.
    pub audited: u64,
    /// Events that found no room.
    pub events_lost: u64,
    /// Records held.
    pub records: u64,
    /// Attempts on the gate itself that were refused.
    pub protected: u64,
}

/// In which way a process changes the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Once, and then it ends.
    #[default]
    Command,
    /// As long as it runs.
    Daemon,
}

/// Another process changes the gate now.
#[derive(Debug)]
pub struct Held {
    /// Its number.
    pub pid: u32,
    /// As what.
    pub role: Role,
    /// To wait for its end; `None` where it is only pretended.
    pub process: Option<OwnedFd>,
}

/// Who may change the gate.
#[derive(Debug)]
pub enum Hold {
    /// This process, until it ends or drops the gate.
    Ours,
    /// Another one.
    Theirs(Held),
}

/// A failed kernel operation.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct GateError {
    /// What was being done, a lower-case clause.
    pub doing: String,
    /// The kernel's answer.
    #[source]
    pub source: std::io::Error,
}

/// An answer of the kernel, with its causes.
impl From<GateError> for Failure {
    fn from(error: GateError) -> Self {
        if error.source.kind() == std::io::ErrorKind::ResourceBusy {
            return Self::refused(Reason::CannotEnforce, error.source.to_string()).with_remedy(
                "`bpftool link` lists them: detach those that nobody needs, and arm before others \
                 attach theirs. So many on one hook may be an attack.",
            );
        }
        Self::kernel(format!("{}: {}", error.doing, error.source))
    }
}

/// The kernel side, armed or not.
pub trait Gate {
    /// What was pinned; `None` while not armed.
    fn armed(&self) -> Result<Option<Armed>, GateError>;
    /// Keeps all other processes from changing anything, if nobody does so now. What was read before counts
    /// no more. The other functions do not ask whether it was called: [`crate::enforcer::Enforcer::hold`] is for that.
    fn hold(&mut self, role: Role) -> Result<Hold, GateError>;
    /// Has nobody else been able to trace this process, or to open its memory, since it began?
    ///
    /// # Errors
    ///
    /// Why somebody may have.
    fn must_be_ours_alone(&self) -> Result<(), String>;
    /// Loads, attaches and pins everything, with `admissions` in force from the first moment.
    fn arm(&mut self, armed: &Armed, admissions: &Admissions) -> Result<(), GateError>;
    /// Replaces all admissions, policy version and digest, and mode, as one.
    fn replace(&mut self, armed: &Armed, admissions: &Admissions) -> Result<(), GateError>;
    /// Refuses every further load of these at once, whatever else is admitted; what is pinned
    /// stays. [`Gate::replace`] follows, which takes longer the more is admitted.
    fn revoke(&mut self, gone: &Revoked) -> Result<(), GateError>;
    /// Replaces what is pinned (mode, deadline, used permits) and keeps the admissions, so that
    /// a permit works even while the policy on disk does not verify.
    fn amend(&mut self, armed: &Armed) -> Result<(), GateError>;
    /// Removes everything. The caller has checked the permit.
    fn disarm(&mut self) -> Result<(), GateError>;
    /// Waits up to `timeout` for events and hands them over in order.
    fn events(&mut self, timeout: Duration, each: &mut dyn FnMut(Event)) -> Result<(), GateError>;
    /// The bundles of which something may load now, as the kernel has it.
    fn admitted(&self) -> Result<BTreeSet<Digest>, GateError>;
    /// Names of the gate's programs that are attached and pinned, in the order of the alphabet.
    fn hooks(&self) -> Result<Vec<String>, GateError>;
    /// Every program in the kernel.
    fn loaded(&self) -> Result<Vec<Loaded>, GateError>;
    /// What this kernel lets the gate see; works unarmed.
    fn coverage(&self) -> Result<Coverage, GateError>;
    /// Looks for the files and control groups of these generators, which are those in force,
    /// and says how each stands. Once found they stay found while the kernel has them in memory.
    fn look_at_generators(
        &mut self,
        armed: &Armed,
        rules: &[GeneratorRule],
    ) -> Result<Vec<GeneratorState>, GateError>;
    /// Forgets what is gone from the kernel and still takes room in the gate's maps.
    fn sweep(&self) -> Result<(), GateError>;
    /// Exchanges the programs in the kernel for those of this build, at no moment without any. `false`: they are
    /// this build's already. After an error the gate holds as before.
    fn renew(&self) -> Result<bool, GateError>;
    /// Can another build, which this executable is, continue with what is armed?
    fn continues(&self, executable: &[u8]) -> bool;
    /// Puts another build of the enforcer in the place of its file `path`, which the gate obeys from
    /// then on. The caller has asked the policy.
    fn adopt(&mut self, path: &Path, content: &[u8]) -> Result<(), GateError>;
    /// Numbers since arming.
    fn counters(&self) -> Result<Counters, GateError>;
    /// Loads a harmless program that nobody signed; says whether it was refused.
    fn probe_refused(&self) -> Result<bool, GateError>;
}
