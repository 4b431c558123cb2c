//! Sections beside rules: keyrings, probes, generators, shapes, exceptions.

use super::*;

#[test]
fn kernel_keyrings_are_those_that_nobody_fills() {
    let more = "[kernel_keyring.fleet]\nkeyring = \"secondary\"";
    let policy = parse(&with_rule(more)).unwrap();
    let want = TrustedKeyring {
        name: "fleet".to_owned(),
        line: 7,
        keyring: crate::kernel_keyring::Keyring::Secondary,
    };
    assert_eq!(policy.kernel_keyrings(), [want]);
    assert!(crate::effective::to_toml(&policy).contains("keyring = \"secondary\""));
    for (entry, want) in [
        (
            "keyring = \"session\"",
            "line 8, column 11: `keyring` must be \"builtin\", \"secondary\" or \"platform\"; \
             got \"session\"",
        ),
        ("", "line 7, column 1: a kernel keyring needs `keyring`"),
    ] {
        let text = with_rule(&format!("[kernel_keyring.fleet]\n{entry}"));
        assert_eq!(faults(&text)[0], want);
    }
}

#[test]
fn lists_of_probes_are_by_keys_of_the_policy() {
    let policy = parse(&with_rule("[probes]\nsigned_by = [\"release\"]")).unwrap();
    let names = |policy: &Policy| {
        let keys = policy.probe_keys();
        keys.map(|key| key.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&policy), ["release"]);
    let written = parse(&crate::effective::to_toml(&policy)).unwrap();
    assert_eq!(names(&written), ["release"]);
    let none = parse(&with_rule("")).unwrap();
    assert_eq!(names(&none), [""; 0]);
    let changed = crate::effective::changes(&none, &policy);
    assert_eq!(changed[0].what, "probes");
    for (entry, want) in [
        ("", "probes lacks `signed_by`"),
        (
            "signed_by = []",
            "`signed_by` is empty: no list would ever be taken",
        ),
        (
            "signed_by = [\"releas\"]",
            "no key is named \"releas\"; did you mean `release`?",
        ),
    ] {
        let got = faults(&with_rule(&format!("[probes]\n{entry}")));
        assert!(got.iter().any(|fault| fault.ends_with(want)), "{got:?}");
    }
}

#[test]
fn a_generator_says_what_it_is_and_what_it_may() {
    let sum = "a".repeat(64);
    let file = format!("{{ path = \"/usr/bin/x\", sha256 = \"{sum}\" }}");
    let head = format!("[[generator]]\nname = \"x\"\nexe = {file}\n");
    let text = format!(
        "{head}program_types = [\"xdp\"]\nuid = 7\npermit = true\n\
         libraries = [{{ path = \"/y\", fsverity = \"{sum}\", dmverity = [\"{sum}\"] }}]\n"
    );
    let policy = parse(&text).unwrap();
    let generator = &policy.generators()[0];
    assert_eq!(
        (
            generator.uid,
            generator.permit,
            generator.maps,
            generator.max_insns
        ),
        (Some(7), true, 64, 4096)
    );
    assert!(generator.forbid_calls.contains("bpf_probe_write_user"));
    let library = &generator.libraries[0];
    let pins = [&library.sha256, &library.fsverity, &library.dmverity];
    assert_eq!(pins.map(BTreeSet::len), [0, 1, 1]);
    let written = crate::effective::to_toml(&policy);
    let again = parse(&written).unwrap();
    assert_eq!(crate::effective::changes(&policy, &again), []);
    let table = [
        (
            "program_types = [\"syscall\"]",
            "line 4, column 18: a generator cannot load syscall: such programs change or load others, so they must be signed",
        ),
        (
            "program_types = []",
            "line 4, column 17: `program_types` is empty: the generator may load nothing",
        ),
        (
            "program_types = [\"xdp\"]\nforbid_calls = [\"bpf_send_signals\"]",
            "line 5, column 17: unknown helper \"bpf_send_signals\"; did you mean `bpf_send_signal`?",
        ),
        (
            "program_types = [\"xdp\"]\ncgroup = \"system.slice\"",
            "line 5, column 10: `cgroup` is one path from the root of the control groups, as \"/system.slice\"; got \"system.slice\"",
        ),
        (
            "program_types = [\"xdp\"]\nlibraries = [{ path = \"/x\", sha256 = \"b\" }]",
            "line 5, column 38: a SHA-256 has 64 hex digits; got \"b\"",
        ),
        (
            "program_types = [\"xdp\"]\nlibraries = [{ path = \"/x\" }]",
            "line 5, column 14: library lacks `sha256`",
        ),
        (
            "program_types = [\"xdp\"]\nlibraries = [{ path = \"/x\", fsverity = [] }]",
            "line 5, column 40: `fsverity` has no digest: it would admit nothing",
        ),
    ];
    let mut wrong = Vec::new();
    for (more, want) in table {
        let got = faults(&format!("{head}{more}\n"));
        if got.first().map(String::as_str) != Some(want) {
            wrong.push((more, got));
        }
    }
    assert_eq!(wrong, Vec::new());
}

#[test]
fn without_shapes_device_filters_are_built_in_unless_switched_off() {
    let policy = parse("").unwrap();
    assert_eq!(policy.shapes(), [Shape::built_in()]);
    let text = crate::effective::to_toml(&policy);
    assert!(
        text.contains("\n[[shape]] # default\nname = \"device filters (built in)\" # default\n"),
        "{text}"
    );
    let none = parse("shape = []").unwrap();
    assert_eq!(none.shapes(), []);
    let notes: Vec<&str> = none
        .notes()
        .iter()
        .map(|note| note.message.as_str())
        .collect();
    let want = "no [[shape]] admits cgroup_device: armed with this policy, systemd runs every \
                unit without its DevicePolicy=";
    assert_eq!(notes, ["no [[rule]]: every bundle is refused", want]);
    let text = crate::effective::to_toml(&none);
    assert_eq!(parse(&text).unwrap().shapes(), [], "{text}");
}

#[test]
fn an_exception_names_one_bundle_a_reason_and_an_end() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let head = format!("[[exception]]\nbundle = \"{digest}\"\n");
    let text = format!("{head}reason = \"INC-1\"\nuntil = 2027-01-31T18:00:00+01:00\n");
    let policy = parse(&text).unwrap();
    let bundle = digest.parse().unwrap();
    let exception = policy.exception_for(bundle).unwrap();
    assert_eq!(
        exception.reference().to_string(),
        "exception \"INC-1\" until 2027-01-31T17:00:00Z, line 1"
    );
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    assert!(exception.holds(at("2027-01-31T16:59:59Z")));
    assert!(!exception.holds(at("2027-01-31T17:00:00Z")));
    let again = parse(&crate::effective::to_toml(&policy)).unwrap();
    assert_eq!(crate::effective::changes(&policy, &again), []);
    let none = parse("").unwrap();
    let changed = crate::effective::changes(&none, &policy);
    assert_eq!(changed[0].what, format!("exception \"{digest}\""));
    let example = "write it as 2027-01-31T18:00:00Z, without quotes";
    for (rest, want) in [
        ("until = 2027-01-31T18:00:00Z", "line 1, column 1: exception lacks `reason`".to_owned()),
        ("reason = \"x\"", "line 1, column 1: exception lacks `until`".to_owned()),
        (
            "reason = \"\"\nuntil = 2027-01-31T18:00:00Z",
            "line 3, column 10: a reason's name has 1 to 100 characters and no control characters; got \"\"".to_owned(),
        ),
        (
            "reason = \"x\"\nuntil = \"2027-01-31T18:00:00Z\"",
            format!("line 4, column 9: `until` must be a date and time; got a string: {example}"),
        ),
        (
            "reason = \"x\"\nuntil = 2027-01-31T18:00:00",
            format!("line 4, column 9: `until` must be a date, a time and an offset; got 2027-01-31T18:00:00: {example}"),
        ),
        (
            "reason = \"x\"\nuntil = 2027-01-31",
            format!("line 4, column 9: `until` must be a date, a time and an offset; got 2027-01-31: {example}"),
        ),
        (
            "reason = \"x\"\nuntil = 2027-01-31T18:00:00Z\nscope = \"*\"",
            "line 5, column 1: `scope` is known but not supported yet: remove it: the digest names the bundle wherever it is".to_owned(),
        ),
    ] {
        assert_eq!(faults(&format!("{head}{rest}\n")), [want], "{rest}");
    }
    let twice = faults(&format!("{text}{text}"));
    assert_eq!(
        twice,
        ["line 6, column 10: the exception on line 1 is for this bundle too"]
    );
    let tag = text.replace(&digest, "latest");
    assert_eq!(
        faults(&tag),
        ["line 2, column 10: want the digest of a bundle, sha256:HEX; got \"latest\""]
    );
}

#[test]
fn files_of_next_daemons_are_digests() {
    let sum = "a".repeat(64);
    let policy = parse(&with_rule(&format!("[daemon]\nsha256 = \"{sum}\""))).unwrap();
    let want: BTreeSet<_> = [format!("sha256:{sum}").parse().unwrap()].into();
    assert_eq!(*policy.daemons(), want);
    let again = parse(&crate::effective::to_toml(&policy)).unwrap();
    assert_eq!(crate::effective::changes(&policy, &again), []);
    assert!(parse(&with_rule("")).unwrap().daemons().is_empty());
    for (entry, want) in [
        ("", "daemon lacks `sha256`"),
        (
            "sha256 = []",
            "`sha256` has no digest: it would admit nothing",
        ),
        ("sha256 = \"b\"", "a SHA-256 has 64 hex digits; got \"b\""),
    ] {
        let got = faults(&with_rule(&format!("[daemon]\n{entry}")));
        assert!(got.iter().any(|fault| fault.ends_with(want)), "{got:?}");
    }
}
