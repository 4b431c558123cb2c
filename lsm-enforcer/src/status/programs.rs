//! The programs in the kernel: how many came in how, and which of them a person has to look at.

use std::{collections::BTreeMap, fmt::Write as _};

use bundle::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    enforcer::Enforcer,
    failure::Failure,
    gate::{Class, Loaded},
    record::type_name,
};

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
    pub(super) fn measure(enforcer: &Enforcer) -> Result<Self, Failure> {
        let armed = enforcer.armed()?.is_some();
        let mut counts = Self::default();
        for program in enforcer.gate().loaded()? {
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
        Ok(counts)
    }

    pub(super) fn line(&self) -> String {
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
/// audit, or without a record.
pub(crate) fn unjudged(enforcer: &Enforcer) -> Result<Vec<Loaded>, Failure> {
    if enforcer.armed()?.is_none() {
        return Ok(Vec::new());
    }
    let mut programs = enforcer.gate().loaded()?;
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
        !program.own && !judged
    });
    programs.sort_by_key(|program| program.id);
    Ok(programs)
}

/// Can it load other programs? What it loads is judged all the same, but by whom it was made
/// nobody knows.
pub(crate) fn is_loader(program: &Loaded) -> bool {
    type_name(program.prog_type) == Some("syscall")
}

/// What a person has to look at.
pub(super) fn warnings(armed: bool, unjudged: &[Loaded]) -> Vec<String> {
    let mut warnings = Vec::new();
    let loaders: Vec<Loaded> = unjudged.iter().filter(|p| is_loader(p)).cloned().collect();
    if armed && !loaders.is_empty() {
        warnings.push(format!(
            "programs that can load programs (type syscall) are in the kernel and nobody judged them: {}",
            names(&loaders)
        ));
    }
    let unknown: Vec<Loaded> = unjudged
        .iter()
        .filter(|p| p.class.is_none())
        .cloned()
        .collect();
    if armed && !unknown.is_empty() {
        warnings.push(format!(
            "the gate has no record of these programs, treat them as an attack: {}",
            names(&unknown)
        ));
    }
    warnings
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
pub(crate) fn names(programs: &[Loaded]) -> String {
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
