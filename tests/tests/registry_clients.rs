//! Real clients, unmodified, against `bpfseal-registry`: what each can do with a registry
//! it must be able to do with ours. A client that cannot be fetched is `SKIPPED` by name.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tests::{e2e, lab::Cache};

/// A registry of its own, a folder to work in, and one client.
struct Bench {
    server: Child,
    host: String,
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Bench {
    /// Nothing if the client cannot be had here, which is said.
    fn new(client: &str) -> Option<Self> {
        Self::with(client, false)
    }

    /// The same with TLS, users (`alice`, who may push, and `bob`, who may pull), rights.
    fn closed(client: &str) -> Option<Self> {
        Self::with(client, true)
    }

    fn with(client: &str, closed: bool) -> Option<Self> {
        let program = match Cache::open().program(client, client) {
            Ok(program) => program,
            Err(error) => {
                println!("SKIPPED {client}: {error}");
                return None;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let mut server = Command::new(e2e::program("bpfseal-registry"));
        server
            .args(["serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(folder.path().join("registry"));
        if closed {
            if let Err(error) = write_site(folder.path()) {
                println!("SKIPPED {client} with TLS: {error}");
                return None;
            }
            server
                .arg("--config")
                .arg(folder.path().join("registry.toml"));
        }
        let mut server = server
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let host = line
            .trim()
            .strip_prefix(if closed {
                "listening on https://"
            } else {
                "listening on http://"
            })
            .expect(&line)
            .to_owned();
        Some(Self {
            server,
            host,
            folder,
            program,
        })
    }

    /// Runs the client in the folder; `{host}` in an argument is the registry. Returns
    /// what it printed on standard output.
    fn run(&self, arguments: &str) -> String {
        let (success, out, error) = self.attempt(arguments);
        assert!(
            success,
            "{} {arguments}\n{out}{error}",
            self.program.display()
        );
        out
    }

    fn run_with(&self, program: &Path, arguments: &str) -> String {
        let (success, out, error) = self.attempt_with(program, arguments);
        assert!(success, "{} {arguments}\n{out}{error}", program.display());
        out
    }

    fn attempt(&self, arguments: &str) -> (bool, String, String) {
        self.attempt_with(&self.program, arguments)
    }

    fn attempt_with(&self, program: &Path, arguments: &str) -> (bool, String, String) {
        let arguments = arguments.replace("{host}", &self.host);
        let output = Command::new(program)
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("COSIGN_PASSWORD", "")
            // Clients in Go trust what is in here.
            .env("SSL_CERT_FILE", self.path("tls.pem"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .env("NOTATION_USERNAME", "alice")
            .env("NOTATION_PASSWORD", "pw-alice")
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A certificate, two users, and what they may do.
fn write_site(folder: &Path) -> Result<(), String> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj"])
        .args(["/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "tls.key", "-out", "tls.pem"])
        .current_dir(folder)
        .output()
        .map_err(|error| format!("openssl: {error}"))?;
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    for user in ["alice", "bob"] {
        let mut add = Command::new(e2e::program("bpfseal-registry"))
            .args(["user", "add", "--htpasswd", "users", user])
            .arg("--password-stdin")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = add.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, format!("pw-{user}").as_bytes()).unwrap();
        drop(stdin);
        assert!(add.wait().unwrap().success());
    }
    let config = r#"
        [tls]
        certificate = "tls.pem"
        key = "tls.key"
        [auth]
        htpasswd = "users"
        [[access]]
        who = ["alice"]
        repository = "*"
        actions = ["pull", "push", "delete"]
        [[access]]
        who = ["bob"]
        repository = "*"
        actions = ["pull"]
    "#;
    fs::write(folder.join("registry.toml"), config).unwrap();
    Ok(())
}

/// An image in an OCI layout, written by hand so that every client starts from the same.
fn write_layout(folder: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let store = |bytes: &[u8]| {
        let hex = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&hex), bytes).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let layer = b"layer ".repeat(100_000);
    let (layer, layer_size) = store(&layer);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let (config, config_size) = store(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar",
                     "digest": layer, "size": layer_size }],
    });
    let (manifest, manifest_size) = store(manifest.to_string().as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "digest": manifest, "size": manifest_size,
                        "annotations": { "org.opencontainers.image.ref.name": "v1" } }],
    });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    manifest
}

fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn oras() {
    let Some(bench) = Bench::new("oras") else {
        return;
    };
    bench.write("file.txt", b"hello\n");
    bench.write("large.bin", &b"large ".repeat(1_000_000));
    bench.write("sbom.json", b"{}");
    bench.run("push --plain-http {host}/tools/one:v1 file.txt:text/plain large.bin");
    bench.run("attach --plain-http --artifact-type x/sbom {host}/tools/one:v1 sbom.json");
    let found = bench.run("discover --plain-http --format json {host}/tools/one:v1");
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["referrers"][0]["artifactType"], "x/sbom");
    bench.run("pull --plain-http -o out {host}/tools/one:v1");
    for name in ["file.txt", "large.bin"] {
        let pulled = fs::read(bench.path("out").join(name)).unwrap();
        assert!(pulled == fs::read(bench.path(name)).unwrap(), "{name}");
    }
    bench.run("tag --plain-http {host}/tools/one:v1 v2 v3");
    let tags = bench.run("repo tags --plain-http {host}/tools/one");
    assert_eq!(lines(&tags), ["v1", "v2", "v3"]);
    bench.run("copy -r --from-plain-http --to-plain-http {host}/tools/one:v1 {host}/two:v1");
    let copied = bench.run("discover --plain-http --format json {host}/two:v1");
    let copied: serde_json::Value = serde_json::from_str(&copied).unwrap();
    assert_eq!(
        copied["referrers"][0]["digest"],
        found["referrers"][0]["digest"]
    );
    assert_eq!(
        lines(&bench.run("repo ls --plain-http {host}")),
        ["tools/one", "two"]
    );
    bench.run("manifest delete --plain-http --force {host}/tools/one:v1");
    assert_eq!(bench.run("repo tags --plain-http {host}/tools/one"), "");
}

#[test]
fn skopeo() {
    let Some(bench) = Bench::new("skopeo") else {
        return;
    };
    let digest = write_layout(&bench.path("layout"));
    let copy = "--insecure-policy copy --preserve-digests --src-tls-verify=false \
                --dest-tls-verify=false";
    bench.run(&format!("{copy} oci:layout:v1 docker://{{host}}/one:v1"));
    bench.run(&format!(
        "{copy} docker://{{host}}/one:v1 docker://{{host}}/two:v1"
    ));
    bench.run(&format!("{copy} docker://{{host}}/two:v1 oci:back:v1"));
    assert!(
        bench
            .path("back/blobs/sha256")
            .join(&digest["sha256:".len()..])
            .exists()
    );
    let seen = bench.run("inspect --tls-verify=false docker://{host}/two:v1");
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(
        (&seen["Digest"], &seen["RepoTags"][0]),
        (&digest.into(), &"v1".into())
    );
    let tags = |bench: &Bench| -> serde_json::Value {
        let listed = bench.run("list-tags --tls-verify=false docker://{host}/one");
        serde_json::from_str::<serde_json::Value>(&listed).unwrap()["Tags"].clone()
    };
    assert_eq!(tags(&bench), serde_json::json!(["v1"]));
    bench.run("delete --tls-verify=false docker://{host}/one:v1");
    assert_eq!(tags(&bench), serde_json::json!([]));
}

/// umoci makes images and opens them; it speaks no HTTP, so skopeo carries them.
#[test]
fn umoci() {
    let Some(bench) = Bench::new("umoci") else {
        return;
    };
    let skopeo = match Cache::open().program("skopeo", "skopeo") {
        Ok(skopeo) => skopeo,
        Err(error) => return println!("SKIPPED umoci (needs skopeo): {error}"),
    };
    bench.write("motd", b"hello\n");
    for arguments in [
        "init --layout image",
        "new --image image:v1",
        "insert --rootless --image image:v1 motd /etc/motd",
        "tag --image image:v1 v2",
    ] {
        bench.run(arguments);
    }
    let copy = "--insecure-policy copy --preserve-digests --src-tls-verify=false \
                --dest-tls-verify=false";
    for tag in ["v1", "v2"] {
        let to = format!("{copy} oci:image:{tag} docker://{{host}}/umoci:{tag}");
        bench.run_with(&skopeo, &to);
        let back = format!("{copy} docker://{{host}}/umoci:{tag} oci:back:{tag}");
        bench.run_with(&skopeo, &back);
    }
    assert_eq!(lines(&bench.run("ls --layout back")), ["v1", "v2"]);
    bench.run("unpack --rootless --image back:v2 bundle");
    let unpacked = fs::read(bench.path("bundle/rootfs/etc/motd")).unwrap();
    assert_eq!(unpacked, b"hello\n");
}

#[test]
fn crane() {
    let Some(bench) = Bench::new("crane") else {
        return;
    };
    let digest = write_layout(&bench.path("layout"));
    bench.run("push layout {host}/one:v1");
    assert_eq!(lines(&bench.run("digest {host}/one:v1")), [digest.as_str()]);
    bench.run("copy {host}/one:v1 {host}/two:v1");
    bench.run("tag {host}/one:v1 v2");
    assert_eq!(lines(&bench.run("ls {host}/one")), ["v1", "v2"]);
    assert_eq!(lines(&bench.run("catalog {host}")), ["one", "two"]);
    bench.run("pull --format oci {host}/two:v1 back");
    assert!(
        bench
            .path("back/blobs/sha256")
            .join(&digest["sha256:".len()..])
            .exists()
    );
    bench.run(&format!("delete {{host}}/one@{digest}"));
    assert_eq!(bench.run("ls {host}/one"), "");
    let (success, _, error) = bench.attempt("manifest {host}/one:v1");
    assert!(!success && error.contains("MANIFEST_UNKNOWN"), "{error}");
}

#[test]
fn cosign() {
    let Some(bench) = Bench::new("cosign") else {
        return;
    };
    let Some(digest) = push_with_skopeo(&bench) else {
        return;
    };
    bench.run("generate-key-pair");
    bench.run(&format!(
        "sign --yes --key cosign.key --allow-http-registry --tlog-upload=false \
         --use-signing-config=false {{host}}/one@{digest}"
    ));
    let verify = format!("--allow-http-registry --insecure-ignore-tlog {{host}}/one@{digest}");
    bench.run(&format!("verify --key cosign.pub {verify}"));
    bench.run("generate-key-pair --output-key-prefix other");
    let (success, ..) = bench.attempt(&format!("verify --key other.pub {verify}"));
    assert!(!success, "verified with a key that signed nothing");
}

#[test]
fn notation() {
    let Some(bench) = Bench::new("notation") else {
        return;
    };
    let Some(digest) = push_with_skopeo(&bench) else {
        return;
    };
    bench.run("cert generate-test test");
    let image = format!("--insecure-registry {{host}}/one@{digest}");
    // Once through the referrers API, once through its older tag schema.
    bench.run(&format!(
        "sign --key test --force-referrers-tag=false {image}"
    ));
    bench.run(&format!(
        "sign --key test --force-referrers-tag=true {image}"
    ));
    let listed = bench.run(&format!("list {image}"));
    assert!(
        listed.contains("application/vnd.cncf.notary.signature"),
        "{listed}"
    );
}

#[test]
fn oras_logs_in() {
    let Some(bench) = Bench::closed("oras") else {
        return;
    };
    bench.write("file.txt", b"hello\n");
    let push = "push {host}/tools/one:v1 file.txt:text/plain";
    assert!(!bench.attempt(push).0, "pushed without a login");
    assert!(!bench.attempt("login {host} -u alice -p wrong").0);
    bench.run("login {host} -u alice -p pw-alice");
    bench.run(push);
    bench.run("pull -o out {host}/tools/one:v1");
    assert_eq!(fs::read(bench.path("out/file.txt")).unwrap(), b"hello\n");
    assert_eq!(lines(&bench.run("repo ls {host}")), ["tools/one"]);
    bench.run("login {host} -u bob -p pw-bob");
    bench.run("pull -o again {host}/tools/one:v1");
    assert!(!bench.attempt(push).0, "a reader pushed");
    bench.run("login {host} -u alice -p pw-alice");
    bench.run("manifest delete --force {host}/tools/one:v1");
}

#[test]
fn skopeo_logs_in() {
    let Some(bench) = Bench::closed("skopeo") else {
        return;
    };
    write_layout(&bench.path("layout"));
    let copy = "--insecure-policy copy --preserve-digests oci:layout:v1 docker://{host}/one:v1";
    assert!(!bench.attempt(copy).0, "pushed without a login");
    bench.run("login {host} -u alice -p pw-alice");
    bench.run(copy);
    bench.run("inspect docker://{host}/one:v1");
    bench.run("delete docker://{host}/one:v1");
}

#[test]
fn crane_logs_in() {
    let Some(bench) = Bench::closed("crane") else {
        return;
    };
    write_layout(&bench.path("layout"));
    assert!(!bench.attempt("push layout {host}/one:v1").0);
    bench.run("auth login {host} -u alice -p pw-alice");
    bench.run("push layout {host}/one:v1");
    bench.run("copy {host}/one:v1 {host}/two:v1");
    assert_eq!(lines(&bench.run("catalog {host}")), ["one", "two"]);
    bench.run("delete {host}/two:v1");
}

#[test]
fn cosign_and_notation_log_in() {
    let Some(crane) = Bench::closed("crane") else {
        return;
    };
    let digest = write_layout(&crane.path("layout"));
    crane.run("auth login {host} -u alice -p pw-alice");
    crane.run("push layout {host}/one:v1");
    for client in ["cosign", "notation"] {
        let program = match Cache::open().program(client, client) {
            Ok(program) => program,
            Err(error) => {
                println!("SKIPPED {client}: {error}");
                continue;
            }
        };
        let run = |arguments: &str| crane.run_with(&program, arguments);
        if client == "cosign" {
            run("generate-key-pair");
            run(&format!(
                "sign --yes --key cosign.key --tlog-upload=false \
                 --use-signing-config=false {{host}}/one@{digest}"
            ));
            run(&format!(
                "verify --key cosign.pub --insecure-ignore-tlog {{host}}/one@{digest}"
            ));
        } else {
            run("cert generate-test test");
            run(&format!("sign --key test {{host}}/one@{digest}"));
            let listed = run(&format!("list {{host}}/one@{digest}"));
            assert!(listed.contains("notary.signature"), "{listed}");
        }
    }
}

/// Puts an image where a signer can find it.
fn push_with_skopeo(bench: &Bench) -> Option<String> {
    let skopeo = match Cache::open().program("skopeo", "skopeo") {
        Ok(skopeo) => skopeo,
        Err(error) => {
            println!(
                "SKIPPED {} (needs skopeo): {error}",
                bench.program.display()
            );
            return None;
        }
    };
    let digest = write_layout(&bench.path("layout"));
    let copied = Command::new(skopeo)
        .args(["--insecure-policy", "copy", "--preserve-digests"])
        .args(["--dest-tls-verify=false", "oci:layout:v1"])
        .arg(format!("docker://{}/one:v1", bench.host))
        .current_dir(bench.folder.path())
        .output()
        .unwrap();
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    Some(digest)
}
