//! The one function that turns a bundle nobody vouches for into one that somebody does.

use bundle::{
    Digest, MalformedBundle, UnverifiedBundle,
    inventory::Inventory,
    manifest::{Descriptor, Manifest},
    unverified::Parts,
};

use crate::{
    Policy, Reason, Refusal, RuleRef,
    decision::{self, SignedBy},
    predicate,
    rule::Rule,
    signature::{self, Budget, Finding, Outcome, Trusted, Valid},
    signers::Signers,
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
    signers: Signers,
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
    let signers = valid_signers(&evidence, policy);
    if signers.is_empty() {
        return Err(by_rule(nobody(&evidence)));
    }
    let signed_by = signers.check(policy, rule).map_err(by_rule)?;
    check_required(rule, &evidence).map_err(by_rule)?;
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
    let trusted = Trusted::by(policy);
    let mut budget = Budget::default();
    bundle
        .referrers()
        .iter()
        .flat_map(|referrer| signature::check(referrer, bundle.digest(), &trusted, &mut budget))
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

    /// Everybody of the policy with a valid signature, of the rule or not.
    pub const fn signers(&self) -> &Signers {
        &self.signers
    }

    /// What each signature came to.
    pub fn evidence(&self) -> &[Finding] {
        &self.evidence
    }
}

pub(crate) fn valid_signers(evidence: &[Finding], policy: &Policy) -> Signers {
    let mut signers = Signers::by(policy);
    for finding in evidence {
        if let Outcome::Valid(valid) = &finding.outcome {
            signers.add(valid.key, valid.identity.as_ref(), &valid.trusted_as);
        }
    }
    signers
}

/// Each attestation that the rule wants was made by one of the rule's signers.
pub(crate) fn check_required(rule: &Rule, evidence: &[Finding]) -> Result<(), Refusal> {
    let attested = || {
        evidence
            .iter()
            .filter_map(|finding| match &finding.outcome {
                Outcome::Attested(valid) => Some(valid),
                Outcome::Valid(_) | Outcome::Rejected(_) => None,
            })
    };
    for want in &rule.require {
        let is_wanted = |valid: &&Valid| {
            let got = valid.predicate_type.as_deref();
            got.is_some_and(|got| predicate::is(want, got))
        };
        let by_rule = |valid: &Valid| {
            let names = &valid.trusted_as;
            names.iter().any(|name| rule.signed_by.of.contains(name))
        };
        if attested().filter(is_wanted).any(by_rule) {
            continue;
        }
        let got: Vec<String> = attested()
            .filter_map(|valid| {
                let kind = valid.predicate_type.as_deref()?;
                Some(format!("{kind} by {}", valid.trusted_as.join(" = ")))
            })
            .collect();
        return Err(Refusal::new(
            Reason::MissingAttestation,
            format!(
                "want {want} by one of {}; got {}",
                rule.signed_by.of.join(", "),
                match got.is_empty() {
                    true => "none".to_owned(),
                    false => got.join(", "),
                }
            ),
        ));
    }
    Ok(())
}

/// No signature counts: says what is wrong with the one that came closest.
pub(crate) fn nobody(evidence: &[Finding]) -> Refusal {
    let rejected = evidence
        .iter()
        .filter_map(|finding| match &finding.outcome {
            Outcome::Rejected(rejected) => Some(rejected),
            Outcome::Valid(_) | Outcome::Attested(_) => None,
        });
    let closest = rejected.min_by_key(|rejected| {
        let place = CLOSEST.iter().position(|&reason| reason == rejected.reason);
        place.unwrap_or(CLOSEST.len())
    });
    match closest {
        None => match evidence.iter().find_map(|finding| match &finding.outcome {
            Outcome::Attested(valid) => valid.predicate_type.as_deref(),
            Outcome::Valid(_) | Outcome::Rejected(_) => None,
        }) {
            Some(predicate) => Refusal::new(
                Reason::WrongPredicate,
                format!("no signature is attached to it; an attestation of {predicate:?} is"),
            ),
            None => Refusal::new(Reason::NoSignature, "no signature is attached to it"),
        },
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
const CLOSEST: [Reason; 13] = [
    Reason::LimitExceeded,
    Reason::BadSignature,
    Reason::WrongSubject,
    Reason::BadTrustRoot,
    Reason::NoTrustedTime,
    Reason::TooOld,
    Reason::BadCertificate,
    Reason::BadLogEntry,
    Reason::WeakAlgorithm,
    Reason::UntrustedSigner,
    Reason::MalformedSignature,
    Reason::Unsupported,
    Reason::WrongPredicate,
];
