//! `bpfseal policy`, `permit` and `explain` as a user meets them.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

use std::{fs, path::Path};

use assert_cmd::Command;

/// What a command leaves: exit code, standard output, standard error.
fn bpfseal(folder: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("bpfseal").unwrap();
    let output = command.current_dir(folder).args(words).output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A folder with a key pair `k`, a policy that names it, and one with three mistakes.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = bpfseal(folder.path(), &["keygen", "--no-passphrase", "-o", "k"]);
    assert_eq!(made.0, 0, "{made:?}");
    let good = "version = 3\nkeys.k.file = \"k.pub\"\n[[rule]]\nname = \"all\"\nscope = \"*\"\n\
                signed_by = { of = [\"k\"] }\n";
    fs::write(folder.path().join("good.toml"), good).unwrap();
    let bad = "[[rule]]\nname = \"all\"\nscope = \"*\"\nsigned_bye = 1\nwhen = \"true\"\n";
    fs::write(folder.path().join("bad.toml"), bad).unwrap();
    let later = format!("{good}[revocation]\nlists = []\n");
    fs::write(folder.path().join("later.toml"), later).unwrap();
    folder
}

#[test]
fn check_says_ok_or_every_mistake() {
    let folder = folder();
    let check = |file: &str| bpfseal(folder.path(), &["policy", "check", file]);
    let ok = "good.toml: ok (version 3, enforce, 1 key, 1 rule, 1 shape)\n";
    assert_eq!(check("good.toml"), (0, ok.to_owned(), String::new()));
    assert_eq!(
        check("bad.toml"),
        (
            1,
            String::new(),
            "bad.toml:1:1: rule lacks `signed_by`\n\
             bad.toml:4:1: unknown key \"signed_bye\" in rule; did you mean `signed_by`?\n\
             bad.toml:5:9: condition: it looks at nothing; a condition is about inventory\n\
             error: E312 bad-policy: bad.toml: 3 mistakes\n  \
             help: Correct it; `bpfseal policy check` names every line.\n"
                .to_owned()
        )
    );
    let (code, _, error) = check("later.toml");
    assert_eq!(code, 1);
    let want = "error: E311 unsupported: later.toml:7:2: `revocation` is known but not";
    assert!(error.starts_with(want), "{error}");
    assert_eq!(check("none.toml").0, 3);
    assert_eq!(check(".").0, 2);
}

#[test]
fn show_writes_a_policy_that_means_the_same() {
    let folder = folder();
    let (code, text, error) = bpfseal(
        folder.path(),
        &["policy", "show", "good.toml", "--effective"],
    );
    assert_eq!((code, error), (0, String::new()));
    assert!(text.contains("\nmode = \"enforce\" # default\n"), "{text}");
    fs::write(folder.path().join("shown.toml"), text).unwrap();
    let diff = bpfseal(
        folder.path(),
        &["policy", "diff", "good.toml", "shown.toml"],
    );
    let want = "- shape \"device filters (built in)\"";
    assert!(diff.0 == 0 && !diff.1.contains(want), "{diff:?}");
    assert_eq!(diff.1, "no difference\n");
}

#[test]
fn what_is_signed_can_be_verified() {
    let folder = folder();
    let (code, said, error) = bpfseal(
        folder.path(),
        &["policy", "sign", "good.toml", "--key", "k.key"],
    );
    assert_eq!((code, error), (0, String::new()));
    assert!(
        said.starts_with("good.toml.sig: signed version 3 (sha256:"),
        "{said}"
    );
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let authority = policy::key::PublicKey::from_pem(read("k.pub").as_bytes()).unwrap();
    let verify = |text: &str| {
        let signature = read("good.toml.sig");
        policy::document::VerifiedPolicy::verify(text, &signature, &authority)
            .map(|verified| verified.version())
            .map_err(|refusal| refusal.reason)
    };
    assert_eq!(verify(&read("good.toml")), Ok(3));
    let edited = read("good.toml") + "# edited\n";
    assert_eq!(verify(&edited), Err(policy::Reason::BadAuthority));
    let unversioned = read("good.toml").replace("version = 3\n", "");
    fs::write(folder.path().join("unversioned.toml"), unversioned).unwrap();
    let refused = bpfseal(
        folder.path(),
        &["policy", "sign", "unversioned.toml", "--key", "k.key"],
    );
    assert_eq!(refused.0, 1, "{refused:?}");
}

#[test]
fn a_permit_is_one_line() {
    let folder = folder();
    let words = [
        "permit", "--key", "k.key", "--action", "disarm", "--host", "4f1c0a", "--for", "1h",
    ];
    let (code, line, _) = bpfseal(
        folder.path(),
        &[&words[..], &["--reason", "INC-4711"]].concat(),
    );
    assert_eq!((code, line.lines().count()), (0, 1));
    let pem = fs::read(folder.path().join("k.pub")).unwrap();
    let authority = policy::key::PublicKey::from_pem(&pem).unwrap();
    let permit = policy::permit::SignedPermit::verify(&line, &authority).unwrap();
    let terms = permit.terms();
    assert_eq!(
        (terms.host.as_str(), terms.reason.as_str()),
        ("4f1c0a", "INC-4711")
    );
    let seconds = terms.not_after.as_second() - terms.not_before.as_second();
    assert_eq!(seconds, 3600 + 300);
    let unknown = bpfseal(
        folder.path(),
        &["permit", "--key", "k.key", "--action", "dance"],
    );
    assert_eq!(unknown.0, 2, "{unknown:?}");
}

#[test]
fn a_reason_is_explained() {
    let folder = folder();
    for word in ["E401", "unsigned"] {
        let (code, said, _) = bpfseal(folder.path(), &["explain", word]);
        let start = "E401 unsigned: no admitted program has these instructions\n\nWhat happened. ";
        assert!(code == 0 && said.starts_with(start), "{said}");
    }
    let (code, _, error) = bpfseal(folder.path(), &["explain", "unsinged"]);
    assert_eq!(code, 3);
    assert!(error.contains("did you mean `unsigned`?"), "{error}");
}
