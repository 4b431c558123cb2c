//! A real server process and a client small enough to send anything.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod backends;
pub mod quarantine;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sha2::{Digest as _, Sha256, Sha512};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A `bpfseal-registry serve` that stops with the test.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub root: PathBuf,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        Self::with(root, &[])
    }

    pub fn with(root: &Path, flags: &[&str]) -> Self {
        Self::with_environment(root, flags, &[])
    }

    pub fn with_environment(root: &Path, flags: &[&str], set: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"))
            .args(["serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(root)
            .args(flags)
            .env("RUST_LOG", "warn")
            // Of the S3-compatible stores that tests start.
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .envs(set.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .split_once("://")
            .map(|(_, address)| address)
            .expect(&line);
        Self {
            child,
            address: address.parse().unwrap(),
            root: root.to_owned(),
        }
    }

    /// A client that logs in with every request.
    pub fn user(&self, name: &str, password: &str) -> Client {
        let mut client = self.client();
        client.authorization = Some(basic(name, password));
        client
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }

    /// Makes it read its configuration anew.
    pub fn hangup(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// SIGKILL: nothing is flushed, nothing said goodbye to.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Resident memory in KiB and open file descriptors.
    pub fn usage(&self) -> (u64, usize) {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let rss = rss.trim().trim_end_matches(" kB").parse().unwrap();
        (rss, std::fs::read_dir(proc.join("fd")).unwrap().count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status, and the code of the error document.
    pub fn refusal(&self) -> (u16, String) {
        let code = self.json()["errors"][0]["code"]
            .as_str()
            .unwrap()
            .to_owned();
        (self.status, code)
    }
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    /// Sent with every request.
    pub authorization: Option<String>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream: BufReader::new(stream),
            address,
            authorization: None,
        })
    }

    /// Sends a request with its length and expects an answer.
    pub fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_send(line, headers, body)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub fn try_send(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let mut request = format!("{line} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(authorization) = &self.authorization {
            request += &format!("authorization: {authorization}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes)?;
        self.reply(line.starts_with("HEAD "))
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), &[], b"")
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one answer.
    pub fn reply(&mut self, head: bool) -> std::io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status: u16 = status.ok_or_else(|| std::io::Error::other(line.clone()))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        let length: usize = reply.header("content-length").parse().unwrap_or(0);
        if !head && status != 204 && status != 304 {
            reply.body.resize(length, 0);
            self.stream.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Pushes a blob with one request; returns its digest.
    pub fn push_blob(&mut self, name: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let line = format!("POST /v2/{name}/blobs/uploads/?digest={digest}");
        let reply = self.send(&line, &[], bytes);
        assert_eq!(reply.status, 201, "{}", reply.text());
        digest
    }

    /// Starts an upload; returns its location.
    pub fn start_upload(&mut self, name: &str) -> String {
        let reply = self.send(&format!("POST /v2/{name}/blobs/uploads/"), &[], b"");
        assert_eq!(reply.status, 202);
        reply.header("location").to_owned()
    }

    /// Pushes a manifest that must be accepted; returns its digest.
    pub fn push_manifest(&mut self, name: &str, reference: &str, json: &str) -> String {
        let line = format!("PUT /v2/{name}/manifests/{reference}");
        let reply = self.send(&line, &[], json.as_bytes());
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.header("docker-content-digest").to_owned()
    }

    /// Pushes an image of one layer; returns the manifest's digest.
    pub fn push_image(&mut self, name: &str, tag: &str, layer: &[u8]) -> String {
        self.push_blob(name, b"{}");
        self.push_blob(name, layer);
        self.push_manifest(name, tag, &image(&[layer], None))
    }
}

pub fn basic(name: &str, password: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// Runs the program with `input` and returns its exit code.
pub fn command(arguments: &[&str], input: &str) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that needs no input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait().unwrap().code()
}

/// Adds users whose passwords are `pw-NAME`.
pub fn users(file: &Path, names: &[&str]) {
    for name in names {
        let file = file.to_str().unwrap();
        let arguments = ["user", "add", "--htpasswd", file, name, "--password-stdin"];
        assert_eq!(command(&arguments, &format!("pw-{name}\n")), Some(0));
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(bytes)))
}

/// An image manifest with an empty config.
pub fn image(layers: &[&[u8]], subject: Option<(&str, usize)>) -> String {
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() });
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("text/plain", layer))
        .collect();
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": layers,
    });
    if let Some((digest, size)) = subject {
        manifest["subject"] =
            serde_json::json!({ "mediaType": IMAGE, "digest": digest, "size": size });
    }
    manifest.to_string()
}

/// A signature-like artifact about `subject`, made different by `note`.
pub fn artifact(artifact_type: &str, subject: &str, note: &str) -> String {
    let mut manifest: serde_json::Value =
        serde_json::from_str(&image(&[], Some((subject, 2)))).unwrap();
    manifest["artifactType"] = artifact_type.into();
    manifest["annotations"] = serde_json::json!({ "note": note });
    manifest.to_string()
}

/// Waits until another process has removed a file, as the kernel tells it, for at most 20 s.
pub fn await_removal(file: &Path) {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC).unwrap();
    let removals = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF;
    let folder = file.parent().unwrap();
    match inotify::add_watch(&watch, folder, removals) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOENT) => return,
        Err(error) => panic!("{}: {error}", folder.display()),
    }
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut room);
        while events.next().is_ok() && told.send(()).is_ok() {}
    });
    while file.exists() {
        heard
            .recv_timeout(Duration::from_secs(20))
            .expect("the file is removed");
    }
}

/// Waits for something that another process does: asks until it is so, for at most 20 s.
pub fn eventually(mut is_so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < until, "it never was so");
        std::thread::yield_now();
    }
}
