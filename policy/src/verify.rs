//! The one function that turns a bundle nobody vouches for into one that somebody does.

use std::collections::BTreeSet;

use bundle::{
    Digest, MalformedBundle, UnverifiedBundle,
    inventory::Inventory,
    manifest::{Descriptor, Manifest},
    unverified::Parts,
};

use crate::{
    Policy, Reason, Refusal, RuleRef,
    decision::{self, SignedBy},
    key::PublicKey,
    signature::{self, Budget, Finding, Outcome},
};

/// A bundle whose signatures satisfy a policy's rule and whose inventory is what its
/// objects say. Only [`verify`] makes one.
#[derive(Debug)]
pub struct VerifiedBundle {
    parts: Parts,
    scope: String,
    rule: RuleRef,
    policy: Digest,
    signed_by: Vec<SignedBy>,
    signers: BTreeSet<Digest>,
    evidence: Vec<Finding>,
}

/// Verifies `bundle` by the rule of `policy` that decides about `scope`.
///
/// # Errors
/// The reason that helps most: what is wrong with the signature that came closest.
pub fn verify(
    mut bundle: UnverifiedBundle,
    policy: &Policy,
    scope: &str,
) -> Result<VerifiedBundle, Refusal> {
    let rule = decision::rule_for(policy, scope)?;
    let evidence = evidence(&bundle, policy);
    let by_rule = |refusal: Refusal| refusal.by(rule.reference());
    let signers = valid_signers(&evidence);
    if signers.is_empty() {
        return Err(by_rule(nobody(&evidence)));
    }
    let signed_by = decision::check_signers(policy.keys(), rule, &signers).map_err(by_rule)?;
    bundle
        .check_inventory()
        .map_err(|error| by_rule(Refusal::new(reason_of(&error), error.to_string())))?;
    Ok(VerifiedBundle {
        parts: bundle.danger_into_parts(),
        scope: scope.to_owned(),
        rule: rule.reference(),
        policy: policy.digest(),
        signed_by,
        signers,
        evidence,
    })
}

/// What each signature of `bundle` comes to, against every key that `policy` names; the
/// base of [`verify`], and what `bpfseal verify --explain` prints.
pub fn evidence(bundle: &UnverifiedBundle, policy: &Policy) -> Vec<Finding> {
    let keys: Vec<&PublicKey> = policy.keys().values().map(|trusted| &trusted.key).collect();
    let mut budget = Budget::default();
    bundle
        .referrers()
        .iter()
        .flat_map(|referrer| signature::check(referrer, bundle.digest(), &keys, &mut budget))
        .collect()
}

/// The numbered reason for a bundle that is not one.
pub const fn reason_of(error: &MalformedBundle) -> Reason {
    match error {
        MalformedBundle::Structure(_) | MalformedBundle::Io(_) => Reason::MalformedBundle,
        MalformedBundle::Digest { .. } => Reason::DigestMismatch,
        MalformedBundle::Inventory(_) => Reason::InventoryMismatch,
        MalformedBundle::Object { .. } => Reason::MalformedObject,
        MalformedBundle::Limit(_) => Reason::LimitExceeded,
        MalformedBundle::NotABundle(_) => Reason::NotABundle,
    }
}

impl VerifiedBundle {
    /// SHA-256 of the manifest: the bundle's name, and what was signed.
    pub const fn digest(&self) -> Digest {
        self.parts.descriptor.digest
    }

    /// Media type, digest and size of the manifest.
    pub const fn descriptor(&self) -> &Descriptor {
        &self.parts.descriptor
    }

    /// The manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.parts.manifest
    }

    /// The inventory, as the objects say it and as it was signed.
    pub const fn inventory(&self) -> &Inventory {
        &self.parts.inventory
    }

    /// Title and ELF bytes of every object, in the inventory's order.
    pub fn objects(&self) -> &[(String, Vec<u8>)] {
        &self.parts.objects
    }

    /// The scope that it was verified for.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The rule that allowed it.
    pub const fn rule(&self) -> &RuleRef {
        &self.rule
    }

    /// SHA-256 of the policy that allowed it.
    pub const fn policy(&self) -> Digest {
        self.policy
    }

    /// The rule's keys that signed, each once whatever its names.
    pub fn signed_by(&self) -> &[SignedBy] {
        &self.signed_by
    }

    /// Every key of the policy with a valid signature, of the rule or not.
    pub const fn signers(&self) -> &BTreeSet<Digest> {
        &self.signers
    }

    /// What each signature came to.
    pub fn evidence(&self) -> &[Finding] {
        &self.evidence
    }
}

pub(crate) fn valid_signers(evidence: &[Finding]) -> BTreeSet<Digest> {
    evidence
        .iter()
        .filter_map(|finding| match &finding.outcome {
            Outcome::Valid(valid) => Some(valid.key),
            Outcome::Rejected(_) => None,
        })
        .collect()
}

/// No signature counts: says what is wrong with the one that came closest.
pub(crate) fn nobody(evidence: &[Finding]) -> Refusal {
    let rejected = evidence
        .iter()
        .filter_map(|finding| match &finding.outcome {
            Outcome::Rejected(rejected) => Some(rejected),
            Outcome::Valid(_) => None,
        });
    let closest = rejected.min_by_key(|rejected| {
        let place = CLOSEST.iter().position(|&reason| reason == rejected.reason);
        place.unwrap_or(CLOSEST.len())
    });
    match closest {
        None => Refusal::new(Reason::NoSignature, "no signature is attached to it"),
        Some(rejected) if evidence.len() == 1 => {
            Refusal::new(rejected.reason, rejected.detail.clone())
        }
        Some(rejected) => Refusal::new(
            rejected.reason,
            format!(
                "none of its {} signatures counts; one: {}",
                evidence.len(),
                rejected.detail
            ),
        ),
    }
}

/// From what a publisher can mend soonest to what has least to do with a signature.
const CLOSEST: [Reason; 7] = [
    Reason::LimitExceeded,
    Reason::BadSignature,
    Reason::WrongSubject,
    Reason::UntrustedSigner,
    Reason::MalformedSignature,
    Reason::Unsupported,
    Reason::WrongPredicate,
];
