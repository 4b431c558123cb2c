//! Arming, reloading the policy, disarming, and taking over after a restart.

use std::{collections::BTreeMap, time::Duration};

use bundle::Digest;
use policy::{Reason, permit::Action};
use serde::{Deserialize, Serialize};

use super::{Accepted, Arming, Enforcer, SelfTest, decide::redecided, not_older, pinned, state};
use crate::{
    failure::Failure,
    gate::{Armed, Mode},
    host::Obstacle,
    record::Level,
    status::Standing,
    store::{Document, Intent},
    trust::{self, Trusted},
};

/// What `arm` brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRequest {
    /// The policy, its signature and its keys.
    pub document: Document,
    /// The authority's public key, PEM.
    pub authority: String,
    /// Only look, refuse nothing.
    pub audit_only: bool,
    /// Fall back to audit unless confirmed within this time.
    pub confirm_within: Option<Duration>,
    /// For a lower version, or audit after enforce.
    pub permit: Option<String>,
}

/// Another policy for an armed gate.
struct Change<'a> {
    policy: Trusted,
    audit_only: bool,
    confirm_within: Option<Duration>,
    permit: Option<&'a str>,
}

impl Enforcer {
    /// Arms the gate, or loads another policy where it is armed already.
    pub fn arm(&mut self, request: ArmRequest) -> Result<Arming, Failure> {
        self.settle()?;
        match self.armed()? {
            None => {
                let authority = trust::authority(&request.authority)?;
                let policy = Trusted::verify(&request.document, &authority)?;
                self.must_be_able()?;
                let intent = Intent {
                    audit_only: request.audit_only,
                };
                let io = |e| state(&self.store, &e);
                self.store.put_authority(&request.authority).map_err(io)?;
                self.store.put_document(&request.document).map_err(io)?;
                // Who does not come to confirm it is not to be locked out by the next boot, either.
                let stored = Intent {
                    audit_only: intent.audit_only || request.confirm_within.is_some(),
                };
                self.store.put_intent(Some(stored)).map_err(io)?;
                let result = self.arm_first(authority.id(), policy, intent, request.confirm_within);
                if result.is_err() {
                    self.store
                        .put_intent(None)
                        .map_err(|e| state(&self.store, &e))?;
                }
                result
            }
            Some(armed) => {
                let authority = pinned(&request.authority, &armed)?;
                if request.confirm_within.is_some() && armed.mode == Mode::Enforce {
                    return Err(Failure::usage(
                        "--confirm-within is for when enforcing begins; the gate enforces already",
                    ));
                }
                let policy = Trusted::verify(&request.document, &authority)?;
                // The state folder may have lost its copy.
                self.store
                    .put_authority(&request.authority)
                    .map_err(|e| state(&self.store, &e))?;
                let change = Change {
                    policy,
                    audit_only: request.audit_only,
                    confirm_within: request.confirm_within,
                    permit: request.permit.as_deref(),
                };
                self.change_policy(change, armed)
            }
        }
    }

    /// Loads the policy that is in the state folder.
    pub fn reload(&mut self, permit: Option<&str>) -> Result<Arming, Failure> {
        self.settle()?;
        self.modules.forget(None);
        let armed = self.must_be_armed()?;
        let found = match permit {
            None => self.stored_policy(&armed),
            // Only a permit makes an older one worth looking at.
            Some(_) => self.stored_policy(&Armed {
                policy_version: 0,
                ..armed.clone()
            }),
        };
        let result = found.and_then(|policy| {
            let audit_only = self
                .store
                .intent()
                .map_err(|e| state(&self.store, &e))?
                .is_some_and(|i| i.audit_only);
            let change = Change {
                policy,
                audit_only: audit_only && armed.mode == Mode::Audit,
                confirm_within: None,
                permit,
            };
            self.change_policy(change, armed)
        });
        if let Err(failure) = &result {
            self.note(
                Level::Alarm,
                "policy",
                format!(
                    "the policy in the state folder was not taken, the one in force stays: {}",
                    failure.line()
                ),
            );
            self.trouble = Some(failure.clone());
        }
        result
    }

    /// Takes the gate away. Needs a permit.
    pub fn disarm(&mut self, permit: Option<&str>, authority: Option<&str>) -> Result<(), Failure> {
        self.settle()?;
        let mut armed = self.must_be_armed()?;
        self.redeem(permit, authority, Action::Disarm, "disarming", &mut armed)?;
        self.drain(Duration::ZERO)?;
        self.tools.gate.disarm()?;
        self.store
            .put_intent(None)
            .map_err(|e| state(&self.store, &e))?;
        self.policy = None;
        self.trouble = None;
        self.revocations = None;
        self.revocation_trouble = None;
        self.revocations_seen = None;
        self.probes = None;
        self.probes_trouble = None;
        self.named.clear();
        self.bundles = None;
        self.rejected.clear();
        self.selftest = None;
        self.note(
            Level::Alarm,
            "arming",
            "disarmed: unsigned programs load again",
        );
        Ok(())
    }

    /// At the daemon's start: takes over the pinned gate, or arms as the state folder says.
    /// A gate that is armed stays exactly as it is unless everything checks out.
    pub fn take_over(&mut self) -> Result<Option<Arming>, Failure> {
        self.settle()?;
        if self.armed()?.is_some() {
            self.note(Level::Info, "daemon", "took over the armed gate");
            match self.tools.gate.renew() {
                Ok(false) => {}
                Ok(true) => self.note(
                    Level::Info,
                    "daemon",
                    "the gate's programs are those of this build now",
                ),
                Err(error) => {
                    let line =
                        format!("the gate goes on as it is: {}", Failure::from(error).line());
                    self.note(Level::Alarm, "daemon", line);
                }
            }
            // A list that came meanwhile first: without the newest nothing is decided.
            if let Err(failure) = self.look_for_revocations() {
                self.note(Level::Alarm, "revocation", failure.line());
            }
            // A crash between the store and the gate is made good here: decide anew, swap. What
            // fails is in the log and in `status`; the gate stays as it was.
            return Ok(self.reload(None).ok());
        }
        let io = |e| state(&self.store, &e);
        let Some(intent) = self.store.intent().map_err(io)? else {
            return Ok(None);
        };
        let (Some(pem), documents) = (
            self.store.authority().map_err(io)?,
            self.store.documents().map_err(io)?,
        ) else {
            return Err(Failure::refused(
                Reason::BadAuthority,
                "the state folder says armed, but it has no authority.pub",
            ));
        };
        self.must_be_able()?;
        let authority = trust::authority(&pem)?;
        let mut first = Failure::refused(
            Reason::BadAuthority,
            "there is no policy.toml in the state folder",
        );
        for (index, document) in documents.iter().enumerate() {
            match Trusted::verify(document, &authority) {
                Ok(policy) => {
                    return self
                        .arm_first(authority.id(), policy, intent, None)
                        .map(Some);
                }
                Err(failure) if index == 0 => first = failure,
                Err(_) => {}
            }
        }
        Err(first)
    }

    /// Order matters: everything is pinned in audit first, shapes and probes with it, so that
    /// systemd and loaders never meet a gate that does not know them; then it enforces; then
    /// a refusal is proved. What cannot be proved is taken away again.
    fn arm_first(
        &mut self,
        authority: Digest,
        policy: Trusted,
        intent: Intent,
        confirm_within: Option<Duration>,
    ) -> Result<Arming, Failure> {
        let (mode, why_audit) = self.wanted_mode(&policy, intent.audit_only);
        let confirm_within = confirm_within.filter(|_| mode == Mode::Enforce);
        let key = trust::authority(policy.authority())?;
        match self.stored_revocations(&key, 0) {
            Ok(list) => self.revocations = list,
            Err(failure) => self.revocation_trouble = Some(failure),
        }
        let (accepted, rejected) = self.decide_all(&policy)?;
        let probes = self.find_probes(&policy, 0);
        let admissions = self.admissions(&policy, &accepted);
        let mut armed = Armed {
            authority,
            at: self.host().since_boot(),
            policy_version: policy.version(),
            policy: policy.digest(),
            mode: Mode::Audit,
            confirm_by: None,
            host: Digest::of(self.host().id().as_bytes()),
            spent: Vec::new(),
            revocation: self.revocations.as_ref().map_or(0, |l| l.list().version),
            clock: self.ahead(),
            marks: self.first_marks(),
            protect: policy.policy().protect(),
            permitted: BTreeMap::new(),
            probes,
        };
        self.tools.gate.arm(&armed, &admissions)?;
        let proved = self.enforce_and_prove(&mut armed, mode, confirm_within);
        let selftest = match proved {
            Ok(selftest) => selftest,
            Err(failure) => {
                self.tools.gate.disarm()?;
                self.note(
                    Level::Alarm,
                    "arming",
                    format!("taken back: {}", failure.line()),
                );
                return Err(failure);
            }
        };
        let bundles = redecided(&accepted, &rejected);
        self.in_force(&policy, accepted, rejected);
        self.look_after_generators()?;
        let standing = self.standing()?;
        let because = why_audit
            .as_ref()
            .map_or_else(String::new, |why| format!(" because {why}"));
        let line = format!(
            "armed, {}{because}, policy version {}",
            word(mode, &standing),
            policy.version()
        );
        self.note(Level::Info, "arming", line);
        Ok(Arming {
            first: true,
            mode,
            why_audit,
            policy_version: policy.version(),
            policy: policy.digest(),
            bundles,
            selftest: Some(selftest),
            confirm_within_seconds: confirm_within.map(|time| time.as_secs()),
            standing,
        })
    }

    fn enforce_and_prove(
        &mut self,
        armed: &mut Armed,
        mode: Mode,
        confirm_within: Option<Duration>,
    ) -> Result<SelfTest, Failure> {
        if mode == Mode::Enforce {
            armed.mode = Mode::Enforce;
            armed.confirm_by = confirm_within.map(|time| self.host().since_boot() + time);
            self.tools.gate.amend(armed)?;
        }
        let test = self.selftest()?;
        match test
            .checks
            .iter()
            .find(|check| check.vital && !check.passed)
        {
            None => Ok(test),
            Some(check) => Err(Failure::refused(
                Reason::CannotEnforce,
                format!("the self test failed: {}: {}", check.name, check.detail),
            )
            .with_remedy("The gate was taken away again; report this with the kernel's version.")),
        }
    }

    /// Another policy for an armed gate: permits where they are needed, every bundle decided
    /// anew, one swap.
    fn change_policy(&mut self, change: Change<'_>, mut armed: Armed) -> Result<Arming, Failure> {
        let Change {
            policy,
            audit_only,
            confirm_within,
            permit,
        } = change;
        self.must_know_what_is_revoked(&armed)?;
        let (mode, why_audit) = self.wanted_mode_armed(&policy, audit_only, &armed);
        if let Err(older) = not_older(policy.clone(), &armed) {
            if permit.is_none() {
                return Err(older);
            }
            let what = format!(
                "a policy of version {} after {}",
                policy.version(),
                armed.policy_version
            );
            if armed.mode == Mode::Enforce && mode == Mode::Audit {
                return Err(Failure::refused(
                    Reason::NeedsPermit,
                    "a permit is for one change: not for an older policy and audit mode at once",
                ));
            }
            self.redeem(permit, None, Action::Downgrade, &what, &mut armed)?;
        } else if armed.mode == Mode::Enforce && mode == Mode::Audit {
            self.redeem(
                permit,
                None,
                Action::Audit,
                "audit after enforce",
                &mut armed,
            )?;
        }
        let begins = armed.mode == Mode::Audit && mode == Mode::Enforce;
        let provisional = confirm_within.is_some();
        let confirm_within = confirm_within.filter(|_| begins);
        if begins {
            self.must_be_able()?;
        }
        let (accepted, rejected) = self.decide_all(&policy)?;
        let io = |e| state(&self.store, &e);
        if provisional {
            // First of all: wherever this ends, the next boot does not enforce what nobody confirmed.
            let stored = Intent { audit_only: true };
            self.store.put_intent(Some(stored)).map_err(io)?;
        }
        self.store.put_document(policy.document()).map_err(io)?;
        let before = armed.mode;
        armed.policy_version = policy.version();
        armed.policy = policy.digest();
        armed.protect = policy.policy().protect();
        armed.mode = mode;
        armed.confirm_by = match (mode, confirm_within) {
            (Mode::Audit, _) => None,
            (Mode::Enforce, None) => armed.confirm_by,
            (Mode::Enforce, Some(time)) => Some(self.host().since_boot() + time),
        };
        armed.revocation = self.revocation_version(&armed);
        armed.probes = self.find_probes(&policy, armed.probes);
        let admissions = self.admissions(&policy, &accepted);
        self.replace(&armed, &admissions)?;
        let selftest = if begins {
            Some(self.prove_or_return(&mut armed, before)?)
        } else {
            None
        };
        self.store
            .put_intent(Some(Intent {
                audit_only: audit_only || provisional || armed.confirm_by.is_some(),
            }))
            .map_err(|e| state(&self.store, &e))?;
        let bundles = redecided(&accepted, &rejected);
        self.in_force(&policy, accepted, rejected);
        self.look_after_generators()?;
        let standing = self.standing()?;
        let word = word(mode, &standing);
        let line = format!("version {} is in force, {word}", policy.version());
        self.note(Level::Info, "policy", line);
        Ok(Arming {
            first: false,
            mode,
            why_audit,
            policy_version: policy.version(),
            policy: policy.digest(),
            bundles,
            selftest,
            confirm_within_seconds: confirm_within.map(|time| time.as_secs()),
            standing,
        })
    }

    /// What the programs in the kernel make of it; an alarm for each thing that a person has to look at.
    pub(super) fn standing(&mut self) -> Result<Standing, Failure> {
        let standing = Standing::measure(self)?;
        for line in standing.falls_short.iter().chain(&standing.warnings) {
            self.note(Level::Alarm, "programs", line.clone());
        }
        Ok(standing)
    }

    fn prove_or_return(&mut self, armed: &mut Armed, before: Mode) -> Result<SelfTest, Failure> {
        let test = self.selftest()?;
        if test.proves() {
            return Ok(test);
        }
        (armed.mode, armed.confirm_by) = (before, None);
        self.tools.gate.amend(armed)?;
        let failed = test
            .first_failure()
            .map_or_else(String::new, |c| format!("{}: {}", c.name, c.detail));
        Err(Failure::refused(
            Reason::CannotEnforce,
            format!("the self test failed: {failed}"),
        ))
    }

    pub(super) fn in_force(
        &mut self,
        policy: &Trusted,
        accepted: Vec<Accepted>,
        rejected: Vec<super::Rejected>,
    ) {
        for refused in &rejected {
            let line = format!(
                "{} is not admitted: {}",
                refused.bundle,
                refused.failure.line()
            );
            self.note(Level::Alarm, "bundle", line);
        }
        self.policy = Some(policy.clone());
        self.trouble = None;
        self.bundles = Some(accepted);
        self.rejected = rejected;
        self.decided = self.ahead();
    }

    fn wanted_mode(&self, policy: &Trusted, audit_only: bool) -> (Mode, Option<String>) {
        let why = if audit_only {
            "--audit-only"
        } else if policy.mode() == Mode::Audit {
            "the policy says mode = \"audit\""
        } else if self.host().audit_at_boot() {
            "the kernel's command line says bpfseal=audit"
        } else {
            return (Mode::Enforce, None);
        };
        (Mode::Audit, Some(why.to_owned()))
    }

    /// The boot parameter is for arming; it takes nothing back from a gate that enforces.
    fn wanted_mode_armed(
        &self,
        policy: &Trusted,
        audit_only: bool,
        armed: &Armed,
    ) -> (Mode, Option<String>) {
        let (mode, why) = self.wanted_mode(policy, audit_only);
        let asked = audit_only || policy.mode() == Mode::Audit;
        if armed.mode == Mode::Enforce && !asked {
            (Mode::Enforce, None)
        } else {
            (mode, why)
        }
    }

    /// Why nothing is refused; `None` where it is.
    pub(crate) fn why_audit(&self, armed: &Armed) -> Result<Option<String>, Failure> {
        if armed.mode == Mode::Enforce {
            return Ok(None);
        }
        let intent = self.store.intent().map_err(|e| state(&self.store, &e))?;
        if intent.is_some_and(|intent| intent.audit_only) {
            let why = "`--audit-only` was asked for, or nobody confirmed the arming in time";
            return Ok(Some(why.to_owned()));
        }
        let policy = self.policy.as_ref();
        Ok(policy.and_then(|policy| self.wanted_mode(policy, false).1))
    }

    /// What stands in the way of enforcing, on this host and in this kernel.
    pub(crate) fn obstacles(&self) -> Result<Vec<Obstacle>, Failure> {
        let missing = self.tools.gate.coverage()?.missing;
        let of_kernel = missing.into_iter().map(|what| Obstacle {
            what,
            remedy: "Use another kernel; docs/kernel-support.md lists which.".to_owned(),
        });
        Ok(self
            .host()
            .obstacles()
            .into_iter()
            .chain(of_kernel)
            .collect())
    }

    /// Refuses to arm where it would only look as if.
    fn must_be_able(&self) -> Result<(), Failure> {
        let obstacles = self.obstacles()?;
        let Some(first) = obstacles.first() else {
            return self.must_be_ours_alone();
        };
        let what: Vec<_> = obstacles.iter().map(|o| o.what.as_str()).collect();
        Err(Failure::refused(Reason::CannotEnforce, what.join("; ")).with_remedy(&first.remedy))
    }

    fn must_be_ours_alone(&self) -> Result<(), Failure> {
        self.tools.gate.must_be_ours_alone().map_err(|why| {
            let detail = format!("others may have got hold of this process since it began: {why}");
            Failure::refused(Reason::CannotEnforce, detail)
                .with_remedy("Start the enforcer anew, not under a debugger or strace.")
        })
    }
}

/// For the log: what a headline has before its colon.
fn word(mode: Mode, standing: &Standing) -> &str {
    match (mode, &standing.falls_short) {
        (Mode::Enforce, None) => "enforcing",
        (Mode::Enforce, Some(line)) => line.split(':').next().unwrap_or_default(),
        (Mode::Audit, _) => "audit only",
    }
}
