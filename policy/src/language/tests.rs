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
         libraries = [{{ path = \"/y\", fsverity = \"{sum}\" }}]\n"
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
    assert_eq!((library.sha256.len(), library.fsverity.len()), (0, 1));
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

#[test]
fn the_effective_policy_means_the_same_and_marks_its_defaults() {
    let policy = parse(&with_rule(FULL)).unwrap();
    let text = crate::effective::to_toml(&policy);
    let again = parse(&text).unwrap();
    let plain = |policy: &Policy| {
        let rules = policy.rules().iter().cloned().map(|rule| Rule {
            line: 0,
            defaults: BTreeSet::new(),
            ..rule
        });
        let shapes = policy.shapes().iter().cloned().map(|shape| Shape {
            line: 0,
            defaults: BTreeSet::new(),
            ..shape
        });
        (
            rules.collect::<Vec<_>>(),
            shapes.collect::<Vec<_>>(),
            policy.mode(),
            policy.version(),
        )
    };
    assert_eq!(plain(&again), plain(&policy));
    for line in [
        "version = 1 # default\n",
        "mode = \"enforce\" # default\n",
        "load_targets = [\"fentry:vfs_*\"]\n",
        "load_targets = [\"*\"] # default\n",
        "attach = [\"*\"] # default\n",
        "forbid_calls = [] # default\n",
        "tunables = {} # default\n",
        "# min_version: none # default\n",
        "# when: always # default\n",
        "# max_age: any # default\n",
        "require = [\"https://spdx.dev/Document\", { type = \"https://example.com/p\", when = \"predicate.a == \\\"b\\\"\" }]\n",
        "min_version = \"1.4\"\n",
        "maps = 0 # default\n",
        "max_insns = 4096 # default\n",
        "signed_by = { at_least = 1, of = [\"release\"] }\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn the_schema_has_the_same_keys_as_the_reader() {
    let schema = crate::schema::policy();
    let keys_of = |pointer: &str| {
        let properties = schema.pointer(pointer).unwrap().as_object().unwrap();
        properties
            .keys()
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
    };
    for (pointer, keys) in [
        ("/properties", &FILE),
        ("/$defs/KeyEntry/properties", &KEY),
        ("/$defs/RuleEntry/properties", &rules::RULE),
        ("/$defs/SignedByEntry/properties", &rules::SIGNED_BY),
        ("/$defs/RequireWhenEntry/properties", &demands::REQUIRED),
        ("/$defs/ShapeEntry/properties", &shapes::SHAPE),
        ("/$defs/ExceptionEntry/properties", &exceptions::EXCEPTION),
        ("/$defs/ProbesEntry/properties", &probe_keys::PROBES),
        ("/$defs/ProtectEntry/properties", &PROTECT),
        ("/$defs/GeneratorEntry/properties", &generators::GENERATOR),
        ("/$defs/PinnedEntry/properties", &generators::PINNED),
        ("/$defs/KeylessEntry/properties", &trust::KEYLESS),
        ("/$defs/KeyringEntry/properties", &keyrings::KEYRING),
        ("/$defs/AuthorityEntry/properties", &trust::X509),
    ] {
        assert_eq!(
            keys_of(pointer),
            keys.known.iter().copied().collect(),
            "{pointer}"
        );
    }
}

#[test]
fn a_diff_tells_what_changes_in_meaning_only() {
    let old = parse(&with_rule("")).unwrap();
    let same = parse(&format!("# moved\n{}", with_rule("attach = [\"*\"]"))).unwrap();
    assert_eq!(crate::effective::changes(&old, &same), []);
    let new = with_rule(
        "forbid_calls = [\"bpf_send_signal\"]\n[[rule]]\nname = \"more\"\nscope = \"file\"\nsigned_by = { of = [\"security\"] }",
    );
    let new = parse(&format!(
        "version = 2\n{}",
        new.replace("file = \"security.pub\"", "file = \"release.pub\"")
    ))
    .unwrap();
    let changes = crate::effective::changes(&old, &new);
    let what: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "version",
            "key \"security\" id",
            "rule \"tools\" forbid_calls",
            "rule \"more\""
        ]
    );
}

/// Every key file that an example names.
fn any_key(_: &str) -> io::Result<Vec<u8>> {
    Ok(RELEASE.into())
}

#[test]
fn the_examples_in_the_language_s_page_are_policies() {
    let page = include_str!("../../../docs/policy.md");
    let blocks: Vec<&str> = page
        .split("\n```toml\n")
        .skip(1)
        .filter_map(|block| block.split("\n```").next())
        .collect();
    assert_eq!(blocks.len(), 6);
    for block in blocks {
        assert_eq!(Policy::parse(block, &any_key).map(drop), Ok(()), "{block}");
    }
}

#[test]
fn the_language_s_page_tells_every_key() {
    let page = include_str!("../../../docs/policy.md");
    for keys in [
        &FILE,
        &KEY,
        &rules::RULE,
        &rules::SIGNED_BY,
        &shapes::SHAPE,
        &exceptions::EXCEPTION,
        &PROTECT,
        &trust::KEYLESS,
        &trust::X509,
    ] {
        let later = keys.later.iter().map(|(later, _)| later);
        for key in keys.known.iter().chain(later) {
            if ["kms", "pkcs11", "not_after", "exe", "cgroup"].contains(key) {
                continue;
            }
            let told = [
                format!("`{key}`"),
                format!("[{key}"),
                format!("{key} "),
                format!("{key},"),
            ];
            assert!(told.iter().any(|told| page.contains(told)), "{key}");
        }
    }
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
