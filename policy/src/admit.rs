//! From a bundle that somebody vouches for to one that may be loaded.

use bundle::{
    Digest,
    inventory::{self, Inventory, Object},
};

use crate::{
    Policy, Reason, Refusal, RuleRef, VerifiedBundle,
    decision::{self, Context, Decision, Limits, SignedBy},
};

/// A verified bundle that the policy's rule allows, with what loaders may change in it.
/// Only [`admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    bundle: VerifiedBundle,
    scope: String,
    policy: Digest,
    decision: Decision,
    loaders: Result<Vec<(Object, Limits)>, Refusal>,
}

/// Decides about a verified bundle.
///
/// Signers are counted again, because this policy may be another than the one that the
/// bundle was verified by.
///
/// # Errors
/// The first thing that the rule does not allow.
pub fn admit(
    bundle: VerifiedBundle,
    policy: &Policy,
    context: &Context,
) -> Result<Admitted, Refusal> {
    let (digest, now) = (bundle.digest(), bundle.verified_at());
    let rule = decision::rule_for_bundle(policy, &context.scope, digest, now)?;
    let decision = decision::decide_by(rule, policy, bundle.inventory(), bundle.signers(), context)
        .map_err(|refusal| decision::ended(policy, digest, now, refusal))?;
    let loaders = admit_loaders(&bundle, |inventory| {
        decision::decide_by(rule, policy, inventory, bundle.signers(), context)
    });
    Ok(Admitted {
        bundle,
        loaders,
        scope: context.scope.clone(),
        policy: policy.digest(),
        decision,
    })
}

/// Loaders that kernels check are `syscall` programs, which a rule has to name. A rule that does
/// not still admits what they load.
fn admit_loaders(
    bundle: &VerifiedBundle,
    decide: impl Fn(&Inventory) -> Result<Decision, Refusal>,
) -> Result<Vec<(Object, Limits)>, Refusal> {
    let mut reader = inventory::Reader::default();
    let loaders: Vec<Object> = bundle
        .loaders()
        .iter()
        .map(|(title, bytes)| {
            reader
                .read_blob(title, bytes)
                .map_err(|error| Refusal::new(Reason::MalformedObject, error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    if loaders.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = bundle.inventory().clone();
    let own = all.objects.len();
    all.objects.extend(loaders.iter().cloned());
    let limits = decide(&all)?.limits;
    Ok(loaders
        .into_iter()
        .zip(limits.into_iter().skip(own))
        .collect())
}

impl Admitted {
    /// The bundle, with its objects.
    pub const fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// The bundle, giving up the proof that a rule allows it.
    pub fn into_bundle(self) -> VerifiedBundle {
        self.bundle
    }

    /// SHA-256 of the bundle's manifest.
    pub const fn digest(&self) -> Digest {
        self.bundle.digest()
    }

    /// The scope that it was admitted for.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// SHA-256 of the policy that allows it.
    pub const fn policy(&self) -> Digest {
        self.policy
    }

    /// The rule that allows it.
    pub const fn rule(&self) -> &RuleRef {
        &self.decision.rule
    }

    /// The rule's keys that signed, each once whatever its names.
    pub fn signed_by(&self) -> &[SignedBy] {
        &self.decision.signed_by
    }

    /// What loaders may change, one for each object, in the inventory's order.
    pub fn limits(&self) -> &[Limits] {
        &self.decision.limits
    }

    /// Each loader that kernels check: what it is, its bytes, and what may change in it.
    ///
    /// # Errors
    /// Why the rule does not allow them.
    pub fn loaders(&self) -> Result<impl Iterator<Item = (&Object, &[u8], &Limits)>, &Refusal> {
        let bytes = self.bundle.loaders();
        self.loaders.as_ref().map(|loaders| {
            loaders
                .iter()
                .zip(bytes)
                .map(|((object, limits), (_, bytes))| (object, &bytes[..], limits))
        })
    }

    /// Each object: what it is, its ELF bytes, and what loaders may change in it.
    pub fn objects(&self) -> impl Iterator<Item = (&Object, &[u8], &Limits)> {
        let inventory = &self.bundle.inventory().objects;
        inventory
            .iter()
            .zip(self.bundle.objects())
            .zip(&self.decision.limits)
            .map(|((object, (_, bytes)), limits)| (object, &bytes[..], limits))
    }
}
