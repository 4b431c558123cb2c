use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::document::tests::pair;

fn terms() -> Terms {
    Terms {
        action: Action::Disarm,
        generator: None,
        host: "4f1c0a".to_owned(),
        not_before: Timestamp::from_second(1_790_000_000).unwrap(),
        not_after: Timestamp::from_second(1_790_003_600).unwrap(),
        nonce: [1, 2, 3, 4, 5, 6, 7, 8],
        reason: "INC-4711, kernel update".to_owned(),
    }
}

fn seal(terms: &Terms, seed: u8) -> Result<String, String> {
    let (pair, _) = pair(seed);
    terms
        .seal(|message| Ok::<_, Infallible>(pair.sign(message).as_ref().to_vec()))
        .map_err(|Ok(clause)| clause)
}

fn verify(line: &str) -> Result<SignedPermit, String> {
    SignedPermit::verify(line, &pair(1).1).map_err(|refusal| {
        assert_eq!(refusal.reason, Reason::BadAuthority);
        refusal.detail
    })
}

#[test]
fn a_permit_is_one_line_that_survives_retyping() {
    let line = seal(&terms(), 1).unwrap();
    assert!(
        line.len() < 300 && !line.contains(char::is_whitespace),
        "{line}"
    );
    let spaced: Vec<String> = line
        .as_bytes()
        .chunks(5)
        .map(|c| String::from_utf8_lossy(c).into_owned())
        .collect();
    for written in [
        line.clone(),
        line.to_uppercase(),
        spaced.join(" "),
        format!("\n{line}\n"),
    ] {
        assert_eq!(verify(&written).unwrap().terms(), &terms());
    }
}

#[test]
fn another_s_or_a_changed_permit_is_refused() {
    let line = seal(&terms(), 1).unwrap();
    let mut payload = line.split('.').nth(1).unwrap().to_owned();
    let forged = Terms {
        host: "another".to_owned(),
        ..terms()
    };
    let forged = seal(&forged, 1)
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap()
        .to_owned();
    let swapped = line.replace(&payload, &forged);
    payload.pop();
    let mistyped = "not signed by the authority";
    let table = [
        (seal(&terms(), 2).unwrap(), mistyped),
        (swapped, mistyped),
        (
            line.replace(line.split('.').nth(1).unwrap(), &payload),
            "a letter too many",
        ),
        ("hello".to_owned(), "it is not a permit"),
        (String::new(), "it is not a permit"),
        (format!("{line}.x"), "it is not a permit"),
        ("x".repeat(1_000_000), "it is not a permit"),
    ];
    for (line, want) in table {
        let got = verify(&line).unwrap_err();
        assert!(got.contains(want), "{got}");
    }
}

#[test]
fn it_fits_one_action_host_and_time_once() {
    let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
    let permit = verify(&seal(&terms(), 1).unwrap()).unwrap();
    let used = [permit.digest()];
    let table = [
        (Action::Disarm, "4f1c0a", at(0), &[][..], Ok(())),
        (Action::Disarm, "4f1c0a", at(3600), &[], Ok(())),
        (
            Action::Audit,
            "4f1c0a",
            at(0),
            &[],
            Err("the permit is for disarm, not audit"),
        ),
        (
            Action::Disarm,
            "4f1c0b",
            at(0),
            &[],
            Err("the permit is for host \"4f1c0a\", this is \"4f1c0b\""),
        ),
        (
            Action::Disarm,
            "4f1c0a",
            at(-1),
            &[],
            Err("the permit is good from 2026-09-21T14:13:20Z on, it is 2026-09-21T14:13:19Z"),
        ),
        (
            Action::Disarm,
            "4f1c0a",
            at(3601),
            &[],
            Err("the permit was good until 2026-09-21T15:13:20Z, it is 2026-09-21T15:13:21Z"),
        ),
        (
            Action::Disarm,
            "4f1c0a",
            at(0),
            &used,
            Err("the permit was used already"),
        ),
    ];
    for (action, host, now, used, want) in table {
        let got = permit.clone().allow(action, host, now, used).map(|permit| {
            assert_eq!(permit.terms(), &terms());
        });
        assert_eq!(
            got,
            want.map_err(|detail| Refusal::new(Reason::PermitScope, detail))
        );
    }
}

#[test]
fn terms_that_cannot_be_meant_are_not_signed() {
    let table = [
        Terms {
            host: String::new(),
            ..terms()
        },
        Terms {
            host: "a b".to_owned(),
            ..terms()
        },
        Terms {
            host: "a\nb".to_owned(),
            ..terms()
        },
        Terms {
            reason: "two\nlines".to_owned(),
            ..terms()
        },
        Terms {
            not_after: terms().not_before,
            ..terms()
        },
    ];
    for terms in table {
        assert!(seal(&terms, 1).is_err(), "{terms:?}");
    }
}

proptest! {
    #[test]
    fn one_changed_letter_is_always_noticed(at in 0_usize..240, letter in "[a-z2-7]") {
        let line = seal(&terms(), 1).unwrap();
        let at = at % line.len();
        prop_assume!(line[at..=at] != *letter);
        let changed = format!("{}{letter}{}", &line[..at], &line[at + 1..]);
        prop_assert!(verify(&changed).is_err());
    }

    #[test]
    fn no_line_makes_it_panic(line in any::<String>()) {
        prop_assert!(verify(&line).is_err());
        let prefixed = "bpfseal-permit-v1.".to_owned() + &line;
        prop_assert!(verify(&prefixed).is_err());
    }
}
