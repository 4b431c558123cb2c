mod pages;
mod sections;

use std::io;

use super::*;
use crate::{
    Reason,
    rule::{Entries, Values},
};
use bundle::image::Allowed;

/// P-256 public keys made for these tests; their private halves were thrown away.
const RELEASE: &str = include_str!("../../tests/keys/release.pub");
const SECURITY: &str = include_str!("../../tests/keys/security.pub");

fn load_key(name: &str) -> io::Result<Vec<u8>> {
    match name {
        "release.pub" | "release-again.pub" => Ok(RELEASE.into()),
        "security.pub" => Ok(SECURITY.into()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text, &load_key)
}

/// The faults of `text`, as people see them.
fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(policy) => panic!("accepted: {policy:?}"),
        Err(error) => error.faults.iter().map(ToString::to_string).collect(),
    }
}

/// A rule that is right, on lines 1 to 6, with `more` from line 7 on.
fn with_rule(more: &str) -> String {
    format!(
        "keys.release = {{ file = \"release.pub\" }}\n\
         keys.security = {{ file = \"security.pub\" }}\n\
         [[rule]]\n\
         name = \"tools\"\n\
         scope = \"registry.example/tools/*\"\n\
         signed_by = {{ of = [\"release\"] }}\n\
         {more}\n"
    )
}

#[test]
fn every_key_of_a_rule_is_read() {
    let policy = parse(&with_rule(
        r#"
program_types = ["kprobe", "tracing"]
load_targets = ["fentry:vfs_*"]
attach = ["kprobe:do_*"]
forbid_calls = ["bpf_probe_write_user", "kfunc:bpf_task_release"]
min_version = "1.4.0"
tunables = { pid = { min = -1, max = 0x3f_ffff }, mask = { one_of = [1, 3] }, "*" = "any" }
map_sizes = { events = { max_entries = { min = 1, max = 65536 } }, rb = "any" }
[[shape]]
name = "device filters"
program_types = ["cgroup_device"]
calls = []
maps = 0
max_insns = 4096
"#,
    ))
    .unwrap();
    let rule = policy.rule_for("registry.example/tools/opensnoop").unwrap();
    assert_eq!((rule.name.as_str(), rule.line), ("tools", 3));
    assert_eq!(rule.signed_by.at_least, 1);
    assert_eq!(
        rule.tunable("pid"),
        Some(&Values(Allowed::Range(-1, 0x3f_ffff)))
    );
    assert_eq!(
        rule.tunable("mask"),
        Some(&Values(Allowed::OneOf(vec![1, 3])))
    );
    assert_eq!(rule.tunable("other"), Some(&Values(Allowed::Any)));
    assert_eq!(rule.entries("events"), Some(Entries { min: 1, max: 65536 }));
    assert_eq!(rule.entries("rb"), Some(Entries::ANY));
    assert_eq!(rule.entries("other"), None);
    assert_eq!(rule.forbid_calls.len(), 2);
    assert_eq!(policy.shapes()[0].max_insns, 4096);
    assert_eq!(
        (policy.version(), policy.has_explicit_version()),
        (1, false)
    );
    assert_eq!(policy.mode(), Mode::Enforce);
    assert!(policy.rule_for("registry.example/other").is_none());
}

#[test]
fn one_fault_each_with_line_and_column() {
    let table = [
        (
            "program_type = []",
            "line 7, column 1: unknown key \"program_type\" in rule; did you mean `program_types`?",
        ),
        (
            "colour = 1",
            "line 7, column 1: unknown key \"colour\" in rule",
        ),
        (
            "program_types = \"xdp\"",
            "line 7, column 17: `program_types` must be an array of strings; got a string",
        ),
        (
            "program_types = [\"xpd\"]",
            "line 7, column 18: unknown program type \"xpd\"; did you mean `xdp`?",
        ),
        (
            "program_types = [1]",
            "line 7, column 18: `program_types` must be an array of strings only; got an integer",
        ),
        (
            "forbid_calls = [\"bpf_probe_write_usr\"]",
            "line 7, column 17: unknown helper \"bpf_probe_write_usr\"; did you mean `bpf_probe_write_user`?",
        ),
        (
            "forbid_calls = [\"explode\"]",
            "line 7, column 17: unknown helper \"explode\"; a kernel function is written \"kfunc:explode\"",
        ),
        (
            "min_version = \"latest\"",
            "line 7, column 15: want a version as in \"1.4.0\"; got \"latest\"",
        ),
        (
            "tunables = { a = { min = 3, max = 2 } }",
            "line 7, column 26: `min` 3 is above `max` 2",
        ),
        (
            "tunables = { a = { min = 3 } }",
            "line 7, column 18: a range needs both `min` and `max`; or write { one_of = […] } or \"any\"",
        ),
        (
            "tunables = { a = \"all\" }",
            "line 7, column 18: want { min, max }, { one_of } or \"any\"; got \"all\"",
        ),
        (
            "tunables = { a = { one_of = [] } }",
            "line 7, column 29: `one_of` has 1 to 8 values; got 0",
        ),
        (
            "map_sizes = { a = { max_entries = { min = 0, max = 4294967296 } } }",
            "line 7, column 52: `max` must be from 0 to 4294967295; got 4294967296",
        ),
        (
            "map_sizes = { a = { entries = 1 } }",
            "line 7, column 19: map size lacks `max_entries`",
        ),
        (
            "attach = [\"lsm:file_open\"]",
            "line 7, column 11: \"lsm:file_open\" is bound when it is loaded: name it in `load_targets`",
        ),
        (
            "load_targets = [\"vfs_read\"]",
            "line 7, column 17: want `kind:name` as in `ext:name*`, or `*`; got \"vfs_read\"",
        ),
        (
            "program_types = [\"ext\"]",
            "line 3, column 1: a rule that allows ext programs names what they may replace: load_targets = [\"ext:PROGRAM:FUNCTION\"]",
        ),
        (
            "[[shape]]\nname = \"s\"\nprogram_types = [\"cgroup_device\"]\ncalls = [\"bpf_probe_write_user\"]",
            "line 10, column 10: a shape cannot allow bpf_probe_write_user: only helpers without effect can be allowed to anyone (bpf_get_numa_node_id, bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_skb_load_bytes_relative)",
        ),
        (
            "[[shape]]\nname = \"s\"\nprogram_types = [\"kprobe\"]",
            "line 9, column 18: a shape cannot allow kprobe: only cgroup_device and socket_filter can do no harm whoever makes it",
        ),
        (
            "[[shape]]\nname = \"s\"\nprogram_types = [\"cgroup_device\"]\nmax_insns = 4097",
            "line 10, column 13: `max_insns` must be from 1 to 4096; got 4097",
        ),
        (
            "[[rule]]\nname = \"tools\"\nscope = \"*\"\nsigned_by = { of = [\"release\"] }",
            "line 8, column 8: another rule on line 4 is named \"tools\"",
        ),
        (
            "[keys.other]",
            "line 7, column 1: a key needs `file` or `pem`",
        ),
        (
            "[keys.other]\nfile = \"none.pub\"",
            "line 8, column 8: cannot read the key file \"none.pub\": entity not found",
        ),
        (
            "[keys.other]\npem = \"x\"",
            "line 8, column 7: not a usable public key: it is not a PEM file",
        ),
        (
            "when = true",
            "line 7, column 8: `when` must be a string; got a boolean",
        ),
        (
            "when = '''\ninventory.name == 'x' &&\n  inventry.version == \"2\"'''",
            "line 9, column 3: condition: unknown variable \"inventry\"; did you mean `inventory`?",
        ),
        (
            "when = \"inventory.programs.all(p, p.sleepible)\"",
            "line 7, column 9: condition: there is no \"sleepible\" there; ask `has()` first",
        ),
        (
            "when = \"inventory.name.matches(\\\"x\\\")\"",
            "line 7, column 8: condition: `matches` is left out: use startsWith, endsWith or contains",
        ),
        (
            "require = [{ when = \"predicate.a\" }]",
            "line 7, column 12: require lacks `type`",
        ),
        (
            "require = [{ type = \"slsa\", when = \"predicate.a\" }]",
            "line 7, column 21: unknown attestation \"slsa\"; or write the URI of its predicate type",
        ),
        (
            "require = [{ type = \"spdx\", when = \"predicat.a == 1\" }]",
            "line 7, column 37: condition: unknown variable \"predicat\"; did you mean `predicate`?",
        ),
        (
            "require = [1]",
            "line 7, column 12: `require` must be an array of predicate types, or of { type = …, when = … }; got an integer",
        ),
        (
            "max_age = \"90\"",
            "line 7, column 11: want an age as in \"90d\", \"36h\" or \"12w\"; got \"90\"",
        ),
        (
            "max_age = \"90d\"",
            "line 7, column 11: a signature by a key carries no trusted time: `max_age` needs signers of [keyless] or [x509]",
        ),
        (
            "x = ",
            "line 7, column 5: string values must be quoted, expected literal string",
        ),
        ("name = \"again\"", "line 7, column 1: duplicate key"),
    ];
    let mut wrong = Vec::new();
    for (more, want) in table {
        let got = faults(&with_rule(more));
        if got.first().map(String::as_str) != Some(want) {
            wrong.push((more, got));
        }
    }
    assert_eq!(wrong, Vec::new());
}

#[test]
fn what_comes_later_is_refused_by_name() {
    let table = [
        ("mode = \"audit\"", "mode"),
        ("[revocation]\nlists = []", "revocation"),
    ];
    for (more, key) in table {
        let error = parse(&with_rule(more)).unwrap_err();
        let fault = &error.faults[0];
        assert_eq!(
            (error.faults.len(), fault.reason, fault.line),
            (1, Reason::Unsupported, 7),
            "{key}"
        );
        let want = format!("`{key}` is known but not supported yet: ");
        assert!(fault.message.starts_with(&want), "{}", fault.message);
    }
}

#[test]
fn thresholds_that_cannot_be_met_are_mistakes() {
    let head = "keys.a = { file = \"release.pub\" }\nkeys.b = { file = \"release-again.pub\" }\n\
                [[rule]]\nname = \"r\"\nscope = \"*\"\nsigned_by = ";
    let table = [
        (
            "{ at_least = 0, of = [\"a\"] }",
            "line 6, column 26: `at_least` must be from 1 to 1000; got 0",
        ),
        (
            "{ of = [] }",
            "line 6, column 20: `of` names nobody, so nothing could ever be admitted",
        ),
        (
            "{ at_least = 2, of = [\"a\"] }",
            "line 6, column 26: `at_least` is 2, but `of` names 1 distinct key, so nothing could ever be admitted",
        ),
        (
            "{ at_least = 2, of = [\"a\", \"b\"] }",
            "line 6, column 26: `at_least` is 2, but `of` names 1 distinct key, so nothing could ever be admitted (a and b are one key)",
        ),
        (
            "{ of = [\"c\"] }",
            "line 6, column 21: no [keys.c] in this policy",
        ),
        (
            "{ of = [\"a\", \"a\"] }",
            "line 6, column 26: `of` names \"a\" twice",
        ),
        ("{ }", "line 6, column 13: signed_by lacks `of`"),
        (
            "[\"a\"]",
            "line 6, column 13: `signed_by` must be a table; got an array",
        ),
    ];
    for (signed_by, want) in table {
        assert_eq!(faults(&format!("{head}{signed_by}")), [want], "{signed_by}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_order() {
    let got = faults("mode = \"enforc\"\nversio = 1\n[[rule]]\nscope = \"a b\"\n");
    assert_eq!(
        got,
        [
            "line 1, column 8: `mode` must be \"enforce\" or \"audit\"; got \"enforc\"; did you mean `enforce`?",
            "line 2, column 1: unknown key \"versio\" in the policy; did you mean `version`?",
            "line 3, column 1: rule lacks `name`",
            "line 3, column 1: rule lacks `signed_by`",
            "line 4, column 9: the character ' ' cannot stand in a scope",
        ]
    );
}

#[test]
fn a_hostile_file_costs_little() {
    let deep = "a = ".to_owned() + &"[".repeat(100_000);
    assert!(!faults(&deep).is_empty());
    assert_eq!(faults(&"#".repeat(MAX_BYTES + 1)).len(), 1);
    assert_eq!(
        faults(&"[[rule]]\n".repeat(5000)),
        ["line 1001, column 1: 5000 rules; at most 1000 are allowed"]
    );
    assert_eq!(faults(&"[[rule]]\n".repeat(500)).len(), 100);
}

#[test]
fn notes_say_what_is_probably_not_meant() {
    let policy = parse(&with_rule(
        "[[rule]]\nname = \"never\"\nscope = \"registry.example/tools/x\"\nsigned_by = { of = [\"release\"] }",
    ))
    .unwrap();
    let notes: Vec<_> = policy
        .notes()
        .iter()
        .map(|note| (note.line, note.message.as_str()))
        .collect();
    assert_eq!(
        notes,
        [
            (2, "key \"security\" is used by no rule"),
            (
                7,
                "rule \"never\" is never reached: rule \"tools\", line 3 covers its whole scope"
            ),
        ]
    );
}

const FULL: &str = r#"
program_types = ["kprobe", "tracing"]
load_targets = ["fentry:vfs_*"]
tunables = { pid = { min = -1, max = 9 }, mask = { one_of = [1, 3] }, "*" = "any" }
map_sizes = { events = { max_entries = { min = 1, max = 65536 } }, "*" = "any" }
min_version = "1.4"
when = "inventory.name != \"\\\\\""
require = ["spdx", { type = "https://example.com/p", when = 'predicate.a == "b"' }]
[[rule]]
name = "second \"quoted\""
scope = "file"
signed_by = { at_least = 2, of = ["security", "release"] }
[[shape]]
name = "device filters"
program_types = ["cgroup_device"]
"#;
