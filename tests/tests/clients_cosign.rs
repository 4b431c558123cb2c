//! cosign accepts our signatures and we accept its own, in both of its forms; what one
//! refuses the other refuses.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::e2e::{Registry, Said, Workshop, program, tool};

/// For a registry without TLS, a key alone, and no transparency log.
const COSIGN_VERIFY: [&str; 3] = ["verify", "--allow-http-registry", "--insecure-ignore-tlog"];
const COSIGN_SIGN: [&str; 5] = [
    "sign",
    "--allow-http-registry",
    "--tlog-upload=false",
    "--use-signing-config=false",
    "--yes",
];

/// A workshop with a key pair `ours.key`, and a bundle pushed under `bundle:v1`.
struct Scene {
    workshop: Workshop,
    registry: Registry,
    reference: String,
    digest: String,
}

impl Scene {
    fn new(algorithm: &str) -> Self {
        let workshop = Workshop::new();
        let registry = Registry::start();
        workshop.write("probe.bpf.o", bundle::fixture::object("socket", "probe"));
        let reference = registry.reference("bundle:v1");
        let mut scene = Self {
            workshop,
            registry,
            reference,
            digest: String::new(),
        };
        scene.ours(&[
            "keygen",
            "-o",
            "ours",
            "--algorithm",
            algorithm,
            "--no-passphrase",
        ]);
        scene.ours(&[
            "pack",
            "probe.bpf.o",
            "-o",
            "probe.tar",
            "--name",
            "probe",
            "--version",
            "v1",
        ]);
        let pushed = scene.ours(&["push", "probe.tar", &scene.reference.clone()]);
        scene.digest = pushed["digest"].as_str().unwrap().to_owned();
        scene
    }

    /// Runs `bpfseal … --json`, which has to succeed.
    fn ours(&self, args: &[&str]) -> Value {
        let args = args.iter().chain(&["--json"]);
        let out = self.workshop.done(&program("bpfseal"), args);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    fn cosign(&self, fixed: &[&str], args: &[&str]) -> Said {
        let args = fixed.iter().chain(args);
        self.workshop
            .run_with(&tool("cosign"), args, &[("COSIGN_PASSWORD", "secret")])
    }

    fn cosign_done(&self, fixed: &[&str], args: &[&str]) -> Said {
        let said = self.cosign(fixed, args);
        assert_eq!(said.code, 0, "cosign {fixed:?} {args:?}: {}", said.err);
        said
    }

    /// Code of the refusal by `bpfseal verify`.
    fn refusal(&self, args: &[&str]) -> String {
        let args = ["verify"].iter().chain(args).chain(&["--json"]);
        let said = self.workshop.run(&program("bpfseal"), args);
        assert_eq!(said.code, 1, "{}{}", said.out, said.err);
        let document: Value = serde_json::from_str(&said.out).unwrap();
        document["error"]["reason"].as_str().unwrap().to_owned()
    }
}

#[test]
fn cosign_accepts_what_we_sign() {
    for algorithm in ["ecdsa-p256", "ed25519"] {
        let scene = Scene::new(algorithm);
        let reference = scene.reference.as_str();
        let unsigned = scene.cosign(&COSIGN_VERIFY, &["--key", "ours.pub", reference]);
        assert_ne!(
            unsigned.code, 0,
            "{algorithm}: an unsigned bundle was accepted"
        );
        scene.ours(&["sign", reference, "--key", "ours.key"]);
        let said = scene.cosign_done(&COSIGN_VERIFY, &["--key", "ours.pub", reference]);
        assert!(
            said.out.contains(&scene.digest),
            "{algorithm}: {}",
            said.out
        );
        scene.ours(&["keygen", "-o", "other", "--no-passphrase"]);
        let other = scene.cosign(&COSIGN_VERIFY, &["--key", "other.pub", reference]);
        assert_ne!(other.code, 0, "{algorithm}: another key was accepted");
    }
}

#[test]
fn cosign_accepts_what_was_signed_in_a_file_and_pushed() {
    let scene = Scene::new("ed25519");
    scene.ours(&["sign", "probe.tar", "--key", "ours.key"]);
    let elsewhere = scene.registry.reference("elsewhere/bundle:v1");
    scene.ours(&["push", "probe.tar", &elsewhere]);
    let said = scene.cosign_done(&COSIGN_VERIFY, &["--key", "ours.pub", &elsewhere]);
    assert!(said.out.contains(&scene.digest), "{}", said.out);
}

#[test]
fn we_accept_what_cosign_signs_in_both_forms() {
    for form in [&[][..], &["--new-bundle-format=false"]] {
        let scene = Scene::new("ed25519");
        let reference = scene.reference.as_str();
        scene.cosign_done(&["generate-key-pair"], &[]);
        assert_eq!(
            scene.refusal(&[reference, "--key", "cosign.pub"]),
            "no-signature"
        );
        scene.cosign_done(
            &COSIGN_SIGN,
            &[&["--key", "cosign.key", reference], form].concat(),
        );
        let verified = scene.ours(&["verify", reference, "--key", "cosign.pub"]);
        assert_eq!(verified["digest"], scene.digest, "{form:?}");
        assert_eq!(
            scene.refusal(&[reference, "--key", "ours.pub"]),
            "untrusted-signer"
        );
        scene.ours(&["pull", reference, "-o", "pulled.tar"]);
        let verified = scene.ours(&["verify", "pulled.tar", "--key", "cosign.pub"]);
        assert_eq!(verified["digest"], scene.digest, "{form:?}, pulled");
    }
}

#[test]
fn an_attestation_by_cosign_is_no_signature() {
    let scene = Scene::new("ed25519");
    let reference = scene.reference.as_str();
    scene.cosign_done(&["generate-key-pair"], &[]);
    scene.workshop.write("predicate.json", "{}");
    scene.cosign_done(
        &[
            "attest",
            "--allow-http-registry",
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--yes",
        ],
        &[
            "--key",
            "cosign.key",
            "--predicate",
            "predicate.json",
            "--type",
            "https://example/x",
            reference,
        ],
    );
    assert_eq!(
        scene.refusal(&[reference, "--key", "cosign.pub"]),
        "wrong-predicate"
    );
}

const COSIGN_ATTEST: [&str; 5] = [
    "attest",
    "--allow-http-registry",
    "--tlog-upload=false",
    "--use-signing-config=false",
    "--yes",
];

#[test]
fn attestations_are_read_both_ways_and_a_rule_can_demand_them() {
    const REVIEW: &str = "https://acme.example/review/v1";
    let scene = Scene::new("ecdsa-p256");
    let reference = scene.reference.as_str();
    scene.cosign_done(&["generate-key-pair"], &[]);
    scene.workshop.write("review.json", r#"{"by":"ann"}"#);
    scene.workshop.write(
        "policy.toml",
        format!(
            r#"
[keys.ours]
file = "ours.pub"
[keys.theirs]
file = "cosign.pub"
[[rule]]
name = "reviewed"
scope = "*"
signed_by = {{ of = ["ours", "theirs"] }}
require = ["{REVIEW}"]
"#
        ),
    );
    let verify = [reference, "--policy", "policy.toml"];
    scene.ours(&["sign", reference, "--key", "ours.key"]);
    assert_eq!(scene.refusal(&verify), "missing-attestation");
    let attest = [
        "--key",
        "cosign.key",
        "--predicate",
        "review.json",
        "--type",
        REVIEW,
    ];
    for form in [&[][..], &["--new-bundle-format=false"]] {
        let args = [&attest[..], form, &[reference]].concat();
        scene.cosign_done(&COSIGN_ATTEST, &args);
        let verified = scene.ours(&[&["verify"][..], &verify].concat());
        let attestation = &verified["attestations"][0];
        assert_eq!(
            (
                &attestation["predicate_type"],
                &attestation["trusted_as"][0]
            ),
            (&REVIEW.into(), &"theirs".into()),
            "{form:?}"
        );
    }
    let ours = [
        "attest",
        reference,
        "--key",
        "ours.key",
        "--predicate",
        "review.json",
    ];
    scene.ours(&[&ours[..], &["--type", REVIEW]].concat());
    let check = [
        "verify-attestation",
        "--allow-http-registry",
        "--insecure-ignore-tlog",
    ];
    let said = scene.cosign_done(&check, &["--key", "ours.pub", "--type", REVIEW, reference]);
    assert!(said.out.contains("payload"), "{}", said.out);
}

#[test]
fn cosigns_encrypted_key_signs_here_and_blobs_are_read_both_ways() {
    let scene = Scene::new("ecdsa-p256");
    scene.workshop.write("tool", "a tool");
    scene.cosign_done(&["generate-key-pair"], &[]);
    let sign = [
        "sign-blob",
        "--key",
        "cosign.key",
        "--bundle",
        "ours.json",
        "tool",
    ];
    let wrong = scene.workshop.run_with(
        &program("bpfseal"),
        sign,
        &[("BPFSEAL_PASSPHRASE", "wrong")],
    );
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    let right = scene.workshop.run_with(
        &program("bpfseal"),
        sign,
        &[("BPFSEAL_PASSPHRASE", "secret")],
    );
    assert_eq!(right.code, 0, "{}", right.err);
    let check = [
        "verify-blob",
        "--insecure-ignore-tlog",
        "--key",
        "cosign.pub",
    ];
    scene.cosign_done(&check, &["--bundle", "ours.json", "tool"]);
    scene.cosign_done(
        &[
            "sign-blob",
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--yes",
        ],
        &["--key", "cosign.key", "--bundle", "theirs.json", "tool"],
    );
    for bundle in ["ours.json", "theirs.json"] {
        scene.ours(&[
            "verify-blob",
            "--bundle",
            bundle,
            "--key",
            "cosign.pub",
            "tool",
        ]);
    }
}

#[test]
fn a_signature_moved_to_another_bundle_is_refused() {
    let scene = Scene::new("ed25519");
    scene.ours(&["sign", "probe.tar", "--key", "ours.key"]);
    scene.ours(&["pack", "probe.bpf.o", "-o", "other.tar", "--name", "other"]);
    let signed = read(scene.workshop.path("probe.tar"));
    let mut other = read(scene.workshop.path("other.tar"));
    let subject = other.bundle_descriptor().unwrap().clone();
    let signature = signed.bundle().unwrap().referrers()[0].clone();
    let mut manifest = signature.manifest;
    manifest.subject = Some(subject);
    for (_, blob) in signed.blobs() {
        other.add_blob(blob.to_vec());
    }
    other.add_manifest(manifest.to_bytes(), None).unwrap();
    let mut tar = Vec::new();
    other.write(&mut tar, 0).unwrap();
    scene.workshop.write("moved.tar", tar);
    assert_eq!(
        scene.refusal(&["moved.tar", "--key", "ours.pub"]),
        "wrong-subject"
    );
}

#[test]
fn openssl_and_cosign_read_our_keys() {
    let scene = Scene::new("ecdsa-p256");
    scene.workshop.write("passphrase", "secret\n");
    scene.ours(&["keygen", "-o", "sealed", "--passphrase-file", "passphrase"]);
    let openssl = PathBuf::from("openssl");
    for (key, more) in [("ours.key", None), ("sealed.key", Some("file:passphrase"))] {
        let mut args = vec!["pkey", "-in", key, "-pubout"];
        args.extend(more.map(|source| ["-passin", source]).into_iter().flatten());
        let public = scene.workshop.done(&openssl, args);
        let ours = scene.workshop.path(key).with_extension("pub");
        assert_eq!(public, fs::read_to_string(ours).unwrap(), "{key}");
    }
    scene.cosign_done(
        &["import-key-pair", "--key", "ours.key"],
        &["--output-key-prefix", "imported"],
    );
    let imported = fs::read_to_string(scene.workshop.path("imported.pub")).unwrap();
    assert_eq!(
        imported,
        fs::read_to_string(scene.workshop.path("ours.pub")).unwrap()
    );
}

fn read(path: PathBuf) -> bundle::Layout {
    bundle::Layout::read(
        fs::File::open(path).unwrap(),
        &bundle::layout::Limits::default(),
    )
    .unwrap()
}
