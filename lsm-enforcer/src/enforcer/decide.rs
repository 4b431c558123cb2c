//! Which of the stored bundles a policy admits, and what their programs look like here.

use bundle::Digest;

use super::{Enforcer, Redecided, state};
use crate::{
    failure::Failure,
    gate::{Admissions, Class, Entry},
    store::Stored,
    trust::Trusted,
    workshop::{Measured, Task, Verdict},
};

/// A bundle that the policy admits, measured for this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What the policy said; its objects' bytes are let go.
    pub verdict: Verdict,
    /// Each program with its image, or why there is none.
    pub programs: Vec<Measured>,
}

/// A stored bundle that the policy does not admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Digest, as the file's name says.
    pub bundle: Digest,
    /// Why.
    pub failure: Failure,
}

impl Accepted {
    /// What the gate gets.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.programs.iter().filter_map(|measured| {
            let image = measured.image.as_ref().ok()?.clone();
            Some(Entry {
                image,
                class: Class::Signed,
                bundle: Some(self.verdict.bundle),
            })
        })
    }
}

impl Enforcer {
    /// Verifies, decides and measures one bundle.
    pub(super) fn decide(
        &self,
        bytes: &[u8],
        scope: Option<&str>,
        policy: &Trusted,
    ) -> Result<Accepted, Failure> {
        let task = Task {
            bundle: bytes,
            scope,
            document: policy.document(),
            authority: policy.authority(),
            now: self.host().now(),
        };
        let mut verdict = self.tools.workshop.verify(&task)?;
        let mut programs = Vec::new();
        for object in &mut verdict.objects {
            let mut measured = self.tools.workshop.measure(object)?;
            for program in &mut measured {
                if let Ok(image) = &mut program.image {
                    object.limits.apply(image);
                }
            }
            programs.append(&mut measured);
            // The bytes are in the store; the daemon need not hold them.
            object.elf = Vec::new();
        }
        Ok(Accepted { verdict, programs })
    }

    /// Decides about every stored bundle. What is in force does not change by this.
    pub(super) fn decide_all(
        &self,
        policy: &Trusted,
    ) -> Result<(Vec<Accepted>, Vec<Rejected>), Failure> {
        let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
        for stored in self.store.bundles().map_err(|e| state(&self.store, &e))? {
            match self.decide_stored(&stored, policy) {
                Ok(bundle) => accepted.push(bundle),
                Err(failure) => rejected.push(Rejected {
                    bundle: stored.bundle,
                    failure,
                }),
            }
        }
        Ok((accepted, rejected))
    }

    fn decide_stored(&self, stored: &Stored, policy: &Trusted) -> Result<Accepted, Failure> {
        let bytes = self
            .store
            .bundle(&stored.bundle)
            .map_err(|e| state(&self.store, &e))?;
        let accepted = self.decide(&bytes, stored.scope.as_deref(), policy)?;
        if accepted.verdict.bundle != stored.bundle {
            return Err(Failure::refused(
                ::policy::Reason::DigestMismatch,
                format!("the file holds {}", accepted.verdict.bundle),
            ));
        }
        Ok(accepted)
    }

    /// The bundles in force; decides once after a start.
    pub(super) fn known_bundles(&mut self) -> Result<Vec<Accepted>, Failure> {
        if let Some(bundles) = &self.bundles {
            return Ok(bundles.clone());
        }
        let Some(policy) = self.policy.clone() else {
            return Ok(Vec::new());
        };
        let (accepted, rejected) = self.decide_all(&policy)?;
        self.bundles = Some(accepted.clone());
        self.rejected = rejected;
        Ok(accepted)
    }

    /// Everything that may load.
    pub(super) fn admissions(&self, policy: &Trusted, bundles: &[Accepted]) -> Admissions {
        let mut entries = self.tools.probes.clone();
        entries.extend(bundles.iter().flat_map(Accepted::entries));
        Admissions {
            entries,
            shapes: policy.shapes(),
        }
    }

    /// The bundles that the policy in force admits, for reports. Empty while none verifies.
    pub fn accepted(&mut self) -> Result<Vec<Accepted>, Failure> {
        self.known_bundles()
    }

    /// The stored bundles that the policy in force does not admit.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }
}

pub(super) fn redecided(accepted: &[Accepted], rejected: &[Rejected]) -> Redecided {
    Redecided {
        admitted: accepted.iter().map(|a| a.verdict.bundle).collect(),
        refused: rejected
            .iter()
            .map(|r| (r.bundle, r.failure.line()))
            .collect(),
    }
}
