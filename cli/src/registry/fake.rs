//! A registry in memory that fails when told to. It keeps what it is sent and writes
//! down what it was asked, so that tests can see what a client really did.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

use bundle::{Digest, media};
use serde_json::{Value, json};

/// What goes wrong, once, with the next request that fits.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after so many bytes of the answer's body.
    CutAfter(usize),
    /// The connection ends after so many bytes of the request's body were kept.
    CutUpload(usize),
    /// This status with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// These bytes in the place of the right ones, with their own length.
    Body(Vec<u8>),
    /// The right answer without its `Content-Length`: it ends with the connection.
    NoLength,
}

/// What a client must show.
#[derive(Clone, Debug)]
pub enum Guard {
    /// `Authorization` must be this.
    Basic(String),
    /// A token from this realm, which wants this Basic header.
    Bearer { realm: String, basic: String },
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub line: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

#[derive(Default)]
pub struct State {
    pub blobs: BTreeMap<(String, String), Vec<u8>>,
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    pub uploads: BTreeMap<String, Vec<u8>>,
    pub faults: VecDeque<(String, Fault)>,
    pub seen: Vec<Seen>,
    pub no_referrers_api: bool,
    pub no_ranges: bool,
    pub guard: Option<Guard>,
    /// What every list of referrers holds beside the truth.
    pub false_referrers: Vec<Value>,
    /// Where blobs really are: another host.
    pub blobs_at: Option<String>,
}

pub struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Only the listener's own copy is left: the test is over.
                if Arc::strong_count(&shared) == 1 {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, state }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next request whose line contains `part` fails so.
    pub fn fail(&self, part: &str, fault: Fault) {
        self.state().faults.push_back((part.to_owned(), fault));
    }

    /// The request lines that contain `part`.
    pub fn lines(&self, part: &str) -> Vec<String> {
        let seen = &self.state().seen;
        let lines = seen.iter().map(|seen| seen.line.clone());
        lines.filter(|line| line.contains(part)).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.state = Arc::default();
        let _ = TcpStream::connect(self.address);
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = reqwest::Url::parse(&format!("x:?{query}")).ok()?;
    let length = headers.get("content-length");
    let length: usize = length.and_then(|value| value.parse().ok()).unwrap_or(0);

    let fault = {
        let mut state = state.lock().ok()?;
        state.seen.push(Seen {
            line: format!("{method} {target}"),
            authorization: headers.get("authorization").cloned(),
            range: headers.get("range").cloned(),
        });
        let line = format!("{method} {target}");
        let next = state
            .faults
            .iter()
            .position(|(part, _)| line.contains(part.as_str()));
        next.and_then(|at| state.faults.remove(at))
            .map(|(_, fault)| fault)
    };
    let keep = match fault {
        Some(Fault::CutUpload(bytes)) => bytes.min(length),
        _ => length,
    };
    let mut body = vec![0; keep];
    reader.read_exact(&mut body).ok()?;
    let request = Request {
        method,
        path: path.to_owned(),
        query: query
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
        headers,
        body,
    };
    let mut reply = match &fault {
        Some(Fault::Status(status, headers)) => Reply {
            status: *status,
            headers: headers.clone(),
            body: Vec::new(),
        },
        _ => state.lock().ok()?.answer(&request),
    };
    if let Some(Fault::CutUpload(_)) = fault {
        return None;
    }
    if let Some(Fault::Body(bytes)) = &fault {
        reply.body.clone_from(bytes);
    }
    let mut stream = stream;
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !matches!(fault, Some(Fault::NoLength)) {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        let end = match fault {
            Some(Fault::CutAfter(bytes)) => bytes.min(reply.body.len()),
            _ => reply.body.len(),
        };
        stream.write_all(&reply.body[..end]).ok()?;
    }
    stream.flush().ok()
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        if request.path == "/token" {
            return self.token(request);
        }
        if let Some(refusal) = self.check(request) {
            return refusal;
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return status(404);
        };
        if rest.is_empty() {
            return status(200);
        }
        for (kind, handle) in [
            ("/blobs/uploads/", Self::upload as Handler),
            ("/blobs/", Self::blob),
            ("/manifests/", Self::manifest),
            ("/referrers/", Self::referrers),
        ] {
            if let Some((repository, name)) = rest.split_once(kind) {
                return handle(self, request, repository, name);
            }
        }
        status(404)
    }

    fn check(&self, request: &Request) -> Option<Reply> {
        let shown = request.headers.get("authorization");
        let (want, challenge) = match self.guard.as_ref()? {
            Guard::Basic(want) => (want.clone(), "Basic realm=\"fake\"".to_owned()),
            Guard::Bearer { realm, .. } => (
                "Bearer the-token".to_owned(),
                format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:a:pull\""),
            ),
        };
        (shown != Some(&want)).then(|| Reply {
            status: 401,
            headers: vec![("WWW-Authenticate", challenge)],
            body: Vec::new(),
        })
    }

    fn token(&self, request: &Request) -> Reply {
        let shown = request.headers.get("authorization");
        match &self.guard {
            Some(Guard::Bearer { basic, .. }) if shown == Some(basic) => Reply {
                status: 200,
                headers: vec![],
                body: br#"{"token":"the-token","expires_in":300}"#.to_vec(),
            },
            _ => status(401),
        }
    }

    fn blob(&mut self, request: &Request, repository: &str, digest: &str) -> Reply {
        let key = (repository.to_owned(), digest.to_owned());
        let Some(bytes) = self.blobs.get(&key) else {
            return status(404);
        };
        if let Some(elsewhere) = &self.blobs_at {
            return Reply {
                status: 307,
                headers: vec![("Location", format!("{elsewhere}{}", request.path))],
                body: Vec::new(),
            };
        }
        let range = request.headers.get("range").filter(|_| !self.no_ranges);
        let Some(start) = range.and_then(|range| {
            let range = range.strip_prefix("bytes=")?.strip_suffix('-')?;
            range.parse::<usize>().ok()
        }) else {
            return Reply {
                status: 200,
                headers: vec![],
                body: bytes.clone(),
            };
        };
        let (last, size) = (bytes.len() - 1, bytes.len());
        Reply {
            status: 206,
            headers: vec![("Content-Range", format!("bytes {start}-{last}/{size}"))],
            body: bytes[start..].to_vec(),
        }
    }

    fn upload(&mut self, request: &Request, repository: &str, id: &str) -> Reply {
        let progress = |id: &str, size: usize, status: u16| Reply {
            status,
            headers: vec![
                (
                    "Location",
                    format!("/v2/{repository}/blobs/uploads/{id}?state=x"),
                ),
                ("Range", format!("0-{}", size.saturating_sub(1))),
            ],
            body: Vec::new(),
        };
        match request.method.as_str() {
            "POST" => {
                let query = |name| request.query.get(name).cloned().unwrap_or_default();
                let there = (query("from"), query("mount"));
                if let Some(bytes) = self.blobs.get(&there).cloned() {
                    self.blobs.insert((repository.to_owned(), there.1), bytes);
                    return status(201);
                }
                let id = format!("u{}", self.uploads.len());
                self.uploads.insert(id.clone(), Vec::new());
                progress(&id, 0, 202)
            }
            "GET" => match self.uploads.get(id) {
                Some(bytes) => progress(id, bytes.len(), 204),
                None => status(404),
            },
            "PATCH" => {
                let Some(bytes) = self.uploads.get_mut(id) else {
                    return status(404);
                };
                let range = request.headers.get("content-range");
                let start = range.and_then(|range| range.split('-').next()?.parse().ok());
                if start != Some(bytes.len()) {
                    return status(416);
                }
                bytes.extend(&request.body);
                progress(id, bytes.len(), 202)
            }
            "PUT" => {
                let Some(mut bytes) = self.uploads.remove(id) else {
                    return status(404);
                };
                bytes.extend(&request.body);
                let digest = request.query.get("digest").cloned().unwrap_or_default();
                if Digest::of(&bytes).to_string() != digest {
                    return status(400);
                }
                self.blobs.insert((repository.to_owned(), digest), bytes);
                status(201)
            }
            _ => {
                self.uploads.remove(id);
                status(204)
            }
        }
    }

    fn manifest(&mut self, request: &Request, repository: &str, name: &str) -> Reply {
        if request.method == "PUT" {
            return self.put_manifest(request, repository, name);
        }
        let key = (repository.to_owned(), name.to_owned());
        match self.manifests.get(&key) {
            Some((kind, bytes)) => Reply {
                status: 200,
                headers: vec![
                    ("Content-Type", kind.clone()),
                    ("Docker-Content-Digest", Digest::of(bytes).to_string()),
                ],
                body: bytes.clone(),
            },
            None => status(404),
        }
    }

    fn put_manifest(&mut self, request: &Request, repository: &str, name: &str) -> Reply {
        let kind = request.headers.get("content-type").cloned();
        let entry = (kind.unwrap_or_default(), request.body.clone());
        let digest = Digest::of(&request.body).to_string();
        for name in [name.to_owned(), digest] {
            let key = (repository.to_owned(), name);
            self.manifests.insert(key, entry.clone());
        }
        let document: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let subject = document["subject"]["digest"].as_str();
        let headers = match subject.filter(|_| !self.no_referrers_api) {
            Some(subject) => vec![("OCI-Subject", subject.to_owned())],
            None => vec![],
        };
        Reply {
            status: 201,
            headers,
            body: Vec::new(),
        }
    }

    fn referrers(&mut self, _: &Request, repository: &str, subject: &str) -> Reply {
        if self.no_referrers_api {
            return status(404);
        }
        let about = |bytes: &[u8]| {
            let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
            document["subject"]["digest"].as_str() == Some(subject)
        };
        let mut found: Vec<_> = self
            .manifests
            .iter()
            .filter(|((place, name), (_, bytes))| {
                place == repository && name.starts_with("sha256:") && about(bytes)
            })
            // The type is wrong on purpose: clients must read the manifest.
            .map(|((_, digest), (kind, bytes))| {
                json!({"mediaType": kind, "digest": digest, "size": bytes.len(),
                       "artifactType": "application/wrong"})
            })
            .collect();
        found.extend(self.false_referrers.iter().cloned());
        let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": found});
        Reply {
            status: 200,
            headers: vec![("Content-Type", media::INDEX.to_owned())],
            body: index.to_string().into_bytes(),
        }
    }
}

type Handler = fn(&mut State, &Request, &str, &str) -> Reply;

fn status(status: u16) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }
}
