//! Deciding about what is no bundle, and about a bundle before anybody has signed it: what a
//! registry needs that keeps artifacts until their signatures arrive.

use std::collections::BTreeSet;

use bundle::{Digest, UnverifiedBundle, unverified::Referrer};

use crate::{
    Context, Policy, Refusal,
    decision::{self, SignedBy},
    key::PublicKey,
    signature::{self, Budget},
    verify::{nobody, reason_of, valid_signers},
};

/// Who of the rule's signers signed the artifact `subject`, whatever it is. Of a rule this
/// checks `signed_by` alone: there is no inventory to compare the rest with.
///
/// # Errors
/// The reason that helps most.
pub fn signed_by(
    subject: Digest,
    referrers: &[Referrer],
    policy: &Policy,
    scope: &str,
) -> Result<Vec<SignedBy>, Refusal> {
    let rule = decision::rule_for(policy, scope)?;
    let keys: Vec<&PublicKey> = policy.keys().values().map(|trusted| &trusted.key).collect();
    let mut budget = Budget::default();
    let evidence: Vec<_> = referrers
        .iter()
        .flat_map(|referrer| signature::check(referrer, subject, &keys, &mut budget))
        .collect();
    let signers = valid_signers(&evidence);
    let signed = match signers.is_empty() {
        true => Err(nobody(&evidence)),
        false => decision::check_signers(policy.keys(), rule, &signers),
    };
    signed.map_err(|refusal| refusal.by(rule.reference()))
}

/// What `policy` would say of `bundle` if everybody whom it names had signed: a refusal that
/// no signature can mend.
///
/// # Errors
/// The first thing that the rule does not allow.
pub fn foresee(
    bundle: &mut UnverifiedBundle,
    policy: &Policy,
    context: &Context,
) -> Result<(), Refusal> {
    let rule = decision::rule_for(policy, &context.scope)?;
    bundle
        .check_inventory()
        .map_err(|error| Refusal::new(reason_of(&error), error.to_string()).by(rule.reference()))?;
    let everybody: BTreeSet<Digest> = policy.keys().values().map(|key| key.key.id()).collect();
    decision::decide(policy, bundle.recorded_inventory(), &everybody, context).map(drop)
}
