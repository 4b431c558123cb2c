//! Arms the gate with a crowd of admitted programs and says what that costs: kernel memory,
//! memory of this process, time to write and to swap the set, time of a load that is judged.
//!
//! `crowd N…` prints one line for each N. The judged load is of a program that nobody admitted
//! and of one of the crowd; neither may take longer because others are admitted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::FromRawFd as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use bundle::{
    Digest,
    image::{Identity, Image},
};
use enforcer::{
    gate::{Admissions, Armed, Class, Entry, Gate as _, Mode, Revoked},
    kernel::BpfGate,
};
use libbpf_rs::libbpf_sys;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    for argument in std::env::args().skip(1) {
        let measured = argument.parse().map_err(Failure::from).and_then(measure);
        match measured {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("crowd {argument}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// What one crowd costs.
fn measure(count: u32) -> Result<String, Failure> {
    let digest = Digest::of(b"crowd");
    let armed = Armed::now(digest, digest, 1, Mode::Enforce, digest);
    let admissions = Admissions {
        entries: (0..count).map(entry).collect(),
        ..Admissions::default()
    };
    let before = memory();
    let mut gate = BpfGate::open()?;
    let started = Instant::now();
    gate.arm(&armed, &admissions)?;
    let written = started.elapsed();
    let kernel = memory().saturating_sub(before);
    let started = Instant::now();
    gate.replace(&armed, &admissions)?;
    let swapped = started.elapsed();
    let (first, last, nobody) = (judged(0), judged(count - 1), judged(count));
    let resident = resident();
    // The first program's bundle is revoked: no set is written for it.
    let started = Instant::now();
    gate.revoke(&Revoked {
        bundles: BTreeSet::from([Digest::of(b"first")]),
        ..Revoked::default()
    })?;
    let revoked = started.elapsed();
    let (gone, other) = (judged(0), judged(count - 1));
    gate.disarm()?;
    if gone?.1 || !other?.1 {
        return Err("the gate judged wrongly after a revocation".into());
    }
    let (first, last, nobody) = (first?, last?, nobody?);
    if !(first.1 && last.1 && !nobody.1) {
        return Err("the gate judged wrongly".into());
    }
    Ok(format!(
        "crowd {count}: kernel {kernel} kB, resident {resident} kB, written in {} ms, swapped in {} ms, \
         load of the first {} us, of the last {} us, of nobody's {} us, revoked in {} ms",
        written.as_millis(),
        swapped.as_millis(),
        first.0.as_micros(),
        last.0.as_micros(),
        nobody.0.as_micros(),
        revoked.as_millis(),
    ))
}

/// `r0 = n; exit`, each with another number.
fn words(number: u32) -> [u64; 2] {
    [0xb7 | u64::from(number + 0x1000) << 32, 0x95]
}

fn entry(number: u32) -> Entry {
    Entry {
        image: Image {
            name: format!("crowd{number}"),
            identity: Identity {
                prog_type: 1,
                expected_attach_type: 0,
                attach_btf_id: 0,
                flags: 0,
            },
            words: words(number).to_vec(),
            maps: Vec::new(),
            places: Vec::new(),
            result: None,
            gpl: None,
            module: None,
            calls: BTreeMap::new(),
        },
        class: Class::Signed,
        bundle: Some(Digest::of(if number == 0 {
            &b"first"[..]
        } else {
            b"crowd"
        })),
    }
}

/// The median time of a load, and whether it succeeded each time.
fn judged(number: u32) -> Result<(Duration, bool), Failure> {
    let mut times = Vec::new();
    let mut passed = 0;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        passed += usize::from(load(words(number)));
        times.push(started.elapsed());
    }
    times.sort_unstable();
    match passed {
        0 => Ok((times[ROUNDS / 2], false)),
        ROUNDS => Ok((times[ROUNDS / 2], true)),
        some => Err(format!("{some} of {ROUNDS} loads passed").into()),
    }
}

#[expect(unsafe_code, reason = "libbpf-rs loads no bare instructions")]
fn load(words: [u64; 2]) -> bool {
    // SAFETY: libbpf reads two instructions of 8 bytes and two strings that end with NUL.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            1,
            c"crowd".as_ptr(),
            c"GPL".as_ptr(),
            words.as_ptr().cast(),
            2,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor was made by the line above and is nobody else's.
    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
    true
}

/// Memory of all maps as the kernel counts it, kB. Since 6.4 that is what they hold; before, it
/// is what they may hold at most.
#[expect(unsafe_code, reason = "libbpf-rs says no map's memory")]
fn memory() -> u64 {
    let (mut id, mut bytes) = (0, 0);
    // SAFETY: libbpf reads one number and writes another.
    while unsafe { libbpf_sys::bpf_map_get_next_id(id, &raw mut id) } == 0 {
        // SAFETY: the call takes a number and returns a new descriptor or an error.
        let fd = unsafe { libbpf_sys::bpf_map_get_fd_by_id(id) };
        if fd < 0 {
            continue;
        }
        bytes += field(&format!("/proc/self/fdinfo/{fd}"), "memlock:");
        // SAFETY: the descriptor was made above and is nobody else's.
        drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
    }
    bytes / 1024
}

/// Memory of this process, kB.
fn resident() -> u64 {
    field("/proc/self/status", "VmRSS:")
}

fn field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

const ROUNDS: usize = 51;
