//! The work on bytes that somebody else made, each step in a process of its own.

use std::{collections::BTreeMap, path::Path};

use bundle::{
    Digest,
    explain::Difference,
    image::{Image, TunableRange},
    inventory::Object,
};
use jiff::Timestamp;
use policy::revocation::Signer;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, store::Document};

/// Verifies and measures; child processes in the daemon, plain functions in tests.
pub trait Workshop {
    /// Verifies a bundle from zero and lets the policy decide, without privileges.
    fn verify(&self, task: &Task<'_>) -> Result<Verdict, Failure>;
    /// Computes what an approved object's programs look like on this kernel.
    fn measure(&self, object: &Approved) -> Result<Vec<Measured>, Failure>;
    /// The same for the kernel whose BTF is in this file.
    fn measure_for(&self, object: &Approved, kernel: &Path) -> Result<Vec<Measured>, Failure>;
    /// Compares a stream with every program of an approved object, without privileges.
    fn explain(
        &self,
        object: &Approved,
        measured: &[Measured],
        stream: &Stream,
    ) -> Result<Vec<Finding>, Failure>;
}

/// A bundle to be decided about.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The layout's tar.
    pub bundle: &'a [u8],
    /// Under which scope; `None`: the one that the bundle itself names.
    pub scope: Option<&'a str>,
    /// The policy; the caller has verified its signature.
    pub document: &'a Document,
    /// The authority's key, PEM: the worker verifies the policy as well.
    pub authority: &'a str,
    /// The calendar.
    pub now: Timestamp,
}

/// The policy said yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Digest of the bundle's manifest.
    pub bundle: Digest,
    /// Package name.
    pub name: Option<String>,
    /// Package version.
    pub version: Option<String>,
    /// Scope under which it was decided.
    pub scope: String,
    /// The rule that admitted it, as `rule "tracing tools", line 16`.
    pub rule: String,
    /// Names of the keys that signed it.
    pub signers: Vec<String>,
    /// The same, as revocation lists name them.
    pub signatories: Vec<Signer>,
    /// How many of them the rule asks for; 0: it is an exception.
    pub at_least: usize,
    /// When the exception that admitted it ends.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Its objects.
    pub objects: Vec<Approved>,
}

/// One object of an admitted bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Title.
    pub name: String,
    /// The ELF; not part of the JSON, sent behind it.
    #[serde(skip)]
    pub elf: Vec<u8>,
    /// Its length.
    pub size: usize,
    /// What it is, as verified; says where its tunables are.
    pub inventory: Object,
    /// What a loader may choose.
    pub limits: Limits,
}

/// What a loader may choose, by the rule and the bundle's own declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// By data section: its tunables that the rule opens.
    pub tunables: BTreeMap<String, Vec<TunableRange>>,
    /// By map: fewest and most entries.
    pub map_sizes: BTreeMap<String, (u32, u32)>,
    /// By program: the places where the rule lets it be attached. Others: anywhere.
    #[serde(default)]
    pub places: BTreeMap<String, Vec<String>>,
    /// By program, patterns of `PROGRAM:FUNCTION` that it may replace. Others: nothing.
    #[serde(default)]
    pub replaces: BTreeMap<String, Vec<String>>,
}

/// One program, measured or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub program: String,
    /// The image, or why there is none.
    pub image: Result<Image, String>,
    /// The same program as other loaders lay it out, where that differs.
    #[serde(default)]
    pub others: Vec<Image>,
    /// Where the object's own functions could not be found again in the image: how it differs.
    #[serde(default)]
    pub unchecked: Option<String>,
}

/// Instructions that somebody loaded, or the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The words that are known.
    pub words: Vec<u64>,
    /// How many there are.
    pub length: usize,
}

/// How a stream compares with one program of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// The program.
    pub program: String,
    /// The first difference; `None`: there is none.
    pub difference: Option<Difference>,
    /// Where nothing differs and every word is known: the functions with their first slots.
    pub functions: Vec<(String, u32)>,
    /// And what the gate would compare with.
    pub image: Option<Image>,
}
