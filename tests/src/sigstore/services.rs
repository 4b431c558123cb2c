//! The real log (Rekor, API 2) and the real time-stamp authority, built from Debian's packages.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use bundle::Digest;
use policy::{
    key::{Algorithm, PublicKey},
    signer,
};
use ring::rand::SystemRandom;

use super::vector;
use crate::{e2e::wait_until_listening, lab::Cache};

/// Both, running; they end with the test.
pub struct Services {
    servers: [Child; 2],
    /// The time-stamp authority has a port that nothing changes (2112, metrics), and ends where
    /// another one has it: one after the other.
    _alone: fs::File,
    /// `127.0.0.1:PORT` of the log.
    pub log: SocketAddr,
    /// `127.0.0.1:PORT` of the time-stamp authority.
    pub stamps: SocketAddr,
    /// The log's key (Ed25519).
    pub key: PublicKey,
}

/// How the log names itself in its checkpoints.
pub const ORIGIN: &str = "log.test";

impl Services {
    /// Starts them; `folder` is their workshop.
    pub fn start(folder: &Path) -> Self {
        let program = |name: &str| {
            let path = Cache::open().program("sigstore-services", name);
            path.unwrap_or_else(|error| panic!("{error}"))
        };
        let alone = log_file(&Cache::open().root().join("sigstore-services.lock"));
        alone.lock().expect("a file can be locked");
        let path = |name: &str| folder.join(name);
        let files = signer::generate(Algorithm::Ed25519, None, &SystemRandom::new());
        let files = files.expect("randomness");
        for (name, content) in [
            ("log.key", files.private.as_bytes()),
            ("stamps.key", &vector("tsa.key")),
            ("stamps.pem", &vector("tsa.pem")),
        ] {
            fs::write(path(name), content).expect("the folder can be written to");
        }
        fs::create_dir_all(path("log")).expect("the folder can be written to");
        let [http, grpc, metrics, stamps] = free_ports();
        let log = Command::new(program("rekor-server"))
            .args(["serve", "--hostname", ORIGIN, "--log-level", "error"])
            .args(["--checkpoint-interval", "1s", "--batch-max-age", "50ms"])
            .args(["--http-port", &http.to_string()])
            .args(["--grpc-port", &grpc.to_string()])
            .args(["--http-metrics-port", &metrics.to_string()])
            .arg("--signer-filepath")
            .arg(path("log.key"))
            .arg("--storage-dir")
            .arg(path("log"))
            .stdin(Stdio::null())
            .stderr(log_file(&path("log.err")))
            .spawn()
            .expect("rekor-server starts");
        let authority = Command::new(program("timestamp-server"))
            .args(["serve", "--host", "127.0.0.1", "--disable-ntp-monitoring"])
            .args(["--timestamp-signer", "file"])
            .args(["--port", &stamps.to_string()])
            .arg("--file-signer-key-path")
            .arg(path("stamps.key"))
            .arg("--certificate-chain-path")
            .arg(path("stamps.pem"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(log_file(&path("stamps.err")))
            .stdout(log_file(&path("stamps.out")))
            .spawn()
            .expect("timestamp-server starts");
        let services = Self {
            servers: [log, authority],
            _alone: alone,
            log: (Ipv4Addr::LOCALHOST, http).into(),
            stamps: (Ipv4Addr::LOCALHOST, stamps).into(),
            key: files.public,
        };
        wait_until_listening(services.log);
        wait_until_listening(services.stamps);
        services
    }

    /// How a trusted root names the log: by origin and key, as in its checkpoints (C2SP
    /// `signed-note.md`, signature type 1).
    pub fn log_id(&self) -> Digest {
        let spki = self.key.spki();
        let raw = &spki[spki.len() - 32..];
        Digest::of(&[ORIGIN.as_bytes(), b"\n", &[1], raw].concat())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It may have ended by itself, which the test has then noticed.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn log_file(path: &Path) -> fs::File {
    fs::File::create(path).expect("the folder can be written to")
}

/// Ports that are free: these servers do not say which port they were given. They lie below those
/// that Linux gives to whoever does not mind (32768 and up), so that nobody else comes by them.
fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = (0..PORTS).filter_map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = process::id().wrapping_mul(64).wrapping_add(next) % PORTS;
        let port = FIRST_PORT + u16::try_from(offset).expect("it is small");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .is_ok()
            .then_some(port)
    });
    std::array::from_fn(|_| ports.next().expect("a free port"))
}

const FIRST_PORT: u16 = 20_000;
const PORTS: u32 = 12_000;
