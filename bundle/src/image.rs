//! What the gate compares a load with: one admitted program, as this kernel will see it.
//!
//! An image is a program's instruction stream after the loader's relocation, with every
//! map file descriptor replaced by the index of the map's first appearance, together with
//! all that instructions alone do not say: type, target, maps, read-only data.

/// Marks a map reference in [`Image::words`]: the immediate of the first half of an
/// `ld_imm64` is this bit and the map's index. A file descriptor never has it.
pub const MAP_INDEX: u32 = 0x8000_0000;

/// Most maps that one program may use (`MAX_USED_MAPS` in the kernel's `bpf_verifier.h`).
pub const MAX_MAPS: usize = 64;

/// What must be equal besides the instructions, as the kernel's `struct bpf_prog` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// `enum bpf_attach_type` given at load.
    pub expected_attach_type: u32,
    /// BTF type id in the kernel's own BTF, or 0.
    pub attach_btf_id: u32,
    /// `BPF_F_SLEEPABLE`, `BPF_F_XDP_HAS_FRAGS`; the flags that change meaning.
    pub flags: u32,
}

/// One admitted program for one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Program name, for events.
    pub name: String,
    /// Type, attach type, target, flags.
    pub identity: Identity,
    /// Masked instruction words, in the kernel's byte order.
    pub words: Vec<u64>,
    /// Its maps, in order of first appearance; at most [`MAX_MAPS`].
    pub maps: Vec<MapSpec>,
}

/// What a map must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name, for events.
    pub name: String,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Fewest and most entries.
    pub max_entries: (u32, u32),
    /// `map_flags`.
    pub flags: u32,
    /// Flags that may differ (`BPF_F_MMAPABLE` of data maps, which depends on the loader).
    pub flags_free: u32,
    /// Contents that must be frozen and equal, for read-only data and `.kconfig`.
    pub contents: Option<Contents>,
}

/// Frozen contents of a single-entry array map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The ranges in which a loader may write what it likes, within the limits given.
    pub tunables: Vec<TunableRange>,
}

/// One variable that a loader may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunableRange {
    /// Name, for events.
    pub name: String,
    /// Byte offset in the contents.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Is the value a signed integer?
    pub signed: bool,
    /// Which values.
    pub allowed: Allowed,
}

/// Values that a tunable may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Any bytes.
    Any,
    /// An integer from the first to the second, inclusive.
    Range(i64, i64),
    /// One of these integers, at most eight.
    OneOf(Vec<i64>),
}
