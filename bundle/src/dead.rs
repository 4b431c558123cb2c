//! Maps that a program does not need on this kernel, and the program without them.
//!
//! Tools choose between two maps by what the kernel's types say (`bpf_core_type_exists`), and tell
//! libbpf not to make the other one. libbpf then poisons each reference to it: both halves become a
//! call that no kernel takes. What results is the signed program as long as the verifier finds those
//! places dead, and the verifier refuses it if it does not; so what this finds need not be all, and a
//! mistake in it admits nothing else.

use std::collections::BTreeSet;

use crate::{
    image::{Image, MAP_INDEX, is_map_reference},
    insn::Insn,
    inventory::Endianness,
};

/// libbpf's `POISON_LDIMM64_MAP_BASE`; the number of the map in the object is added.
const POISON: u32 = 2_001_000_000;
/// `BPF_PSEUDO_CALL`, `BPF_PSEUDO_FUNC`.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;
/// Bits of `BPF_ATOMIC`: what is stored this way may change registers.
const ATOMIC: u8 = 0xc0;

/// Numbers of the image's maps to which only instructions refer that are never reached, whatever is
/// in memory. Data sections are not among them: libbpf always makes those.
pub fn unreached_maps(image: &Image) -> BTreeSet<u32> {
    let reached = reached(&image.words);
    let mut unreached: BTreeSet<u32> = (0..image.maps.len() as u32)
        .filter(|&number| !image.maps[number as usize].name.contains('.'))
        .collect();
    for (at, number) in references(&image.words) {
        if reached[at].is_some() {
            unreached.remove(&number);
        }
    }
    unreached
}

/// The image as libbpf loads it when it was told to leave these maps out. `position` is a map's
/// number in the object.
pub fn without(image: &Image, maps: &BTreeSet<u32>, position: &dyn Fn(&str) -> u32) -> Image {
    let mut words = image.words.clone();
    for (at, number) in references(&image.words) {
        if maps.contains(&number) {
            let call = POISON + position(&image.maps[number as usize].name);
            words[at] = 0x85 | u64::from(call) << 32;
            words[at + 1] = words[at];
        } else {
            let before = maps.range(..number).count() as u32;
            let kept = words[at] & 0xffff_ffff;
            words[at] = kept | u64::from(MAP_INDEX | (number - before)) << 32;
        }
    }
    let kept = (0u32..).zip(&image.maps);
    Image {
        words,
        maps: kept
            .filter(|(number, _)| !maps.contains(number))
            .map(|(_, map)| map.clone())
            .collect(),
        ..image.clone()
    }
}

/// Places of references to maps, with the map's number.
fn references(words: &[u64]) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 1 < words.len() {
        if is_map_reference(words[at]) {
            found.push((at, (words[at] >> 32) as u32 & !MAP_INDEX));
        }
        at += if words[at] & 0xff == 0x18 { 2 } else { 1 };
    }
    found
}

/// What is known of the registers: a value, or nothing.
type Registers = [Option<u64>; 11];

const UNKNOWN: Registers = [None; 11];

/// For each instruction that may be reached, what is known of the registers then. Constants are
/// followed through registers only.
fn reached(words: &[u64]) -> Vec<Option<Registers>> {
    let mut known: Vec<Option<Registers>> = vec![None; words.len()];
    let mut todo = vec![(0, UNKNOWN)];
    while let Some((at, registers)) = todo.pop() {
        let Some(&word) = words.get(at) else {
            continue;
        };
        let merged = match known[at] {
            None => registers,
            Some(before) => {
                std::array::from_fn(|n| before[n].filter(|_| before[n] == registers[n]))
            }
        };
        if known[at] == Some(merged) {
            continue;
        }
        known[at] = Some(merged);
        let second = words.get(at + 1).copied().unwrap_or_default();
        step(at, word, second, merged, &mut todo);
    }
    known
}

/// Where an instruction leads to, and with what.
fn step(
    at: usize,
    word: u64,
    second: u64,
    mut registers: Registers,
    todo: &mut Vec<(usize, Registers)>,
) {
    let insn = Insn::read(&word.to_le_bytes(), Endianness::Little);
    let jump = |distance: i64| usize::try_from(at as i64 + 1 + distance).unwrap_or(usize::MAX);
    let dst = usize::from(insn.dst).min(10);
    let left = registers[dst];
    let right = match insn.code & 8 {
        0 => Some(insn.imm as i64 as u64),
        _ => registers[usize::from(insn.src).min(10)],
    };
    match (insn.code, insn.code & 7) {
        (0x18, _) => {
            registers[dst] = (insn.src == 0).then_some(word >> 32 | second >> 32 << 32);
            if insn.src == PSEUDO_FUNC {
                todo.push((jump(insn.imm.into()), UNKNOWN));
            }
            todo.push((at + 2, registers));
        }
        (0x95, _) => {}
        (0x85 | 0x8d, _) => {
            if insn.src == PSEUDO_CALL {
                todo.push((jump(insn.imm.into()), UNKNOWN));
            }
            registers[..6].fill(None);
            todo.push((at + 1, registers));
        }
        (0x05, _) => todo.push((jump(insn.off.into()), registers)),
        (0x06, _) => todo.push((jump(insn.imm.into()), registers)),
        (_, 5 | 6) => {
            let taken = compared(&insn, left, right);
            if taken != Some(false) {
                todo.push((jump(insn.off.into()), registers));
            }
            if taken != Some(true) {
                todo.push((at + 1, registers));
            }
        }
        (_, 4 | 7) => {
            registers[dst] = calculated(&insn, left, right);
            todo.push((at + 1, registers));
        }
        (_, 1) => {
            registers[dst] = None;
            todo.push((at + 1, registers));
        }
        (_, 2) => todo.push((at + 1, registers)),
        (code, 3) if code & ATOMIC != ATOMIC => todo.push((at + 1, registers)),
        _ => todo.push((at + 1, UNKNOWN)),
    }
}

fn calculated(insn: &Insn, left: Option<u64>, right: Option<u64>) -> Option<u64> {
    let wide = insn.code & 7 == 7;
    if insn.off != 0 {
        return None;
    }
    let right = right?;
    let shift = right as u32 & if wide { 63 } else { 31 };
    let value = match insn.code >> 4 {
        0x0 => left?.wrapping_add(right),
        0x1 => left?.wrapping_sub(right),
        0x4 => left? | right,
        0x5 => left? & right,
        0x6 => left? << shift,
        0x7 if wide => left? >> shift,
        0x7 => u64::from(left? as u32 >> shift),
        0xa => left? ^ right,
        0xb => right,
        _ => return None,
    };
    Some(if wide { value } else { u64::from(value as u32) })
}

/// Is the jump taken? `None`: not known.
fn compared(insn: &Insn, left: Option<u64>, right: Option<u64>) -> Option<bool> {
    let (left, right) = match insn.code & 7 {
        5 => (left?, right?),
        _ => (u64::from(left? as u32), u64::from(right? as u32)),
    };
    Some(match insn.code >> 4 {
        0x1 => left == right,
        0x2 => left > right,
        0x3 => left >= right,
        0x4 => left & right != 0,
        0x5 => left != right,
        0xa => left < right,
        0xb => left <= right,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::MapSpec;

    const EXIT: u64 = 0x95;

    fn insn(code: u8, dst: u64, off: i16, imm: i32) -> u64 {
        u64::from(code) | dst << 8 | u64::from(off as u16) << 16 | u64::from(imm as u32) << 32
    }

    fn map(number: u32) -> [u64; 2] {
        [0x1118 | u64::from(MAP_INDEX | number) << 32, 0]
    }

    fn image(words: Vec<u64>, maps: &[&str]) -> Image {
        let spec = |name: &&str| MapSpec {
            name: (*name).to_owned(),
            map_type: 1,
            key_size: 4,
            value_size: 8,
            max_entries: (1, 1),
            flags: 0,
            flags_free: 0,
            inner: None,
            contents: None,
        };
        Image {
            maps: maps.iter().map(spec).collect(),
            ..Image::of_words(words)
        }
    }

    /// Maps 0 where the condition holds, 1 where it does not, 2 in any case.
    fn choice(condition: &[u64], jump: u64) -> Image {
        let words = [
            condition,
            &[jump],
            &map(0),
            &[insn(5, 0, 2, 0)],
            &map(1),
            &map(2),
            &[EXIT],
        ];
        image(words.concat(), &["ring", "heap", "start"])
    }

    #[test]
    fn a_map_behind_a_constant_is_not_reached_and_one_behind_a_value_is() {
        let none = |n| BTreeSet::from([n]);
        let table = [
            // r1 = 1; if w1 == 0
            (vec![insn(0xb7, 1, 0, 1)], insn(0x16, 1, 3, 0), none(1)),
            (vec![insn(0xb7, 1, 0, 0)], insn(0x16, 1, 3, 0), none(0)),
            (vec![insn(0xb7, 1, 0, 0)], insn(0x55, 1, 3, 0), none(1)),
            // w1 = 5; w1 <<= 28; if r1 > 0x50000000: a register of 32 bits
            (
                vec![insn(0xb4, 1, 0, 5), insn(0x64, 1, 0, 30)],
                insn(0x25, 1, 3, 0x5000_0000),
                none(1),
            ),
            // A constant of 64 bits.
            (
                vec![insn(0x18, 1, 0, 0), 1 << 32],
                insn(0x15, 1, 3, 0),
                none(1),
            ),
            // What was loaded, or came from a call, is not known.
            (
                vec![insn(0xb7, 1, 0, 1), insn(0x79, 1, 0, 0)],
                insn(0x16, 1, 3, 0),
                BTreeSet::new(),
            ),
            (
                vec![insn(0xb7, 1, 0, 1), insn(0x85, 0, 0, 5)],
                insn(0x16, 1, 3, 0),
                BTreeSet::new(),
            ),
            (
                vec![insn(0xb7, 1, 0, 1)],
                insn(0x66, 1, 3, 0),
                BTreeSet::new(),
            ),
        ];
        for (condition, jump, want) in table {
            assert_eq!(
                unreached_maps(&choice(&condition, jump)),
                want,
                "{condition:x?}"
            );
        }
    }

    #[test]
    fn ways_that_meet_know_only_what_both_know_and_functions_are_reached_by_their_address() {
        // if r2 == 0 skip; r1 = 1 on one way, 0 on the other; then if w1 == 0.
        let ways = [
            insn(0xb7, 1, 0, 0),
            insn(0x15, 2, 1, 0),
            insn(0xb7, 1, 0, 1),
        ];
        assert_eq!(
            unreached_maps(&choice(&ways, insn(0x16, 1, 3, 0))),
            BTreeSet::new()
        );
        let address = [insn(0x18, 1, 0, 2) | 4 << 12, 0, EXIT];
        let words = [&address[..], &map(0), &[EXIT]].concat();
        assert_eq!(unreached_maps(&image(words, &["x"])), BTreeSet::new());
        let words = [&[EXIT][..], &map(0), &map(1), &[EXIT]].concat();
        assert_eq!(
            unreached_maps(&image(words, &["x", "p.rodata"])),
            BTreeSet::from([0])
        );
    }

    #[test]
    fn what_is_left_out_is_poisoned_as_libbpf_does_it() {
        let whole = choice(&[insn(0xb7, 1, 0, 1)], insn(0x16, 1, 3, 0));
        let less = without(&whole, &BTreeSet::from([1]), &|name| match name {
            "heap" => 7,
            _ => 0,
        });
        let mut want = whole.clone();
        want.words[5..7].fill(insn(0x85, 0, 0, 2_001_000_007));
        want.words[7] = map(1)[0];
        want.maps.remove(1);
        assert_eq!(less, want);
    }
}
