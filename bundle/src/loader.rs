//! Loaders that the kernel itself checks: light skeletons in the two forms whose signature also
//! covers what they load.
//!
//! libbpf's `gen_loader` makes a loader that takes sizes and contents of maps from its caller. A
//! signed one must not, so what reads them is taken out of the instructions here, as libbpf does
//! from commits 62fab2fc and 364ee320 on. One form then checks its own map, as libbpf's commit
//! 7e3bab2a has it; for the other the kernel appends the map to what is signed (debb5e82). The
//! form before these, whose map is bound by a digest alone, is never made: a map that is not
//! exclusive can be changed behind its back.

use std::{collections::BTreeSet, fmt};

use goblin::elf::Elf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Digest,
    blob::Blob,
    inventory::{Endianness, Map, Object, Program},
    light::{self, Loader},
    unverified::is_title,
};

/// What a kernel's signature over a loader covers, and who checks the loader's map.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The instructions are signed; they hold the digest of their map and refuse one that is not
    /// exclusive or has another digest. Kernels 6.18.44, 7.1.13 and 7.2.
    MapChecked,
    /// Instructions and map are signed; the kernel refuses a map that is not exclusive and frozen.
    /// Kernels from 7.3 on.
    MapSigned,
}

impl Form {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MapChecked, Self::MapSigned];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MapChecked => "map-checked",
            Self::MapSigned => "map-signed",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

/// What a loader says of itself; not part of what the kernel checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// In which form it is.
    pub form: Form,
    /// The object that it was made of.
    pub object: Digest,
    /// The maps that it makes, in the order in which it reports them.
    pub maps: Vec<String>,
    /// The programs that it loads, likewise.
    pub programs: Vec<String>,
}

/// A loader in one of the two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLoader {
    /// What it says of itself.
    pub about: About,
    /// Instructions, and the contents of its map.
    pub loader: Loader,
    /// CMS over [`KernelLoader::signed_bytes`]; none: it is not signed.
    pub signature: Option<Vec<u8>>,
}

impl KernelLoader {
    /// Brings what libbpf's `gen_loader` made, without `gen_hash`, into the form that `about` says.
    ///
    /// # Errors
    /// A lower-case clause, where the instructions are not as `gen_loader` writes them.
    pub fn make(generated: &Loader, about: About) -> Result<Self, String> {
        let insns = sealed(&generated.insns, &generated.data, about.form)?;
        let made = Self {
            about,
            loader: Loader {
                insns,
                data: generated.data.clone(),
            },
            signature: None,
        };
        made.check()?;
        Ok(made)
    }

    /// About how many bytes the layer has.
    pub fn size(&self) -> usize {
        let signature = self.signature.as_ref().map_or(0, Vec::len);
        self.loader.insns.len() + self.loader.data.len() + signature
    }

    /// What the signature is over.
    pub fn signed_bytes(&self) -> Vec<u8> {
        match self.about.form {
            Form::MapChecked => self.loader.insns.clone(),
            Form::MapSigned => [self.loader.insns.as_slice(), &self.loader.data].concat(),
        }
    }

    /// The only program that may use its map: the kernel's digest of the instructions, which
    /// refer to the map by index alone.
    pub fn exclusive_to(&self) -> Digest {
        Digest::of(&self.loader.insns)
    }

    /// Bytes of its context: `struct bpf_loader_ctx`, one `bpf_map_desc` a map, one
    /// `bpf_prog_desc` a program (`tools/lib/bpf/skel_internal.h`).
    pub fn context_size(&self) -> usize {
        CONTEXT + MAP_DESC * self.about.maps.len() + PROG_DESC * self.about.programs.len()
    }

    /// The layer's title.
    pub fn title(object: &str, form: Form) -> String {
        let most = 255 - SUFFIX.len() - form.name().len() - 1;
        let stem = object
            .char_indices()
            .take_while(|(at, c)| at + c.len_utf8() <= most);
        let stem: String = stem.map(|(_, c)| c).collect();
        format!("{stem}.{form}{SUFFIX}")
    }

    /// As an object, with the signature and what it says of itself in sections of their own.
    pub fn to_object(&self) -> Vec<u8> {
        let about = crate::manifest::to_json(&self.about);
        let mut more = vec![(ABOUT, about.as_slice())];
        if let Some(signature) = &self.signature {
            more.push((SIGNATURE, signature));
        }
        self.loader.to_object_with(&more)
    }

    /// Reads such an object back.
    ///
    /// # Errors
    /// A lower-case clause.
    pub fn read(object: &[u8]) -> Result<Self, String> {
        let elf = Elf::parse(object).map_err(|error| format!("it is no ELF file: {error}"))?;
        let section = |name: &str| {
            let found = elf
                .section_headers
                .iter()
                .find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(name))?;
            object.get(found.file_range()?)
        };
        let need = |name: &str| section(name).ok_or_else(|| format!("it has no section {name}"));
        let about = serde_json::from_slice(need(ABOUT)?)
            .map_err(|error| format!("what it says of itself: {error}"))?;
        let loader = Self {
            about,
            loader: Loader {
                insns: need(light::SYSCALL)?.to_vec(),
                data: need(light::DATA)?.to_vec(),
            },
            signature: section(SIGNATURE).map(<[u8]>::to_vec),
        };
        loader.check()?;
        // One loader, one object: nothing rides along.
        if loader.to_object() != object {
            return Err("it holds more than a loader".to_owned());
        }
        Ok(loader)
    }

    /// It must be complete in its form, and report as many maps and programs as it names.
    fn check(&self) -> Result<(), String> {
        let (insns, data) = (&self.loader.insns, &self.loader.data);
        let bytes = insns.len() + data.len();
        if data.is_empty() || bytes > light::MAX_DATA {
            return Err(format!(
                "it has {bytes} bytes; the kernel checks up to 16 MiB"
            ));
        }
        let words = words(insns)?;
        let start = prologue(&words)?;
        if self.about.form == Form::MapChecked {
            let block = check_of_map(start, data)?;
            if words.get(start..start + block.len()) != Some(&block[..]) {
                return Err("it does not check its map".to_owned());
            }
        }
        let (maps, programs) = (self.about.maps.len(), self.about.programs.len());
        let first_program = (CONTEXT + MAP_DESC * maps) as i16;
        let mut reported = (0, 0);
        for word in slots(&words) {
            // Through r6 goes the caller's context: nothing but how to log is read from it.
            if class(word) == LDX && source(word) == 6 && !LOG.contains(&offset(word)) {
                return Err("it takes more from its caller than how to log".to_owned());
            }
            if class(word) == STX && destination(word) == 6 {
                match offset(word) >= first_program {
                    true => reported.1 += 1,
                    false => reported.0 += 1,
                }
            }
        }
        if reported != (maps, programs) {
            return Err(format!(
                "it reports {} maps and {} programs, and names {maps} and {programs}",
                reported.0, reported.1
            ));
        }
        Ok(())
    }
}

/// What there is of one object for kernels to check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelLoaders {
    /// The object's title.
    pub object: String,
    /// Why it has no loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
    /// Its loaders, one for each form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loaders: Vec<LoaderLayer>,
}

/// One loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoaderLayer {
    /// The layer's title.
    pub title: String,
    /// SHA-256 of the layer.
    pub digest: Digest,
    /// In which form it is.
    pub form: Form,
    /// Instructions, in 8-byte slots.
    pub insns: u32,
    /// Bytes of its map.
    pub data: u32,
    /// Programs that it loads.
    pub programs: Vec<String>,
    /// Maps that it makes.
    pub maps: Vec<String>,
    /// SHA-256 of the signature; none: it is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Digest>,
}

/// Derives what is recorded of the loaders in a bundle from its objects and layers.
///
/// # Errors
/// A lower-case clause, where a layer is no loader of an object of the bundle.
pub fn describe(
    objects: &[Object],
    layers: &[(String, Blob)],
) -> Result<Vec<KernelLoaders>, String> {
    let mut titles = BTreeSet::new();
    let mut loaders = Vec::new();
    for (title, bytes) in layers {
        if !is_title(title) || !titles.insert(title) {
            return Err(format!("{title:?} cannot be a loader's title"));
        }
        let loader = KernelLoader::read(bytes).map_err(|why| format!("loader {title:?}: {why}"))?;
        let of = objects
            .iter()
            .position(|object| object.digest == loader.about.object)
            .ok_or_else(|| format!("loader {title:?} is of an object that is not here"))?;
        loader
            .fits(&objects[of])
            .map_err(|why| format!("loader {title:?}: {why}"))?;
        loaders.push((of, loader.layer(title, bytes.digest())));
    }
    objects
        .iter()
        .enumerate()
        .map(|(at, object)| {
            let own: Vec<LoaderLayer> = loaders
                .iter()
                .filter(|(of, _)| *of == at)
                .map(|(_, layer)| layer.clone())
                .collect();
            let forms: BTreeSet<Form> = own.iter().map(|layer| layer.form).collect();
            if forms.len() != own.len() {
                return Err(format!(
                    "object {:?} has two loaders of one form",
                    object.name
                ));
            }
            let obstacle = match (Obstacle::of(object), own.is_empty()) {
                (Some(obstacle), false) => {
                    return Err(format!(
                        "object {:?} has a loader, though {obstacle}",
                        object.name
                    ));
                }
                (None, true) => Some(Obstacle::NotGenerated),
                (obstacle, _) => obstacle,
            };
            Ok(KernelLoaders {
                object: object.name.clone(),
                obstacle,
                loaders: own,
            })
        })
        .collect()
}

impl KernelLoader {
    /// It loads programs of the object and makes all of its maps.
    fn fits(&self, object: &Object) -> Result<(), String> {
        let wanted: BTreeSet<&str> = object
            .programs
            .iter()
            .filter(|program| !program.optional)
            .map(|program| program.name.as_str())
            .collect();
        let loaded: BTreeSet<&str> = self.about.programs.iter().map(String::as_str).collect();
        if loaded != wanted || loaded.len() != self.about.programs.len() {
            return Err(format!(
                "it loads {loaded:?}, and the object has {wanted:?}"
            ));
        }
        Ok(())
    }

    fn layer(&self, title: &str, digest: Digest) -> LoaderLayer {
        LoaderLayer {
            title: title.to_owned(),
            digest,
            form: self.about.form,
            insns: (self.loader.insns.len() / 8) as u32,
            data: self.loader.data.len() as u32,
            programs: self.about.programs.clone(),
            maps: self.about.maps.clone(),
            signature: self.signature.as_deref().map(Digest::of),
        }
    }
}

/// Takes out what reads sizes and contents of maps from the caller, and puts the map's check in.
fn sealed(insns: &[u8], data: &[u8], form: Form) -> Result<Vec<u8>, String> {
    let before = words(insns)?;
    let start = prologue(&before)?;
    let block = match form {
        Form::MapChecked => check_of_map(start, data)?,
        Form::MapSigned => Vec::new(),
    };
    // Where each instruction goes; `None`: it goes.
    let mut place = Vec::with_capacity(before.len() + 1);
    let mut next = 0;
    let mut at = 0;
    while at < before.len() {
        if at == start {
            next += block.len();
        }
        let rest = &before[at..];
        let gone = match_any(rest);
        for _ in 0..gone.max(1) {
            place.push((gone == 0).then_some(next));
            next += usize::from(gone == 0);
            at += 1;
        }
    }
    let mut after = vec![0; next];
    let mut is_second = false;
    for (at, &word) in before.iter().enumerate() {
        let second = is_second;
        is_second = !second && code(word) == LD_IMM64;
        let Some(to) = place[at] else { continue };
        after[to] = if !second && is_jump(word) {
            let target = at as i64 + 1 + i64::from(offset(word));
            let target = usize::try_from(target).ok().and_then(|target| {
                // The prologue stays in its place, and jumps to what is behind it.
                if target == start {
                    return Some(start);
                }
                place.get(target).copied().flatten()
            });
            let target = target.ok_or("a jump of it leaves what gen_loader writes")?;
            let distance = target as i64 - to as i64 - 1;
            let distance = i16::try_from(distance)
                .map_err(|_| "it is too long: a jump goes over 32,767 instructions")?;
            word & !(0xffff << 16) | u64::from(distance as u16) << 16
        } else {
            word
        };
    }
    after[start..start + block.len()].copy_from_slice(&block);
    Ok(after.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// How many slots here read a size or a content from the caller; 0: none.
fn match_any(words: &[u64]) -> usize {
    const PATTERNS: [&[(u64, u64)]; 2] = [
        // if (ctx->maps[i].max_entries) attr.max_entries = it: move_ctx2blob()
        &[
            (INSN, insn(0x61, 0, 6)),          // r0 = *(u32 *)(r6 + …)
            (ALL, insn(0x15, 0, 0) | 3 << 16), // if r0 == 0 goto +3
            (INSN, insn(LD_IMM64, 1, 6)),
            (0, 0),
            (ALL, insn(0x63, 1, 0)), // *(u32 *)(r1 + 0) = r0
        ],
        // if (ctx->maps[i].initial_value) copy it: bpf_gen__map_update_elem()
        &[
            (INSN, insn(0x79, 3, 6)), // r3 = *(u64 *)(r6 + …)
            (ALL, insn(0x15, 3, 0) | 8 << 16),
            (INSN, insn(LD_IMM64, 1, 6)),
            (0, 0),
            (INSN, insn(0xb7, 2, 0)),
            (ALL, insn(0x61, 0, 6) | 4 << 16), // r0 = ctx->flags
            (ALL, insn(0x45, 0, 0) | 2 << 16 | 1 << 32), // if r0 & BPF_SKEL_KERNEL goto +2
            (ALL, insn(0x85, 0, 0) | 148 << 32), // bpf_copy_from_user()
            (ALL, insn(0x05, 0, 0) | 1 << 16),
            (ALL, insn(0x85, 0, 0) | 113 << 32), // bpf_probe_read_kernel()
        ],
    ];
    PATTERNS
        .iter()
        .find(|pattern| {
            words.len() >= pattern.len()
                && pattern
                    .iter()
                    .zip(words)
                    .all(|((mask, want), word)| word & mask == *want)
        })
        .map_or(0, |pattern| pattern.len())
}

/// Reads what `bpf_gen__init()` writes; the index of what comes behind it.
fn prologue(words: &[u64]) -> Result<usize, String> {
    let strange = || "it does not begin as gen_loader writes it".to_owned();
    let stack = -(STACK as i32) as u32;
    let fixed = [
        insn(0xbf, 6, 1),
        insn(0xbf, 1, 10),
        insn(0x07, 1, 0) | u64::from(stack) << 32,
        insn(0xb7, 2, 0) | STACK << 32,
        insn(0xb7, 3, 0),
        insn(0x85, 0, 0) | 113 << 32,
    ];
    let [.., jump] = words.get(..=fixed.len()).ok_or_else(strange)? else {
        return Err(strange());
    };
    if words[..fixed.len()] != fixed || jump & INSN != insn(0x05, 0, 0) {
        return Err(strange());
    }
    let start = usize::try_from(offset(*jump)).map_err(|_| strange())? + CLEANUP;
    let cleanup = words.get(CLEANUP..start).ok_or_else(strange)?;
    if cleanup.last() != Some(&insn(0x95, 0, 0)) || start >= words.len() {
        return Err(strange());
    }
    // Each program's descriptor is closed from the stack, which has room for 32.
    let beyond = |word: u64| word & INSN == insn(0x61, 1, 10) && offset(word) >= 0;
    match cleanup.iter().any(|&word| beyond(word)) {
        true => Err("the object has more than 32 functions".to_owned()),
        false => Ok(start),
    }
}

/// The first thing that a loader of the form [`Form::MapChecked`] does: `map->excl` must be 1, and
/// `map->sha` the digest of the data. `libbpf` writes the same (`emit_signature_match()`).
fn check_of_map(start: usize, data: &[u8]) -> Result<Vec<u64>, String> {
    const EXCL: u64 = 32; // offset in struct bpf_map, behind `sha`
    let mut block = Vec::new();
    let map = [insn(LD_IMM64, 1, 5), 0];
    let refuse = insn(0xb7, 7, 0) | u64::from(-22_i32 as u32) << 32; // r7 = -EINVAL
    let leave = |code: u64, from: usize| {
        let distance = CLEANUP as i64 - (start + from) as i64 - 1;
        i16::try_from(distance)
            .map(|distance| code | u64::from(distance as u16) << 16)
            .map_err(|_| "it is too long: a jump goes over 32,767 instructions".to_owned())
    };
    block.extend(map);
    block.extend([insn(0x61, 2, 1) | EXCL << 16, refuse]);
    block.push(leave(insn(0x55, 2, 0) | 1 << 32, block.len())?);
    for (index, part) in Digest::of(data).as_bytes().chunks_exact(8).enumerate() {
        let part = part
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        block.extend(map);
        block.push(insn(0x79, 2, 1) | (8 * index as u64) << 16);
        block.extend([
            insn(LD_IMM64, 3, 0) | part << 32,
            part & !0xffff_ffff,
            refuse,
        ]);
        block.push(leave(insn(0x5d, 2, 3), block.len())?);
    }
    Ok(block)
}

/// First slots of all instructions.
fn slots(words: &[u64]) -> impl Iterator<Item = u64> {
    let mut is_second = false;
    words.iter().copied().filter(move |&word| {
        let second = is_second;
        is_second = !second && code(word) == LD_IMM64;
        !second
    })
}

fn words(insns: &[u8]) -> Result<Vec<u64>, String> {
    if insns.is_empty() || !insns.len().is_multiple_of(8) {
        return Err("its instructions are not a multiple of 8 bytes".to_owned());
    }
    Ok(insns
        .chunks_exact(8)
        .map(|slot| {
            slot.iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte))
        })
        .collect())
}

const fn insn(code: u64, destination: u64, source: u64) -> u64 {
    code | destination << 8 | source << 12
}

const fn code(word: u64) -> u64 {
    word & 0xff
}

const fn class(word: u64) -> u64 {
    word & 0x07
}

const fn destination(word: u64) -> u64 {
    (word >> 8) & 0xf
}

const fn source(word: u64) -> u64 {
    (word >> 12) & 0xf
}

const fn offset(word: u64) -> i16 {
    (word >> 16) as i16
}

/// Jumps that have an offset: not calls, not exits.
const fn is_jump(word: u64) -> bool {
    matches!(class(word), 0x05 | 0x06) && !matches!(code(word) & 0xf0, 0x80 | 0x90)
}

const LDX: u64 = 0x01;
const STX: u64 = 0x03;
const LD_IMM64: u64 = 0x18;
/// Masks: code and registers; all of an instruction.
const INSN: u64 = 0xffff;
const ALL: u64 = u64::MAX;
/// Where `bpf_gen__init()` has its clean-up code.
const CLEANUP: usize = 7;
/// `struct loader_stack`: two descriptors, and one for each of 32 programs.
const STACK: u64 = 4 * (2 + 32);
/// `struct bpf_loader_ctx`, `struct bpf_map_desc`, `struct bpf_prog_desc`.
const CONTEXT: usize = 24;
const MAP_DESC: usize = 16;
const PROG_DESC: usize = 4;
/// Offsets of `log_level`, `log_size` and `log_buf` in the context.
const LOG: [i16; 3] = [8, 12, 16];
/// `MAX_USED_MAPS` and `MAX_USED_PROGS` in libbpf's gen_loader.c.
const MOST_MAPS: usize = 64;
const MOST_FUNCTIONS: usize = 32;
const ABOUT: &str = ".loader.about";
const SIGNATURE: &str = ".loader.signature";
const SUFFIX: &str = ".loader.o";

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: u64 = insn(0x95, 0, 0);

    /// As `gen_loader` writes it, for one program and one map: the prologue, clean-up code, a size
    /// and a content from the caller, a check that leaves, and the reports.
    fn generated() -> Loader {
        let check = |from: usize| {
            insn(0xc5, 7, 0) | u64::from((CLEANUP as i16 - from as i16 - 1) as u16) << 16
        };
        let mut words = vec![
            insn(0xbf, 6, 1),
            insn(0xbf, 1, 10),
            insn(0x07, 1, 0) | 0xffff_ff78 << 32,
            insn(0xb7, 2, 0) | 136 << 32,
            insn(0xb7, 3, 0),
            insn(0x85, 0, 0) | 113 << 32,
            insn(0x05, 0, 0) | 3 << 16,
            insn(0x61, 1, 10) | 0xff78 << 16,
            insn(0xbf, 0, 7),
            EXIT,
        ];
        words.extend([
            insn(0x61, 0, 6) | 28 << 16,
            insn(0x15, 0, 0) | 3 << 16,
            insn(LD_IMM64, 1, 6),
            64 << 32,
            insn(0x63, 1, 0),
        ]);
        words.push(check(words.len()));
        words.extend([
            insn(0x79, 3, 6) | 32 << 16,
            insn(0x15, 3, 0) | 8 << 16,
            insn(LD_IMM64, 1, 6),
            96 << 32,
            insn(0xb7, 2, 0) | 4 << 32,
            insn(0x61, 0, 6) | 4 << 16,
            insn(0x45, 0, 0) | 2 << 16 | 1 << 32,
            insn(0x85, 0, 0) | 148 << 32,
            insn(0x05, 0, 0) | 1 << 16,
            insn(0x85, 0, 0) | 113 << 32,
        ]);
        words.push(check(words.len()));
        words.extend([
            insn(0x61, 0, 6) | 8 << 16,
            insn(0x63, 6, 0) | 40 << 16,
            insn(0x63, 6, 0) | 24 << 16,
            insn(0xb7, 0, 0),
            EXIT,
        ]);
        Loader {
            insns: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            data: vec![1; 128],
        }
    }

    fn about(form: Form) -> About {
        About {
            form,
            object: Digest::of(b"object"),
            maps: vec!["counts".to_owned()],
            programs: vec!["count".to_owned()],
        }
    }

    #[test]
    fn nothing_of_the_caller_is_left_but_how_to_log() {
        let made = KernelLoader::make(&generated(), about(Form::MapSigned)).unwrap();
        let got = words(&made.loader.insns).unwrap();
        let leave = |from: u64| insn(0xc5, 7, 0) | ((7 - from as i16 - 1) as u16 as u64) << 16;
        assert_eq!(
            got[10..],
            [
                leave(10),
                leave(11),
                insn(0x61, 0, 6) | 8 << 16,
                insn(0x63, 6, 0) | 40 << 16,
                insn(0x63, 6, 0) | 24 << 16,
                insn(0xb7, 0, 0),
                EXIT,
            ]
        );
        assert_eq!(made.context_size(), 24 + 16 + 4);
        let all = [made.loader.insns.as_slice(), &[1; 128]].concat();
        assert_eq!(made.signed_bytes(), all);
    }

    #[test]
    fn a_form_without_signed_map_checks_it_first() {
        let made = KernelLoader::make(&generated(), about(Form::MapChecked)).unwrap();
        let got = words(&made.loader.insns).unwrap();
        assert_eq!(got.len(), 17 + 33);
        // The prologue's jump goes to the check, and what leaves still leaves.
        assert_eq!(got[6], insn(0x05, 0, 0) | 3 << 16);
        assert_eq!(got[10..12], [insn(LD_IMM64, 1, 5), 0]);
        let target = |at: usize| at as i64 + 1 + i64::from(offset(got[at]));
        assert_eq!(
            (target(14), target(21), target(43), target(44)),
            (7, 7, 7, 7)
        );
        assert_eq!(made.signed_bytes(), made.loader.insns);
        let digest = Digest::of(&[1; 128]);
        assert_eq!(
            (got[18] >> 32) as u32,
            u32::from_le_bytes(digest.as_bytes()[..4].try_into().unwrap())
        );
    }

    #[test]
    fn a_loader_goes_into_an_object_and_comes_back() {
        for form in Form::ALL {
            for signature in [None, Some(vec![0x30, 0])] {
                let made = KernelLoader::make(&generated(), about(form)).unwrap();
                let made = KernelLoader { signature, ..made };
                let object = made.to_object();
                assert_eq!(KernelLoader::read(&object), Ok(made));
                let inventory = crate::inventory::read("x.loader.o", &object).unwrap();
                assert_eq!(inventory.programs[0].kind, "syscall");
                let longer = [object.as_slice(), &[0]].concat();
                assert!(KernelLoader::read(&longer).is_err());
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_no_loader() {
        let made = KernelLoader::make(&generated(), about(Form::MapChecked)).unwrap();
        let without_check = KernelLoader {
            about: about(Form::MapChecked),
            ..KernelLoader::make(&generated(), about(Form::MapSigned)).unwrap()
        };
        let mut other_data = made.clone();
        other_data.loader.data[0] ^= 1;
        let mut obedient = made.clone();
        obedient.about.form = Form::MapSigned;
        obedient.loader = generated();
        let mut more = made.clone();
        more.about.programs.push("more".to_owned());
        for (loader, want) in [
            (without_check, "it does not check its map"),
            (other_data, "it does not check its map"),
            (obedient, "it takes more from its caller than how to log"),
            (more, "it reports 1 maps and 1 programs, and names 1 and 2"),
        ] {
            assert_eq!(
                KernelLoader::read(&loader.to_object()),
                Err(want.to_owned())
            );
        }
    }

    #[test]
    fn a_bundle_holds_loaders_of_its_own_objects_alone() {
        let elf = crate::fixture::object("xdp", "count");
        let object = crate::inventory::read("x.bpf.o", &elf).unwrap();
        let layer = |title: &str, form, edit: &dyn Fn(&mut About)| {
            let mut about = About {
                object: object.digest,
                ..about(form)
            };
            edit(&mut about);
            let made = KernelLoader::make(&generated(), about).unwrap();
            (title.to_owned(), Blob::new(made.to_object()))
        };
        let objects = [object.clone()];
        let one = layer("a", Form::MapChecked, &|_| ());
        let two = layer("b", Form::MapSigned, &|_| ());
        let described = describe(&objects, &[one.clone(), two.clone()]).unwrap();
        let forms: Vec<Form> = described[0].loaders.iter().map(|l| l.form).collect();
        assert_eq!((described[0].obstacle, forms), (None, Form::ALL.to_vec()));
        let none = describe(&objects, &[]).unwrap();
        assert_eq!(none[0].obstacle, Some(Obstacle::NotGenerated));
        let same_title = ("a".to_owned(), two.1.clone());
        let same_form = layer("b", Form::MapChecked, &|_| ());
        let stranger = layer("b", Form::MapSigned, &|about| {
            about.object = Digest::of(b"other")
        });
        let other = layer("b", Form::MapSigned, &|about| {
            about.programs = vec!["other".into()]
        });
        for (second, want) in [
            (same_title, "\"a\" cannot be a loader's title"),
            (same_form, "object \"x.bpf.o\" has two loaders of one form"),
            (stranger, "loader \"b\" is of an object that is not here"),
            (
                other,
                "loader \"b\": it loads {\"other\"}, and the object has {\"count\"}",
            ),
        ] {
            let got = describe(&objects, &[one.clone(), second]);
            assert_eq!(got, Err(want.to_owned()));
        }
        let optional = crate::inventory::read("y.o", &crate::fixture::object("?xdp", "count"));
        let objects = [Object {
            digest: object.digest,
            ..optional.unwrap()
        }];
        assert_eq!(
            describe(&objects, &[one]),
            Err("loader \"a\": it loads {\"count\"}, and the object has {}".to_owned())
        );
    }

    #[test]
    fn every_obstacle_has_a_code_of_its_own() {
        let object = |edit: &dyn Fn(&mut Object)| {
            let elf = crate::fixture::object("xdp", "drop");
            let mut object = crate::inventory::read("x.o", &elf).unwrap();
            edit(&mut object);
            Obstacle::of(&object)
        };
        let map = |edit: &dyn Fn(&mut Map)| {
            let mut map: Map = serde_json::from_value(serde_json::json!({
                "name": "m", "type": "array", "key_size": 4, "value_size": 4, "max_entries": 1,
                "flags": 0, "pinning": "none", "legacy": false
            }))
            .unwrap();
            edit(&mut map);
            map
        };
        assert_eq!(object(&|_| ()), None);
        let plain = map(&|_| ());
        assert_eq!(object(&|o| o.maps = vec![plain.clone(); 64]), None);
        let got = [
            object(&|o| o.endianness = Endianness::Big),
            object(&|o| o.maps.push(map(&|m| m.kind = "struct_ops".into()))),
            object(&|o| o.maps = vec![plain.clone(); 65]),
            object(&|o| o.programs = vec![o.programs[0].clone(); 33]),
            object(&|o| o.maps.push(map(&|m| m.pinning = "by_name".into()))),
            object(&|o| o.maps.push(map(&|m| m.legacy = true))),
            object(&|o| {
                o.maps.push(map(&|m| {
                    m.kind = "perf_event_array".into();
                    m.max_entries = 0;
                }));
            }),
            object(&|o| o.programs[0].kind = "ext".into()),
            object(&|o| o.programs[0].kind = "lsm".into()),
            object(&|o| o.programs[0].name = light::PROGRAM.into()),
            object(&|o| o.programs[0].optional = true),
        ];
        let codes: Vec<_> = got
            .iter()
            .map(|o| o.map_or("none", Obstacle::code))
            .collect();
        assert_eq!(
            codes,
            [
                "big-endian",
                "struct-ops",
                "too-many-maps",
                "too-many-functions",
                "pinned-map",
                "legacy-map",
                "processor-count",
                "replaces",
                "no-target",
                "is-loader",
                "no-program"
            ]
        );
        let written = serde_json::to_value(Obstacle::ProcessorCount).unwrap();
        assert_eq!(written, Obstacle::ProcessorCount.code());
    }
}
