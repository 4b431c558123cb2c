//! What arming or reloading did, and how it is told.

use std::fmt::Write as _;

use bundle::Digest;
use serde::{Deserialize, Serialize};

use super::{Redecided, SelfTest};
use crate::{
    gate::Mode,
    status::{NEVER_LOOKED_AT, Standing},
};

/// What arming or reloading did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arming {
    /// Was the gate not armed before?
    pub first: bool,
    /// Mode now in force.
    pub mode: Mode,
    /// Why it is audit although enforcing was asked for.
    pub why_audit: Option<String>,
    /// Version of the policy.
    pub policy_version: u64,
    /// Digest of the policy.
    pub policy: Digest,
    /// The stored bundles under this policy.
    pub bundles: Redecided,
    /// The proof, at the first arming and when enforcing begins.
    pub selftest: Option<SelfTest>,
    /// Seconds until it falls back to audit unless confirmed.
    pub confirm_within_seconds: Option<u64>,
    /// What the programs in the kernel make of it.
    #[serde(flatten)]
    pub standing: Standing,
}

impl Arming {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.headline();
        let mut line = |name: &str, value: &str| {
            // Writing to a String does not fail.
            let _ = write!(text, "\n  {name:<12} {value}");
        };
        for warning in &self.standing.warnings {
            line("WARNING", warning);
        }
        let policy = format!("version {}, {}", self.policy_version, self.policy);
        line("policy", &policy);
        for digest in &self.bundles.admitted {
            line("admitted", &digest.to_string());
        }
        for (digest, why) in &self.bundles.refused {
            line("NOT admitted", &format!("{digest}: {why}"));
        }
        let programs = &self.standing.programs;
        if programs.before > 0 {
            line("programs", &programs.line());
            line("", NEVER_LOOKED_AT);
        }
        for check in self.selftest.iter().flat_map(|test| &test.checks) {
            line("self test", &check.line());
        }
        if let Some(seconds) = self.confirm_within_seconds {
            let until = format!(
                "falls back to audit in {seconds} s unless `bpfseal-enforcer arm --confirm` comes"
            );
            line("provisional", &until);
        }
        text
    }

    fn headline(&self) -> String {
        let proved = self.first || self.selftest.is_some();
        match (self.mode, &self.why_audit, &self.standing.falls_short) {
            (Mode::Enforce, _, Some(falls_short)) => falls_short.clone(),
            (Mode::Enforce, _, None) if proved => {
                "Enforcing: an unsigned program was refused as proof.".to_owned()
            }
            (Mode::Enforce, _, None) => "Enforcing, with the new policy.".to_owned(),
            (Mode::Audit, Some(why), _) => {
                format!("Audit only, because {why}: nothing is refused.")
            }
            (Mode::Audit, None, _) => "Audit only: nothing is refused.".to_owned(),
        }
    }
}

/// What confirming a provisional arming did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Is it final now?
    pub confirmed: bool,
    /// What the programs in the kernel make of it.
    #[serde(flatten)]
    pub standing: Standing,
}

impl Confirmed {
    /// For people.
    pub fn text(&self) -> String {
        let enforces = "the gate enforces until it is disarmed with a permit.";
        let what = self.standing.falls_short.as_deref().unwrap_or(enforces);
        format!("Confirmed: {what}")
    }
}
