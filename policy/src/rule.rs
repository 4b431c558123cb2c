//! One rule: for a scope, who must have signed and what the programs may be.

use std::collections::{BTreeMap, BTreeSet};

use bundle::image::Allowed;
use serde::{Serialize, Serializer};

use crate::{RuleRef, condition::Condition, scope::Scope, target::TargetPattern, version::Version};

/// A rule of the policy. The first one whose scope covers an artifact decides alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Name, unique in the policy.
    pub name: String,
    /// Line on which it starts, from 1.
    pub line: usize,
    /// Which artifacts.
    pub scope: Scope,
    /// Who must have signed.
    pub signed_by: Threshold,
    /// Program types allowed, as in the inventory.
    pub program_types: BTreeSet<String>,
    /// Targets allowed for programs that the kernel binds at load.
    pub load_targets: Vec<TargetPattern>,
    /// Attach points allowed for all other programs, as they declare them.
    pub attach: Vec<TargetPattern>,
    /// Helpers (`bpf_…`) and kernel functions (`kfunc:…`) that no program may call.
    pub forbid_calls: BTreeSet<String>,
    /// Variables that a loader may set, by name.
    pub tunables: BTreeMap<String, Values>,
    /// Values for every tunable of the bundle that `tunables` does not name; `None`: as signed.
    pub other_tunables: Option<Values>,
    /// Sizes by map name.
    pub map_sizes: BTreeMap<String, Entries>,
    /// Sizes of every map that `map_sizes` does not name; `None`: as signed.
    pub other_map_sizes: Option<Entries>,
    /// Lowest version allowed.
    pub min_version: Option<Version>,
    /// Attestations that the rule's signers must have made.
    pub require: Vec<Required>,
    /// What must hold for the inventory.
    pub when: Option<Condition>,
    /// How old a signature may be, by a trusted time.
    pub max_age: Option<MaxAge>,
    /// The end of the exception that it stands for; `None`: it is a rule.
    #[serde(skip)]
    pub until: Option<jiff::Timestamp>,
    /// Keys that the file leaves out, so that the values here are defaults.
    pub defaults: BTreeSet<&'static str>,
}

impl Rule {
    /// Its name, line and end, for refusals.
    pub fn reference(&self) -> RuleRef {
        RuleRef {
            name: self.name.clone(),
            line: self.line,
            until: self.until,
        }
    }

    /// What a loader may write into the tunable `name`; `None`: only the signed value.
    pub fn tunable(&self, name: &str) -> Option<&Values> {
        self.tunables.get(name).or(self.other_tunables.as_ref())
    }

    /// How many entries the map `name` may have; `None`: as signed.
    pub fn entries(&self, name: &str) -> Option<Entries> {
        self.map_sizes.get(name).copied().or(self.other_map_sizes)
    }
}

/// An attestation that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required {
    /// The URI of its predicate type.
    pub predicate_type: String,
    /// What its predicate must fulfil.
    pub when: Option<Condition>,
}

/// The type alone, or `{"type":…,"when":…}`: as it is written.
impl Serialize for Required {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.when {
            None => serializer.serialize_str(&self.predicate_type),
            Some(when) => {
                let fields = [
                    ("type", self.predicate_type.as_str()),
                    ("when", when.as_str()),
                ];
                BTreeMap::from(fields).serialize(serializer)
            }
        }
    }
}

/// An age, in whole hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAge {
    hours: u32,
}

impl MaxAge {
    /// Reads `36h`, `90d` or `12w`; at most 100 years.
    pub fn parse(text: &str) -> Option<Self> {
        let unit = match text.chars().last()? {
            'h' => 1,
            'd' => 24,
            'w' => 7 * 24,
            _ => return None,
        };
        let number = &text[..text.len() - 1];
        let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let hours = number.parse::<u32>().ok()?.checked_mul(unit)?;
        (is_plain && (1..=100 * 366 * 24).contains(&hours)).then_some(Self { hours })
    }

    /// Is `then` no longer ago than that? What lies ahead is not.
    pub fn allows(self, then: jiff::Timestamp, now: jiff::Timestamp) -> bool {
        let seconds = now.as_second().saturating_sub(then.as_second());
        (0..=i64::from(self.hours) * 3600).contains(&seconds)
    }
}

/// `90d`, or `36h` where it is no whole number of days.
impl std::fmt::Display for MaxAge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.hours % 24 {
            0 => write!(f, "{}d", self.hours / 24),
            _ => write!(f, "{}h", self.hours),
        }
    }
}

/// As it is displayed.
impl Serialize for MaxAge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// So many distinct keys out of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Threshold {
    /// Distinct keys needed, at least 1 and at most the distinct keys in `of`.
    pub at_least: usize,
    /// Names in the policy's `keys`, in the order written.
    pub of: Vec<String>,
}

/// Values allowed for a tunable, as the policy writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values(pub Allowed);

/// `"any"`, `{"min":…,"max":…}` or `{"one_of":[…]}`: as it is written.
impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Allowed::Any => serializer.serialize_str("any"),
            Allowed::Range(min, max) => {
                BTreeMap::from([("min", min), ("max", max)]).serialize(serializer)
            }
            Allowed::OneOf(values) => BTreeMap::from([("one_of", values)]).serialize(serializer),
        }
    }
}

/// Numbers of entries allowed for a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// Fewest.
    pub min: u32,
    /// Most.
    pub max: u32,
}

impl Entries {
    /// `"any"`: whatever the kernel accepts.
    pub const ANY: Self = Self {
        min: 0,
        max: u32::MAX,
    };
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::MaxAge;

    #[test]
    fn ages_are_numbers_with_a_unit() {
        for (text, want) in [
            ("90d", Some("90d")),
            ("36h", Some("36h")),
            ("48h", Some("2d")),
            ("2w", Some("14d")),
            ("0d", None),
            ("d", None),
            ("+1d", None),
            ("1m", None),
            ("1 d", None),
            ("99999999999d", None),
            ("900000w", None),
            ("1µ", None),
            ("", None),
        ] {
            let age = MaxAge::parse(text).map(|age| age.to_string());
            assert_eq!(age.as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn an_age_allows_what_lies_within_it() {
        let age = MaxAge::parse("2h").unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (then, want) in [
            (100_000, true),
            (92_800, true),
            (92_799, false),
            (100_001, false),
        ] {
            assert_eq!(age.allows(at(then), at(100_000)), want, "{then}");
        }
    }
}
