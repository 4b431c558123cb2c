use std::convert::Infallible;

use super::*;
use crate::document::tests::pair;

fn digest(seed: u8) -> Digest {
    Digest::of(&[seed])
}

fn list(rows: &str) -> String {
    format!("version = 7\nissued = \"2026-11-22T08:00:00Z\"\n{rows}")
}

fn parse(rows: &str) -> Result<Revocations, String> {
    Revocations::parse(&list(rows)).map_err(|refusal| refusal.detail)
}

fn sealed(text: &str, seed: u8) -> String {
    let (key, public) = pair(seed);
    let sign = |message: &[u8]| Ok::<_, Infallible>(key.sign(message).as_ref().to_vec());
    SignedRevocations::seal(text, &public, sign).unwrap()
}

/// What is known about the bundle that the tables revoke.
fn subject(signers: &[Signer]) -> Subject<'_> {
    const OBJECTS: &[Digest] = &[];
    Subject {
        bundle: digest(1),
        objects: OBJECTS,
        name: Some("opensnoop"),
        version: Some("1.4.1"),
        signers,
        at_least: 1,
    }
}

#[test]
fn what_the_authority_signed_is_read() {
    let rows = format!(
        "[[revoke]]\nbundle = \"{}\"\nreason = \"INC-1\"\n",
        digest(1)
    );
    let signed = SignedRevocations::verify(&sealed(&list(&rows), 1), &pair(1).1).unwrap();
    let want = Revocations {
        version: 7,
        issued: "2026-11-22T08:00:00Z".parse().unwrap(),
        next: None,
        entries: vec![Entry {
            what: What::Bundle(digest(1)),
            reason: "INC-1".to_owned(),
        }],
    };
    assert_eq!(*signed.list(), want);
    assert_eq!(signed.digest(), Digest::of(list(&rows).as_bytes()));
    assert_eq!(signed.check_not_older(7), Ok(()));
    let older = Refusal::new(Reason::OlderRevocation, "version 8 is in force, got 7");
    assert_eq!(signed.check_not_older(8), Err(older));
}

#[test]
fn a_list_by_anybody_else_is_refused() {
    let text = list("");
    let policy_type = sealed(&text, 1).replace("revocation.v1+toml", "policy.v1+json");
    for file in [sealed(&text, 2), policy_type, text, String::new()] {
        let refusal = SignedRevocations::verify(&file, &pair(1).1).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadAuthority, "{file}");
    }
}

#[test]
fn a_list_that_cannot_be_meant_is_refused() {
    let bundle = format!("bundle = \"{}\"", digest(1));
    let table = [
        (
            format!(
                "[[revoke]]\n{bundle}\nkey = \"{}\"\nreason = \"x\"",
                digest(2)
            ),
            "[[revoke]] number 1: it names 2 things; want one of bundle, object, program, key, identity, package",
        ),
        (
            "[[revoke]]\nreason = \"x\"".to_owned(),
            "[[revoke]] number 1: it names 0 things; want one of bundle, object, program, key, identity, package",
        ),
        (
            format!("[[revoke]]\n{bundle}\nversions = \"<1\"\nreason = \"x\""),
            "[[revoke]] number 1: `versions` belongs to `package`",
        ),
        (
            format!("[[revoke]]\n{bundle}\nissuer = \"i\"\nreason = \"x\""),
            "[[revoke]] number 1: `issuer` belongs to `identity`",
        ),
        (
            "[[revoke]]\npackage = \"p\"\nversions = \"1.4\"\nreason = \"x\"".to_owned(),
            "[[revoke]] number 1: `versions` wants bounds as in \">=1.0, <1.4.2\"; got \"1.4\" in \"1.4\"",
        ),
        (
            "[[revoke]]\npackage = \"p\"\nversions = \"<1.4,\"\nreason = \"x\"".to_owned(),
            "[[revoke]] number 1: `versions` wants bounds as in \">=1.0, <1.4.2\"; got \"\" in \"<1.4,\"",
        ),
        (
            "next = \"2026-11-22T08:00:00Z\"".to_owned(),
            "`next` is not after `issued`",
        ),
    ];
    for (rows, want) in table {
        assert_eq!(parse(&rows).unwrap_err(), want, "{rows}");
    }
    for rows in [
        "revoked = 1",
        "[[revoke]]\nbundel = \"x\"\nreason = \"x\"",
        "[[revoke]]\nbundle = \"sha256:12\"\nreason = \"x\"",
        "[[revoke]]\npackage = \"p\"",
    ] {
        assert!(parse(rows).is_err(), "{rows}");
    }
}

#[test]
fn each_kind_of_entry_finds_what_it_names() {
    let key = Signatory::Key(digest(9));
    let ci = Signatory::Identity {
        subject: "https://ci.example/acme".to_owned(),
        issuer: "https://issuer.example".to_owned(),
    };
    let signer = |who| Signer {
        who,
        entries: vec!["release".to_owned()],
    };
    let signers = [signer(key)];
    let keyless = [signer(ci)];
    let objects = [digest(5)];
    let known = Subject {
        objects: &objects,
        ..subject(&signers)
    };
    let by_ci = subject(&keyless);
    let table = [
        (format!("bundle = \"{}\"", digest(1)), known, true),
        (format!("bundle = \"{}\"", digest(2)), known, false),
        (format!("object = \"{}\"", digest(5)), known, true),
        (format!("object = \"{}\"", digest(6)), known, false),
        (format!("key = \"{}\"", digest(9)), known, true),
        (format!("key = \"{}\"", digest(8)), known, false),
        (
            "identity = \"https://ci.example/acme\"".to_owned(),
            by_ci,
            true,
        ),
        (
            "identity = \"https://ci.example/acme\"\nissuer = \"https://issuer.example\""
                .to_owned(),
            by_ci,
            true,
        ),
        (
            "identity = \"https://ci.example/acme\"\nissuer = \"https://another.example\""
                .to_owned(),
            by_ci,
            false,
        ),
        (
            "identity = \"https://ci.example/acme\"".to_owned(),
            known,
            false,
        ),
        ("package = \"opensnoop\"".to_owned(), known, true),
        ("package = \"execsnoop\"".to_owned(), known, false),
        (
            "package = \"opensnoop\"\nversions = \"<1.4.2\"".to_owned(),
            known,
            true,
        ),
        (
            "package = \"opensnoop\"\nversions = \"<1.4.1\"".to_owned(),
            known,
            false,
        ),
        (
            "package = \"opensnoop\"\nversions = \"<=1.4.1\"".to_owned(),
            known,
            true,
        ),
        (
            "package = \"opensnoop\"\nversions = \">=1.4, <2\"".to_owned(),
            known,
            true,
        ),
        (
            "package = \"opensnoop\"\nversions = \">=1.4.2, <2\"".to_owned(),
            known,
            false,
        ),
        (
            "package = \"opensnoop\"\nversions = \">1.4.1\"".to_owned(),
            known,
            false,
        ),
        (
            "package = \"opensnoop\"\nversions = \"=1.4.1\"".to_owned(),
            known,
            true,
        ),
        // No readable version is no way around the list.
        (
            "package = \"opensnoop\"\nversions = \"<1\"".to_owned(),
            Subject {
                version: None,
                ..known
            },
            true,
        ),
        (
            "package = \"opensnoop\"\nversions = \"<1\"".to_owned(),
            Subject {
                version: Some("latest"),
                ..known
            },
            true,
        ),
    ];
    for (row, subject, want) in table {
        let list = parse(&format!("[[revoke]]\n{row}\nreason = \"x\"")).unwrap();
        assert_eq!(
            list.find(&subject).is_some(),
            want,
            "{row}: {}",
            list.entries[0]
        );
    }
}

#[test]
fn a_revoked_signer_does_not_count_and_the_others_do() {
    let list = parse(&format!(
        "[[revoke]]\nkey = \"{}\"\nreason = \"stolen\"",
        digest(9)
    ))
    .unwrap();
    let by = |number: u8, entry: &str| Signer {
        who: Signatory::Key(digest(number)),
        entries: vec![entry.to_owned()],
    };
    let both = [by(9, "release"), by(8, "ci")];
    for (at_least, want) in [(1, None), (2, Some("stolen"))] {
        let subject = Subject {
            at_least,
            ..subject(&both)
        };
        let found = list.find(&subject).map(|entry| entry.reason.as_str());
        assert_eq!(found, want, "{at_least}");
    }
    // Two whom one entry (a pattern) trusts are one, as at the decision.
    let three = [by(9, "release"), by(8, "ci"), by(7, "ci")];
    let subject = Subject {
        at_least: 2,
        ..subject(&three)
    };
    assert!(list.find(&subject).is_some());
}

#[test]
fn programs_are_found_by_themselves() {
    let list = parse(&format!(
        "[[revoke]]\nprogram = \"{}\"\nreason = \"x\"",
        digest(4)
    ))
    .unwrap();
    assert!(list.names_programs());
    assert!(list.find(&subject(&[])).is_none());
    assert!(list.find_program(digest(4)).is_some());
    assert!(list.find_program(digest(5)).is_none());
}
