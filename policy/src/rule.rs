//! One rule: for a scope, who must have signed and what the programs may be.

use std::collections::{BTreeMap, BTreeSet};

use bundle::image::Allowed;
use serde::{Serialize, Serializer};

use crate::{RuleRef, scope::Scope, target::TargetPattern, version::Version};

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
    /// Predicate types of attestations that the rule's signers must have made.
    pub require: Vec<String>,
    /// Keys that the file leaves out, so that the values here are defaults.
    pub defaults: BTreeSet<&'static str>,
}

impl Rule {
    /// Its name and line, for refusals.
    pub fn reference(&self) -> RuleRef {
        RuleRef {
            name: self.name.clone(),
            line: self.line,
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
