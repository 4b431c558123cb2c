//! A client that costs little, since it shares the machine with the servers, and what it
//! pushes.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use sha2::{Digest as _, Sha256};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    head: Vec<u8>,
    request: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: vec![0; 1 << 18],
            head: Vec::new(),
            request: Vec::new(),
        }
    }

    pub fn get(&mut self, path: &str) {
        assert_eq!(self.send("GET", path, "", b""), 200, "{path}");
    }

    pub fn head(&mut self, path: &str) {
        assert_eq!(self.send("HEAD", path, "", b""), 200, "{path}");
    }

    /// A blob and a manifest nobody has seen.
    pub fn push(&mut self, size: usize) {
        let layer = unique(size);
        let (manifest, parts) = manifest(&layer, None);
        self.push_blob("bench", &parts[1]);
        let tag = format!("t{}", &hex::encode(Sha256::digest(&layer))[..16]);
        self.put_manifest("bench", &tag, &manifest);
    }

    pub fn push_blob(&mut self, name: &str, bytes: &[u8]) {
        let location = self.start(name);
        self.finish(&location, &digest(bytes), bytes);
    }

    pub fn push_chunks(&mut self, size: usize, chunk: usize) {
        let bytes = unique(size);
        let mut location = self.start("bench");
        for (n, part) in bytes.chunks(chunk).enumerate() {
            let first = n * chunk;
            let range = format!("content-range: {first}-{}\r\n", first + part.len() - 1);
            assert_eq!(self.send("PATCH", &location, &range, part), 202);
            location = self.location();
        }
        self.finish(&location, &digest(&bytes), b"");
    }

    fn start(&mut self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        assert_eq!(self.send("POST", &path, "", b""), 202);
        self.location()
    }

    fn finish(&mut self, location: &str, digest: &str, bytes: &[u8]) {
        let join = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{join}digest={digest}");
        assert_eq!(self.send("PUT", &path, "", bytes), 201);
    }

    pub fn put_manifest(&mut self, name: &str, reference: &str, manifest: &str) {
        let path = format!("/v2/{name}/manifests/{reference}");
        let content_type = format!("content-type: {IMAGE}\r\n");
        let status = self.send("PUT", &path, &content_type, manifest.as_bytes());
        assert_eq!(
            status,
            201,
            "{path}: {}",
            String::from_utf8_lossy(&self.head)
        );
    }

    /// Without the host, which docker-registry includes.
    fn location(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let location = header(&head, "location").unwrap();
        location
            .find("/v2/")
            .map(|at| location[at..].to_owned())
            .unwrap()
    }

    fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> u16 {
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: bench\r\naccept: {IMAGE}\r\n{headers}"
        )
        .unwrap();
        if !matches!(method, "GET" | "HEAD") {
            write!(self.request, "content-length: {}\r\n", body.len()).unwrap();
        }
        self.request.extend_from_slice(b"\r\n");
        if body.len() < 1 << 16 {
            self.request.extend_from_slice(body);
            self.stream.write_all(&self.request).unwrap();
        } else {
            self.stream.write_all(&self.request).unwrap();
            self.stream.write_all(body).unwrap();
        }
        self.read(method == "HEAD")
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
        self.head.clear();
        self.head.extend_from_slice(&self.buffer[..end]);
        let head = std::str::from_utf8(&self.head).unwrap();
        let status = head[9..12].parse().unwrap();
        if head_only || status == 204 {
            return status;
        }
        match header(head, "content-length") {
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
pub fn bytes(size: usize) -> Vec<u8> {
    (0..size)
        .map(|n| (n / 7) as u8 ^ (size >> 9) as u8)
        .collect()
}

/// Bytes that never come again.
pub fn unique(size: usize) -> Vec<u8> {
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

/// An image manifest, perhaps about another one, and its config and layer.
pub fn manifest(layer: &[u8], subject: Option<&str>) -> (String, [Vec<u8>; 2]) {
    let parts = [b"{}".to_vec(), layer.to_vec()];
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let mut json = serde_json::json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &parts[0]),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &parts[1])],
    });
    if let Some(subject) = subject {
        json["subject"] = descriptor(IMAGE, subject.as_bytes());
    }
    (json.to_string(), parts)
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
