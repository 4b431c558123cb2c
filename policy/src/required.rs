//! The attestations that a rule asks for.

use bundle::inventory::Inventory;

use crate::{
    Reason, Refusal,
    condition::{Condition, Facts},
    decision::cannot_evaluate,
    predicate,
    rule::{Required, Rule},
    signature::{Finding, Outcome, Valid},
};

/// Each attestation that the rule wants was made by one of the rule's signers, and fulfils
/// its condition. `None`: what was attested has no inventory.
pub(crate) fn check_required(
    rule: &Rule,
    evidence: &[Finding],
    inventory: Option<&Inventory>,
) -> Result<(), Refusal> {
    if rule.require.is_empty() {
        return Ok(());
    }
    let facts = Lazy { inventory };
    rule.require
        .iter()
        .try_for_each(|want| check(rule, want, evidence, &facts))
}

fn check(
    rule: &Rule,
    want: &Required,
    evidence: &[Finding],
    facts: &Lazy<'_>,
) -> Result<(), Refusal> {
    let by_rule = |valid: &&Valid| {
        let names = &valid.trusted_as;
        names.iter().any(|name| rule.signed_by.of.contains(name))
    };
    let is_wanted = |valid: &&Valid| {
        let got = valid.predicate_type.as_deref();
        got.is_some_and(|got| predicate::is(&want.predicate_type, got))
    };
    let candidates: Vec<&Valid> = attested(evidence)
        .filter(is_wanted)
        .filter(by_rule)
        .collect();
    if candidates.is_empty() {
        return Err(missing(rule, want, evidence));
    }
    let Some(when) = &want.when else {
        return Ok(());
    };
    let facts = facts.get(when)?;
    // One that fulfils it is enough: a newer statement stands beside older ones.
    let mut closest = None;
    for valid in candidates {
        match holds(valid, when, &facts) {
            Ok(()) => return Ok(()),
            Err(refusal) => closest = closest.or(Some(refusal)),
        }
    }
    closest.map_or(Ok(()), Err)
}

fn holds(valid: &Valid, when: &Condition, facts: &Facts) -> Result<(), Refusal> {
    let predicate = valid.predicate().unwrap_or_default();
    let facts = facts
        .with_predicate(predicate)
        .map_err(|too_large| cannot_evaluate(when, too_large))?;
    let kind = valid.predicate_type.as_deref().unwrap_or_default();
    match when.holds(&facts) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new(
            Reason::Condition,
            format!(
                "this does not hold for the {kind} by {}: {}",
                valid.trusted_as.join(" = "),
                when.as_str()
            ),
        )),
        Err(error) => Err(cannot_evaluate(
            when,
            format!("of the {kind} by {}: {error}", valid.trusted_as.join(" = ")),
        )),
    }
}

fn attested(evidence: &[Finding]) -> impl Iterator<Item = &Valid> {
    evidence
        .iter()
        .filter_map(|finding| match &finding.outcome {
            Outcome::Attested(valid) => Some(valid),
            Outcome::Valid(_) | Outcome::Rejected(_) => None,
        })
}

fn missing(rule: &Rule, want: &Required, evidence: &[Finding]) -> Refusal {
    let got: Vec<String> = attested(evidence)
        .filter_map(|valid| {
            let kind = valid.predicate_type.as_deref()?;
            Some(format!("{kind} by {}", valid.trusted_as.join(" = ")))
        })
        .collect();
    Refusal::new(
        Reason::MissingAttestation,
        format!(
            "want {} by one of {}; got {}",
            want.predicate_type,
            rule.signed_by.of.join(", "),
            match got.is_empty() {
                true => "none".to_owned(),
                false => got.join(", "),
            }
        ),
    )
}

/// An inventory becomes facts only where a condition looks at it.
struct Lazy<'a> {
    inventory: Option<&'a Inventory>,
}

impl Lazy<'_> {
    fn get(&self, when: &Condition) -> Result<Facts, Refusal> {
        match self.inventory {
            Some(inventory) if when.looks_at("inventory") => {
                Facts::of(inventory).map_err(|too_large| cannot_evaluate(when, too_large))
            }
            _ => Ok(Facts::none()),
        }
    }
}
