//! Which of the stored bundles a policy admits, and what their programs look like here.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{Digest, image::Image};

use super::{Enforcer, Redecided, state};
use crate::{
    failure::Failure,
    filters,
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
    /// Its programs' images.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.programs
            .iter()
            .filter_map(|measured| measured.image.as_ref().ok())
    }

    /// Every layout in which they may load.
    pub fn layouts(&self) -> impl Iterator<Item = &Image> {
        let others = self.programs.iter().flat_map(|measured| &measured.others);
        self.images().chain(others)
    }

    fn entry(&self, image: &Image) -> Entry {
        Entry {
            image: image.clone(),
            class: Class::Signed,
            bundle: Some(self.verdict.bundle),
        }
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
            now: match self.armed()? {
                Some(armed) => self.time(&armed),
                None => self.host().now(),
            },
        };
        let mut verdict = self.tools.workshop.verify(&task)?;
        let mut programs = Vec::new();
        for object in &mut verdict.objects {
            let mut measured = self.tools.workshop.measure(object)?;
            for program in &mut measured {
                for image in program.image.iter_mut().chain(&mut program.others) {
                    object.limits.apply(image);
                }
                let layouts = program.image.iter().chain(&program.others);
                let replacements: Vec<Image> = layouts
                    .filter_map(|image| object.limits.as_replacement(image))
                    .collect();
                program.others.extend(replacements);
            }
            programs.append(&mut measured);
            // The bytes are in the store; the daemon need not hold them.
            object.elf = Vec::new();
        }
        Ok(Accepted { verdict, programs })
    }

    /// Decides about every stored bundle. What is in force does not change by this.
    pub(super) fn decide_all(
        &mut self,
        policy: &Trusted,
    ) -> Result<(Vec<Accepted>, Vec<Rejected>), Failure> {
        let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
        let armed = self.armed()?;
        let in_force = match armed {
            Some(_) => self.gate().admitted()?,
            None => BTreeSet::new(),
        };
        for stored in self.store.bundles().map_err(|e| state(&self.store, &e))? {
            let decided = self.decide_stored(&stored, policy).and_then(|bundle| {
                // What the gate does not have yet comes from a crash, or from whoever brought
                // an old state folder back. What it has by an exception alone does not stay.
                let digest = bundle.verdict.bundle;
                let is_excepted = policy.policy().exception_for(digest).is_some()
                    || self.bundles.iter().flatten().any(|known| {
                        known.verdict.bundle == digest && known.verdict.until.is_some()
                    });
                if armed.is_some() && (is_excepted || !in_force.contains(&digest)) {
                    self.must_not_fall_back(&bundle)?;
                }
                match self.revoked(&bundle.verdict) {
                    Some(failure) => Err(failure),
                    None => Ok(bundle),
                }
            });
            match decided {
                Ok(bundle) => accepted.push(bundle),
                Err(failure) => rejected.push(Rejected {
                    bundle: stored.bundle,
                    failure,
                }),
            }
        }
        self.modules.keep(&mut accepted);
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
        entries.extend(self.listed_probes());
        entries.extend(filters::entries(&policy.shapes()));
        for known in bundles {
            let good = known.programs.iter().filter_map(|measured| {
                let image = measured.image.as_ref().ok()?;
                self.revoked_program(image)
                    .is_none()
                    .then_some((image, &measured.others))
            });
            let layouts = good.flat_map(|(image, others)| std::iter::once(image).chain(others));
            let layouts = layouts.filter(|image| self.revoked_program(image).is_none());
            entries.extend(layouts.map(|image| known.entry(image)));
        }
        let for_module = |entry: &Entry| entry.image.modules().next().is_some();
        let modules = match entries.iter().any(for_module) {
            true => self.host().modules(),
            false => BTreeMap::new(),
        };
        Admissions {
            entries,
            modules,
            shapes: policy.shapes(),
            generators: policy.generators(),
            keyrings: policy.keyrings(),
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
