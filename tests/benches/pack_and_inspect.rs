//! Throughput of what reads and packs objects, in bytes of ELF.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use bundle::{
    embedded, inventory,
    layout::{Layout, Limits},
    pack::{PackOptions, pack},
};
use tests::fixtures;

/// Runs of each measurement; odd, so that there is a median.
const RUNS: usize = 101;

fn main() {
    let objects = objects();
    let bytes = objects.iter().map(|(_, elf)| elf.len()).sum();
    let options = PackOptions::default();
    let packed = pack(objects.clone(), &options).unwrap();
    let mut tar = Vec::new();
    packed
        .into_layout(Some("v1"))
        .unwrap()
        .write(&mut tar, 0)
        .unwrap();
    let executable = executable(&objects[0].1);

    println!("median of {RUNS} runs; five fixtures have {bytes} bytes\n");
    measure("inspect five fixtures", bytes, || {
        for (name, elf) in &objects {
            black_box(inventory::read(name, elf).unwrap());
        }
    });
    measure("pack five fixtures", bytes, || {
        black_box(pack(objects.clone(), &options).unwrap());
    });
    measure("open their bundle and check its inventory", bytes, || {
        let layout = Layout::read(tar.as_slice(), &Limits::default()).unwrap();
        layout.bundle().unwrap().check_inventory().unwrap();
    });
    measure(
        "find an object in an executable of 8 MiB",
        executable.len(),
        || {
            assert_eq!(black_box(embedded::find(&executable)).len(), 1);
        },
    );
}

fn objects() -> Vec<(String, Vec<u8>)> {
    let names = [
        "count_exec",
        "drop_port",
        "refuse_ptrace",
        "trace_unlink",
        "watch_open",
    ];
    names
        .into_iter()
        .map(|name| {
            let elf = fs::read(fixtures::object(name)).unwrap();
            (format!("{name}.bpf.o"), elf)
        })
        .collect()
}

/// Bytes without any order, and an object after them.
fn executable(object: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..8_u32 << 20)
        .map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    bytes.extend_from_slice(object);
    bytes
}

fn measure(what: &str, bytes: usize, mut work: impl FnMut()) {
    work();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let median = times[RUNS / 2].as_secs_f64();
    println!(
        "  {what:42} {:9.3} ms {:9.1} MB/s",
        median * 1e3,
        bytes as f64 / median / 1e6
    );
}
