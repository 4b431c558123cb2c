//! From a bundle that somebody vouches for to one that may be loaded.

use crate::{
    Policy, Refusal, VerifiedBundle,
    decision::{self, Context, Limits},
};

/// A verified bundle that the policy's rule allows, with what loaders may change in it.
/// Only [`admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    bundle: VerifiedBundle,
    limits: Vec<Limits>,
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
    let decision = decision::decide(policy, bundle.inventory(), bundle.signers(), context)?;
    Ok(Admitted {
        limits: decision.limits,
        bundle,
    })
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

    /// What loaders may change, one for each object, in the inventory's order.
    pub fn limits(&self) -> &[Limits] {
        &self.limits
    }
}
