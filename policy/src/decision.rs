//! What the policy says about a bundle that verified: facts in, a decision out.

use std::collections::BTreeMap;

use bundle::{
    Digest,
    image::{Allowed, TunableRange},
    inventory::{Inventory, Object, Program, Variable},
};

use jiff::Timestamp;

pub use crate::signers::SignedBy;
use crate::{
    Policy, Reason, Refusal, RuleRef,
    condition::{Condition, Facts},
    rule::Rule,
    signers::Signers,
    target::{covers_at_attachment, covers_replacement, load_kind, places, replaceable},
    version::Version,
};

/// What a decision depends on besides bundle and policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The artifact's scope: `host[:port]/repository`, or see [`crate::scope::of_file`].
    pub scope: String,
    /// The version of this package that is admitted already; lower ones are refused.
    pub version_floor: Option<String>,
}

impl Context {
    /// For a scope, with no package admitted before.
    pub fn of(scope: impl Into<String>) -> Self {
        Self {
            scope: scope.into(),
            version_floor: None,
        }
    }
}

/// What a loader may change in one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Variables that may be set, by section (`.rodata`), in order of offset. Every other
    /// byte of read-only data is as signed.
    pub tunables: BTreeMap<String, Vec<TunableRange>>,
    /// Fewest and most entries, by map name. Every other map is as signed.
    pub map_entries: BTreeMap<String, (u32, u32)>,
    /// Names of the places where a program may be attached, by program. Others: anywhere.
    pub places: BTreeMap<String, Vec<String>>,
    /// By program, what it may replace, as patterns of `PROGRAM:FUNCTION`: replacements, and XDP
    /// programs, which libxdp makes replacements of. Others: nothing.
    pub replaces: BTreeMap<String, Vec<String>>,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) rule: RuleRef,
    pub(crate) signed_by: Vec<SignedBy>,
    /// One for each object of the inventory, in its order.
    pub(crate) limits: Vec<Limits>,
}

/// Decides by a rule of `policy`. `signers` are those whose signatures over the manifest were
/// verified.
pub(crate) fn decide_by(
    rule: &Rule,
    policy: &Policy,
    inventory: &Inventory,
    signers: &Signers,
    context: &Context,
) -> Result<Decision, Refusal> {
    check(policy, rule, inventory, signers, context).map_err(|refusal| refusal.by(rule.reference()))
}

/// What decides about this bundle at this moment: the exception that names it, else the rule
/// for its scope.
pub(crate) fn rule_for_bundle<'p>(
    policy: &'p Policy,
    scope: &str,
    bundle: Digest,
    now: Timestamp,
) -> Result<&'p Rule, Refusal> {
    let exception = policy.exception_for(bundle);
    match exception.filter(|exception| exception.holds(now)) {
        Some(exception) => Ok(exception.rule()),
        None => rule_for(policy, scope).map_err(|refusal| ended(policy, bundle, now, refusal)),
    }
}

/// A refusal that an exception would have prevented says that it is over.
pub(crate) fn ended(policy: &Policy, bundle: Digest, now: Timestamp, refusal: Refusal) -> Refusal {
    let exception = policy.exception_for(bundle);
    match exception.filter(|exception| !exception.holds(now)) {
        None => refusal,
        Some(over) => Refusal {
            detail: format!(
                "{}; the exception {:?}, line {}, ended at {}",
                refusal.detail, over.reason, over.line, over.until
            ),
            ..refusal
        },
    }
}

/// The rule that decides about `scope`.
pub(crate) fn rule_for<'p>(policy: &'p Policy, scope: &str) -> Result<&'p Rule, Refusal> {
    policy.rule_for(scope).ok_or_else(|| {
        let count = policy.rules().len();
        Refusal::new(
            Reason::NoRule,
            format!("none of the policy's {count} rules covers the scope {scope:?}"),
        )
    })
}

fn check(
    policy: &Policy,
    rule: &Rule,
    inventory: &Inventory,
    signers: &Signers,
    context: &Context,
) -> Result<Decision, Refusal> {
    let signed_by = signers.check(policy, rule)?;
    check_version(rule, inventory, context)?;
    check_condition(rule, inventory)?;
    for object in &inventory.objects {
        for program in &object.programs {
            check_type(rule, object, program)?;
            check_targets(rule, object, program)?;
            check_calls(rule, object, program)?;
        }
    }
    let limits = inventory
        .objects
        .iter()
        .map(|object| limits(rule, object))
        .collect::<Result<_, _>>()?;
    Ok(Decision {
        rule: rule.reference(),
        signed_by,
        limits,
    })
}

fn check_condition(rule: &Rule, inventory: &Inventory) -> Result<(), Refusal> {
    let Some(when) = &rule.when else {
        return Ok(());
    };
    let facts = Facts::of(inventory).map_err(|too_large| cannot_evaluate(when, too_large))?;
    match when.holds(&facts) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new(
            Reason::Condition,
            format!("this does not hold: {}", when.as_str()),
        )),
        Err(error) => Err(cannot_evaluate(when, error)),
    }
}

/// A condition without a value refuses: it is never taken for a yes.
pub(crate) fn cannot_evaluate(when: &Condition, why: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Reason::ConditionError,
        format!("{why}, in: {}", when.as_str()),
    )
}

fn check_version(rule: &Rule, inventory: &Inventory, context: &Context) -> Result<(), Refusal> {
    let refuse = |detail: String| Err(Refusal::new(Reason::MinVersion, detail));
    let floor = context.version_floor.as_deref().and_then(Version::parse);
    for (want, why) in [
        (rule.min_version.as_ref(), "the rule wants at least version"),
        (floor.as_ref(), "this host already admitted version"),
    ] {
        let Some(want) = want else {
            continue;
        };
        let Some(text) = inventory.version.as_deref() else {
            return refuse(format!("{why} {want}; the bundle says none"));
        };
        match Version::parse(text) {
            None => return refuse(format!("{why} {want}; got {text:?}, which has no order")),
            Some(got) if got < *want => return refuse(format!("{why} {want}; got {got}")),
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_type(rule: &Rule, object: &Object, program: &Program) -> Result<(), Refusal> {
    if rule.program_types.contains(&program.kind) {
        return Ok(());
    }
    let types: Vec<&str> = rule.program_types.iter().map(String::as_str).collect();
    Err(Refusal::new(
        Reason::ProgramType,
        format!(
            "{} is of type {}; the rule allows {}",
            say(object, program),
            program.kind,
            types.join(", ")
        ),
    ))
}

fn check_targets(rule: &Rule, object: &Object, program: &Program) -> Result<(), Refusal> {
    let members = || program.members.iter().map(|name| Some(name.as_str()));
    // The section's name says nothing about which member of which struct a program is for.
    let targets: Vec<Option<&str>> = match program.kind.as_str() {
        "struct_ops" if program.members.is_empty() => vec![None],
        "struct_ops" => members().collect(),
        _ => vec![program.target.as_deref()],
    };
    let mut targets = targets.into_iter();
    targets.try_for_each(|target| check_target(rule, object, program, target))
}

fn check_target(
    rule: &Rule,
    object: &Object,
    program: &Program,
    target: Option<&str>,
) -> Result<(), Refusal> {
    let (kind, patterns, reason) = match load_kind(program) {
        Some(kind) => (kind, &rule.load_targets, Reason::LoadTarget),
        None => (program.kind.as_str(), &rule.attach, Reason::AttachPoint),
    };
    if patterns.iter().any(|pattern| pattern.covers(kind, target))
        || target.is_none() && covers_at_attachment(patterns, kind)
        || kind == "ext" && covers_replacement(patterns, target)
    {
        return Ok(());
    }
    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    Err(Refusal::new(
        reason,
        format!(
            "{} has the target {kind}:{}; the rule allows {}",
            say(object, program),
            target.unwrap_or("(its loader chooses)"),
            if patterns.is_empty() {
                "none".to_owned()
            } else {
                patterns.join(", ")
            },
        ),
    ))
}

fn check_calls(rule: &Rule, object: &Object, program: &Program) -> Result<(), Refusal> {
    let kfuncs = program.kfuncs.iter().map(|name| format!("kfunc:{name}"));
    let forbidden: Vec<String> = program
        .helpers
        .iter()
        .cloned()
        .chain(kfuncs)
        .filter(|call| rule.forbid_calls.contains(call))
        .collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::ForbiddenCall,
        format!(
            "{} calls {}, which the rule forbids",
            say(object, program),
            forbidden.join(", ")
        ),
    ))
}

/// What a loader may change in `object`, if rule and publisher agree about it.
fn limits(rule: &Rule, object: &Object) -> Result<Limits, Refusal> {
    let mut limits = Limits::default();
    for section in &object.data {
        for variable in &section.variables {
            let named = rule.tunables.get(&variable.name);
            if let Some(values) = named {
                check_named(
                    object,
                    &section.section,
                    section.readonly,
                    variable,
                    &values.0,
                )?;
            }
            let Some(values) = rule.tunable(&variable.name) else {
                continue;
            };
            if !section.readonly || !variable.tunable {
                continue;
            }
            let range = tunable(object, variable, &values.0)?;
            limits
                .tunables
                .entry(section.section.clone())
                .or_default()
                .push(range);
        }
    }
    for ranges in limits.tunables.values_mut() {
        ranges.sort_by_key(|range| range.offset);
    }
    for map in &object.maps {
        if let Some(entries) = rule.entries(&map.name) {
            limits
                .map_entries
                .insert(map.name.clone(), (entries.min, entries.max));
        }
    }
    for program in &object.programs {
        let places = match load_kind(program) {
            None => places(&rule.attach, &program.kind),
            // Gate 3 compares each function.
            Some(kind) if program.traces_many() => places(&rule.load_targets, kind),
            Some(_) => None,
        };
        if let Some(places) = places {
            limits.places.insert(program.name.clone(), places);
        }
        let replaces = replaceable(&rule.load_targets);
        if rule.program_types.contains("ext")
            && ["ext", "xdp"].contains(&program.kind.as_str())
            && !replaces.is_empty()
        {
            limits.replaces.insert(program.name.clone(), replaces);
        }
    }
    Ok(limits)
}

/// A rule that limits a variable by name must not be told a fairy tale about it.
fn check_named(
    object: &Object,
    section: &str,
    readonly: bool,
    variable: &Variable,
    allowed: &Allowed,
) -> Result<(), Refusal> {
    let name = &variable.name;
    let detail = if readonly && !variable.tunable {
        format!(
            "the rule lets loaders set {name:?}, but {} declares it fixed",
            object.name
        )
    } else if !readonly && *allowed != Allowed::Any {
        format!(
            "the rule limits {name:?}, but in {} it is in {section}, which can change at any \
             time",
            object.name
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(Reason::Tunable, detail))
}

fn tunable(
    object: &Object,
    variable: &Variable,
    allowed: &Allowed,
) -> Result<TunableRange, Refusal> {
    let is_integer = matches!(variable.size, 1 | 2 | 4 | 8);
    if !is_integer && *allowed != Allowed::Any {
        return Err(Refusal::new(
            Reason::Tunable,
            format!(
                "the rule limits {:?} as an integer, but in {} it has {} bytes: only \"any\" fits",
                variable.name, object.name, variable.size
            ),
        ));
    }
    Ok(TunableRange {
        name: variable.name.clone(),
        offset: variable.offset,
        size: variable.size,
        signed: variable.signed,
        allowed: allowed.clone(),
    })
}

/// `program "trace_open" (kprobe/do_open) of opensnoop.bpf.o`.
fn say(object: &Object, program: &Program) -> String {
    format!(
        "program {:?} ({}) of {}",
        program.name, program.section, object.name
    )
}

#[cfg(test)]
mod tests;
