//! keygen, pack, sign, verify and enroll on local files, as a user runs them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, os::unix::fs::PermissionsExt};

use bundle::{
    Digest,
    layout::{Layout, Limits},
};
use serde_json::Value;
use tests::{
    e2e::{Said, Workshop, program},
    fixtures,
};

struct Desk(Workshop);

impl Desk {
    /// A workshop with keys `a` and `b` (Ed25519, not encrypted) and `x.bpf.o`.
    fn new() -> Self {
        Self(Workshop::with_keys("ed25519"))
    }

    /// Runs `bpfseal` with words that have no spaces in them.
    fn run(&self, words: &str, variables: &[(&str, &str)]) -> Said {
        self.0
            .run_with(&program("bpfseal"), words.split_whitespace(), variables)
    }

    fn ok(&self, words: &str) -> Value {
        self.0.bpfseal_done(words)
    }

    fn refusal(&self, words: &str) -> (i32, Value) {
        self.0.bpfseal_refusal(words)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path(name)).unwrap()
    }
}

#[test]
fn keys_are_for_their_owner_and_never_overwritten() {
    let desk = Desk::new();
    let mode = |name: &str| {
        fs::metadata(desk.0.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("a.key"), mode("a.pub")), (0o600, 0o644));
    let before = desk.read("a.key");
    let said = desk.run("keygen -o a --no-passphrase", &[]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("a.key is there already"), "{}", said.err);
    assert_eq!(desk.read("a.key"), before);
    // A public key alone is not overwritten either, and no private key appears beside it.
    fs::remove_file(desk.0.path("b.key")).unwrap();
    assert_eq!(desk.run("keygen -o b --no-passphrase", &[]).code, 2);
    assert!(!desk.0.path("b.key").exists());
}

#[test]
fn passphrases_come_from_a_file_or_the_environment_and_only_the_right_one_signs() {
    let desk = Desk::new();
    desk.0.write("right", "correct horse\n");
    desk.0.write("wrong", "battery\n");
    let made = desk.ok("keygen -o sealed --passphrase-file right");
    assert_eq!(made["derivation"], "scrypt N=16384 r=8 p=5");
    let key = String::from_utf8(desk.read("sealed.key")).unwrap();
    assert!(
        key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
        "{key}"
    );
    desk.ok("pack x.bpf.o -o x.tar");
    let sign = "sign x.tar --key sealed.key";
    assert_eq!(desk.refusal(sign), (2, Value::Null));
    assert_eq!(
        desk.refusal(&format!("{sign} --passphrase-file wrong")),
        (2, "bad-key".into())
    );
    let said = desk.run(
        &format!("{sign} -v"),
        &[("BPFSEAL_PASSPHRASE", "correct horse")],
    );
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("scrypt N=16384 r=8 p=5"), "{}", said.err);
    desk.ok("verify x.tar --key sealed.pub");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let desk = Desk::new();
    let pack = "pack x.bpf.o --name x --version 1.0 --annotation k=v -o";
    desk.ok(&format!("{pack} one.tar"));
    desk.ok(&format!("{pack} two.tar"));
    assert_eq!(desk.read("one.tar"), desk.read("two.tar"));
    desk.ok("sign one.tar --key a.key");
    desk.ok("sign two.tar --key a.key");
    assert_eq!(
        desk.read("one.tar"),
        desk.read("two.tar"),
        "signed by Ed25519"
    );
    desk.ok("sign two.tar --key a.key");
    assert_eq!(desk.read("one.tar"), desk.read("two.tar"), "signed again");
    let epoch = [("SOURCE_DATE_EPOCH", "1700000000")];
    assert_eq!(desk.run(&format!("{pack} three.tar"), &epoch).code, 0);
    let layout = Layout::read(desk.read("three.tar").as_slice(), &Limits::default()).unwrap();
    let manifest = layout.bundle().unwrap().manifest().clone();
    assert_eq!(
        manifest.annotations["org.opencontainers.image.created"],
        "2023-11-14T22:13:20Z"
    );
}

#[test]
fn an_unknown_tunable_names_those_there_are() {
    let desk = Desk::new();
    let said = desk.run("pack x.bpf.o -o x.tar --tunable no_such_variable", &[]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err
            .contains("no read-only variable is called \"no_such_variable\""),
        "{}",
        said.err
    );
    assert!(!desk.0.path("x.tar").exists());
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let desk = Desk::new();
    desk.ok("pack x.bpf.o -o x.tar");
    desk.ok("sign x.tar --key a.key");
    let tar = desk.read("x.tar");
    let layout = Layout::read(tar.as_slice(), &Limits::default()).unwrap();
    for (digest, bytes) in layout.blobs() {
        let mut changed = tar.clone();
        let at = tar
            .windows(bytes.len())
            .position(|window| window == bytes)
            .unwrap();
        changed[at + bytes.len() / 2] ^= 1;
        desk.0.write("changed.tar", changed);
        let got = desk.refusal("verify changed.tar --key a.pub");
        assert_eq!(got, (1, "digest-mismatch".into()), "{digest}");
    }
}

#[test]
fn an_exchanged_object_needs_a_new_signature() {
    let desk = Desk::new();
    desk.ok("pack x.bpf.o -o x.tar --name x");
    desk.ok("sign x.tar --key a.key");
    // Everything consistent, the signature carried over.
    let object = fs::read(fixtures::object("count_exec")).unwrap();
    desk.0.write("x.bpf.o", object);
    desk.ok("pack x.bpf.o -o y.tar --name x");
    let signed = Layout::read(desk.read("x.tar").as_slice(), &Limits::default()).unwrap();
    let mut other = Layout::read(desk.read("y.tar").as_slice(), &Limits::default()).unwrap();
    for (_, blob) in signed.blobs() {
        other.add_blob(blob.to_vec());
    }
    for descriptor in &signed.index().manifests[1..] {
        let bytes = signed.blob(&descriptor.digest).unwrap().to_vec();
        other.add_manifest(bytes, None).unwrap();
    }
    let mut tar = Vec::new();
    other.write(&mut tar, 0).unwrap();
    desk.0.write("y.tar", tar);
    assert_eq!(
        desk.refusal("verify y.tar --key a.pub"),
        (1, "no-signature".into())
    );
}

#[test]
fn a_policy_decides_and_its_rule_is_named() {
    let desk = Desk::new();
    desk.ok("pack x.bpf.o -o x.tar --name net/x --version 1.0");
    desk.0.write(
        "policy.toml",
        r#"
version = 1
[keys.release]
file = "a.pub"
[keys.again]
file = "a.pub"
[keys.security]
file = "b.pub"
[[rule]]
name = "two people"
scope = "net/*"
signed_by = { at_least = 2, of = ["release", "security"] }
[[rule]]
name = "tracing"
scope = "tracing/*"
signed_by = { of = ["release"] }
program_types = ["kprobe"]
"#,
    );
    let verify = "verify x.tar --policy policy.toml";
    assert_eq!(desk.refusal(verify), (1, "no-signature".into()));
    desk.ok("sign x.tar --key a.key");
    desk.ok("sign x.tar --key a.key -o x.tar");
    assert_eq!(desk.refusal(verify), (1, "threshold".into()));
    assert_eq!(
        desk.refusal(&format!("{verify} --scope else/x")),
        (1, "no-rule".into())
    );
    assert_eq!(
        desk.refusal(&format!("{verify} --scope tracing/x")),
        (1, "program-type".into())
    );
    desk.ok("sign x.tar --key b.key");
    let verified = desk.ok(verify);
    assert_eq!(verified["policy"]["rule"]["name"], "two people");
    assert_eq!(verified["policy"]["rule"]["line"], 9);
    assert_eq!(verified["signed_by"].as_array().unwrap().len(), 2);
    let said = desk.run(&format!("{verify} --explain"), &[]);
    assert!(
        said.out.contains("allowed   rule \"two people\", line 9"),
        "{}",
        said.out
    );
}

#[test]
fn enroll_signs_what_is_inside_an_executable() {
    let desk = Desk::new();
    let object = desk.read("x.bpf.o");
    let mut executable = b"\x7fELF\x02\x01\x01 not really, but long enough".to_vec();
    executable.resize(4096, 0x90);
    executable.extend_from_slice(&object);
    executable.resize(16384, 0x90);
    desk.0.write("tool", executable);
    let done = desk.ok("enroll tool --key a.key");
    assert_eq!(
        (&done["file"], &done["name"]),
        (&"tool.tar".into(), &"tool".into())
    );
    assert_eq!(
        done["objects"][0]["digest"],
        Digest::of(&object).to_string()
    );
    let verified = desk.ok("verify tool.tar --key a.pub");
    assert_eq!(
        verified["objects"][0]["digest"],
        Digest::of(&object).to_string()
    );
}

#[test]
fn what_is_no_input_is_said_in_one_line() {
    let desk = Desk::new();
    desk.0.write("text", "no ELF");
    desk.ok("pack x.bpf.o -o x.tar");
    for (words, code) in [
        ("pack missing.o -o y.tar", 3),
        ("pack . -o y.tar", 2),
        ("pack text -o y.tar", 1),
        ("pack x.bpf.o x.bpf.o -o y.tar", 2),
        ("pack x.bpf.o -o missing/y.tar", 3),
        ("sign missing.tar --key a.key", 3),
        ("sign x.bpf.o --key a.key", 1),
        ("sign x.tar --key a.pub", 2),
        ("sign x.tar --key missing.key", 3),
        ("verify text --key a.pub", 1),
        ("verify x.tar --key a.key", 2),
        ("verify x.tar", 2),
        ("enroll text --key a.key", 1),
    ] {
        let said = desk.run(words, &[]);
        assert_eq!(said.code, code, "{words}: {}", said.err);
        assert!(
            said.err.lines().next().unwrap().starts_with("error: "),
            "{words}: {}",
            said.err
        );
    }
    assert!(!desk.0.path("y.tar").exists());
}

/// A certificate vector and its key, copied into the workshop.
fn copy_vectors(desk: &Desk, names: &[&str]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/x509");
    for name in names {
        desk.0
            .write(name, fs::read(format!("{folder}/{name}")).unwrap());
    }
}

#[test]
fn a_key_may_be_in_the_environment_or_in_a_program_s_hands() {
    let desk = Desk::new();
    desk.ok("pack x.bpf.o -o x.tar");
    desk.ok("keygen -o p --no-passphrase");
    let pem = String::from_utf8(desk.read("p.key")).unwrap();
    let said = desk.run(
        "sign x.tar --key env://RELEASE_KEY",
        &[("RELEASE_KEY", pem.as_str())],
    );
    assert_eq!(said.code, 0, "{}", said.err);
    desk.ok("verify x.tar --key p.pub");
    assert_eq!(desk.run("sign x.tar --key env://NOTHING", &[]).code, 3);
    let plugin = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/examples/plugins/openssl-signer"
    );
    desk.ok("pack x.bpf.o -o y.tar");
    desk.ok(&format!("sign y.tar --key plugin:{plugin}#p.key"));
    desk.ok("verify y.tar --key p.pub");
    // A plugin that signs with another key than it says.
    let liar = desk.0.write(
        "liar",
        format!(
            "#!/bin/sh\nrequest=$(cat)\ncase $request in *public-key*) request=$(printf %s \"$request\" \
             | sed s/p.key/a.key/);; esac\nprintf '%s\\n' \"$request\" | {plugin}\n"
        ),
    );
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();
    for key in [
        "plugin:./liar#p.key",
        "plugin:./missing#p.key",
        "pkcs11:object=x",
        "awskms:///a",
    ] {
        let said = desk.run(&format!("sign y.tar --key {key}"), &[]);
        assert_eq!(said.code, 2, "{key}: {}", said.err);
    }
}

#[test]
fn an_organisation_s_certificate_signs_and_the_policy_limits_it() {
    let desk = Desk::new();
    copy_vectors(
        &desk,
        &["leaf.key", "leaf.pem", "evil.key", "evil.pem", "root.pem"],
    );
    desk.0.write(
        "policy.toml",
        r#"
version = 1
[x509.acme]
roots = "root.pem"
names = ["*@acme.example"]
[[rule]]
name = "ours"
scope = "*"
signed_by = { of = ["acme"] }
"#,
    );
    desk.ok("pack x.bpf.o -o x.tar");
    let wrong = desk.run("sign x.tar --key a.key --certificate leaf.pem", &[]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert!(wrong.err.contains("is for another key"), "{}", wrong.err);
    desk.ok("sign x.tar --key evil.key --certificate evil.pem");
    let verify = "verify x.tar --policy policy.toml";
    assert_eq!(desk.refusal(verify), (1, "bad-certificate".into()));
    desk.ok("sign x.tar --key leaf.key --certificate leaf.pem");
    let verified = desk.ok(verify);
    assert_eq!(verified["signed_by"][0]["identity"], "O=Acme, CN=release");
    // A signed policy brings its certificates with it.
    desk.ok("policy sign policy.toml --key a.key");
    let shown = desk.ok("policy show policy.toml");
    assert_eq!(shown["x509"]["acme"]["names"][0], "*@acme.example");
}

#[test]
fn attestations_say_what_they_are() {
    let desk = Desk::new();
    desk.0.write("bom.json", r#"{"bomFormat":"CycloneDX"}"#);
    desk.0.write("other.json", "{}");
    desk.ok("pack x.bpf.o -o x.tar --name x");
    desk.ok("sign x.tar --key a.key");
    for (words, kind) in [
        (
            "--inventory",
            "https://github.com/bpfseal/bpfseal/inventory/v1",
        ),
        ("--sbom bom.json", "https://cyclonedx.org/bom"),
        (
            "--predicate other.json --type https://a.example/v1",
            "https://a.example/v1",
        ),
    ] {
        let made = desk.ok(&format!("attest x.tar --key a.key {words}"));
        assert_eq!(made["predicate_type"], kind);
    }
    let github = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "acme/x"),
        ("GITHUB_SHA", "0123"),
    ];
    let said = desk.run(
        "attest x.tar --key a.key --provenance --material bom.json",
        &github,
    );
    assert_eq!(said.code, 0, "{}", said.err);
    let verified = desk.ok("verify x.tar --key a.pub");
    let kinds: Vec<&str> = verified["attestations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attestation| attestation["predicate_type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "https://github.com/bpfseal/bpfseal/inventory/v1",
            "https://cyclonedx.org/bom",
            "https://a.example/v1",
            "https://slsa.dev/provenance/v1",
        ]
    );
    for (words, code) in [
        ("--sbom other.json", 1),
        ("--predicate x.tar --type https://a.example/v1", 1),
        ("--predicate other.json --type nonsense", 2),
        (
            "--predicate other.json --type https://sigstore.dev/cosign/sign/v1",
            2,
        ),
        ("--predicate other.json", 2),
        ("", 2),
    ] {
        let said = desk.run(&format!("attest x.tar --key a.key {words}"), &[]);
        assert_eq!(said.code, code, "{words}: {}", said.err);
    }
}
