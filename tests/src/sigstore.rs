//! A Sigstore deployment that stands in for the real one: a certificate authority that
//! checks token signature and proof of possession, a certificate log, a transparency log by
//! both of its APIs, and a time-stamp authority by `openssl ts`. The log of version 2 and the
//! time-stamp authority can be the real ones. It ends with the test.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL},
};
use bundle::Digest;
use policy::{
    key::{Algorithm, PublicKey},
    signer::{self, Signer},
};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

mod authority;
mod der;
mod log;
mod scene;
mod services;

use authority::identifier;
pub use scene::{APIS, FLOW, ISSUER, Scene};
use services::{ORIGIN, Services};

use der::{extension, fixed, name, signed, tlv, to_be_signed};

/// A running deployment.
pub struct Sigstore {
    /// `127.0.0.1:PORT` of all its services.
    pub address: String,
    inner: Arc<Inner>,
    /// Log and time-stamp authority, where they are not the stand-ins.
    real: Option<Services>,
}

struct Inner {
    issuer: Signer,
    authority: Signer,
    authority_certificate: Vec<u8>,
    certificate_log: Signer,
    log: Signer,
    folder: PathBuf,
    address: String,
    /// What the login page was asked for, by the code it gave: challenge, nonce, client.
    logins: Mutex<HashMap<String, [String; 3]>>,
}

/// Which of the log's APIs a signing config names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogApi {
    /// Answers with a promise and a time.
    First,
    /// Answers with a proof alone.
    Second,
}

impl Sigstore {
    /// Starts it; `folder` is its workshop.
    pub fn start(folder: &Path) -> Self {
        let authority = key();
        let name = name("stand-in");
        let extensions = [
            extension(&[0x55, 0x1d, 0x13], true, &tlv(0x30, &[&[1, 1, 0xff]])),
            extension(&[0x55, 0x1d, 0x0f], true, &[3, 2, 1, 6]),
            extension(
                &[0x55, 0x1d, 0x0e],
                false,
                &tlv(4, &[&identifier(&authority)]),
            ),
        ];
        let tbs = to_be_signed(&name, &name, authority.public_key().spki(), &extensions);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let inner = Arc::new(Inner {
            address: address.clone(),
            logins: Mutex::default(),
            issuer: issuer(),
            authority_certificate: signed(&tbs, &authority),
            authority,
            certificate_log: key(),
            log: key(),
            folder: folder.to_owned(),
        });
        let server = Arc::clone(&inner);
        thread::spawn(move || {
            for stream in listener.incoming().take(MOST_REQUESTS).flatten() {
                server.serve(stream);
            }
        });
        Self {
            address,
            inner,
            real: None,
        }
    }

    /// The same with the real log (version 2) and the real time-stamp authority.
    pub fn start_real(folder: &Path) -> Self {
        Self {
            real: Some(Services::start(folder)),
            ..Self::start(folder)
        }
    }

    /// Where authority, log and time-stamp authority are.
    pub fn urls(&self) -> [String; 3] {
        let ours = || format!("http://{}", self.address);
        match &self.real {
            None => [ours(), ours(), ours()],
            Some(real) => [
                ours(),
                format!("http://{}", real.log),
                format!("http://{}", real.stamps),
            ],
        }
    }

    /// A token (RS256, which alone cosign reads) with these claims, by the deployment's own issuer.
    pub fn token(&self, claims: &Value) -> String {
        token(&self.inner.issuer, claims)
    }

    /// `signing_config.json`.
    pub fn signing_config(&self, log: LogApi) -> String {
        let at = |address: &str, path: &str, version: u32| {
            json!([{
                "url": format!("http://{address}{path}"),
                "majorApiVersion": version,
                "validFor": { "start": "2020-01-01T00:00:00Z" },
                "operator": "test",
            }])
        };
        let ours = |path: &str, version: u32| at(&self.address, path, version);
        let (log, stamps) = match (log, &self.real) {
            (LogApi::First, _) => (ours("", 1), json!([])),
            (LogApi::Second, None) => (ours("", 2), ours("/stamp", 1)),
            (LogApi::Second, Some(real)) => (
                at(&real.log.to_string(), "", 2),
                at(&real.stamps.to_string(), "/api/v1/timestamp", 1),
            ),
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": ours("", 1),
            "oidcUrls": ours("", 1),
            "rekorTlogUrls": log,
            "rekorTlogConfig": { "selector": "ANY" },
            "tsaUrls": stamps,
            "tsaConfig": { "selector": "ANY" },
        })
        .to_string()
    }

    /// `trusted_root.json`.
    pub fn trusted_root(&self) -> String {
        let since = json!({ "start": "2020-01-01T00:00:00Z" });
        let log = |key: &PublicKey, details: &str, id: Digest| {
            json!([{
                "baseUrl": format!("http://{ORIGIN}"),
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": BASE64.encode(key.spki()),
                    "keyDetails": details,
                    "validFor": since,
                },
                "logId": { "keyId": BASE64.encode(id.as_bytes()) },
            }])
        };
        let ours = |signer: &Signer| {
            let key = signer.public_key();
            log(key, "PKIX_ECDSA_P256_SHA_256", key.id())
        };
        let logs = match &self.real {
            None => ours(&self.inner.log),
            Some(real) => log(&real.key, "PKIX_ED25519", real.log_id()),
        };
        let authority = |chain: &[Vec<u8>]| {
            let chain: Vec<Value> = chain
                .iter()
                .map(|der| json!({ "rawBytes": BASE64.encode(der) }))
                .collect();
            json!([{
                "subject": { "organization": "test", "commonName": "test" },
                "uri": "http://authority.test",
                "certChain": { "certificates": chain },
                "validFor": since,
            }])
        };
        let stamps = policy::x509::certificates(&vector("tsa.pem")).expect("the vector is PEM");
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": logs,
            "ctlogs": ours(&self.inner.certificate_log),
            "certificateAuthorities": authority(std::slice::from_ref(&self.inner.authority_certificate)),
            "timestampAuthorities": authority(&stamps),
        })
        .to_string()
    }
}

/// A JWT with these claims by `issuer` (RSA or P-256).
pub fn token(issuer: &Signer, claims: &Value) -> String {
    let is_rsa = issuer.public_key().algorithm() == Algorithm::Rsa;
    let head = match is_rsa {
        true => r#"{"alg":"RS256","typ":"JWT"}"#,
        false => r#"{"alg":"ES256","typ":"JWT"}"#,
    };
    let head = BASE64_URL.encode(head);
    let message = format!("{head}.{}", BASE64_URL.encode(claims.to_string()));
    let mut signature = sign(issuer, message.as_bytes());
    if !is_rsa {
        signature = fixed(&signature);
    }
    format!("{message}.{}", BASE64_URL.encode(signature))
}

/// The issuer of tokens: keys of RSA are read, not made.
fn issuer() -> Signer {
    let mut none = || unreachable!("the key is not encrypted");
    let read = Signer::from_pem(&vector("rsa2048.key"), &mut none, &SystemRandom::new());
    read.expect("the vector is a key").0
}

/// A new P-256 key.
pub fn key() -> Signer {
    let random = SystemRandom::new();
    let files = signer::generate(Algorithm::EcdsaP256, None, &random).expect("randomness");
    let mut none = || unreachable!("the key is not encrypted");
    let (signer, _) =
        Signer::from_pem(files.private.as_bytes(), &mut none, &random).expect("a key just made");
    signer
}

impl Inner {
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let Some((path, bearer, body)) = read_request(&stream) else {
            return;
        };
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        if path == "/login" {
            let back = self.log_in(&fields(query));
            let head =
                format!("HTTP/1.1 302 Found\r\nlocation: {back}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            return;
        }
        let json_body = || serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let (status, kind, reply) = match path {
            "/.well-known/openid-configuration" => {
                let of = |path: &str| format!("http://{}{path}", self.address);
                let said = json!({
                    "issuer": of(""), "authorization_endpoint": of("/login"),
                    "token_endpoint": of("/token"),
                });
                (200, "application/json", said.to_string().into_bytes())
            }
            // What a GitHub runner asks with its bearer, and answers for one audience.
            "/github" => {
                let asked = fields(query);
                let said = json!({ "value": asked.get("give"), "audience": asked.get("audience") });
                let is_right = asked.get("audience").is_some_and(|aud| aud == "sigstore");
                let status = if is_right && bearer == BEARER {
                    200
                } else {
                    401
                };
                (status, "application/json", said.to_string().into_bytes())
            }
            "/token" => {
                let said = self.redeem(&fields(&String::from_utf8_lossy(&body)));
                let status = if said["error"].is_null() { 200 } else { 400 };
                (status, "application/json", said.to_string().into_bytes())
            }
            "/api/v2/signingCert" => match self.certify(&json_body(), &bearer) {
                Ok(reply) => (200, "application/json", reply.to_string().into_bytes()),
                Err(why) => (400, "text/plain", why.into_bytes()),
            },
            "/api/v1/log/entries" => {
                let reply = self.log_first(&json_body());
                (201, "application/json", reply.to_string().into_bytes())
            }
            "/api/v2/log/entries" => {
                let reply = self.log_second(&json_body());
                (201, "application/json", reply.to_string().into_bytes())
            }
            "/stamp" | "/api/v1/timestamp" => {
                (201, "application/timestamp-reply", self.stamp(&body))
            }
            _ => (404, "text/plain", Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status} so\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{NAMED}\r\n",
            reply.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&reply);
    }

    /// What an issuer does once somebody has logged in: back to the program with a code. A
    /// field `lie` makes it refuse, or mix up two questions.
    fn log_in(&self, asked: &HashMap<String, String>) -> String {
        let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
        let (back, state) = (of("redirect_uri"), of("state"));
        if of("lie") == "refuse" {
            return format!("{back}?error=access_denied&state={state}");
        }
        assert_eq!(of("response_type"), "code");
        assert_eq!(of("code_challenge_method"), "S256");
        assert_eq!(of("scope"), "openid email");
        let nonce = match of("lie").as_str() {
            "nonce" => "another".to_owned(),
            _ => of("nonce"),
        };
        let challenge = match of("lie").as_str() {
            "challenge" => "another".to_owned(),
            _ => of("code_challenge"),
        };
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let code = format!("{CODE}{}", logins.len());
        logins.insert(code.clone(), [challenge, nonce, of("client_id")]);
        format!("{back}?code={code}&state={state}")
    }

    /// A token for a code, once, to whoever has the verifier of its challenge.
    fn redeem(&self, asked: &HashMap<String, String>) -> Value {
        let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some([challenge, nonce, client]) = logins.remove(&of("code")) else {
            return json!({ "error": "invalid_grant" });
        };
        let shown = BASE64_URL.encode(Digest::of(of("code_verifier").as_bytes()).as_bytes());
        if shown != challenge || of("grant_type") != "authorization_code" {
            return json!({ "error": "invalid_grant" });
        }
        let claims = json!({
            "iss": format!("http://{}", self.address), "aud": client, "nonce": nonce,
            "exp": now() + 60, "sub": "7", "email": "ann@acme.test", "email_verified": true,
        });
        json!({ "id_token": token(&self.issuer, &claims), "token_type": "Bearer" })
    }

    fn stamp(&self, query: &[u8]) -> Vec<u8> {
        let path = |name: &str| self.folder.join(name);
        let written = asked_in_words(query, &path("query-made"));
        let query = written.as_deref().unwrap_or(query);
        let pem = String::from_utf8(vector("tsa.pem")).expect("PEM is text");
        // Without its root: `openssl` writes certificates unsorted, which sigstore-python refuses.
        let (leaf, _) = pem.split_at(pem.find("-----END").expect("a certificate") + 26);
        let config = format!(
            "[tsa]\ndefault_tsa = t\n[t]\nserial = {}\nsigner_digest = sha256\n\
             default_policy = 1.2.3.4.1\ndigests = sha256\ness_cert_id_alg = sha256\n",
            path("tsa-serial").display()
        );
        for (name, content) in [
            ("tsa-serial", b"01\n".as_slice()),
            ("tsa.cnf", config.as_bytes()),
            ("tsa-leaf.pem", leaf.as_bytes()),
            ("tsa.key", &vector("tsa.key")),
            ("query", query),
        ] {
            fs::write(path(name), content).expect("the folder can be written to");
        }
        let made = Command::new("openssl")
            .args(["ts", "-reply", "-section", "t", "-config"])
            .arg(path("tsa.cnf"))
            .arg("-queryfile")
            .arg(path("query"))
            .arg("-signer")
            .arg(path("tsa-leaf.pem"))
            .arg("-inkey")
            .arg(path("tsa.key"))
            .arg("-out")
            .arg(path("reply"))
            .output()
            .expect("openssl starts");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        fs::read(path("reply")).expect("openssl wrote it")
    }
}

/// The query (DER) for what sigstore-js asks as JSON, as the real authority takes it too.
fn asked_in_words(query: &[u8], file: &Path) -> Option<Vec<u8>> {
    let asked: Value = serde_json::from_slice(query).ok()?;
    let digest = BASE64.decode(asked["artifactHash"].as_str()?).ok()?;
    let made = Command::new("openssl")
        .args(["ts", "-query", "-sha256", "-cert", "-digest"])
        .arg(hex::encode(digest))
        .arg("-out")
        .arg(file)
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "openssl makes a query");
    fs::read(file).ok()
}

/// A query or form; what is encoded is decoded.
fn fields(text: &str) -> HashMap<String, String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                    let digits = std::str::from_utf8(&digits).unwrap_or_default();
                    u8::from_str_radix(digits, 16).unwrap_or_default()
                }
                byte => byte,
            });
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn read_request(stream: &TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut bearer) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if header.starts_with("authorization: bearer ") {
            // A token has capitals.
            bearer = line.trim()["authorization: bearer ".len()..].to_owned();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, bearer, body))
}

fn vector(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/x509");
    fs::read(format!("{folder}/{name}")).expect("the vector is there")
}

fn hash(bytes: &[u8]) -> Value {
    json!({ "algorithm": "sha256", "value": Digest::of(bytes).to_hex() })
}

fn sign(signer: &Signer, message: &[u8]) -> Vec<u8> {
    signer
        .sign(message, &SystemRandom::new())
        .expect("randomness")
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// With what a GitHub job asks for its token.
pub const BEARER: &str = "runner-bearer";
/// How each code of the login page begins.
pub const CODE: &str = "code-of-the-login-page-";
/// Where an entry of the log is, without which cosign fails.
const NAMED: &str = "etag: 24296fb24b8ad77a\r\nlocation: /api/v1/log/entries/24296fb24b8ad77a\r\n";
/// A test asks a handful.
const MOST_REQUESTS: usize = 200;
