//! Deciding about what is no bundle, and about a bundle before anybody has signed it: what a
//! registry needs that keeps artifacts until their signatures arrive.

use bundle::{Digest, UnverifiedBundle, unverified::Referrer};
use jiff::Timestamp;

use crate::{
    Context, Policy, Refusal,
    decision::{self, SignedBy},
    required::check_required,
    signature::{self, Budget, Trusted},
    signers::Signers,
    verify::{check_signers, reason_of},
};

/// Who of the rule's signers signed the artifact `subject`, whatever it is, by the moment `now`. Of
/// a rule this checks `signed_by` and `require` alone: there is no inventory to compare the rest
/// with. An exception that names it stands for the rule.
///
/// # Errors
/// The reason that helps most.
pub fn signed_by(
    subject: Digest,
    referrers: &[Referrer],
    policy: &Policy,
    scope: &str,
    now: Timestamp,
) -> Result<Vec<SignedBy>, Refusal> {
    let rule = decision::rule_for_bundle(policy, scope, subject, now)?;
    let trusted = Trusted::at(policy, now);
    let mut budget = Budget::default();
    let evidence: Vec<_> = referrers
        .iter()
        .flat_map(|referrer| signature::check(referrer, subject, &trusted, &mut budget))
        .collect();
    let signed = check_signers(policy, rule, &evidence, trusted.now)
        .and_then(|signers| signers.check(policy, rule))
        .and_then(|signed| check_required(rule, &evidence, None).map(|()| signed));
    signed.map_err(|refusal| decision::ended(policy, subject, now, refusal.by(rule.reference())))
}

/// What `policy` would say of `bundle` at the moment `now` if everybody whom it names had signed: a
/// refusal that no signature can mend.
///
/// # Errors
/// The first thing that the rule does not allow.
pub fn foresee(
    bundle: &mut UnverifiedBundle,
    policy: &Policy,
    context: &Context,
    now: Timestamp,
) -> Result<(), Refusal> {
    let digest = bundle.digest();
    let rule = decision::rule_for_bundle(policy, &context.scope, digest, now)?;
    bundle
        .check_inventory()
        .map_err(|error| Refusal::new(reason_of(&error), error.to_string()).by(rule.reference()))?;
    let everybody = Signers::everybody(policy);
    decision::decide_by(
        rule,
        policy,
        bundle.recorded_inventory(),
        &everybody,
        context,
    )
    .map_err(|refusal| decision::ended(policy, digest, now, refusal))
    .map(drop)
}
