//! What the gate compares a load with: one admitted program, as this kernel will see it.
//!
//! An image is a program's instruction stream after the loader's relocation, with every
//! map file descriptor replaced by the index of the map's first appearance, together with
//! all that instructions alone do not say: type, target, maps, read-only data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Marks a map reference in [`Image::words`]: the immediate of the first half of an
/// `ld_imm64` is this bit and the map's index. A file descriptor never has it.
pub const MAP_INDEX: u32 = 0x8000_0000;

/// Most maps that one program may use (`MAX_USED_MAPS` in the kernel's `bpf_verifier.h`).
pub const MAX_MAPS: usize = 64;

/// What must be equal besides the instructions, as the kernel's `struct bpf_prog` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Program name, for events.
    pub name: String,
    /// Type, attach type, target, flags.
    pub identity: Identity,
    /// Masked instruction words, in the kernel's byte order.
    pub words: Vec<u64>,
    /// Its maps, in order of first appearance; at most [`MAX_MAPS`].
    pub maps: Vec<MapSpec>,
    /// Names of places where it may be attached, `*` for any characters; empty: anywhere.
    #[serde(default)]
    pub places: Vec<String>,
    /// For a layout that names maps by index and may leave CO-RE to the kernel: the kernel's
    /// SHA-256 of the relocated instructions ([`crate::indexed`]).
    #[serde(default)]
    pub result: Option<Digest>,
    /// Is its licence one of those with which the kernel lets a program call what is for GPL
    /// programs only? `None`: whatever it is.
    #[serde(default)]
    pub gpl: Option<bool>,
    /// The module in whose types `attach_btf_id` counts; `None`: in the kernel's own.
    #[serde(default)]
    pub module: Option<ModuleBtf>,
    /// Modules whose functions it calls, by the number (`off`) that its call instructions have for
    /// them; never 0, which is the kernel itself.
    #[serde(default)]
    pub calls: BTreeMap<u16, ModuleBtf>,
}

impl Image {
    /// Every module that it is for: of its target, and of what it calls.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleBtf> {
        self.module.iter().chain(self.calls.values())
    }
}

/// The types (BTF) of a kernel module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleBtf {
    /// The module's name.
    pub name: String,
    /// SHA-256 of its types, as the kernel has them: `/sys/kernel/btf/NAME`.
    pub content: Digest,
}

/// Is it a licence that the kernel calls compatible with the GPL (`license_is_gpl_compatible`)?
pub fn is_gpl_compatible(license: &str) -> bool {
    [
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    ]
    .contains(&license)
}

/// What a map must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// For a map of maps: what each of them must be. `None`: it is none, or nobody knows.
    #[serde(default)]
    pub inner: Option<InnerMap>,
}

/// What the maps in a map of maps must be: the kernel takes only such as are like the one that it was made with
/// (`bpf_map_meta_equal()` of kernel/bpf/map_in_map.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerMap {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// `map_flags`.
    pub flags: u32,
}

/// Frozen contents of a single-entry array map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The ranges in which a loader may write what it likes, within the limits given.
    pub tunables: Vec<TunableRange>,
}

/// One variable that a loader may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Allowed {
    /// Any bytes.
    Any,
    /// An integer from the first to the second, inclusive.
    Range(i64, i64),
    /// One of these integers, at most eight.
    OneOf(Vec<i64>),
}

/// Words over which the fingerprint is taken at once; the last block is padded with zeros.
/// `FINGERPRINT_WORDS` in `lsm-enforcer/bpf/shared.h`.
const FINGERPRINT_WORDS: usize = 32;

/// A bit of `BPF_PSEUDO_MAP_VALUE` and `BPF_PSEUDO_MAP_IDX_VALUE` that the two others lack.
const MAP_VALUE_SOURCE: u64 = 2;

/// 2^64 divided by the golden ratio, made odd. `FINGERPRINT_PRIME` in `shared.h`.
const FINGERPRINT_PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// Is this word the first half of an `ld_imm64` whose immediate is a map's descriptor
/// (`BPF_PSEUDO_MAP_FD`, `BPF_PSEUDO_MAP_VALUE`)?
pub const fn is_map_reference(word: u64) -> bool {
    let source = (word >> 12) & 0xf;
    word & 0xff == 0x18 && (source == 1 || source == 2)
}

/// Is this word the first half of an `ld_imm64` whose immediate is a map's index in `fd_array`
/// (`BPF_PSEUDO_MAP_IDX`, `BPF_PSEUDO_MAP_IDX_VALUE`)?
pub const fn is_index_reference(word: u64) -> bool {
    let source = (word >> 12) & 0xf;
    word & 0xff == 0x18 && (source == 5 || source == 6)
}

/// The word without what differs from load to load: a map's descriptor.
pub const fn mask(word: u64) -> u64 {
    if is_map_reference(word) {
        word & 0xffff_ffff
    } else {
        word
    }
}

/// The gate's fingerprint of a stream: it finds a candidate, and proves nothing. Never zero.
pub fn fingerprint(words: &[u64]) -> u64 {
    let padding = words.len().next_multiple_of(FINGERPRINT_WORDS) - words.len();
    let hash = words
        .iter()
        .copied()
        .chain(std::iter::repeat_n(0, padding))
        .fold(0u64, |hash, word| {
            let hash = (hash ^ mask(word)).wrapping_mul(FINGERPRINT_PRIME);
            hash ^ (hash >> 32)
        });
    hash | 1
}

/// Replaces map descriptors by [`MAP_INDEX`] and the index of first appearance.
/// Returns the descriptors in that order.
pub fn index_maps(words: &mut [u64]) -> Vec<u32> {
    let mut descriptors = Vec::new();
    for word in words.iter_mut().filter(|word| is_map_reference(**word)) {
        let descriptor = (*word >> 32) as u32;
        let index = descriptors
            .iter()
            .position(|&known| known == descriptor)
            .unwrap_or_else(|| {
                descriptors.push(descriptor);
                descriptors.len() - 1
            });
        *word = mask(*word) | u64::from(MAP_INDEX | index as u32) << 32;
    }
    descriptors
}

impl Image {
    /// Names these instructions on this kind of kernel: SHA-256 over the words, little-endian,
    /// map references by index. What lists of revoked programs name.
    pub fn digest(&self) -> Digest {
        let bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        Digest::of(&bytes)
    }

    /// The words as the kernel keeps them: a map reference names the word that first refers
    /// to the same map, so that the gate compares descriptors without a table of them.
    pub fn stored_words(&self) -> Vec<u64> {
        let mut first = BTreeMap::new();
        self.words
            .iter()
            .enumerate()
            .map(|(at, &word)| {
                if !is_map_reference(word) {
                    return word;
                }
                let at = *first.entry(word >> 32).or_insert(at as u32);
                mask(word) | u64::from(MAP_INDEX | at) << 32
            })
            .collect()
    }

    /// The slots of `fd_array` that instructions name, as they first appear: those of its maps.
    pub fn slots(&self) -> Vec<u32> {
        let mut slots = Vec::new();
        for word in self.words.iter().filter(|word| is_index_reference(**word)) {
            let slot = (word >> 32) as u32;
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots
    }

    /// Which map each reference is to, in the order of instructions: the map's index in the
    /// upper half and, for a reference to the map's value, the top bit and the offset.
    pub fn map_references(&self) -> Vec<u64> {
        let second_halves = self.words.iter().skip(1).chain([&0]);
        let slots = self.slots();
        self.words
            .iter()
            .zip(second_halves)
            .filter(|(word, _)| is_map_reference(**word) || is_index_reference(**word))
            .map(|(word, second)| {
                let number = (word >> 32) as u32 & !MAP_INDEX;
                let number = match slots.iter().position(|&slot| slot == number) {
                    Some(map) if is_index_reference(*word) => map as u32,
                    _ => number,
                };
                let index = u64::from(number) << 32;
                if (word >> 12) & MAP_VALUE_SOURCE != 0 {
                    1 << 63 | index | second >> 32
                } else {
                    index
                }
            })
            .collect()
    }
}

#[cfg(test)]
impl Image {
    /// A program of these words, of type 1 and without maps.
    pub(crate) fn of_words(words: Vec<u64>) -> Self {
        Self {
            name: "p".into(),
            identity: Identity {
                prog_type: 1,
                expected_attach_type: 0,
                attach_btf_id: 0,
                flags: 0,
            },
            words,
            maps: vec![],
            places: vec![],
            result: None,
            gpl: None,
            module: None,
            calls: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP_FD: u64 = 0x1118; // ld_imm64 r1, map_fd
    const MAP_VALUE: u64 = 0x2118;
    const EXIT: u64 = 0x95;

    fn with_imm(word: u64, imm: u32) -> u64 {
        word | u64::from(imm) << 32
    }

    #[test]
    fn fingerprint_of_return_zero_is_what_the_kernel_side_computes() {
        // The gate's kernel test admits this program by this very number.
        assert_eq!(fingerprint(&[0xb7, EXIT]), 0x86a9_6dd3_09f8_73d5);
        assert_eq!(fingerprint(&[]), 1);
    }

    #[test]
    fn fingerprint_ignores_descriptors_and_nothing_else() {
        let one = [with_imm(MAP_FD, 7), 0, EXIT];
        let two = [with_imm(MAP_FD, 9), 0, EXIT];
        assert_eq!(fingerprint(&one), fingerprint(&two));
        let constant = [with_imm(0x118, 7), 0, EXIT];
        let other = [with_imm(0x118, 9), 0, EXIT];
        assert_ne!(fingerprint(&constant), fingerprint(&other));
        let offset = [with_imm(MAP_VALUE, 7), with_imm(0, 4), EXIT];
        let another = [with_imm(MAP_VALUE, 7), with_imm(0, 8), EXIT];
        assert_ne!(fingerprint(&offset), fingerprint(&another));
    }

    #[test]
    fn maps_are_numbered_as_they_appear() {
        let mut words = vec![
            with_imm(MAP_FD, 12),
            0,
            with_imm(MAP_VALUE, 5),
            0,
            with_imm(MAP_FD, 12),
            0,
            EXIT,
        ];
        assert_eq!(index_maps(&mut words), [12, 5]);
        assert_eq!(
            words,
            [
                with_imm(MAP_FD, MAP_INDEX),
                0,
                with_imm(MAP_VALUE, MAP_INDEX | 1),
                0,
                with_imm(MAP_FD, MAP_INDEX),
                0,
                EXIT
            ]
        );
        let image = Image::of_words(words);
        assert_eq!(
            image.stored_words(),
            [
                with_imm(MAP_FD, MAP_INDEX),
                0,
                with_imm(MAP_VALUE, MAP_INDEX | 2),
                0,
                with_imm(MAP_FD, MAP_INDEX),
                0,
                EXIT
            ]
        );
        assert_eq!(image.map_references(), [0, 1 << 63 | 1 << 32, 0]);
        let mut image = image;
        image.words[3] = with_imm(0, 24);
        assert_eq!(image.map_references(), [0, 1 << 63 | 1 << 32 | 24, 0]);
    }
}
