//! `bpfseal-registry` beside Debian's `docker-registry`: the same requests, in turns, on the
//! same disk, flushing on in both. Prints requests a second (median of the rounds), the ratio of
//! the medians, p50 and p99 of ours and theirs, and the servers' CPU and peak memory. Then an
//! instance of ours with a million manifests answers alone.
//!
//! `cargo bench -p tests --bench registry [-- FILTER...]`: rows whose name holds one of the
//! filters; `million` is the last part. `BPFSEAL_BENCH_SECONDS` is the length of one
//! measurement (default 2), `BPFSEAL_BENCH_ROUNDS` their number (default 3),
//! `BPFSEAL_BENCH_MANIFESTS` how many the last part has (default 1,000,000).

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

#[path = "registry/connection.rs"]
mod connection;
#[path = "registry/million.rs"]
mod million;
#[path = "registry/peer.rs"]
mod peer;

use std::{
    env,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use connection::{Connection, bytes, digest, manifest, unique};
use peer::Peer;
use tests::lab::{self, Cache};

fn main() {
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(part));
    let length = Duration::from_secs(number("BPFSEAL_BENCH_SECONDS", 2));
    let rounds = number("BPFSEAL_BENCH_ROUNDS", 3) as usize;
    let folder = tempfile::tempdir_in(lab::target()).unwrap();
    let mut loads = LOADS.iter().filter(|load| wanted(load.name)).peekable();
    if loads.peek().is_some() {
        let ours = Peer::ours(&folder.path().join("ours"));
        let theirs = match Cache::open().program("docker-registry", "docker-registry") {
            Ok(program) => Some(Peer::theirs(&program, &folder.path().join("theirs"))),
            Err(error) => {
                println!("SKIPPED docker-registry: {error}");
                None
            }
        };
        let peers: Vec<&Peer> = [Some(&ours), theirs.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        print_head();
        fill(&peers);
        for load in loads {
            for &connections in load.connections {
                let mut results: Vec<Vec<Measured>> = vec![Vec::new(); peers.len()];
                for _ in 0..rounds {
                    for (peer, results) in peers.iter().zip(&mut results) {
                        if peer.ours || !load.ours_alone {
                            results.push(measure(peer, load, connections, length));
                        }
                    }
                }
                print(load.name, connections, &results);
            }
        }
    }
    if wanted("million") {
        let manifests = number("BPFSEAL_BENCH_MANIFESTS", 1_000_000);
        million::measure(&folder.path().join("million"), manifests);
    }
}

fn number(name: &str, default: u64) -> u64 {
    let text = env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One kind of work, repeated on each connection.
struct Load {
    name: &'static str,
    /// How many connections at a time, one line of the table for each.
    connections: &'static [usize],
    /// docker-registry has no such endpoint.
    ours_alone: bool,
    work: fn(&mut Connection),
}

const fn load(
    name: &'static str,
    connections: &'static [usize],
    work: fn(&mut Connection),
) -> Load {
    Load {
        name,
        connections,
        ours_alone: false,
        work,
    }
}

const BOTH: &[usize] = &[8, 64];

const LOADS: &[Load] = &[
    load("GET /v2/", &[8], |c| c.get("/v2/")),
    load("blob GET 4 KiB", BOTH, |c| c.get(&PATHS.blobs[0])),
    load("blob GET 64 KiB", BOTH, |c| c.get(&PATHS.blobs[1])),
    load("blob GET 300 KiB", BOTH, |c| c.get(&PATHS.blobs[2])),
    load("blob GET 64 MiB", &[2, 64], |c| c.get(&PATHS.blobs[3])),
    load("blob HEAD", BOTH, |c| c.head(&PATHS.blobs[0])),
    load("manifest GET by tag", BOTH, |c| {
        c.get("/v2/bench/manifests/v1")
    }),
    load("manifest GET by digest", BOTH, |c| c.get(&PATHS.manifest)),
    load("manifest HEAD by tag", &[8], |c| {
        c.head("/v2/bench/manifests/v1")
    }),
    load("push an artifact of 4 KiB", BOTH, |c| c.push(4 << 10)),
    load("push a blob of 300 KiB", BOTH, |c| {
        c.push_blob("bench", &unique(300 << 10));
    }),
    load("push 64 MiB in 16 MiB chunks", &[1, 4], |c| {
        c.push_chunks(64 << 20, 16 << 20);
    }),
    load("tags, all 10,000", &[8], |c| c.get("/v2/many/tags/list")),
    load("tags, n=100", BOTH, |c| c.get("/v2/many/tags/list?n=100")),
    Load {
        ours_alone: true,
        ..load("referrers, 1,000", BOTH, |c| c.get(&PATHS.referrers))
    },
];

/// Sizes of the blobs that are read.
const BLOBS: [usize; 4] = [4 << 10, 64 << 10, 300 << 10, 64 << 20];

/// Tags in the repository `many`, and in how many parts they are written.
const TAGS: usize = 10_000;
const PARTS: usize = 5;

/// Manifests about one.
const REFERRERS: usize = 1_000;

/// What is read.
struct Paths {
    blobs: Vec<String>,
    manifest: String,
    referrers: String,
}

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    let blob = |size| format!("/v2/bench/blobs/{}", digest(&bytes(size)));
    let (manifest, _) = manifest(&bytes(BLOBS[0]), None);
    let manifest = digest(manifest.as_bytes());
    Paths {
        blobs: BLOBS.map(blob).into(),
        referrers: format!("/v2/bench/referrers/{manifest}"),
        manifest: format!("/v2/bench/manifests/{manifest}"),
    }
});

/// Puts the same into each. Writing the tags is measured, in turns.
fn fill(peers: &[&Peer]) {
    let layer = bytes(BLOBS[0]);
    let (manifest, parts) = manifest(&layer, None);
    for peer in peers {
        let mut connection = Connection::open(peer.address);
        for size in BLOBS {
            connection.push_blob("bench", &bytes(size));
        }
        for name in ["bench", "many"] {
            for part in &parts {
                connection.push_blob(name, part);
            }
        }
        connection.put_manifest("bench", "v1", &manifest);
        if peer.ours {
            refer(peer, &layer, &manifest);
        }
    }
    let mut results: Vec<Vec<Measured>> = vec![Vec::new(); peers.len()];
    for part in 0..PARTS {
        for (peer, results) in peers.iter().zip(&mut results) {
            results.push(run(peer, 8, |worker, connection, time| {
                let first = part * TAGS / PARTS + worker;
                for tag in (first..(part + 1) * TAGS / PARTS).step_by(8) {
                    time(&mut || {
                        connection.put_manifest("many", &format!("tag-{tag:05}"), &manifest);
                    });
                }
            }));
        }
    }
    print("10,000 tags written", 8, &results);
}

/// Pushes manifests about `subject`.
fn refer(peer: &Peer, layer: &[u8], subject: &str) {
    thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                let mut connection = Connection::open(peer.address);
                for n in (worker..REFERRERS).step_by(8) {
                    let (text, _) = manifest(layer, Some(subject));
                    let text = format!(
                        "{},\"annotations\":{{\"n\":\"{n}\"}}}}",
                        &text[..text.len() - 1]
                    );
                    connection.put_manifest("bench", &digest(text.as_bytes()), &text);
                }
            });
        }
    });
}

/// What one measurement found.
#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    memory: u64,
}

fn measure(peer: &Peer, load: &Load, connections: usize, length: Duration) -> Measured {
    let started = Instant::now();
    run(peer, connections, |_, connection, time| {
        while started.elapsed() < length {
            time(&mut || (load.work)(connection));
        }
    })
}

/// Lets each of `connections` workers do its work. What it hands to its last argument is a
/// request that counts.
fn run(
    peer: &Peer,
    connections: usize,
    work: impl Fn(usize, &mut Connection, &mut dyn FnMut(&mut dyn FnMut())) + Sync,
) -> Measured {
    peer.forget_peak();
    let cpu = peer.cpu();
    let started = Instant::now();
    let work = &work;
    let mut times: Vec<f64> = thread::scope(|scope| {
        let start = |worker| {
            scope.spawn(move || {
                let mut connection = Connection::open(peer.address);
                let mut times = Vec::new();
                work(worker, &mut connection, &mut |request| {
                    let before = Instant::now();
                    request();
                    times.push(before.elapsed().as_secs_f64() * 1e3);
                });
                times
            })
        };
        let workers: Vec<_> = (0..connections).map(start).collect();
        let times = workers.into_iter().map(|worker| worker.join().unwrap());
        times.flatten().collect()
    });
    let took = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Measured {
        rate: times.len() as f64 / took,
        p50: quantile(&times, 0.5),
        p99: quantile(&times, 0.99),
        cpu: (peer.cpu() - cpu) / took * 100.0,
        memory: peer.peak(),
    }
}

/// Of values in order.
fn quantile(values: &[f64], part: f64) -> f64 {
    values[((values.len() - 1) as f64 * part) as usize]
}

fn print_head() {
    println!("| | connections | ours/s | theirs/s | ratio | p50 ms | p99 ms | CPU % | peak MiB |");
    println!("|---|---|---|---|---|---|---|---|---|");
}

/// One line of the table. Values of ours stand before the slash.
fn print(name: &str, connections: usize, results: &[Vec<Measured>]) {
    let results: Vec<_> = results.iter().filter(|rounds| !rounds.is_empty()).collect();
    let median = |rounds: &[Measured], value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        quantile(&values, 0.5)
    };
    let pair = |digits: usize, value: fn(&Measured) -> f64| {
        let values = results.iter().map(|rounds| median(rounds, value));
        let texts: Vec<String> = values.map(|value| format!("{value:.digits$}")).collect();
        texts.join(" / ")
    };
    let rates: Vec<f64> = results
        .iter()
        .map(|rounds| median(rounds, |result| result.rate))
        .collect();
    let theirs = rates.get(1);
    println!(
        "| {name} | {connections} | {:.0} | {} | {} | {} | {} | {} | {} |",
        rates[0],
        theirs.map_or("–".to_owned(), |rate| format!("{rate:.0}")),
        theirs.map_or("–".to_owned(), |rate| format!("{:.1}", rates[0] / rate)),
        pair(2, |result| result.p50),
        pair(2, |result| result.p99),
        pair(0, |result| result.cpu),
        pair(0, |result| result.memory as f64),
    );
}
