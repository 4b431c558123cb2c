//! Signed lists of probe programs: loaders' questions that are newer than this program.
//!
//! A list only adds programs that are never attached, so what cannot be read or verified adds
//! none, and the gate goes on with those that are built in.

use jiff::Timestamp;
use policy::{Reason, TrustedKey, probes::SignedProbes, revocation::SignedRevocations};
use serde::{Deserialize, Serialize};

use super::{Enforcer, state};
use crate::{failure::Failure, gate::Armed, probes, record::Level, trust::Trusted};

/// What a list did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probing {
    /// Version of the list now in force.
    pub version: u64,
    /// Who signed it, by the policy's name.
    pub signer: String,
    /// Names of its programs, which may load now.
    pub probes: Vec<String>,
}

/// The list in force, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Version that is pinned.
    pub version: u64,
    /// How many programs it adds.
    pub probes: usize,
    /// Who signed it, by the policy's name.
    pub signer: Option<String>,
    /// When it was made.
    pub issued: Option<Timestamp>,
    /// Why the list in the state folder was not taken.
    pub trouble: Option<String>,
}

impl Enforcer {
    /// Takes a list that a key of the policy's `[probes]` signed: in force when this returns.
    pub fn take_probes(&mut self, file: &str) -> Result<Probing, Failure> {
        self.settle()?;
        let mut armed = self.must_be_armed()?;
        self.must_know_what_is_revoked(&armed)?;
        let policy = self.must_have_policy()?;
        let signed = SignedProbes::verify(file, self.probe_keys(&policy))?;
        signed.check_not_older(armed.probes)?;
        let bundles = self.known_bundles()?;
        self.store
            .put_probes(file)
            .map_err(|e| state(&self.store, &e))?;
        let probing = Probing {
            version: signed.list().version,
            signer: signed.signer().to_owned(),
            probes: signed
                .list()
                .probes
                .iter()
                .map(|p| p.name.clone())
                .collect(),
        };
        armed.probes = probing.version;
        self.probes = Some(signed);
        self.probes_trouble = None;
        let admissions = self.admissions(&policy, &bundles);
        self.replace(&armed, &admissions)?;
        let line = format!(
            "list version {} by {:?} is in force, {} programs",
            probing.version,
            probing.signer,
            probing.probes.len()
        );
        self.note(Level::Info, "probes", line);
        Ok(probing)
    }

    /// Keys whose lists count: the policy's that nobody revoked.
    fn probe_keys<'p>(&self, policy: &'p Trusted) -> Vec<&'p TrustedKey> {
        let list = self.revocations.as_ref().map(SignedRevocations::list);
        let is_revoked =
            |key: &&TrustedKey| list.is_some_and(|l| l.find_key(key.key.id()).is_some());
        let keys = policy.policy().probe_keys();
        keys.filter(|key| !is_revoked(key)).collect()
    }

    /// Looks at the list in the state folder, under this policy; the version to be pinned.
    pub(super) fn find_probes(&mut self, policy: &Trusted, in_force: u64) -> u64 {
        let found = self.stored_probes(policy, in_force);
        let (probes, trouble) = match found {
            Ok(probes) => (probes, None),
            Err(failure) => (None, Some(failure)),
        };
        if let Some(failure) = &trouble
            && self.probes_trouble.as_ref() != Some(failure)
        {
            let line = format!(
                "the list in the state folder adds nothing: {}",
                failure.line()
            );
            self.note(Level::Alarm, "probes", line);
        }
        self.probes = probes;
        self.probes_trouble = trouble;
        let version = self.probes.as_ref().map_or(0, |list| list.list().version);
        version.max(in_force)
    }

    pub(super) fn stored_probes(
        &self,
        policy: &Trusted,
        in_force: u64,
    ) -> Result<Option<SignedProbes>, Failure> {
        let file = self.store.probes().map_err(|e| state(&self.store, &e))?;
        let Some(file) = file else {
            if in_force == 0 {
                return Ok(None);
            }
            let detail = format!("version {in_force} is in force, and the state folder has none");
            return Err(Failure::refused(Reason::OlderProbes, detail));
        };
        let signed = SignedProbes::verify(&file, self.probe_keys(policy))?;
        signed.check_not_older(in_force)?;
        Ok(Some(signed))
    }

    /// The programs of the list in force.
    pub(super) fn listed_probes(&self) -> Vec<crate::gate::Entry> {
        let list = self.probes.iter().map(SignedProbes::list);
        list.flat_map(|list| &list.probes)
            .filter_map(probes::entry)
            .collect()
    }

    /// For `status`.
    pub fn probe_status(&self, armed: Option<&Armed>) -> Option<ProbeStatus> {
        let pinned = armed?.probes;
        let list = self.probes.as_ref();
        if pinned == 0 && list.is_none() && self.probes_trouble.is_none() {
            return None;
        }
        Some(ProbeStatus {
            version: pinned,
            probes: list.map_or(0, |signed| signed.list().probes.len()),
            signer: list.map(|signed| signed.signer().to_owned()),
            issued: list.map(|signed| signed.list().issued),
            trouble: self.probes_trouble.as_ref().map(Failure::line),
        })
    }
}

impl ProbeStatus {
    /// One line for a person.
    pub fn line(&self) -> String {
        let by = match &self.signer {
            Some(signer) => format!(" by {signer:?}"),
            None => String::new(),
        };
        let mut line = format!(
            "list version {}{by} adds {} programs, which load and are never attached",
            self.version, self.probes
        );
        if let Some(trouble) = &self.trouble {
            line += &format!("; the one on disk was NOT taken: {trouble}");
        }
        line
    }
}
