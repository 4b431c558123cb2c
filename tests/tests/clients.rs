//! Other people's clients read what `bpfseal` writes, and `bpfseal` reads what they write,
//! through our registry and through one that has no referrers API.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use bundle::{
    Digest,
    layout::{Layout, Limits},
    manifest::{Descriptor, Manifest},
    media,
};
use serde_json::Value;
use tests::e2e::{self, Registry, Workshop, program, tool};

const SIGNATURE: &str = "application/vnd.example.signature";

/// A bundle of one object with a referrer, under the name `v1`.
fn signed_layout(object: &[u8]) -> (Layout, Digest) {
    let mut layout = Layout::new();
    layout.add_blob(media::EMPTY_JSON.to_vec());
    layout.add_blob(object.to_vec());
    let config = b"{}  ".to_vec();
    let layer = Descriptor::of(media::OBJECT, object).annotated(media::TITLE, "x.bpf.o");
    let described = Descriptor::of(media::INVENTORY, &config);
    layout.add_blob(config);
    let manifest = Manifest::artifact(media::BUNDLE, described, vec![layer]).to_bytes();
    let empty = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
    let mut signature = Manifest::artifact(SIGNATURE, empty.clone(), vec![empty]);
    signature.subject = Some(Descriptor::of(media::MANIFEST, &manifest));
    let digest = Digest::of(&manifest);
    layout.add_manifest(manifest, Some("v1")).unwrap();
    layout.add_manifest(signature.to_bytes(), None).unwrap();
    (layout, digest)
}

/// Puts such a layout into a file of the workshop.
fn write_bundle(workshop: &Workshop, name: &str, object: &[u8]) -> Digest {
    let (layout, digest) = signed_layout(object);
    let mut tar = Vec::new();
    layout.write(&mut tar, 0).unwrap();
    workshop.write(name, tar);
    digest
}

fn read_bundle(workshop: &Workshop, name: &str) -> Layout {
    let file = fs::File::open(workshop.path(name)).unwrap();
    Layout::read(file, &Limits::default()).unwrap()
}

/// Runs `bpfseal ... --json`, which has to succeed.
fn bpfseal(workshop: &Workshop, args: &[&str]) -> Value {
    let args = args.iter().chain(&["--json"]);
    let out = workshop.done(&program("bpfseal"), args);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn referrer_types(result: &Value) -> Vec<String> {
    let referrers = result["referrers"].as_array().unwrap().iter();
    let mut types: Vec<_> = referrers
        .map(|referrer| referrer["artifactType"].as_str().unwrap().to_owned())
        .collect();
    types.sort();
    types
}

#[test]
fn skopeo_reads_our_files_and_we_read_its() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    let skopeo = tool("skopeo");
    let digest = write_bundle(&workshop, "a.tar", b"object").to_string();
    let raw = workshop.done(&skopeo, ["inspect", "--raw", "oci-archive:a.tar:v1"]);
    assert_eq!(Digest::of(raw.as_bytes()).to_string(), digest);

    let pushed = format!("docker://{}", registry.reference("skopeo/a:v1"));
    let copy = ["--insecure-policy", "copy", "--preserve-digests"];
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    workshop.done(
        &skopeo,
        copy.iter()
            .chain(&["--dest-tls-verify=false", "oci-archive:a.tar:v1", &pushed]),
    );
    let pulled = bpfseal(
        &workshop,
        &["pull", &registry.reference("skopeo/a:v1"), "-o", "b.tar"],
    );
    assert_eq!(pulled["digest"], *digest);

    for form in ["oci-archive:c.tar:v1", "oci:c.dir:v1"] {
        let ends = [&*pushed, form];
        let from_registry = copy.iter().chain(&insecure[..1]).chain(&ends);
        workshop.done(&skopeo, from_registry);
        let file = form.split(':').nth(1).unwrap();
        let target = registry.reference("back/a:v1");
        assert_eq!(
            bpfseal(&workshop, &["push", file, &target])["digest"],
            *digest
        );
    }
}

#[test]
fn oras_finds_our_referrers_and_we_find_its() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    let oras = tool("oras");
    let digest = write_bundle(&workshop, "a.tar", b"object").to_string();
    let reference = registry.reference("oras/a:v1");
    let pushed = bpfseal(&workshop, &["push", "a.tar", &reference]);
    assert_eq!(pushed["digest"], *digest);
    let discover = ["discover", "--plain-http", "--format", "json", &reference];
    let found = workshop.done(&oras, discover);
    assert!(found.contains(SIGNATURE), "{found}");
    workshop.done(&oras, ["pull", "--plain-http", &reference, "-o", "out"]);
    assert_eq!(fs::read(workshop.path("out/x.bpf.o")).unwrap(), b"object");

    workshop.write("note.txt", b"a note");
    let kind = "application/vnd.example.note";
    let attach = [
        "attach",
        "--plain-http",
        &reference,
        "--artifact-type",
        kind,
        "note.txt",
    ];
    workshop.done(&oras, attach);
    let copied = registry.reference("oras/copied:v1");
    let plain = ["--from-plain-http", "--to-plain-http"];
    workshop.done(
        &oras,
        ["copy", "-r", plain[0], plain[1], &reference, &copied],
    );
    let pulled = bpfseal(&workshop, &["pull", &copied, "-o", "b.tar"]);
    assert_eq!(pulled["digest"], *digest);
    assert_eq!(referrer_types(&pulled), [kind, SIGNATURE]);

    // From our file to its folder and back.
    let from_file = [
        "copy",
        "-r",
        "--from-oci-layout",
        "b.tar:v1",
        "--to-oci-layout",
        "dir:v1",
    ];
    workshop.done(&oras, from_file);
    let back = bpfseal(
        &workshop,
        &["push", "dir", &registry.reference("oras/back:v1")],
    );
    assert_eq!(back["digest"], *digest);
    assert_eq!(referrer_types(&back), [kind, SIGNATURE]);
}

#[test]
fn crane_copies_ours_and_we_push_its_folders() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    let crane = tool("crane");
    let digest = write_bundle(&workshop, "a.tar", b"object").to_string();
    let reference = registry.reference("crane/a:v1");
    bpfseal(&workshop, &["push", "a.tar", &reference, "--tag", "v2"]);
    let manifest = workshop.done(&crane, ["manifest", "--insecure", &reference]);
    assert_eq!(Digest::of(manifest.as_bytes()).to_string(), digest);
    let copied = registry.reference("crane/copied:v2");
    workshop.done(
        &crane,
        [
            "copy",
            "--insecure",
            &registry.reference("crane/a:v2"),
            &copied,
        ],
    );
    let pulled = bpfseal(&workshop, &["pull", &copied, "-o", "b.tar"]);
    assert_eq!(pulled["digest"], *digest);
    workshop.done(
        &crane,
        ["pull", "--insecure", "--format=oci", &reference, "dir"],
    );
    let back = bpfseal(
        &workshop,
        &["push", "dir", &registry.reference("crane/back:v1")],
    );
    assert_eq!(back["digest"], *digest);
}

#[test]
fn referrers_travel_through_a_registry_that_does_not_know_them() {
    let (ours, theirs) = (Registry::start(), DockerRegistry::start());
    let workshop = Workshop::new();
    let digest = write_bundle(&workshop, "a.tar", b"object").to_string();
    let reference = format!("{}/old/a:v1", theirs.address);
    bpfseal(&workshop, &["push", "a.tar", &reference]);
    let oras = tool("oras");
    let discover = ["discover", "--plain-http", "--format", "json", &reference];
    let found = workshop.done(&oras, discover);
    assert!(found.contains(SIGNATURE), "{found}");
    workshop.write("note.txt", b"a note");
    let kind = "application/vnd.example.note";
    let attach = [
        "attach",
        "--plain-http",
        &reference,
        "--artifact-type",
        kind,
        "note.txt",
    ];
    workshop.done(&oras, attach);

    let moved = ours.reference("new/a:v1");
    let copied = bpfseal(&workshop, &["copy", &reference, &moved]);
    assert_eq!(copied["digest"], *digest);
    assert_eq!(referrer_types(&copied), [kind, SIGNATURE]);
    let again = ours.reference("newer/a:v1");
    let copied = bpfseal(&workshop, &["copy", &moved, &again]);
    assert_eq!(copied["blobs"]["mounted"], 4);
    let back = format!("{}/older/a:v1", theirs.address);
    bpfseal(&workshop, &["copy", &again, &back]);
    let pulled = bpfseal(&workshop, &["pull", &back, "-o", "b.tar"]);
    assert_eq!(pulled["digest"], *digest);
    assert_eq!(referrer_types(&pulled), [kind, SIGNATURE]);
}

#[test]
fn both_forms_of_cosign_signatures_come_along() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    let cosign = tool("cosign");
    let digest = write_bundle(&workshop, "a.tar", b"object").to_string();
    bpfseal(
        &workshop,
        &["push", "a.tar", &registry.reference("cosign/a:v1")],
    );
    let password = [("COSIGN_PASSWORD", "")];
    let keys = workshop.run_with(&cosign, ["generate-key-pair"], &password);
    assert_eq!(keys.code, 0, "{}", keys.err);
    let config = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;
    workshop.write("signing.json", config);
    let reference = format!("{}@{digest}", registry.reference("cosign/a"));
    let sign = [
        "sign",
        "--key",
        "cosign.key",
        "--yes",
        "--allow-insecure-registry",
    ];
    for form in [
        ["--signing-config", "signing.json"].as_slice(),
        &[
            "--new-bundle-format=false",
            "--use-signing-config=false",
            "--tlog-upload=false",
        ],
    ] {
        let args = sign.iter().copied().chain(form.iter().copied());
        let args = args.chain([&*reference]);
        let signed = workshop.run_with(&cosign, args, &password);
        assert_eq!(signed.code, 0, "{}", signed.err);
    }
    let pulled = bpfseal(
        &workshop,
        &["pull", &registry.reference("cosign/a:v1"), "-o", "b.tar"],
    );
    let types = referrer_types(&pulled);
    assert_eq!(
        types,
        [media::SIGSTORE_BUNDLE, SIGNATURE, media::IMAGE_CONFIG],
        "{pulled}"
    );
    let layout = read_bundle(&workshop, "b.tar");
    assert_eq!(layout.referrers(&digest.parse().unwrap()).len(), 3);

    // Pushed elsewhere, cosign still finds the newer one.
    let copied = registry.reference("cosign/b:v1");
    bpfseal(&workshop, &["push", "b.tar", &copied]);
    let verify = [
        "verify",
        "--key",
        "cosign.pub",
        "--insecure-ignore-tlog=true",
    ];
    let rest = ["--allow-insecure-registry", &copied];
    let verified = workshop.run_with(&cosign, verify.iter().chain(&rest), &password);
    assert_eq!(verified.code, 0, "{}", verified.err);
}

#[test]
fn a_killed_pull_goes_on_where_it_stopped() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    let object = noise(20 << 20);
    let digest = write_bundle(&workshop, "a.tar", &object).to_string();
    bpfseal(
        &workshop,
        &["push", "a.tar", &registry.reference("big/a:v1")],
    );

    let narrow = Narrow::start(&registry.address, Toward::Client, 9 << 20);
    let reference = format!("{}/big/a:v1", narrow.address);
    let mut first = spawn(&workshop, &["pull", &reference, "-o", "b.tar"]);
    narrow.wait_until_full();
    kill(&mut first);
    assert!(!workshop.path("b.tar").exists());
    let name = format!("b.tar.partial/{}", Digest::of(&object).to_hex());
    let kept = fs::metadata(workshop.path(&name)).unwrap().len();
    assert!(kept > 1 << 20, "only {kept} bytes were kept");

    let wide = Narrow::start(&registry.address, Toward::Client, u64::MAX);
    let reference = format!("{}/big/a:v1", wide.address);
    let pulled = bpfseal(&workshop, &["pull", &reference, "-o", "b.tar"]);
    assert_eq!(pulled["digest"], *digest);
    let (passed, missing) = (wide.passed(), object.len() as u64 - kept);
    assert!(
        passed < missing + (64 << 10),
        "{passed} bytes came for {missing}"
    );
    assert!(!workshop.path("b.tar.partial").exists());
    let layout = read_bundle(&workshop, "b.tar");
    assert!(layout.blob(&Digest::of(&object)).is_some());
}

#[test]
fn a_killed_push_goes_on_where_it_stopped() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    let object = noise(30 << 20);
    let digest = write_bundle(&workshop, "a.tar", &object).to_string();
    // Uploads are remembered by the registry's name, so it is the same one twice.
    let narrow = Narrow::start(&registry.address, Toward::Server, 17 << 20);
    let reference = format!("{}/big/a:v1", narrow.address);
    let mut first = spawn(&workshop, &["push", "a.tar", &reference]);
    narrow.wait_until_full();
    kill(&mut first);
    let before = narrow.passed();
    narrow.open();
    let pushed = bpfseal(&workshop, &["push", "a.tar", &reference]);
    assert_eq!(pushed["digest"], *digest);
    let passed = narrow.passed() - before;
    assert!(passed < 23 << 20, "{passed} bytes went again");
}

#[test]
fn a_private_ca_and_a_password_are_enough() {
    let workshop = Workshop::new();
    write_bundle(&workshop, "a.tar", b"object");
    let openssl = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        "tls.key",
        "-out",
        "tls.pem",
    ];
    workshop.done(Path::new("openssl"), openssl);
    workshop.write("htpasswd", HTPASSWD);
    let path = |name: &str| workshop.path(name).display().to_string();
    let registry = DockerRegistry::with(&format!(
        "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: x, path: {}}}}}\n",
        path("tls.pem"),
        path("tls.key"),
        path("htpasswd"),
    ));
    let host = registry.address.replace("127.0.0.1", "localhost");
    let reference = format!("{host}/a:v1");
    let ca = ["--ca-file", "tls.pem"];
    let bpfseal = program("bpfseal");
    for (args, code, says) in [
        (["push", "a.tar", &reference].as_slice(), 4, "answers 400"),
        (
            &["push", "a.tar", &reference, ca[0], ca[1]],
            4,
            "bpfseal login",
        ),
    ] {
        let said = workshop.run(&bpfseal, args);
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.contains(says), "{}", said.err);
    }
    for (password, code) in [("wrong", 4), ("hunter2", 0)] {
        let mut login = Command::new(&bpfseal)
            .args([
                "login",
                &host,
                "-u",
                "tester",
                "--password-stdin",
                ca[0],
                ca[1],
            ])
            .current_dir(workshop.path("."))
            .env("HOME", workshop.path("."))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = login.stdin.take().unwrap();
        writeln!(stdin, "{password}").unwrap();
        drop(stdin);
        assert_eq!(login.wait().unwrap().code(), Some(code));
    }
    let push = ["push", "a.tar", &reference, ca[0], ca[1]];
    workshop.done(&bpfseal, push);
    // Others read what we stored.
    let oras = [
        "manifest",
        "fetch",
        "--plain-http=false",
        "--ca-file",
        "tls.pem",
        &reference,
    ];
    workshop.done(&tool("oras"), oras);
    workshop.done(&bpfseal, ["logout", &host]);
    let said = workshop.run(&bpfseal, push);
    assert_eq!(said.code, 4, "{}", said.err);
}

/// `tester`, with the password `hunter2`.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

#[test]
fn says_what_failed_in_an_exit_code() {
    let (registry, workshop) = (Registry::start(), Workshop::new());
    write_bundle(&workshop, "a.tar", b"object");
    workshop.write("b.tar", b"not a tar");
    let there = registry.reference("a:v1");
    let missing = registry.reference("b:v1");
    let index = registry.reference("a:index");
    let elsewhere = format!("{there}@{}", Digest::of(b"something else"));
    bpfseal(&workshop, &["push", "a.tar", &there]);
    let create = ["manifest", "index", "create", "--plain-http", &index, "v1"];
    workshop.done(&tool("oras"), create);
    for (args, code) in [
        (["push", "a.tar", &there].as_slice(), 0),
        (&["push", "b.tar", &there], 1),
        (&["push", "a.tar", "no-host:v1"], 2),
        (&["push", "a.tar", &there, "--tag", "a/b"], 2),
        (&["push", "c.tar", &there], 3),
        (&["pull", &missing, "-o", "c.tar"], 3),
        (&["pull", "127.0.0.1:1/a:v1", "-o", "c.tar"], 4),
        (&["copy", &missing, &there], 3),
        (&["pull", &index, "-o", "c.tar"], 1),
        (&["push", "a.tar", &elsewhere], 1),
    ] {
        let said = workshop.run(&program("bpfseal"), args);
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        assert!(!workshop.path("c.tar").exists());
        assert!(!workshop.path("c.tar.partial").exists());
    }
}

/// Bytes that no transport can make smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count / 8).flat_map(|_| step()).collect()
}

fn spawn(workshop: &Workshop, args: &[&str]) -> Child {
    Command::new(program("bpfseal"))
        .args(args)
        .current_dir(workshop.path("."))
        .env("HOME", workshop.path("."))
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Debian's docker-registry 2.8, which has no referrers API.
struct DockerRegistry {
    server: Child,
    address: String,
    _workshop: Workshop,
}

impl DockerRegistry {
    fn start() -> Self {
        Self::with("")
    }

    /// With more lines of configuration.
    fn with(more: &str) -> Self {
        let workshop = Workshop::new();
        // It cannot say which port it took, so we take one and hand it over.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let root = workshop.path("data");
        let storage = format!("{{filesystem: {{rootdirectory: {}}}}}", root.display());
        let config = format!("version: 0.1\nstorage: {storage}\nhttp:\n  addr: {address}\n{more}");
        let config = workshop.write("config.yml", config);
        let server = Command::new(tool("docker-registry"))
            .args([PathBuf::from("serve"), config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        e2e::wait_until_listening(address);
        Self {
            server,
            address: address.to_string(),
            _workshop: workshop,
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Which way the bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Toward {
    Client,
    Server,
}

/// A wire to a registry that holds everything back after so many bytes, without closing,
/// until it is opened: then the connections of before are cut, as if their client had died.
struct Narrow {
    address: String,
    wire: Arc<Wire>,
}

struct Wire {
    state: Mutex<Passed>,
    changed: Condvar,
}

struct Passed {
    bytes: u64,
    limit: u64,
    opened: bool,
}

impl Narrow {
    fn start(upstream: &str, toward: Toward, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Mutex::new(Passed {
            bytes: 0,
            limit,
            opened: false,
        });
        let wire = Arc::new(Wire {
            state,
            changed: Condvar::new(),
        });
        let shared = Arc::clone(&wire);
        let upstream = upstream.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&upstream).unwrap();
                let (client_too, server_too) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
                let counts_up = toward == Toward::Server;
                thread::spawn(move || pump(&client, &server, &up, counts_up));
                thread::spawn(move || pump(&server_too, &client_too, &down, !counts_up));
            }
        });
        Self { address, wire }
    }

    fn wait_until_full(&self) {
        let state = self.wire.state.lock().unwrap();
        let patience = Duration::from_secs(60);
        let full = |state: &mut Passed| state.bytes < state.limit;
        let (state, waited) = self
            .wire
            .changed
            .wait_timeout_while(state, patience, full)
            .unwrap();
        assert!(!waited.timed_out(), "only {} bytes came", state.bytes);
    }

    fn passed(&self) -> u64 {
        self.wire.state.lock().unwrap().bytes
    }

    fn open(&self) {
        let mut state = self.wire.state.lock().unwrap();
        state.limit = u64::MAX;
        state.opened = true;
        self.wire.changed.notify_all();
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.open();
    }
}

impl Wire {
    /// Waits until the bytes may pass; false if the connection ends here.
    fn admit(&self, count: u64) -> bool {
        let state = self.state.lock().unwrap();
        let held = state.bytes >= state.limit;
        let full = |state: &mut Passed| state.bytes >= state.limit;
        let mut state = self.changed.wait_while(state, full).unwrap();
        if held && state.opened {
            return false;
        }
        state.bytes += count;
        self.changed.notify_all();
        true
    }
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, wire: &Wire, counted: bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if counted && !wire.admit(count as u64) {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
