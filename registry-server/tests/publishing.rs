//! Who logs in without a password: a CI job by its identity token from a local OIDC issuer,
//! and a client by its certificate; and certificates that are exchanged while serving.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use common::Server;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// An OIDC issuer on a port of its own, for as long as the test runs.
struct Issuer {
    place: String,
    key: EcdsaKeyPair,
}

fn new_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

impl Issuer {
    fn start() -> Self {
        let key = new_key();
        let point = key.public_key().as_ref().to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = format!("http://{}", listener.local_addr().unwrap());
        let discovery = json!({ "issuer": place, "jwks_uri": format!("{place}/keys") });
        let keys = json!({ "keys": [
            { "kty": "OKP", "kid": "unknown" },
            { "kty": "EC", "crv": "P-256", "kid": "one", "use": "sig",
              "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]) },
        ] });
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 2048];
                let length = stream.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let body = match request.split(' ').nth(1) {
                    Some("/keys") => keys.to_string(),
                    _ => discovery.to_string(),
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { place, key }
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        self.token_by(&self.key, json!({ "alg": "ES256", "kid": "one" }), change)
    }

    fn token_by(
        &self,
        key: &EcdsaKeyPair,
        header: Value,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": self.place, "aud": "registry", "sub": "repo:acme/tools:ref:refs/heads/main",
            "exp": now + 300, "iat": now, "ref": "refs/heads/main",
        });
        change(&mut claims);
        let signed = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

#[test]
fn a_ci_job_publishes_without_a_secret() {
    let issuer = Issuer::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("registry.toml");
    let text = format!(
        "[auth]\n[[auth.publisher]]\nname = \"release\"\nissuer = \"{}\"\naudience = \"registry\"\n\
         subject = \"repo:acme/tools:*\"\nclaims = {{ ref = \"refs/heads/main\" }}\n\
         [[access]]\nwho = [\"publisher:release\"]\nrepository = \"tools/*\"\n\
         actions = [\"pull\", \"create\"]\n[limits]\nfailed_logins_per_minute = 1000\n",
        issuer.place
    );
    fs::write(&config, text).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::with(&folder.path().join("root"), &flags);
    let exchange = |token: &str| {
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token&subject_token={token}"
        );
        server.client().send("POST /token", &[], form.as_bytes())
    };
    let reply = exchange(&issuer.token(|_| ()));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut job = server.client();
    job.authorization = Some(format!(
        "Bearer {}",
        reply.json()["access_token"].as_str().unwrap()
    ));
    job.push_image("tools/app", "v1", b"layer");
    assert_eq!(
        job.send("POST /v2/other/blobs/uploads/", &[], b"").status,
        403
    );
    // As a name and a password, for clients that know nothing else.
    let mut job = server.user("oidc", &issuer.token(|_| ()));
    assert_eq!(job.get("/v2/tools/app/manifests/v1").status, 200);
    let es256 = || json!({ "alg": "ES256", "kid": "one" });
    let other = new_key();
    for (what, token) in [
        (
            "audience",
            issuer.token(|claims| claims["aud"] = "other".into()),
        ),
        (
            "subject",
            issuer.token(|claims| claims["sub"] = "repo:evil/tools:x".into()),
        ),
        (
            "claim",
            issuer.token(|claims| claims["ref"] = "refs/heads/dev".into()),
        ),
        ("over", issuer.token(|claims| claims["exp"] = 1.into())),
        ("no end", issuer.token(|claims| claims["exp"] = Value::Null)),
        (
            "not yet",
            issuer.token(|claims| claims["nbf"] = 99_999_999_999_u64.into()),
        ),
        (
            "issuer",
            issuer.token(|claims| claims["iss"] = "http://127.0.0.1:1".into()),
        ),
        ("another's key", issuer.token_by(&other, es256(), |_| ())),
        (
            "no algorithm",
            issuer.token_by(&other, json!({ "alg": "none", "kid": "one" }), |_| ()),
        ),
        (
            "HMAC",
            issuer.token_by(&issuer.key, json!({ "alg": "HS256", "kid": "one" }), |_| ()),
        ),
        (
            "unknown key",
            issuer.token_by(&issuer.key, json!({ "alg": "ES256", "kid": "two" }), |_| ()),
        ),
    ] {
        assert_eq!(
            exchange(&token).refusal(),
            (401, "UNAUTHORIZED".into()),
            "{what}"
        );
        assert_eq!(
            server.user("oidc", &token).get("/v2/").status,
            401,
            "{what}"
        );
    }
    let log = fs::read_to_string(folder.path().join("root/audit.jsonl")).unwrap();
    assert!(
        log.contains("publisher:release (repo:acme/tools:ref:refs/heads/main)"),
        "{log}"
    );
}

/// Makes NAME.pem and NAME.key; signed by CA.pem if one is named.
fn certificate(folder: &Path, name: &str, ca: Option<&str>) {
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ])
    .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
    .args([
        "-keyout",
        &format!("{name}.key"),
        "-out",
        &format!("{name}.pem"),
    ])
    .current_dir(folder);
    match ca {
        None => make.args(["-addext", "subjectAltName=IP:127.0.0.1"]),
        Some(ca) => make
            .args(["-CA", &format!("{ca}.pem"), "-CAkey", &format!("{ca}.key")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"]),
    };
    let made = make.output().unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// The status that curl gets, 0 where there is none.
fn curl(folder: &Path, url: &str, arguments: &[&str]) -> u16 {
    let out = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(arguments)
        .arg(url)
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8(out.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap_or(0)
}

#[test]
fn a_certificate_is_a_login_and_certificates_are_exchanged() {
    for tool in ["openssl", "curl"] {
        if Command::new(tool).arg("--version").output().is_err() {
            println!("SKIPPED a_certificate_is_a_login_and_certificates_are_exchanged: no {tool}");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificate(folder, "tls", None);
    certificate(folder, "clients", None);
    certificate(folder, "build", Some("clients"));
    certificate(folder, "strangers", None);
    certificate(folder, "stranger", Some("strangers"));
    let text = "[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\nclient_ca = \"clients.pem\"\n\
                [auth]\n[[access]]\nwho = [\"certificate:build\"]\nrepository = \"tools/*\"\n\
                actions = [\"pull\", \"push\"]\n";
    let config = folder.join("registry.toml");
    fs::write(&config, text).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::with(&folder.join("root"), &flags);
    let url = format!("https://{}/v2/tools/app/tags/list", server.address);
    let trust = ["--cacert", "tls.pem"];
    let with = |name: &str| {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        curl(
            folder,
            &url,
            &["--cacert", "tls.pem", "--cert", &pem, "--key", &key],
        )
    };
    assert_eq!(curl(folder, &url, &trust), 401);
    assert_eq!(with("build"), 404);
    assert_eq!(with("stranger"), 0);
    // A new certificate is served without a restart.
    certificate(folder, "new", None);
    assert_eq!(curl(folder, &url, &["--cacert", "new.pem"]), 0);
    fs::copy(folder.join("new.key"), folder.join("tls.key")).unwrap();
    fs::copy(folder.join("new.pem"), folder.join("tls.pem")).unwrap();
    common::eventually(|| curl(folder, &url, &["--cacert", "new.pem"]) == 401);
}
