//! Programs as a light skeleton loads them: maps by index, CO-RE left to the kernel.
//!
//! libbpf's `gen_loader` writes the number of a map in the object where other loaders write a
//! descriptor (`BPF_PSEUDO_MAP_IDX`, `BPF_PSEUDO_MAP_IDX_VALUE`), and hands CO-RE relocations to
//! the kernel, which rewrites instructions after the gate has compared them. What comes out is
//! known beforehand: it is what libbpf's own relocation gives. From 6.18 on (kernel commit
//! 349271568303) the kernel computes SHA-256 of it, in `bpf_prog_calc_tag()`.

use crate::{
    Digest,
    image::{Image, is_index_reference, is_map_reference},
};

/// Bit of an `ld_imm64`'s source register that makes a descriptor an index.
const INDEX: u64 = 4 << 12;
const CALL: u64 = 0x85;
const LD_IMM64: u64 = 0x18;
/// `BPF_PSEUDO_BTF_ID`, `BPF_PSEUDO_KFUNC_CALL`.
const BTF_ID: u64 = 3;
const KFUNC: u64 = 2;
/// Kernel addresses, and no constant that CO-RE writes, have the top bit.
const KERNEL_ADDRESS: u64 = 1 << 31;

const fn code(word: u64) -> u64 {
    word & 0xff
}

const fn source(word: u64) -> u64 {
    (word >> 12) & 0xf
}

const fn imm(word: u64) -> u64 {
    word >> 32
}

/// The kernel's digest of instructions that have been relocated: SHA-256 over them, without
/// descriptors of maps and what follows them.
pub fn kernel_digest(words: &[u64]) -> Digest {
    let mut bytes = Vec::with_capacity(8 * words.len());
    let mut after_map = false;
    for &word in words {
        let map = !after_map && is_map_reference(word);
        let kept = if map || after_map {
            word & 0xffff_ffff
        } else {
            word
        };
        bytes.extend(kept.to_le_bytes());
        after_map = map;
    }
    Digest::of(&bytes)
}

/// Instructions that are the same whoever loads them: a light skeleton's own loader, for one.
pub fn as_is(image: Image) -> Image {
    Image {
        result: Some(kernel_digest(&image.words)),
        ..image
    }
}

/// The second layout of a measured program. `generated` is what `gen_loader` has of it: before
/// CO-RE, before symbols of the kernel are looked up.
///
/// # Errors
/// A lower-case clause, where the two are not one program.
pub fn by_index(image: &Image, generated: &[u64]) -> Result<Image, String> {
    if generated.len() != image.words.len() {
        return Err(format!(
            "its light skeleton has {} instructions, not {}",
            generated.len(),
            image.words.len()
        ));
    }
    let mut before = Vec::with_capacity(generated.len());
    let mut after = Vec::with_capacity(generated.len());
    let mut at = 0;
    while at < generated.len() {
        let (left, right) = (&image.words[at..], &generated[at..]);
        let pair = code(right[0]) == LD_IMM64 && right.len() > 1;
        let taken = if pair { 2 } else { 1 };
        let (asked, result) = match pair {
            true => wide([left[0], left[1]], [right[0], right[1]]),
            false => Ok(single(left[0], right[0])),
        }
        .map_err(|()| format!("its light skeleton uses another map at instruction {at}"))?;
        before.extend(&asked[..taken]);
        after.extend(&result[..taken]);
        at += taken;
    }
    same_maps(&image.words, &before)?;
    Ok(Image {
        result: Some(kernel_digest(&after)),
        words: before,
        ..image.clone()
    })
}

/// What the loader asks for, and what the kernel makes of it, for one instruction.
type Slot = ([u64; 2], [u64; 2]);

fn single(relocated: u64, generated: u64) -> Slot {
    let kfunc = |word| code(word) == CALL && source(word) == KFUNC;
    let asked = if kfunc(generated) && kfunc(relocated) {
        relocated // the loader looks the function up
    } else {
        generated
    };
    // A weak function that is not there stays a call of nothing.
    let result = if kfunc(generated) { asked } else { relocated };
    ([asked, 0], [result, 0])
}

fn wide(relocated: [u64; 2], generated: [u64; 2]) -> Result<Slot, ()> {
    if is_map_reference(relocated[0]) || is_index_reference(generated[0]) {
        let registers = relocated[0] & 0xffff_ffff | INDEX;
        let same = is_map_reference(relocated[0])
            && generated[0] & 0xffff_ffff == registers
            && generated[1] == relocated[1];
        return same.then_some((generated, generated)).ok_or(());
    }
    let symbol = source(generated[0]) == BTF_ID
        || source(generated[0]) == 0 && imm(relocated[1]) & KERNEL_ADDRESS != 0;
    Ok(if symbol {
        (relocated, relocated)
    } else {
        (generated, relocated)
    })
}

/// One index is one map, in both directions.
fn same_maps(relocated: &[u64], indexed: &[u64]) -> Result<(), String> {
    let mut pairs: Vec<(u64, u64)> = Vec::new();
    for (&one, &other) in relocated.iter().zip(indexed) {
        if !is_index_reference(other) {
            continue;
        }
        let pair = (imm(one), imm(other));
        match pairs
            .iter()
            .find(|known| (known.0 == pair.0) != (known.1 == pair.1))
        {
            Some(_) => return Err("its light skeleton shares maps in another way".into()),
            None => pairs.push(pair),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::MAP_INDEX;

    const EXIT: u64 = 0x95;

    const fn word(code: u64, source: u64, imm: u64) -> u64 {
        code | source << 12 | imm << 32
    }

    fn map(number: u32) -> u64 {
        word(0x118, 1, (MAP_INDEX | number).into())
    }

    #[test]
    fn digests_leave_out_descriptors_and_offsets_but_no_index() {
        let by_descriptor =
            |fd, offset| kernel_digest(&[word(0x118, 2, fd), word(0, 0, offset), EXIT]);
        assert_eq!(by_descriptor(7, 4), by_descriptor(9, 8));
        let by_number = |number| kernel_digest(&[word(0x118, 6, number), 0, EXIT]);
        assert_ne!(by_number(0), by_number(1));
        assert_eq!(
            kernel_digest(&[0xb7, EXIT]).to_hex(),
            "59f4a931744dcdc62944a018ed3990e666ec6444616418d3b09a82dc5c753d52"
        );
    }

    #[test]
    fn maps_core_and_symbols_go_where_they_belong() {
        let value = |source, map, offset| [word(0x118, source, map), word(0, 0, offset)];
        let mut relocated = vec![map(0), 0];
        relocated.extend(value(2, (MAP_INDEX | 1).into(), 24));
        relocated.extend([word(0x85, 2, 777), word(0x61, 1, 0) | 40 << 16]);
        relocated.extend([
            word(0x118, 3, 99),
            0,
            word(0x118, 0, 5),
            word(0, 0, 0xffff_8888),
        ]);
        relocated.extend([word(0x118, 0, 64), 0, EXIT]);
        let mut generated = vec![word(0x118, 5, 3), 0];
        generated.extend(value(6, 1, 24));
        generated.extend([word(0x85, 2, 0), word(0x61, 1, 0) | 8 << 16]);
        generated.extend([word(0x118, 3, 0), 0, word(0x118, 0, 0), 0]);
        generated.extend([word(0x118, 0, 16), 0, EXIT]);
        let mut asked = generated.clone();
        asked[4] = relocated[4];
        asked[6..10].copy_from_slice(&relocated[6..10]);
        let mut result = asked.clone();
        result[5] = relocated[5];
        result[10] = relocated[10];
        assert_eq!(
            by_index(&Image::of_words(relocated.clone()), &generated),
            Ok(Image {
                words: asked,
                result: Some(kernel_digest(&result)),
                ..Image::of_words(vec![])
            })
        );
    }

    #[test]
    fn another_map_is_another_program() {
        let two = Image::of_words(vec![map(0), 0, map(1), 0, EXIT]);
        let refused = [
            (vec![EXIT], "its light skeleton has 1 instructions, not 5"),
            (
                vec![word(0x118, 5, 0), 0, word(0x118, 5, 0), 0, EXIT],
                "its light skeleton shares maps in another way",
            ),
            (
                vec![word(0x118, 6, 0), 0, word(0x118, 5, 1), 0, EXIT],
                "its light skeleton uses another map at instruction 0",
            ),
            (
                vec![word(0x118, 5, 0), 0, word(0x118, 5, 1), 1 << 32, EXIT],
                "its light skeleton uses another map at instruction 2",
            ),
            (
                vec![word(0x118, 5, 0), 0, word(0x118, 0, 1), 0, EXIT],
                "its light skeleton uses another map at instruction 2",
            ),
        ];
        for (generated, why) in refused {
            assert_eq!(by_index(&two, &generated), Err(why.to_owned()));
        }
    }
}
