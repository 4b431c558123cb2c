//! sign-blob and verify-blob as a user runs them, and the public conformance suite where it
//! is at hand.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::Digest;
use serde_json::{Value, json};
use tests::{
    e2e::{Workshop, program},
    lab,
};

/// Exit code, and the reason or what was verified.
fn verify(workshop: &Workshop, args: &[&str]) -> (i32, Value) {
    let args = ["verify-blob"].iter().chain(args).chain(&["--json"]);
    let said = workshop.run(&program("bpfseal"), args);
    let document: Value = serde_json::from_str(&said.out)
        .unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err));
    match said.code {
        0 => (0, document["subject"].clone()),
        code => (code, document["error"]["reason"].clone()),
    }
}

fn ours(workshop: &Workshop, words: &str) {
    workshop.done(&program("bpfseal"), words.split_whitespace());
}

#[test]
fn a_file_signed_by_a_key_is_known_by_bytes_and_by_digest() {
    let workshop = Workshop::new();
    let digest = Digest::of(b"a tool").to_string();
    workshop.write("tool", "a tool");
    workshop.write("other", "another");
    let other = Digest::of(b"another").to_string();
    for algorithm in ["ecdsa-p256", "ed25519"] {
        ours(
            &workshop,
            &format!("keygen -o {algorithm} --algorithm {algorithm} --no-passphrase"),
        );
        ours(
            &workshop,
            &format!("sign-blob --key {algorithm}.key --bundle {algorithm}.json tool"),
        );
        ours(
            &workshop,
            &format!("keygen -o other-{algorithm} --no-passphrase"),
        );
        let (key, bundle) = (format!("{algorithm}.pub"), format!("{algorithm}.json"));
        let wrong = format!("other-{algorithm}.pub");
        let by_digest = match algorithm {
            "ed25519" => (1, "unsupported".into()),
            _ => (0, digest.clone().into()),
        };
        for (key, subject, want) in [
            (&key, "tool", (0, Value::from(digest.clone()))),
            (&key, digest.as_str(), by_digest),
            (&key, "other", (1, "wrong-subject".into())),
            (&key, other.as_str(), (1, "wrong-subject".into())),
            (&wrong, "tool", (1, "bad-signature".into())),
            (&key, "missing", (3, Value::Null)),
        ] {
            let got = verify(&workshop, &["--bundle", &bundle, "--key", key, subject]);
            assert_eq!(got, want, "{key} {subject}");
        }
        let identity = [
            "--certificate-identity",
            "a",
            "--certificate-oidc-issuer",
            "b",
        ];
        let args = [&["--bundle", bundle.as_str()], &identity[..], &["tool"]].concat();
        assert_eq!(verify(&workshop, &args), (1, "wrong-identity".into()));
    }
}

#[test]
fn a_statement_is_signed_as_it_is_and_verifies_for_its_subjects() {
    let workshop = Workshop::new();
    workshop.write("tool", "a tool");
    workshop.write("other", "another");
    ours(&workshop, "keygen -o k --no-passphrase");
    let statement = |subject: Value| {
        json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://acme.example/v1",
            "subject": [{ "name": "tool", "digest": subject }], "predicate": {},
        })
        .to_string()
    };
    let written = statement(json!({ "sha256": Digest::of(b"a tool").to_hex() }));
    workshop.write("statement.json", &written);
    // As the suite sigstore-conformance asks.
    let driver = lab::workspace().join("tests/lab/sigstore-conformance");
    let program = program("bpfseal");
    let ask = |words: &str| {
        let variables = [("BPFSEAL", program.to_str().unwrap())];
        workshop
            .run_with(&driver, words.split_whitespace(), &variables)
            .code
    };
    let sign = "sign-bundle --in-toto --key k.key --bundle b.json";
    assert_eq!(ask(&format!("{sign} statement.json")), 0);
    let bundle: Value =
        serde_json::from_slice(&fs::read(workshop.path("b.json")).unwrap()).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    assert_eq!(BASE64.decode(payload).unwrap(), written.as_bytes());
    let verify = "verify-bundle --bundle b.json --key k.pub";
    assert_eq!(ask(&format!("{verify} tool")), 0);
    assert_eq!(ask(&format!("{verify} {}", Digest::of(b"a tool"))), 0);
    assert_eq!(ask(&format!("{verify} other")), 1);
    assert_eq!(ask(&format!("{verify} statement.json")), 1);
    for wrong in [
        "{}".to_owned(),
        statement(json!({ "sha1": "00" })),
        "tool".to_owned(),
    ] {
        workshop.write("wrong.json", &wrong);
        assert_eq!(ask(&format!("{sign} wrong.json")), 2, "{wrong}");
    }
    assert_eq!(ask("sign"), 2);
}

#[test]
fn a_file_of_that_name_is_meant_before_a_digest() {
    let workshop = Workshop::new();
    let name = Digest::of(b"something else").to_string();
    workshop.write(&name, "the file");
    ours(&workshop, "keygen -o k --no-passphrase");
    ours(
        &workshop,
        &format!("sign-blob --key k.key --bundle b.json {name}"),
    );
    let got = verify(&workshop, &["--bundle", "b.json", "--key", "k.pub", &name]);
    assert_eq!(got, (0, Digest::of(b"the file").to_string().into()));
}

#[test]
fn other_tools_signatures_and_rubbish_are_refused_by_name() {
    let workshop = Workshop::new();
    workshop.write("tool", "a tool");
    ours(&workshop, "keygen -o k --no-passphrase");
    for (bytes, want) in [
        ("untrusted comment: minisign\nRWQ\n", "foreign-signature"),
        ("-----BEGIN PGP SIGNATURE-----\n", "foreign-signature"),
        ("-----BEGIN SSH SIGNATURE-----\n", "foreign-signature"),
        ("{}", "malformed-signature"),
        ("", "malformed-signature"),
    ] {
        workshop.write("b", bytes);
        let got = verify(&workshop, &["--bundle", "b", "--key", "k.pub", "tool"]);
        assert_eq!(got, (1, want.into()), "{bytes:?}");
    }
}

#[test]
fn a_root_that_cannot_be_used_is_said() {
    let workshop = Workshop::new();
    workshop.write("root.json", "{}");
    let said = workshop.run(
        &program("bpfseal"),
        ["trust", "show", "--trusted-root", "root.json", "--json"],
    );
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (said.code, &document["error"]["reason"]),
        (1, &"bad-trust-root".into())
    );
    let shown = workshop.done(&program("bpfseal"), ["trust", "show", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        [
            &shown["certificate_authorities"],
            &shown["transparency_logs"]
        ],
        [&Value::from(2), &2.into()],
        "{shown}"
    );
}

/// The folder `test/assets/bundle-verify` of sigstore-conformance, if it is at hand.
const SUITE: &str = "SIGSTORE_CONFORMANCE";

#[test]
fn the_conformance_suite_says_what_we_say() {
    let Some(folder) = env::var_os(SUITE).map(PathBuf::from) else {
        println!("SKIPPED the_conformance_suite_says_what_we_say: {SUITE} names no folder");
        return;
    };
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 70, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let artifact = match case.join("artifact") {
            path if path.exists() => path,
            _ => folder.join("a.txt"),
        };
        let digest = Digest::of(&fs::read(&artifact).unwrap()).to_string();
        for subject in [artifact.to_str().unwrap(), &digest] {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            let code = judge(case, subject);
            let want = i32::from(name.ends_with("fail"));
            if code != want {
                wrong.push((name, subject.to_owned(), code));
            }
        }
    }
    assert_eq!(wrong, Vec::new());
}

fn judge(case: &Path, subject: &str) -> i32 {
    let text = |name: &str, default: &str| {
        fs::read_to_string(case.join(name)).map_or(default.to_owned(), |text| text.trim().into())
    };
    let path = |name: &str| case.join(name).to_string_lossy().into_owned();
    let mut args = vec![
        "verify-blob".to_owned(),
        "--bundle".to_owned(),
        path("bundle.sigstore.json"),
    ];
    if case.join("key.pub").exists() {
        args.extend(["--key".to_owned(), path("key.pub")]);
    } else {
        args.extend([
            "--certificate-identity".to_owned(),
            text("identity", IDENTITY),
            "--certificate-oidc-issuer".to_owned(),
            text("issuer", "https://token.actions.githubusercontent.com"),
        ]);
    }
    if case.join("trusted_root.json").exists() {
        args.extend(["--trusted-root".to_owned(), path("trusted_root.json")]);
    }
    args.push(subject.to_owned());
    Workshop::new().run(&program("bpfseal"), &args).code
}

/// Who signs the suite's cases where they name nobody else.
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
