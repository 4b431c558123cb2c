//! A repository of The Update Framework, made and signed by hand: what a client may believe,
//! and with one call less, what it must not.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bundle::Digest;
use policy::{
    key::Algorithm,
    signer::{self, Signer},
};
use ring::rand::SystemRandom;
use serde_json::{Map, Value, json};

/// A repository in a folder, with consistent snapshots.
pub struct Tuf {
    /// Where its files are.
    pub folder: PathBuf,
    /// Who signs roots and targets, two of them at least.
    pub keyholders: Vec<Signer>,
    /// Signs snapshots and timestamps.
    pub online: Signer,
    /// Of the newest root.
    pub root_version: u64,
    /// Of all the other roles.
    pub version: u64,
    /// Until when what is published is fresh.
    pub expires: &'static str,
}

/// Signatures that a root or targets file needs.
const THRESHOLD: usize = 2;
/// Far enough.
pub const LATER: &str = "2090-01-01T00:00:00Z";

impl Tuf {
    /// A repository with its first root and nothing else.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("targets")).expect("the folder can be made");
        let mut tuf = Self {
            folder: folder.to_owned(),
            keyholders: vec![key(), key(), key()],
            online: key(),
            root_version: 0,
            version: 0,
            expires: LATER,
        };
        tuf.publish_root(&[]);
        tuf
    }

    /// The newest root, as a user gets it.
    pub fn root(&self) -> String {
        let path = self.folder.join(format!("{}.root.json", self.root_version));
        fs::read_to_string(path).expect("a root is published")
    }

    /// The next root, with the keys that this has now, signed by their first two and by
    /// `former`.
    pub fn publish_root(&mut self, former: &[Signer]) {
        self.root_version += 1;
        let signed = self.root_of(self.root_version);
        let now = self.keyholders.iter().take(THRESHOLD);
        let signers: Vec<&Signer> = now.chain(former).collect();
        self.write(
            &format!("{}.root.json", self.root_version),
            &signed,
            &signers,
        );
    }

    /// A root with the keys that this has now.
    pub fn root_of(&self, version: u64) -> Value {
        let mut keys = Map::new();
        for key in self.keyholders.iter().chain([&self.online]) {
            let raw = &key.public_key().spki()[12..];
            keys.insert(
                id(key),
                json!({
                    "keytype": "ed25519", "scheme": "ed25519",
                    "keyval": { "public": hex::encode(raw) },
                }),
            );
        }
        let held: Vec<String> = self.keyholders.iter().map(id).collect();
        let held = json!({ "keyids": held, "threshold": THRESHOLD });
        let online = json!({ "keyids": [id(&self.online)], "threshold": 1 });
        json!({
            "_type": "root", "spec_version": "1.0.31", "version": version,
            "expires": LATER, "consistent_snapshot": true, "keys": keys,
            "roles": { "root": held, "targets": held, "snapshot": online, "timestamp": online },
        })
    }

    /// The next version of everything, with these files.
    pub fn publish(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let mut targets = Map::new();
        for (name, content) in files {
            let hash = Digest::of(content.as_bytes()).to_hex();
            let path = self.folder.join(format!("targets/{hash}.{name}"));
            fs::write(path, content).expect("the folder can be written to");
            let of = json!({ "length": content.len(), "hashes": { "sha256": hash } });
            targets.insert((*name).to_owned(), of);
        }
        let targets = self.of("targets", "targets", Value::from(targets));
        let held: Vec<&Signer> = self.keyholders.iter().take(THRESHOLD).collect();
        let targets = self.write(&self.named("targets"), &targets, &held);
        self.publish_pins(&targets);
    }

    /// A snapshot and a timestamp that pin these targets.
    pub fn publish_pins(&self, targets: &str) {
        let pins = json!({ "targets.json": self.pin(targets) });
        let snapshot = self.of("snapshot", "meta", pins);
        let snapshot = self.write(&self.named("snapshot"), &snapshot, &[&self.online]);
        let pins = json!({ "snapshot.json": self.pin(&snapshot) });
        let timestamp = self.of("timestamp", "meta", pins);
        self.write("timestamp.json", &timestamp, &[&self.online]);
    }

    /// A role's content.
    pub fn of(&self, role: &str, field: &str, content: Value) -> Value {
        json!({
            "_type": role, "spec_version": "1.0.31", "version": self.version,
            "expires": self.expires, field: content,
        })
    }

    /// Signs and writes a file, and hands its text over.
    pub fn write(&self, name: &str, signed: &Value, signers: &[&Signer]) -> String {
        // Keys are sorted and nothing here needs an escape: this is the canonical form.
        let message = signed.to_string();
        let signatures: Vec<Value> = signers
            .iter()
            .map(|signer| {
                let signature = signer.sign(message.as_bytes(), &SystemRandom::new());
                let signature = signature.expect("randomness");
                json!({ "keyid": id(signer), "sig": hex::encode(signature) })
            })
            .collect();
        let text = json!({ "signed": signed, "signatures": signatures }).to_string();
        fs::write(self.folder.join(name), &text).expect("the folder can be written to");
        text
    }

    /// `7.targets.json`.
    pub fn named(&self, role: &str) -> String {
        format!("{}.{role}.json", self.version)
    }

    fn pin(&self, text: &str) -> Value {
        let hash = Digest::of(text.as_bytes()).to_hex();
        json!({ "version": self.version, "length": text.len(), "hashes": { "sha256": hash } })
    }
}

/// A new Ed25519 key.
pub fn key() -> Signer {
    let random = SystemRandom::new();
    let files = signer::generate(Algorithm::Ed25519, None, &random).expect("randomness");
    let mut none = || unreachable!("the key is not encrypted");
    let (signer, _) =
        Signer::from_pem(files.private.as_bytes(), &mut none, &random).expect("a key just made");
    signer
}

fn id(key: &Signer) -> String {
    key.public_key().id().to_hex()
}

/// Serves a folder by HTTP until it is stopped.
pub struct Mirror {
    /// `127.0.0.1:PORT`.
    pub address: String,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Starts it.
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, folder) = (Arc::clone(&stop), folder.to_owned());
        let server = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                serve(&stream, &folder);
            }
        });
        Self {
            address,
            stop,
            server: Some(server),
        }
    }

    /// Takes no more connections; its port is free when this returns.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // The server looks at the flag when somebody comes.
        let _ = TcpStream::connect(&self.address);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(mut stream: &TcpStream, folder: &Path) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let name = first
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .trim_start_matches('/');
    for line in lines {
        if line.is_empty() {
            break;
        }
    }
    let (status, body) = match fs::read(folder.join(name)) {
        Ok(body) => (200, body),
        Err(_) => (404, Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} so\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body);
}
