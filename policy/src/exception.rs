//! Exceptions: one bundle, named by its digest, that the policy's author lets in for a while
//! although no rule would.

use bundle::Digest;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    RuleRef,
    rule::{Rule, Threshold},
};

/// An entry of the policy that admits one bundle whoever signed it, until a moment.
///
/// It takes the place of the rules for that bundle: nobody need have signed it and nothing need
/// be attested. What a rule limits by default holds: no `ext` and no `syscall` programs, values
/// and sizes as the publisher wrote them. Revocation lists are obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// SHA-256 of the bundle's manifest.
    pub bundle: Digest,
    /// Why, for whoever reads it at night: the number of an incident.
    pub reason: String,
    /// From this moment on it counts no more.
    pub until: Timestamp,
    /// Line on which it starts, from 1.
    pub line: usize,
    #[serde(skip)]
    rule: Rule,
}

impl Exception {
    /// An exception with the limits of `defaults`: a rule of which nothing but defaults is known.
    pub(crate) fn new(
        bundle: Digest,
        reason: String,
        until: Timestamp,
        line: usize,
        defaults: Rule,
    ) -> Self {
        let rule = Rule {
            name: reason.clone(),
            line,
            signed_by: Threshold {
                at_least: 0,
                of: Vec::new(),
            },
            until: Some(until),
            ..defaults
        };
        Self {
            bundle,
            reason,
            until,
            line,
            rule,
        }
    }

    /// Does it count at this moment?
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// The rule that it stands for.
    pub(crate) const fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Its reason, end and line.
    pub fn reference(&self) -> RuleRef {
        self.rule.reference()
    }
}
