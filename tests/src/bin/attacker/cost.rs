//! What the gate adds to `bpf()` commands. Under `-icount shift=0` a nanosecond of the guest's
//! clock is one executed instruction.

use std::{io, os::fd::AsRawFd, thread, time::Instant};

use enforcer::{
    gate::{Class, Gate, GateError},
    kernel::BpfGate,
};
use libbpf_rs::btf::{Btf, types::Func};

use super::{
    ARRAY, Attr, EXIT, Load, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, RAW_TRACEPOINT_OPEN, admissions,
    arm_with, check, entry, long, map, r0,
};

/// Program sizes whose loads are timed, and how many loads the least is of.
const LOADS: [(usize, usize); 3] = [(2, 101), (1000, 31), (50_000, 5)];
/// Other commands are short: more of them, and never one whose map is freed within the time.
const RUNS: usize = 401;

pub fn run() -> Result<bool, GateError> {
    let without: Vec<u64> = LOADS.iter().map(|&(len, runs)| time(len, runs)).collect();
    let others_without = others();
    let mut all = admissions();
    for (len, _) in LOADS {
        all.entries
            .push(entry(&long(len, None), vec![], Class::Signed));
    }
    let mut gate = BpfGate::open()?;
    arm_with(&mut gate, &all)?;
    let mut fine = true;
    for ((len, runs), without) in LOADS.into_iter().zip(without) {
        let with = time(len, runs);
        let ratio = with as f64 / without as f64;
        println!("COST load insns {len} without {without} with {with} ratio {ratio:.4}");
        if len == 1000 {
            fine = check(
                "loading 1000 instructions costs at most 5 % more",
                if ratio <= 1.05 {
                    Ok(format!("{without} to {with}, {ratio:.4}"))
                } else {
                    Err(format!("{without} to {with}, {ratio:.4}"))
                },
            );
        }
    }
    for ((what, without), (_, with)) in others_without.into_iter().zip(others()) {
        println!("COST {what} without {without:?} with {with:?} (least, median, nine of ten)",);
    }
    if let Some(armed) = gate.armed()? {
        let mut placed = entry(&long(3, None), vec![], Class::Signed);
        placed.image.places = vec!["somewhere".to_owned()];
        all.entries.push(placed);
        gate.replace(&armed, &all)?;
        let [_, (what, with), _] = others();
        println!("COST {what} once a rule names places {with:?}");
    }
    gate.disarm()?;
    match one_empty_hook() {
        Ok(with) => println!("COST map_lookup with an empty program on one hook {with:?}"),
        Err(error) => println!("COST no empty program on a hook: {error}"),
    }
    Ok(fine)
}

/// What the kernel's own trampoline costs: a program on the hook of every `bpf()` command that
/// does nothing.
fn one_empty_hook() -> io::Result<[u64; 3]> {
    const LSM: u32 = 29;
    const LSM_MAC: u32 = 27;
    let btf = Btf::from_vmlinux().map_err(io::Error::other)?;
    let hook = btf
        .type_by_name::<Func<'_>>("bpf_lsm_bpf")
        .ok_or(io::ErrorKind::NotFound)?;
    let program = Load {
        attach_type: LSM_MAC,
        btf_id: u32::from(hook.type_id()),
        ..Load::new("empty", LSM, &[r0(0), EXIT])
    }
    .load()?;
    let _link = Attr::new()
        .u32(8, program.as_raw_fd() as u32)
        .open(RAW_TRACEPOINT_OPEN)?;
    let [_, _, (_, lookup)] = others();
    Ok(lookup)
}

fn time(len: usize, runs: usize) -> u64 {
    let load = long(len, None);
    let mut held = Vec::with_capacity(runs);
    // The least: kernel threads that are busy after booting take turns with us.
    spread(runs, || held.push(load.load().expect("it is admitted")))[0]
}

/// Commands that no gate is about, by a thread that has never loaded anything.
fn others() -> [(&'static str, [u64; 3]); 3] {
    thread::spawn(time_others)
        .join()
        .expect("the commands succeed")
}

fn time_others() -> [(&'static str, [u64; 3]); 3] {
    let mut held = Vec::with_capacity(RUNS);
    let create = spread(RUNS, || held.push(map(ARRAY, 8, 0)));
    let one = map(ARRAY, 8, 0);
    let (key, mut value) = (0u32, [0u64; 1]);
    let attr = Attr::new()
        .u32(0, one.as_raw_fd() as u32)
        .u64(8, (&raw const key) as u64)
        .u64(16, value.as_mut_ptr() as u64);
    let update = spread(RUNS, || {
        attr.call(MAP_UPDATE_ELEM).expect("an array takes values");
    });
    let lookup = spread(RUNS, || {
        attr.call(MAP_LOOKUP_ELEM).expect("an array has its values");
    });
    [
        ("map_create", create),
        ("map_update", update),
        ("map_lookup", lookup),
    ]
}

/// Least, median, and what nine of ten do not exceed.
fn spread(runs: usize, mut each: impl FnMut()) -> [u64; 3] {
    let mut times: Vec<u64> = (0..runs)
        .map(|_| {
            let started = Instant::now();
            each();
            started.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    [times[0], times[runs / 2], times[runs * 9 / 10]]
}
