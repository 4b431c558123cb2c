//! `bpfseal-registry` beside Debian's `docker-registry`: the same requests, in turns, on the
//! same disk. Prints requests a second (median of the rounds), the ratio of the medians, p50
//! and p99 of ours and theirs, and the servers' CPU and memory.
//!
//! `cargo bench -p tests --bench registry [-- FILTER]`; `BPFSEAL_BENCH_SECONDS` is the length
//! of one measurement (default 2), `BPFSEAL_BENCH_ROUNDS` their number (default 3).

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tests::{
    e2e,
    lab::{self, Cache},
};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let seconds = number("BPFSEAL_BENCH_SECONDS", 2);
    let rounds = number("BPFSEAL_BENCH_ROUNDS", 3) as usize;
    let folder = tempfile::tempdir_in(lab::target()).unwrap();
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
    peers.iter().for_each(|peer| fill(peer));
    println!(
        "{:<28} {:>9} {:>9} {:>7}   {:>17} {:>17}   {:>11} {:>13}",
        "",
        "ours/s",
        "theirs/s",
        "ratio",
        "p50 ms us/them",
        "p99 ms us/them",
        "CPU us/them",
        "MiB us/them"
    );
    for load in LOADS {
        if filter
            .as_ref()
            .is_some_and(|filter| !load.name.contains(filter.as_str()))
        {
            continue;
        }
        let mut results: Vec<Vec<Result>> = vec![Vec::new(); peers.len()];
        for _ in 0..rounds {
            for (peer, results) in peers.iter().zip(&mut results) {
                results.push(measure(peer, load, Duration::from_secs(seconds)));
            }
        }
        print(load, &results);
    }
}

/// One kind of work, repeated on each connection.
struct Load {
    name: &'static str,
    connections: usize,
    work: fn(&Peer, &mut Connection),
}

const LOADS: &[Load] = &[
    Load {
        name: "GET /v2/",
        connections: 8,
        work: |_, c| c.get("/v2/"),
    },
    Load {
        name: "blob GET 4 KiB",
        connections: 8,
        work: |p, c| c.get(&p.blobs[0]),
    },
    Load {
        name: "blob GET 64 KiB",
        connections: 8,
        work: |p, c| c.get(&p.blobs[1]),
    },
    Load {
        name: "blob GET 300 KiB",
        connections: 8,
        work: |p, c| c.get(&p.blobs[2]),
    },
    Load {
        name: "blob GET 64 MiB",
        connections: 2,
        work: |p, c| c.get(&p.blobs[3]),
    },
    Load {
        name: "blob HEAD",
        connections: 8,
        work: |p, c| c.head(&p.blobs[0]),
    },
    Load {
        name: "manifest GET by tag",
        connections: 8,
        work: |_, c| c.get("/v2/bench/manifests/v1"),
    },
    Load {
        name: "manifest GET by digest",
        connections: 8,
        work: |p, c| c.get(&p.manifest),
    },
    Load {
        name: "push artifact 4 KiB",
        connections: 8,
        work: |_, c| c.push(4 << 10),
    },
    Load {
        name: "push blob 300 KiB",
        connections: 8,
        work: |_, c| drop(c.push_blob(&unique(300 << 10))),
    },
    Load {
        name: "push 64 MiB in chunks",
        connections: 1,
        work: |_, c| c.push_chunks(64 << 20, 16 << 20),
    },
    Load {
        name: "tags, all 10,000",
        connections: 8,
        work: |_, c| c.get("/v2/many/tags/list"),
    },
    Load {
        name: "tags, n=100",
        connections: 8,
        work: |_, c| c.get("/v2/many/tags/list?n=100"),
    },
];

/// Tags in the repository `many`.
const TAGS: usize = 10_000;

/// A server under load.
struct Peer {
    child: Child,
    address: SocketAddr,
    blobs: Vec<String>,
    manifest: String,
}

impl Peer {
    fn ours(root: &Path) -> Self {
        let mut child = Command::new(e2e::program("bpfseal-registry"))
            .args(["serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(root)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        Self::new(child, address.parse().unwrap())
    }

    fn theirs(program: &Path, root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let config = root.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            root.join("data").display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        e2e::wait_until_listening(address);
        Self::new(child, address)
    }

    fn new(child: Child, address: SocketAddr) -> Self {
        Self {
            child,
            address,
            blobs: BLOBS.map(|size| blob_path(&bytes(size))).into(),
            manifest: manifest_path(),
        }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(PathBuf::from(format!("/proc/{}/{file}", self.child.id()))).unwrap()
    }

    /// Processor time so far, in seconds (`proc(5)`: fields 14 and 15, in ticks of 10 ms).
    fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }

    fn memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BLOBS: [usize; 4] = [4 << 10, 64 << 10, 300 << 10, 64 << 20];

fn fill(peer: &Peer) {
    let mut connection = Connection::open(peer.address);
    for size in BLOBS {
        connection.push_blob(&bytes(size));
    }
    let (manifest, parts) = manifest(&bytes(BLOBS[0]));
    parts
        .iter()
        .for_each(|part| drop(connection.push_blob(part)));
    connection.put_manifest("bench", "v1", &manifest);
    let started = Instant::now();
    thread::scope(|scope| {
        for part in 0..8 {
            let manifest = &manifest;
            scope.spawn(move || {
                let mut connection = Connection::open(peer.address);
                for bytes in [&b"{}"[..], &bytes(BLOBS[0])] {
                    connection.push_blob_to("many", bytes);
                }
                for tag in (part..TAGS).step_by(8) {
                    connection.put_manifest("many", &format!("tag-{tag:05}"), manifest);
                }
            });
        }
    });
    println!(
        "{TAGS} tags written in {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

/// What one measurement found.
#[derive(Clone, Copy)]
struct Result {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    memory: u64,
}

fn measure(peer: &Peer, load: &Load, length: Duration) -> Result {
    let cpu = peer.cpu();
    let started = Instant::now();
    let mut times: Vec<f64> = thread::scope(|scope| {
        let workers: Vec<_> = (0..load.connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(peer.address);
                    let mut times = Vec::new();
                    while started.elapsed() < length {
                        let before = Instant::now();
                        (load.work)(peer, &mut connection);
                        times.push(before.elapsed().as_secs_f64() * 1e3);
                    }
                    times
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    let took = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    Result {
        rate: times.len() as f64 / took,
        p50: at(0.5),
        p99: at(0.99),
        cpu: (peer.cpu() - cpu) / took * 100.0,
        memory: peer.memory(),
    }
}

fn print(load: &Load, results: &[Vec<Result>]) {
    let median = |results: &[Result], value: fn(&Result) -> f64| {
        let mut values: Vec<f64> = results.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let both = |value: fn(&Result) -> f64| -> Vec<f64> {
        results
            .iter()
            .map(|results| median(results, value))
            .collect()
    };
    let pair = |values: Vec<f64>, digits: usize| {
        let texts: Vec<String> = values
            .iter()
            .map(|value| format!("{value:.digits$}"))
            .collect();
        texts.join("/")
    };
    let rates = both(|result| result.rate);
    let theirs = rates
        .get(1)
        .map_or("-".to_owned(), |rate| format!("{rate:.0}"));
    let ratio = rates
        .get(1)
        .map_or("-".to_owned(), |rate| format!("{:.1}", rates[0] / rate));
    println!(
        "{:<28} {:>9.0} {:>9} {:>7}   {:>17} {:>17}   {:>11} {:>13}",
        format!("{} (c={})", load.name, load.connections),
        rates[0],
        theirs,
        ratio,
        pair(both(|result| result.p50), 2),
        pair(both(|result| result.p99), 2),
        pair(both(|result| result.cpu), 0),
        pair(both(|result| result.memory as f64), 0),
    );
}

/// A keep-alive connection that reads answers with as little work as possible, since it
/// shares the machine with the servers.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    head: String,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: vec![0; 1 << 18],
            head: String::new(),
        }
    }

    fn get(&mut self, path: &str) {
        assert_eq!(self.send(&format!("GET {path}"), "", b""), 200, "{path}");
    }

    fn head(&mut self, path: &str) {
        assert_eq!(self.send(&format!("HEAD {path}"), "", b""), 200, "{path}");
    }

    /// A blob and a manifest nobody has seen.
    fn push(&mut self, size: usize) {
        let layer = unique(size);
        let (manifest, parts) = manifest(&layer);
        self.push_blob(&parts[1]);
        let tag = format!("t{}", &hex::encode(Sha256::digest(&layer))[..16]);
        self.put_manifest("bench", &tag, &manifest);
    }

    fn push_blob(&mut self, bytes: &[u8]) -> String {
        self.push_blob_to("bench", bytes)
    }

    fn push_blob_to(&mut self, name: &str, bytes: &[u8]) -> String {
        let location = self.start(name);
        self.finish(&location, &digest(bytes), bytes);
        location
    }

    fn push_chunks(&mut self, size: usize, chunk: usize) {
        let bytes = unique(size);
        let mut location = self.start("bench");
        for (n, part) in bytes.chunks(chunk).enumerate() {
            let first = n * chunk;
            let range = format!("content-range: {first}-{}\r\n", first + part.len() - 1);
            assert_eq!(self.send(&format!("PATCH {location}"), &range, part), 202);
            location = self.location();
        }
        self.finish(&location, &digest(&bytes), b"");
    }

    fn start(&mut self, name: &str) -> String {
        assert_eq!(
            self.send(&format!("POST /v2/{name}/blobs/uploads/"), "", b""),
            202
        );
        self.location()
    }

    fn finish(&mut self, location: &str, digest: &str, bytes: &[u8]) {
        let join = if location.contains('?') { '&' } else { '?' };
        assert_eq!(
            self.send(&format!("PUT {location}{join}digest={digest}"), "", bytes),
            201
        );
    }

    fn put_manifest(&mut self, name: &str, reference: &str, manifest: &str) {
        let line = format!("PUT /v2/{name}/manifests/{reference}");
        let status = self.send(
            &line,
            &format!("content-type: {IMAGE}\r\n"),
            manifest.as_bytes(),
        );
        assert_eq!(status, 201, "{line}");
    }

    /// Without the host, which docker-registry includes.
    fn location(&self) -> String {
        let location = header(&self.head, "location").unwrap();
        location
            .find("/v2/")
            .map(|at| location[at..].to_owned())
            .unwrap()
    }

    fn send(&mut self, line: &str, headers: &str, body: &[u8]) -> u16 {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: bench\r\naccept: {IMAGE}\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        if body.len() < 1 << 16 {
            self.stream
                .write_all(&[head.as_bytes(), body].concat())
                .unwrap();
        } else {
            self.stream.write_all(head.as_bytes()).unwrap();
            self.stream.write_all(body).unwrap();
        }
        self.read(line.starts_with("HEAD"))
    }

    fn read(&mut self, head_only: bool) -> u16 {
        let mut filled = 0;
        let end = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).unwrap();
            assert!(read > 0, "the server hung up");
            filled += read;
            let head = self.buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = head {
                break end + 4;
            }
        };
        self.head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let status = self.head[9..12].parse().unwrap();
        if head_only || status == 204 {
            return status;
        }
        match header(&self.head, "content-length") {
            Some(length) => {
                let mut left = length.parse::<usize>().unwrap() - (filled - end);
                while left > 0 {
                    let part = left.min(self.buffer.len());
                    let read = self.stream.read(&mut self.buffer[..part]).unwrap();
                    assert!(read > 0, "the server hung up");
                    left -= read;
                }
            }
            // Chunked: everything ends with an empty chunk.
            None => {
                let mut tail = self.buffer[end..filled].to_vec();
                while !tail.ends_with(b"0\r\n\r\n") {
                    let read = self.stream.read(&mut self.buffer).unwrap();
                    assert!(read > 0, "the server hung up");
                    tail.extend_from_slice(&self.buffer[..read]);
                    tail.drain(..tail.len().saturating_sub(5));
                }
            }
        }
        status
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Bytes that are always the same.
fn bytes(size: usize) -> Vec<u8> {
    (0..size)
        .map(|n| (n / 7) as u8 ^ (size >> 9) as u8)
        .collect()
}

/// Bytes that never come again.
fn unique(size: usize) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = vec![0; size];
    let stamp = (
        NEXT.fetch_add(1, Ordering::Relaxed),
        std::process::id(),
        Instant::now(),
    );
    let seed: [u8; 32] = Sha256::digest(format!("{stamp:?}")).into();
    bytes[..32].copy_from_slice(&seed);
    bytes
}

fn manifest(layer: &[u8]) -> (String, [Vec<u8>; 2]) {
    let parts = [b"{}".to_vec(), layer.to_vec()];
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &parts[0]),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &parts[1])],
    });
    (json.to_string(), parts)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn blob_path(bytes: &[u8]) -> String {
    format!("/v2/bench/blobs/{}", digest(bytes))
}

fn manifest_path() -> String {
    let (manifest, _) = manifest(&bytes(BLOBS[0]));
    format!("/v2/bench/manifests/{}", digest(manifest.as_bytes()))
}
