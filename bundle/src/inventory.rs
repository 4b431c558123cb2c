//! The inventory: what a BPF object is and can do, read from its bytes.
//!
//! It is derived, never declared: [`crate::inventory`] values come from one reader,
//! and a bundle whose recorded inventory differs from its objects is refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, loader::KernelLoaders};

mod budget;
mod code;
mod data;
mod externs;
mod file;
mod maps;
mod members;
mod needs;
mod read;
#[cfg(test)]
mod tests;

pub use read::{Reader, read};

/// The `schema` field of every inventory of this version.
pub const SCHEMA: &str = "bpfseal-inventory/v1";

/// The inventory of a whole bundle; stored as the OCI config blob, so it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Package name, as given at pack time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Package version, as given at pack time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the source is (a URL), as given at pack time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// One entry per object layer, in layer order.
    pub objects: Vec<Object>,
    /// Loaders that kernels check, one entry per object in layer order; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_loaders: Vec<KernelLoaders>,
}

impl Inventory {
    /// The inventory of objects that no package holds.
    pub fn of(objects: Vec<Object>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            name: None,
            version: None,
            source: None,
            objects,
            kernel_loaders: Vec::new(),
        }
    }
}

/// One ELF object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// The layer's title: a file name without folders.
    pub name: String,
    /// SHA-256 of the ELF bytes.
    pub digest: Digest,
    /// Length of the ELF in bytes.
    pub size: u64,
    /// Byte order of the BPF instructions.
    pub endianness: Endianness,
    /// The `license` section's string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Is there a `.BTF` section?
    pub btf: bool,
    /// Is there a `.BTF.ext` section?
    pub btf_ext: bool,
    /// Entry programs, in the order of their sections and offsets.
    pub programs: Vec<Program>,
    /// Functions called by programs (static, weak or global), sorted by name.
    pub subprograms: Vec<Subprogram>,
    /// Maps that the object declares, BTF-defined and legacy; data sections are in `data`.
    pub maps: Vec<Map>,
    /// Global data: `.rodata*`, `.data*`, `.bss*`, an arena's `.addr_space.1`, and the
    /// `.kconfig` that a loader makes out of externs.
    pub data: Vec<DataSection>,
    /// `extern` variables and functions: `.kconfig` and `.ksyms`.
    pub externs: Vec<Extern>,
    /// What a kernel must have for this object.
    pub needs: Needs,
}

/// Byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Endianness {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// One entry program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Function name (ELF symbol).
    pub name: String,
    /// ELF section name, verbatim.
    pub section: String,
    /// Program type as in `enum bpf_prog_type`, lower case without prefix (`kprobe`,
    /// `sched_cls`); `unspec` where the section name is nobody's convention.
    #[serde(rename = "type")]
    pub kind: String,
    /// Expected attach type as in `enum bpf_attach_type`, lower case without `bpf_`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_type: Option<String>,
    /// What the section name attaches to: function, tracepoint, hook, struct_ops member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Members of structs of functions that it is for, as `TYPE:MEMBER` (`struct_ops`), sorted: what
    /// the kernel binds at load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Loaded with `BPF_F_SLEEPABLE`.
    pub sleepable: bool,
    /// Section name starts with `?`: libbpf does not load it unless told.
    pub optional: bool,
    /// Instructions of the entry function, in 8-byte slots.
    pub insns: u32,
    /// Instructions including every subprogram that it can reach, in 8-byte slots.
    pub total_insns: u32,
    /// Names of helpers that it or its subprograms call, sorted; `helper#N` for a number that
    /// no kernel up to 7.3 knows.
    pub helpers: Vec<String>,
    /// Names of kernel functions that it or its subprograms call, sorted.
    pub kfuncs: Vec<String>,
    /// Names of subprograms that it can reach, sorted.
    pub calls: Vec<String>,
    /// Names of maps and data sections that it or its subprograms reference, sorted.
    pub maps: Vec<String>,
    /// CO-RE relocations in it and its subprograms.
    pub core_relocations: u32,
    /// Is there a backward jump, or a call of `bpf_loop`, `bpf_for_each_map_elem` or an
    /// iterator's `bpf_iter_*_next`?
    pub loops: bool,
}

impl Program {
    /// Is it for many functions in one link (7.3)? The kernel binds it to none of them at load, and
    /// looks them up when the link is made.
    pub fn traces_many(&self) -> bool {
        let attach_type = self.attach_type.as_deref().unwrap_or_default();
        self.kind == "tracing" && attach_type.ends_with("_multi")
    }
}

/// A function that is not an entry program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subprogram {
    /// Function name.
    pub name: String,
    /// ELF section name.
    pub section: String,
    /// Linkage: only global functions can be replaced by `freplace`.
    pub linkage: Linkage,
    /// Instructions, in 8-byte slots.
    pub insns: u32,
}

/// ELF symbol binding of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Linkage {
    /// `STB_LOCAL`, or hidden visibility, which libbpf treats alike.
    Static,
    /// `STB_GLOBAL`.
    Global,
    /// `STB_WEAK`.
    Weak,
}

/// One map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// Variable name.
    pub name: String,
    /// Map type as in `enum bpf_map_type`, lower case without prefix.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries; 0 where the loader chooses (per-CPU event arrays). Bytes for ring buffers,
    /// rounded up as libbpf does with pages of 4 KiB.
    pub max_entries: u32,
    /// `map_flags` bits.
    pub flags: u32,
    /// `map_extra`: what it means depends on the type (an arena's address).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub map_extra: u64,
    /// How it is pinned: `none` or `by_name`; in iproute2's legacy form also `object_ns`.
    pub pinning: String,
    /// Declared in the legacy `maps` section?
    pub legacy: bool,
    /// In a section that starts with `?`: libbpf does not create it unless told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Type of inner maps, for maps of maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<Map>>,
}

/// One global data section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Section name: `.rodata`, `.rodata.str1.1`, `.data.config`, `.bss`.
    pub section: String,
    /// Bytes.
    pub size: u64,
    /// Is it read-only for programs (`.rodata*`, `.kconfig`)? Only that is part of the
    /// measurement.
    pub readonly: bool,
    /// Variables that BTF or the symbol table names, by offset.
    pub variables: Vec<Variable>,
}

impl Object {
    /// Variables that a publisher usually means a loader to set: declared `const volatile`,
    /// in the order of the file. These are what `pack --tunable-volatile` proposes.
    pub fn volatile_constants(&self) -> impl Iterator<Item = &Variable> {
        self.data
            .iter()
            .filter(|section| section.section.starts_with(".rodata"))
            .flat_map(|section| &section.variables)
            .filter(|variable| variable.volatile)
    }
}

/// One global variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Byte offset in its section.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Declared `volatile` (only BTF tells).
    pub volatile: bool,
    /// Is it a signed integer (only BTF tells)?
    pub signed: bool,
    /// May a loader set it before load, within what the policy allows?
    pub tunable: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One `extern`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extern {
    /// Name.
    pub name: String,
    /// `kconfig` variable, kernel `variable` or kernel `function`.
    pub kind: ExternKind,
    /// Weak: the program loads without it.
    pub weak: bool,
}

/// What an `extern` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExternKind {
    /// A kernel configuration value, resolved by the loader into `.kconfig`.
    Kconfig,
    /// A kernel variable (`.ksyms`).
    Variable,
    /// A kernel function (`.ksyms`).
    Function,
}

/// Kernel features that an object needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Oldest kernel release (`major.minor`) that has every helper, map and program type used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_kernel: Option<String>,
    /// Which feature asks for which release: feature name to `major.minor`.
    pub features: BTreeMap<String, String>,
    /// Does it need kernel BTF (CO-RE, typed ksyms, BTF-based attachment)?
    pub kernel_btf: bool,
}
