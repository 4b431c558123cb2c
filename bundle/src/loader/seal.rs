//! What libbpf's loader becomes before it is signed.

use crate::Digest;

use super::{CONTEXT, Form, Loader, MAP_DESC};

/// Takes out what reads sizes and contents of maps from the caller, and puts the map's check in.
pub fn sealed(insns: &[u8], data: &[u8], form: Form) -> Result<Vec<u8>, String> {
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

/// A loader must be complete in its form, and report so many maps and programs.
pub fn check(loader: &Loader, form: Form, (maps, programs): (usize, usize)) -> Result<(), String> {
    let words = words(&loader.insns)?;
    let start = prologue(&words)?;
    if form == Form::MapChecked {
        let block = check_of_map(start, &loader.data)?;
        if words.get(start..start + block.len()) != Some(&block[..]) {
            return Err("it does not check its map".to_owned());
        }
    }
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

pub fn words(insns: &[u8]) -> Result<Vec<u64>, String> {
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

pub const fn insn(code: u64, destination: u64, source: u64) -> u64 {
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

pub const fn offset(word: u64) -> i16 {
    (word >> 16) as i16
}

/// Jumps that have an offset: not calls, not exits.
const fn is_jump(word: u64) -> bool {
    matches!(class(word), 0x05 | 0x06) && !matches!(code(word) & 0xf0, 0x80 | 0x90)
}

const LDX: u64 = 0x01;
const STX: u64 = 0x03;
pub const LD_IMM64: u64 = 0x18;
/// Masks: code and registers; all of an instruction.
const INSN: u64 = 0xffff;
const ALL: u64 = u64::MAX;
/// Where `bpf_gen__init()` has its clean-up code.
pub const CLEANUP: usize = 7;
/// `struct loader_stack`: two descriptors, and one for each of 32 programs.
const STACK: u64 = 4 * (2 + 32);
/// Offsets of `log_level`, `log_size` and `log_buf` in the context.
const LOG: [i16; 3] = [8, 12, 16];
