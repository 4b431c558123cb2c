//! The command of the gate: every change of what may load is a function here, over the
//! state folder and the [`Gate`]. The daemon calls them for its clients, the command line
//! calls them itself where no daemon runs.
//!
//! What was pinned in the kernel decides; the state folder only proposes. So an edited
//! policy, a copied state folder or another `--state` change nothing: they must verify
//! under the authority that the kernel remembers.

mod admit;
mod arm;
mod arming;
mod decide;
mod explain;
mod generators;
mod modules;
mod permit;
mod preflight;
mod probes;
mod prove;
mod revoke;
mod selftest;
mod strays;
mod upgrade;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    time::{Duration, Instant, SystemTime},
};

use bundle::Digest;
use jiff::Timestamp;
use policy::{Reason, key::PublicKey, probes::SignedProbes, revocation::SignedRevocations};
use serde::{Deserialize, Serialize};

pub use admit::{Admission, Outcome};
pub use arm::ArmRequest;
pub use arming::{Arming, Confirmed};
pub use decide::{Accepted, Rejected};
pub use explain::{Compared, Explanation};
use modules::Followed;
pub use preflight::{Forecast, Preflight};
pub use probes::{ProbeStatus, Probing};
use prove::Unproven;
pub use revoke::{Reached, RevocationStatus, Revoking};
pub use selftest::{Check, SelfTest};
pub use upgrade::Upgraded;

use crate::{
    failure::Failure,
    gate::{Armed, Class, Entry, Event, Gate, GeneratorState, Held, Hold, Role},
    host::Host,
    journal::Journal,
    observe::Observed,
    record::{Attempt, Level, Notice, Origin, Record},
    store::Store,
    trust::{self, Trusted},
    workshop::Workshop,
};

/// What the enforcer works with; tests pretend some of it.
pub struct Tools {
    /// The kernel side.
    pub gate: Box<dyn Gate>,
    /// Child processes.
    pub workshop: Box<dyn Workshop>,
    /// The machine.
    pub host: Box<dyn Host>,
    /// Loaders' probe programs, admitted with every policy.
    pub probes: Vec<Entry>,
}

/// The state folder, the gate, and what is in force.
pub struct Enforcer {
    store: Store,
    journal: Journal,
    tools: Tools,
    /// The policy in force; `None` while not armed, or while none on disk verifies.
    policy: Option<Trusted>,
    /// Why the policy on disk was not taken.
    trouble: Option<Failure>,
    /// `None`: the stored bundles were not looked at yet.
    bundles: Option<Vec<Accepted>>,
    rejected: Vec<Rejected>,
    /// [`Enforcer::ahead`] when they were.
    decided: i64,
    selftest: Option<SelfTest>,
    /// How the generators stood at the last look.
    generators: Vec<GeneratorState>,
    /// The revocation list in force; `None` while there is none, or none on disk verifies.
    revocations: Option<SignedRevocations>,
    /// Why the list on disk was not taken.
    revocation_trouble: Option<Failure>,
    /// What the folder of lists looked like.
    revocations_seen: Option<Vec<(OsString, SystemTime, u64)>>,
    /// The list of probe programs in force; `None` while there is none, or none on disk verifies.
    probes: Option<SignedProbes>,
    /// Why the list on disk was not taken.
    probes_trouble: Option<Failure>,
    /// Revoked programs that were named in the log.
    named: BTreeSet<u32>,
    /// Programs that are attached where their rule does not say, as lines.
    strays: Vec<String>,
    /// Refusals that may be other layouts of admitted programs.
    unproven: Unproven,
    /// Loaded modules, and a refusal for one.
    modules: Followed,
    /// Boot-time clock when this process began to work with the gate.
    began: Duration,
    /// Only looks: neither the log nor the gate changes.
    observes: bool,
    /// Lines for those who follow the log.
    fresh: Vec<Record>,
}

impl Enforcer {
    /// Looks at the gate and at the state folder; changes neither.
    pub fn open(store: Store, tools: Tools) -> Result<Self, Failure> {
        let began = tools.host.since_boot();
        let journal = Journal::open(store.folder()).map_err(|e| state(&store, &e))?;
        let mut enforcer = Self {
            store,
            journal,
            tools,
            policy: None,
            trouble: None,
            bundles: None,
            rejected: Vec::new(),
            decided: 0,
            selftest: None,
            generators: Vec::new(),
            revocations: None,
            revocation_trouble: None,
            revocations_seen: None,
            probes: None,
            probes_trouble: None,
            named: BTreeSet::new(),
            strays: Vec::new(),
            unproven: Unproven::default(),
            modules: Followed::default(),
            began,
            observes: false,
            fresh: Vec::new(),
        };
        enforcer.read_what_is_in_force()?;
        Ok(enforcer)
    }

    fn read_what_is_in_force(&mut self) -> Result<(), Failure> {
        let Some(armed) = self.armed()? else {
            return Ok(());
        };
        (self.policy, self.trouble) = either(self.stored_policy(&armed).map(Some));
        let list = self
            .pinned_authority(&armed)
            .and_then(|authority| self.stored_revocations(&authority, armed.revocation));
        // A newer one than is pinned takes effect as a change of its own.
        let list = list.map(|list| list.filter(|l| l.list().version <= armed.revocation));
        (self.revocations, self.revocation_trouble) = either(list);
        if let Some(policy) = self.policy.clone() {
            let list = self.stored_probes(&policy, armed.probes);
            (self.probes, self.probes_trouble) = either(list);
        }
        Ok(())
    }

    /// Keeps all other processes from changing the gate until this one ends. Waits for a command that changes it
    /// now, and says so; a daemon is not waited for. Whoever changes anything calls this first.
    ///
    /// # Errors
    ///
    /// Somebody else still changes it after `patience`, or a daemon runs.
    pub fn hold(&mut self, role: Role, patience: Duration) -> Result<(), Failure> {
        let since = Instant::now();
        let mut told = None;
        while let Hold::Theirs(other) = self.tools.gate.hold(role)? {
            let left = patience.saturating_sub(since.elapsed());
            if other.role == Role::Daemon || left.is_zero() {
                return Err(held(&other));
            }
            if told != Some(other.pid) {
                anstream::eprintln!("waiting for process {}, which changes the gate", other.pid);
                told = Some(other.pid);
            }
            let ended = other.ends_within(left);
            ended.map_err(|error| Failure::kernel(format!("waiting for it: {error}")))?;
        }
        self.read_what_is_in_force()
    }

    /// The same, for one who only looks and need not keep others out: events stay where they
    /// are, deadlines are left to others, nothing is written.
    #[must_use]
    pub const fn observing(mut self) -> Self {
        self.observes = true;
        self
    }

    /// The calendar, or what it must show at least.
    pub(crate) fn time(&self, armed: &Armed) -> Timestamp {
        armed.time(self.host().now(), self.host().since_boot())
    }

    /// By how many seconds the calendar is ahead of the boot-time clock.
    fn ahead(&self) -> i64 {
        Armed::ahead(self.host().now(), self.host().since_boot())
    }

    /// What is pinned.
    pub fn armed(&self) -> Result<Option<Armed>, Failure> {
        Ok(self.tools.gate.armed()?)
    }

    /// The machine.
    pub fn host(&self) -> &dyn Host {
        self.tools.host.as_ref()
    }

    /// The kernel side, to look at.
    pub fn gate(&self) -> &dyn Gate {
        self.tools.gate.as_ref()
    }

    /// The policy in force.
    pub const fn policy(&self) -> Option<&Trusted> {
        self.policy.as_ref()
    }

    /// Why the policy on disk was not taken.
    pub const fn trouble(&self) -> Option<&Failure> {
        self.trouble.as_ref()
    }

    /// The last self test.
    pub const fn last_selftest(&self) -> Option<&SelfTest> {
        self.selftest.as_ref()
    }

    /// The state folder.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The event log.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Records written since the last call.
    pub fn take_fresh(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.fresh)
    }

    fn must_be_armed(&self) -> Result<Armed, Failure> {
        self.armed()?.ok_or_else(|| {
            Failure::not_found("the gate is not armed")
                .with_remedy("Arm it: `bpfseal-enforcer arm --policy FILE --authority PUB`.")
        })
    }

    /// Takes over what the gate judged since the last call. Waits up to `timeout`.
    pub fn drain(&mut self, timeout: Duration) -> Result<usize, Failure> {
        if self.observes || self.armed()?.is_none() {
            return Ok(0);
        }
        let mut events: Vec<(Event, Observed)> = Vec::new();
        // Tasks end quickly: look at each one at once, think later.
        self.tools.gate.events(timeout, &mut |event| {
            let observed = crate::observe::observe(event.pid);
            events.push((event, observed));
        })?;
        let (now, since_boot) = (self.host().now(), self.host().since_boot());
        let count = events.len();
        for (event, observed) in events {
            // Our own probing is in `status`; in the log it would bury what others do. What this process did
            // before it was the enforcer is not ours.
            if event.pid == std::process::id() && event.at >= self.began {
                continue;
            }
            // Each loader asks half a dozen questions before its one program; they are counted.
            if event.reason.is_none() && event.class == Some(Class::Probe) {
                continue;
            }
            self.unproven.note(&event);
            self.modules.note(&event);
            let origin = event
                .bundle
                .map(|bundle| self.origin(&bundle))
                .unwrap_or_default();
            let attempt = Attempt::new(&event, observed, origin, now, since_boot);
            self.write(Record::Attempt(Box::new(attempt)));
        }
        Ok(count)
    }

    /// Says something in the event log.
    pub fn note(&mut self, level: Level, about: &str, message: impl Into<String>) {
        let notice = Notice {
            time: self.host().now(),
            level,
            about: about.to_owned(),
            message: message.into(),
        };
        self.write(Record::Notice(notice));
    }

    fn write(&mut self, record: Record) {
        if self.observes {
            return;
        }
        // A full disk must not stop the daemon; the gate itself does not depend on the log.
        match self.journal.write(record.clone()) {
            Ok(Some(_)) => self.fresh.push(record),
            Ok(None) => {}
            Err(_) => self.fresh.push(record),
        }
    }

    fn origin(&self, bundle: &Digest) -> Origin {
        self.bundles
            .iter()
            .flatten()
            .find(|accepted| accepted.verdict.bundle == *bundle)
            .map(|accepted| Origin {
                rule: Some(accepted.verdict.rule.clone()),
                signers: accepted.verdict.signers.clone(),
            })
            .unwrap_or_default()
    }

    /// The policy on disk, if the pinned authority signed it and it is not older than the
    /// one in force.
    fn stored_policy(&self, armed: &Armed) -> Result<Trusted, Failure> {
        let authority = self.pinned_authority(armed)?;
        let documents = self.store.documents().map_err(|e| state(&self.store, &e))?;
        let mut first = None;
        let mut best: Option<Trusted> = None;
        for document in documents {
            let judged =
                Trusted::verify(&document, &authority).and_then(|policy| not_older(policy, armed));
            match judged {
                Ok(policy) if best.as_ref().is_none_or(|b| b.version() < policy.version()) => {
                    best = Some(policy);
                }
                Ok(_) => {}
                Err(failure) => {
                    first.get_or_insert(failure);
                }
            }
        }
        best.ok_or_else(|| {
            first.unwrap_or_else(|| {
                Failure::refused(
                    Reason::BadAuthority,
                    "there is no policy.toml in the state folder",
                )
            })
        })
    }

    /// The authority's key from the state folder, if it is the one that was pinned.
    fn pinned_authority(&self, armed: &Armed) -> Result<PublicKey, Failure> {
        let pem = self
            .store
            .authority()
            .map_err(|e| state(&self.store, &e))?
            .ok_or_else(|| {
                Failure::refused(
                    Reason::BadAuthority,
                    "there is no authority.pub in the state folder",
                )
            })?;
        pinned(&pem, armed)
    }
}

/// A value or why there is none.
fn either<T>(result: Result<Option<T>, Failure>) -> (Option<T>, Option<Failure>) {
    match result {
        Ok(value) => (value, None),
        Err(failure) => (None, Some(failure)),
    }
}

/// Somebody else changes the gate.
fn held(other: &Held) -> Failure {
    let pid = other.pid;
    match other.role {
        Role::Daemon => Failure::kernel(format!("the daemon, process {pid}, changes the gate and nobody else"))
            .with_remedy("Ask it: with the --runtime folder that it was started with. If it hangs, kill it: the gate stays."),
        Role::Command => Failure::kernel(format!("process {pid}, a command of the enforcer, changes the gate"))
            .with_remedy(format!("Wait for it; if it hangs, `kill -9 {pid}`: the gate stays as it is.")),
    }
}

/// The key, if it is the one that the gate was armed with.
fn pinned(pem: &str, armed: &Armed) -> Result<PublicKey, Failure> {
    let key = trust::authority(pem)?;
    let (want, got) = (armed.authority, key.id());
    if want == got {
        return Ok(key);
    }
    let detail = format!("the gate was armed with the authority {want}, this key is {got}");
    Err(Failure::refused(Reason::BadAuthority, detail))
}

/// A version lower than the one in force needs a permit.
fn not_older(policy: Trusted, armed: &Armed) -> Result<Trusted, Failure> {
    policy.must_not_be_older(armed.policy_version)?;
    Ok(policy)
}

/// The state folder cannot be read or written.
fn state(store: &Store, error: &io::Error) -> Failure {
    Failure::usage(format!(
        "the state folder {}: {error}",
        store.folder().display()
    ))
}

/// A reload's or arming's consequences for the stored bundles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redecided {
    /// Bundles that stay admitted.
    pub admitted: Vec<Digest>,
    /// Bundles that the policy no longer admits, each with why.
    pub refused: Vec<(Digest, String)>,
}
