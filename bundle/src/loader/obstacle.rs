//! Why libbpf can make no loader of an object.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    inventory::{Endianness, Map, Object, Program},
    light,
};

/// Why an object has no loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// The instructions are big-endian.
    BigEndian,
    /// It has `struct_ops`, for which a loader has no code.
    StructOps,
    /// It has more than 64 maps and data sections (libbpf `MAX_USED_MAPS`).
    TooManyMaps,
    /// It has more than 32 functions (libbpf `MAX_USED_PROGS`).
    TooManyFunctions,
    /// A map is shared through a file, which a loader cannot open.
    PinnedMap,
    /// A map is declared in the legacy `maps` section, which libbpf 1.0 does not read.
    LegacyMap,
    /// The kernel's configuration would be that of the machine that packs.
    KernelConfig,
    /// A map has one entry for each processor of the machine that packs.
    ProcessorCount,
    /// A program replaces a function of another one that only the caller knows.
    Replaces,
    /// A section does not say of which type its program is, or what it attaches to.
    NoTarget,
    /// It is the loader of a light skeleton itself.
    IsLoader,
    /// Nothing in it loads by itself.
    NoProgram,
    /// libbpf did not make one; the packer saw why.
    NotGenerated,
}

impl Obstacle {
    /// The first obstacle that the inventory shows.
    pub fn of(object: &Object) -> Option<Self> {
        let maps = &object.maps;
        let any_map = |wrong: &dyn Fn(&Map) -> bool| maps.iter().any(wrong);
        let any_program = |kind: &str| object.programs.iter().any(|program| program.kind == kind);
        let needs_target = |kind: &str| matches!(kind, "tracing" | "lsm");
        let per_processor = |map: &Map| map.kind == "perf_event_array" && map.max_entries == 0;
        let is_loader = |program: &Program| program.name == light::PROGRAM;
        let checks: [(bool, Self); 12] = [
            (object.endianness == Endianness::Big, Self::BigEndian),
            (
                any_map(&|map| map.kind == "struct_ops") || any_program("struct_ops"),
                Self::StructOps,
            ),
            (any_map(&|map| map.legacy), Self::LegacyMap),
            (
                maps.len() + object.data.len() > MOST_MAPS,
                Self::TooManyMaps,
            ),
            (
                object.programs.len() + object.subprograms.len() > MOST_FUNCTIONS,
                Self::TooManyFunctions,
            ),
            (any_map(&|map| map.pinning != "none"), Self::PinnedMap),
            (
                object.data.iter().any(|data| data.section == ".kconfig"),
                Self::KernelConfig,
            ),
            (
                any_map(&|map| {
                    per_processor(map) || map.inner.as_deref().is_some_and(per_processor)
                }),
                Self::ProcessorCount,
            ),
            (any_program("ext"), Self::Replaces),
            (
                object.programs.iter().any(|program| {
                    program.kind == "unspec"
                        || needs_target(&program.kind) && program.target.is_none()
                        || program.traces_many()
                }),
                Self::NoTarget,
            ),
            (object.programs.iter().any(is_loader), Self::IsLoader),
            (
                object.programs.iter().all(|program| program.optional),
                Self::NoProgram,
            ),
        ];
        checks
            .into_iter()
            .find_map(|(is_there, obstacle)| is_there.then_some(obstacle))
    }

    /// The code that inventories carry.
    pub const fn code(self) -> &'static str {
        match self {
            Self::BigEndian => "big-endian",
            Self::StructOps => "struct-ops",
            Self::TooManyMaps => "too-many-maps",
            Self::TooManyFunctions => "too-many-functions",
            Self::PinnedMap => "pinned-map",
            Self::LegacyMap => "legacy-map",
            Self::KernelConfig => "kernel-config",
            Self::ProcessorCount => "processor-count",
            Self::Replaces => "replaces",
            Self::NoTarget => "no-target",
            Self::IsLoader => "is-loader",
            Self::NoProgram => "no-program",
            Self::NotGenerated => "not-generated",
        }
    }
}

/// In words, a lower-case clause.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BigEndian => "its instructions are big-endian",
            Self::StructOps => "it has struct_ops, which a loader cannot register",
            Self::TooManyMaps => "it has more than 64 maps",
            Self::TooManyFunctions => "it has more than 32 functions",
            Self::PinnedMap => "it shares a map through a file",
            Self::LegacyMap => "it declares maps in the legacy way",
            Self::KernelConfig => "it reads the kernel's configuration, which differs by host",
            Self::ProcessorCount => {
                "a map of it has one entry for each processor, which differs by host; declare \
                 max_entries"
            }
            Self::Replaces => "it replaces a function of a program that only the caller knows",
            Self::NoTarget => "a section of it does not say what its program attaches to",
            Self::IsLoader => "it is a loader itself",
            Self::NoProgram => "no program of it loads by itself",
            Self::NotGenerated => "libbpf did not make one",
        })
    }
}

/// `MAX_USED_MAPS` and `MAX_USED_PROGS` in libbpf's gen_loader.c.
const MOST_MAPS: usize = 64;
const MOST_FUNCTIONS: usize = 32;
