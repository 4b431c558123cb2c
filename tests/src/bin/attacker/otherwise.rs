//! A loader that lays functions out as no known one does.

use std::{error::Error, fs};

use bundle::explain::{Anatomy, Difference};

use super::Load;

/// `BPF_JMP | BPF_CALL` of another function of the program (`BPF_PSEUDO_CALL`).
fn is_call(word: u64) -> bool {
    word & 0xff == 0x85 && word >> 12 & 0xf == 1
}

/// The last two functions change places; `starts` has where each begins.
fn exchanged(words: &[u64], starts: &[usize]) -> Result<Vec<u64>, Box<dyn Error>> {
    let [.., first, second] = *starts else {
        return Err("it has fewer than two functions".into());
    };
    let moved = |at: usize| match at {
        at if at < first => at,
        at if at < second => at + (words.len() - second),
        at => at - (second - first),
    };
    let mut made = vec![0; words.len()];
    for (at, &word) in words.iter().enumerate() {
        made[moved(at)] = match is_call(word) {
            true => {
                let target = at as i64 + 1 + i64::from((word >> 32) as i32);
                let distance = moved(target as usize) as i64 - moved(at) as i64 - 1;
                word & 0xffff_ffff | u64::from(distance as i32 as u32) << 32
            }
            false => word,
        };
    }
    Ok(made)
}

/// Loads a program of an object with its last two functions exchanged, and writes its instructions into a file.
pub fn run(object: &str, program: &str, file: &str) -> Result<(), Box<dyn Error>> {
    let elf = fs::read(object)?;
    let inventory = bundle::inventory::read(object, &elf)?;
    let measured = enforcer::measure::measure(&elf, &inventory)?;
    let image = measured.images.iter().find(|image| image.name == program);
    let image = image.ok_or("it has no such program")?;
    let mut anatomy = Anatomy::read(&elf)?;
    let differs = |difference: Difference| difference.to_string();
    anatomy.learn(image).map_err(differs)?;
    let layout = anatomy.explain(program, &image.words).map_err(differs)?;
    let starts: Vec<usize> = layout
        .functions
        .iter()
        .map(|(_, at)| *at as usize)
        .collect();
    let words = exchanged(&image.words, &starts)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(file, bytes)?;
    let load = Load {
        attach_type: image.identity.expected_attach_type,
        btf_id: image.identity.attach_btf_id,
        flags: image.identity.flags,
        ..Load::new("otherwise", image.identity.prog_type, &words)
    };
    load.load()?;
    Ok(())
}
