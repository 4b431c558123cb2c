//! The one function that turns a bundle nobody vouches for into one that somebody does.

use bundle::{
    Blob, Digest, MalformedBundle, UnverifiedBundle,
    inventory::Inventory,
    manifest::{Descriptor, Manifest},
    unverified::Parts,
};

use jiff::Timestamp;

use crate::{
    Policy, Reason, Refusal, RuleRef,
    decision::{self, SignedBy},
    required::check_required,
    rule::{MaxAge, Rule},
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
    verified_at: Timestamp,
}

/// Verifies `bundle` by the rule of `policy` that decides about `scope`, or by the exception
/// that names the bundle, at the moment `now`: whose clock tells it is the caller's to say.
///
/// # Errors
/// The reason that helps most: what is wrong with the signature that came closest.
pub fn verify(
    bundle: UnverifiedBundle,
    policy: &Policy,
    scope: &str,
    now: Timestamp,
) -> Result<VerifiedBundle, Refusal> {
    let digest = bundle.digest();
    let rule = decision::rule_for_bundle(policy, scope, digest, now)?;
    verify_by(rule, bundle, policy, scope, now)
        .map_err(|refusal| decision::ended(policy, digest, now, refusal))
}

fn verify_by(
    rule: &Rule,
    mut bundle: UnverifiedBundle,
    policy: &Policy,
    scope: &str,
    now: Timestamp,
) -> Result<VerifiedBundle, Refusal> {
    let trusted = Trusted::at(policy, now);
    let evidence = findings(&bundle, &trusted);
    let by_rule = |refusal: Refusal| refusal.by(rule.reference());
    let signers = check_signers(policy, rule, &evidence, trusted.now).map_err(by_rule)?;
    let signed_by = signers.check(policy, rule).map_err(by_rule)?;
    // What is recorded is compared with the objects below; nothing is returned before.
    let inventory = Some(bundle.recorded_inventory());
    check_required(rule, &evidence, inventory).map_err(by_rule)?;
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
        verified_at: now,
    })
}

/// What each signature of `bundle` comes to at the moment `now`, against every key that `policy`
/// names; the base of [`verify`], and what `bpfseal verify --explain` prints.
pub fn evidence(bundle: &UnverifiedBundle, policy: &Policy, now: Timestamp) -> Vec<Finding> {
    findings(bundle, &Trusted::at(policy, now))
}

fn findings(bundle: &UnverifiedBundle, trusted: &Trusted<'_>) -> Vec<Finding> {
    let mut budget = Budget::default();
    bundle
        .referrers()
        .iter()
        .flat_map(|referrer| signature::check(referrer, bundle.digest(), trusted, &mut budget))
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
    pub fn objects(&self) -> &[(String, Blob)] {
        &self.parts.objects
    }

    /// Title and bytes of every loader that kernels check themselves.
    pub fn loaders(&self) -> &[(String, Blob)] {
        &self.parts.loaders
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

    /// When it was verified.
    pub const fn verified_at(&self) -> Timestamp {
        self.verified_at
    }

    /// What each signature came to.
    pub fn evidence(&self) -> &[Finding] {
        &self.evidence
    }
}

/// Those whose signatures count for `rule`: at least one unless it is an exception, and by the
/// rule's `max_age` young enough.
pub(crate) fn check_signers(
    policy: &Policy,
    rule: &Rule,
    evidence: &[Finding],
    now: Timestamp,
) -> Result<Signers, Refusal> {
    let all = signers(policy, evidence, |_| true);
    if all.is_empty() && rule.until.is_none() {
        return Err(nobody(evidence));
    }
    let Some(age) = rule.max_age else {
        return Ok(all);
    };
    let is_young = |valid: &Valid| valid.times.iter().any(|&time| age.allows(time, now));
    let young = signers(policy, evidence, is_young);
    // Who is missing at any age is missing first.
    all.check(policy, rule)?;
    if young.check(policy, rule).is_err() {
        return Err(too_old(age, evidence));
    }
    Ok(young)
}

fn signers(policy: &Policy, evidence: &[Finding], counts: impl Fn(&Valid) -> bool) -> Signers {
    let mut signers = Signers::by(policy);
    for finding in evidence {
        if let Outcome::Valid(valid) = &finding.outcome
            && counts(valid)
        {
            signers.add(valid.key, valid.identity.as_ref(), &valid.trusted_as);
        }
    }
    signers
}

fn too_old(age: MaxAge, evidence: &[Finding]) -> Refusal {
    let newest = evidence
        .iter()
        .filter_map(|finding| match &finding.outcome {
            Outcome::Valid(valid) => valid.times.iter().max(),
            Outcome::Attested(_) | Outcome::Rejected(_) => None,
        })
        .max();
    match newest {
        Some(time) => Refusal::new(
            Reason::TooOld,
            format!("want signatures of the last {age}; the newest is of {time}"),
        ),
        None => Refusal::new(
            Reason::NoTrustedTime,
            format!("want signatures of the last {age}; none has a trusted time"),
        ),
    }
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
