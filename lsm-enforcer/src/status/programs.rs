//! The programs in the kernel: how many came in how, which of them a person has to look at, and
//! whether a strict policy lets the gate say that it enforces.

use std::{collections::BTreeMap, fmt::Write as _};

use bundle::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    enforcer::Enforcer,
    failure::Failure,
    gate::{Class, Loaded, Mode},
    record::type_name,
};

/// What the programs in the kernel make of the gate. `status` says it, and so does whatever arms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Does the policy want nothing in the kernel that nobody judged?
    pub strict: bool,
    /// Why a gate that enforces does not do so, or not as strictly as that, as a headline.
    pub falls_short: Option<String>,
    /// Programs that a person has to look at, one clause each.
    pub warnings: Vec<String>,
    /// How the programs came in.
    pub programs: ProgramCounts,
}

impl Standing {
    pub(crate) fn measure(enforcer: &Enforcer) -> Result<Self, Failure> {
        let mode = enforcer.armed()?.map(|armed| armed.mode);
        let strict = enforcer.policy().is_some_and(|p| p.policy().is_strict());
        let loaded = enforcer.gate().loaded()?;
        let programs = ProgramCounts::count(mode.is_some(), &loaded);
        let unjudged = unjudged(mode.is_some(), loaded);
        let taken = enforcer.gate().coverage()?.taken;
        let falls_short = lacks(&taken)
            .or_else(|| falls_short(strict, &unjudged))
            .filter(|_| mode == Some(Mode::Enforce));
        Ok(Self {
            strict,
            falls_short,
            warnings: warnings(&unjudged),
            programs,
        })
    }
}

/// Programs in the kernel, by how they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCounts {
    /// All.
    pub loaded: usize,
    /// From signed bundles.
    pub signed: usize,
    /// Harmless by shape, and loaders' probes.
    pub shaped: usize,
    /// The gate's own.
    pub own: usize,
    /// Loaded before arming: nobody looked at them.
    pub before: usize,
    /// Made by generators of the policy: not attested.
    #[serde(default)]
    pub generated: usize,
    /// Loaders that the kernel has verified, by a keyring of the policy.
    #[serde(default)]
    pub native: usize,
    /// Let pass by audit mode.
    pub audited: usize,
    /// No record, although there should be one.
    pub unknown: usize,
}

impl ProgramCounts {
    fn count(armed: bool, programs: &[Loaded]) -> Self {
        let mut counts = Self::default();
        for program in programs {
            counts.loaded += 1;
            *match program.class {
                _ if program.own => &mut counts.own,
                Some(Class::Signed) => &mut counts.signed,
                Some(Class::Shape | Class::Known | Class::Probe) => &mut counts.shaped,
                Some(Class::Before) => &mut counts.before,
                Some(Class::Audited) => &mut counts.audited,
                Some(Class::Generated) => &mut counts.generated,
                Some(Class::Native) => &mut counts.native,
                // Without a gate there are no records.
                None if !armed => &mut counts.before,
                None => &mut counts.unknown,
            } += 1;
        }
        counts
    }

    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{} loaded: {} the gate's own, {} signed, {} harmless by shape, {} from before arming",
            self.loaded, self.own, self.signed, self.shaped, self.before
        );
        for (count, what) in [
            (self.generated, "made by generators, not attested"),
            (self.native, "loaders verified by the kernel alone"),
            (self.audited, "let pass by audit"),
            (self.unknown, "UNKNOWN"),
        ] {
            if count > 0 {
                let _ = write!(line, ", {count} {what}");
            }
        }
        line
    }
}

/// Programs that run without anybody having judged them: from before arming, let pass by
/// audit, without a record, or made by a generator for a hook at which they answer before the gate.
fn unjudged(armed: bool, mut programs: Vec<Loaded>) -> Vec<Loaded> {
    programs.retain(|program| {
        let judged = matches!(
            program.class,
            Some(
                Class::Signed
                    | Class::Shape
                    | Class::Known
                    | Class::Probe
                    | Class::Generated
                    | Class::Native
            )
        );
        let may_answer = program.class == Some(Class::Generated) && program.instead_at.is_some();
        armed && !program.own && (!judged || may_answer)
    });
    programs.sort_by_key(|program| program.id);
    programs
}

/// Programs of the gate that somebody took off their hooks.
fn lacks(taken: &[String]) -> Option<String> {
    let line = format!(
        "NOT enforcing: somebody took programs of the gate off their hooks: {}; disarm and arm again, or start the \
         machine anew",
        taken.join(", ")
    );
    (!taken.is_empty()).then_some(line)
}

/// Why the gate does not enforce, or not as strictly as its policy wants.
fn falls_short(strict: bool, unjudged: &[Loaded]) -> Option<String> {
    let instead = unjudged
        .iter()
        .find_map(|program| program.instead_at.as_ref().map(|hook| (program, hook)));
    match instead {
        Some((program, hook)) => Some(not_asked(program, hook)),
        None => (strict && !unjudged.is_empty()).then(|| not_strict(unjudged)),
    }
}

fn not_asked(program: &Loaded, hook: &str) -> String {
    format!(
        "NOT enforcing: {} may answer at {hook} before the gate is asked, and nobody judged it: end whoever holds it, \
         or load it from a signed bundle (`inventory` lists all)",
        names(std::slice::from_ref(program))
    )
}

fn not_strict(unjudged: &[Loaded]) -> String {
    let (count, are) = match unjudged.len() {
        1 => ("1 program".to_owned(), "is"),
        n => (format!("{n} programs"), "are"),
    };
    let names = names(unjudged);
    format!(
        "NOT enforcing strictly: {count} that nobody judged {are} in the kernel: {names} (`inventory` lists all)"
    )
}

/// Can it load other programs? What it loads is judged all the same, but by whom it was made
/// nobody knows.
fn is_loader(program: &Loaded) -> bool {
    type_name(program.prog_type) == Some("syscall")
}

/// What a person has to look at.
fn warnings(unjudged: &[Loaded]) -> Vec<String> {
    let those = |is: fn(&Loaded) -> bool| -> Vec<Loaded> {
        unjudged.iter().filter(|p| is(p)).cloned().collect()
    };
    let loaders = those(is_loader);
    let unknown = those(|program| program.class.is_none());
    let lines = [
        (
            loaders,
            "programs that can load programs (type syscall) are in the kernel and nobody judged them",
        ),
        (
            unknown,
            "the gate has no record of these programs, treat them as an attack",
        ),
    ];
    lines
        .into_iter()
        .filter(|(programs, _)| !programs.is_empty())
        .map(|(programs, what)| format!("{what}: {}", names(&programs)))
        .collect()
}

/// One line for each bundle that was withdrawn while programs of it are loaded.
pub(super) fn left_behind(programs: &[Loaded]) -> Vec<String> {
    let mut bundles: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for program in programs {
        if let Some(bundle) = program.bundle {
            let name = program.admitted.as_deref().unwrap_or(&program.name);
            bundles
                .entry(bundle)
                .or_default()
                .push(format!("{name} (id {})", program.id));
        }
    }
    let line = |(bundle, names): (Digest, Vec<String>)| {
        format!(
            "{} of {bundle}, which is not admitted any more, {} loaded: a revocation finds it by the bundle's \
             digest alone; end whoever holds it, or admit the bundle",
            names.join(", "),
            if names.len() == 1 { "is" } else { "are" },
        )
    };
    bundles.into_iter().map(line).collect()
}

/// Programs that a line names.
const NAMED: usize = 3;

/// The first few of them.
fn names(programs: &[Loaded]) -> String {
    let mut words: Vec<String> = programs
        .iter()
        .take(NAMED)
        .map(|program| {
            let kind = type_name(program.prog_type)
                .map_or_else(|| program.prog_type.to_string(), str::to_owned);
            format!("{kind} {} {:?}", program.id, program.name)
        })
        .collect();
    if programs.len() > NAMED {
        words.push(format!("{} more", programs.len() - NAMED));
    }
    words.join(", ")
}
