//! What the gate costs.
//!
//! In virtual machines: executed instructions of whole `bpf()` commands, with the gate armed
//! and without one, as `attacker cost` measures them. QEMU counts instructions, so a busy
//! machine changes nothing. On this machine's kernel: nanoseconds per instruction of the
//! comparison alone, by test-run; nothing is attached, nothing is refused.

use std::{error::Error, fs, path::PathBuf};

use bundle::image::fingerprint;
use libbpf_rs::{MapCore, MapFlags, ObjectBuilder, ProgramInput};
use tests::{
    fixtures,
    lab::{self, Cache, Machine, Script},
};

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];
const LENGTHS: [u32; 3] = [2, 1000, 50_000];
/// `MAX_LEN` of `bpf/compare_cost.bpf.c`.
const MAX_LEN: usize = 50_000;
const CHUNK_WORDS: usize = 64;
const RUNS: usize = 101;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    // Words choose: kernels, `native`; without any, all of it.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    for series in KERNELS.into_iter().filter(|series| chosen(series)) {
        if let Err(error) = in_guest(series) {
            println!("SKIPPED gate cost on {series}: {error}");
        }
    }
    if !chosen("native") {
        return;
    }
    match natively() {
        Ok(()) => {}
        Err(error) => println!("SKIPPED gate cost by test-run: {error}"),
    }
}

fn in_guest(series: &str) -> Result<(), Box<dyn Error>> {
    let cache = Cache::open();
    let kernel = cache.kernel(series)?;
    let script = lab::target().join("lab/cost.sh");
    if let Some(folder) = script.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&script, "attacker cost\n")?;
    let scripts = [Script::read(&script)?];
    let programs = [PathBuf::from(env!("CARGO_BIN_EXE_attacker"))];
    let root = lab::guest(&cache, &kernel, &scripts, &programs)?;
    let report = Machine::new(kernel, &format!("cost-{series}"))
        .count_instructions()
        .run(&root, |line| {
            if let Some(cost) = line.strip_prefix("COST ") {
                println!("{series} {}", cost.trim());
            }
        })?;
    match report.fault {
        None => Ok(()),
        Some(fault) => Err(fault.into()),
    }
}

fn natively() -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(fixtures::object("compare_cost"))?;
    let mut object = ObjectBuilder::default().open_memory(&bytes)?;
    for mut map in object.maps_mut() {
        let used = ["words", "stream", "times"];
        let wanted = map.name().to_str().is_some_and(|name| used.contains(&name));
        map.set_autocreate(wanted)?;
    }
    let object = object.load()?;
    let map = |name: &str| {
        object
            .maps()
            .find(|map| map.name() == name)
            .ok_or_else(|| format!("no map {name}"))
    };
    let program = object
        .progs_mut()
        .find(|program| program.name() == "compare_cost")
        .ok_or("no program")?;
    let words: Vec<u64> = (0..MAX_LEN as u64).map(|n| 0xb7 | n << 32).collect();
    let zero = 0u32.to_ne_bytes();
    map("stream")?.update(&zero, &memory(&words), MapFlags::ANY)?;
    assert_ne!(fingerprint(&words), 0);
    for length in LENGTHS {
        for (number, chunk) in words[..length as usize].chunks(CHUNK_WORDS).enumerate() {
            let mut chunk = chunk.to_vec();
            chunk.resize(CHUNK_WORDS, 0);
            let key = memory32(&[1, number as u32]);
            map("words")?.update(&key, &memory(&chunk), MapFlags::ANY)?;
        }
        let mut passes = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            let mut arguments = length.to_ne_bytes();
            let output = program.test_run(ProgramInput {
                context_in: Some(&mut arguments),
                ..ProgramInput::default()
            })?;
            let times = map("times")?
                .lookup(&zero, MapFlags::ANY)?
                .ok_or("no times")?;
            let field = |n: usize| -> u64 {
                times[8 * n..8 * n + 8]
                    .try_into()
                    .map_or(0, u64::from_ne_bytes)
            };
            if output.return_value != 0 || field(3) != 0 {
                return Err(format!("the passes failed: {}", field(3)).into());
            }
            passes[0].push(field(1));
            passes[1].push(field(2));
        }
        let [fingerprint, compare] = passes.map(|mut runs| {
            runs.sort_unstable();
            runs[RUNS / 2] as f64 / f64::from(length)
        });
        println!(
            "test-run insns {length} fingerprint {fingerprint:.2} compare {compare:.2} \
             together {:.2} ns per instruction",
            fingerprint + compare
        );
    }
    Ok(())
}

fn memory(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn memory32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
