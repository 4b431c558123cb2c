use std::{collections::BTreeSet, io};

use bundle::Digest;
use bundle::inventory::{DataSection, Endianness, Map, Needs, SCHEMA};
use proptest::prelude::*;

use super::*;
use crate::key::PublicKey;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// An Ed25519 public key with these 32 bytes: only its identity matters here.
fn pem(byte: u8) -> String {
    let spki = [
        b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(),
        &[byte; 32],
    ]
    .concat();
    PublicKey::from_spki(&spki).unwrap().to_pem()
}

/// Decides by the rule for the scope.
fn decide(
    policy: &Policy,
    inventory: &Inventory,
    signers: &Signers,
    context: &Context,
) -> Result<Decision, Refusal> {
    let rule = rule_for(policy, &context.scope)?;
    decide_by(rule, policy, inventory, signers, context)
}

fn id(name: &str) -> Digest {
    PublicKey::from_pem(pem(name.as_bytes()[0]).as_bytes())
        .unwrap()
        .id()
}

fn ids(names: &[&str]) -> Signers {
    let ids: BTreeSet<Digest> = names.iter().map(|name| id(name)).collect();
    ids.into()
}

/// Keys a to d, `twin` which is a again, and a rule of `of` with `more`.
fn policy(signed_by: &str, more: &str) -> Policy {
    let text = format!(
        "keys.a.file = \"a\"\nkeys.b.file = \"b\"\nkeys.c.file = \"c\"\nkeys.d.file = \"d\"\n\
         keys.twin.file = \"a\"\n\
         [[rule]]\nname = \"tools\"\nscope = \"registry.example/tools/*\"\n\
         signed_by = {signed_by}\n{more}\n"
    );
    let load = |name: &str| -> io::Result<Vec<u8>> { Ok(pem(name.as_bytes()[0]).into_bytes()) };
    Policy::parse(&text, &load).unwrap()
}

fn program(name: &str, kind: &str, section: &str) -> Program {
    Program {
        name: name.to_owned(),
        section: section.to_owned(),
        kind: kind.to_owned(),
        attach_type: None,
        target: section.split_once('/').map(|(_, target)| target.to_owned()),
        sleepable: false,
        optional: false,
        insns: 2,
        total_insns: 2,
        helpers: Vec::new(),
        kfuncs: Vec::new(),
        calls: Vec::new(),
        maps: Vec::new(),
        members: vec![],
        core_relocations: 0,
        loops: false,
    }
}

fn variable(name: &str, offset: u32, size: u32, tunable: bool) -> Variable {
    Variable {
        name: name.to_owned(),
        offset,
        size,
        volatile: true,
        signed: false,
        tunable,
    }
}

fn map(name: &str) -> Map {
    serde_json::from_value(serde_json::json!({
        "name": name, "type": "hash", "key_size": 4, "value_size": 4, "max_entries": 10,
        "flags": 0, "pinning": "none", "legacy": false,
    }))
    .unwrap()
}

fn inventory(programs: Vec<Program>) -> Inventory {
    Inventory {
        schema: SCHEMA.to_owned(),
        name: Some("opensnoop".to_owned()),
        version: Some("1.2.3".to_owned()),
        source: None,
        kernel_loaders: vec![],
        objects: vec![Object {
            name: "open.o".to_owned(),
            digest: Digest::of(b"open.o"),
            size: 6,
            endianness: Endianness::Little,
            license: Some("GPL".to_owned()),
            btf: true,
            btf_ext: true,
            programs,
            subprograms: Vec::new(),
            maps: vec![map("events"), map("start")],
            data: vec![
                DataSection {
                    section: ".rodata".to_owned(),
                    size: 48,
                    readonly: true,
                    variables: vec![
                        variable("pid", 8, 4, true),
                        variable("path", 16, 32, true),
                        variable("build", 0, 4, false),
                    ],
                },
                DataSection {
                    section: ".bss".to_owned(),
                    size: 4,
                    readonly: false,
                    variables: vec![variable("count", 0, 4, false)],
                },
            ],
            externs: Vec::new(),
            needs: Needs::default(),
        }],
    }
}

fn context() -> Context {
    Context::of("registry.example/tools/opensnoop")
}

#[test]
fn the_rule_signers_and_limits_are_told() {
    let policy = policy(
        "{ at_least = 2, of = [\"a\", \"twin\", \"b\", \"c\"] }",
        "tunables = { pid = { min = 0, max = 9 } }\nmap_sizes = { events = { max_entries = { min = 1, max = 64 } } }",
    );
    let inventory = inventory(vec![program("open", "kprobe", "kprobe/do_open")]);
    let got = decide(&policy, &inventory, &ids(&["a", "b", "d"]), &context()).unwrap();
    let mut signed_by = vec![
        SignedBy {
            names: vec!["a".into(), "twin".into()],
            key: id("a"),
            identity: None,
        },
        SignedBy {
            names: vec!["b".into()],
            key: id("b"),
            identity: None,
        },
    ];
    signed_by.sort_by_key(|by| by.key);
    assert_eq!(
        got,
        Decision {
            rule: RuleRef {
                name: "tools".into(),
                line: 6,
                until: None,
            },
            signed_by,
            limits: vec![Limits {
                tunables: BTreeMap::from([(
                    ".rodata".into(),
                    vec![TunableRange {
                        name: "pid".into(),
                        offset: 8,
                        size: 4,
                        signed: false,
                        allowed: Allowed::Range(0, 9),
                    }],
                )]),
                map_entries: BTreeMap::from([("events".into(), (1, 64))]),
                places: BTreeMap::new(),
                replaces: BTreeMap::new(),
            }],
        }
    );
}

#[test]
fn programs_for_many_functions_are_compared_when_they_are_attached() {
    let mut many = program("exits", "tracing", "fexit.multi/vfs_mk*");
    many.attach_type = Some("trace_fexit_multi".to_owned());
    let mut one = program("exit", "tracing", "fexit/vfs_mkdir");
    one.attach_type = Some("trace_fexit".to_owned());
    let places = |targets: &str| {
        let policy = policy(
            "{ at_least = 1, of = [\"a\"] }",
            &format!("load_targets = [{targets}]"),
        );
        let inventory = inventory(vec![many.clone(), one.clone()]);
        let got = decide(&policy, &inventory, &ids(&["a"]), &context());
        got.map(|decision| decision.limits[0].places.clone())
            .map_err(|refusal| refusal.reason)
    };
    let named = BTreeMap::from([("exits".to_owned(), vec!["vfs_mk*".to_owned()])]);
    assert_eq!(places("\"fentry:*\", \"fexit:vfs_mk*\""), Ok(named));
    assert_eq!(places("\"*\""), Ok(BTreeMap::new()));
    assert_eq!(places("\"fexit:vfs_mkdir\""), Err(Reason::LoadTarget));
}

#[test]
fn each_refusal_has_its_reason_and_both_values() {
    let mut ext = program("patch", "ext", "freplace/xdp_main");
    ext.target = Some("xdp_main".to_owned());
    let mut member = program("ssthresh", "struct_ops", "struct_ops/ssthresh");
    member.members = vec!["tcp_congestion_ops:undo_cwnd".to_owned()];
    let mut lsm = program("guard", "lsm", "lsm/file_open");
    lsm.attach_type = Some("lsm_mac".to_owned());
    let mut caller = program("open", "kprobe", "kprobe/do_open");
    caller.helpers = vec!["bpf_map_lookup_elem".into(), "bpf_probe_write_user".into()];
    caller.kfuncs = vec!["bpf_task_release".into()];
    let kprobe = || program("open", "kprobe", "kprobe/do_open");
    let one = "{ of = [\"a\"] }";
    let table = [
        (
            one,
            "",
            kprobe(),
            vec![],
            Reason::Threshold,
            "want 1 distinct signer of a; got none",
        ),
        (
            one,
            "",
            kprobe(),
            vec!["b"],
            Reason::Threshold,
            "want 1 distinct signer of a; got none (signed by b, whom the rule does not name)",
        ),
        (
            "{ at_least = 2, of = [\"a\", \"twin\", \"b\"] }",
            "",
            kprobe(),
            vec!["a"],
            Reason::Threshold,
            "want 2 distinct signers of a, twin, b; got a=twin",
        ),
        (
            one,
            "min_version = \"1.10\"",
            kprobe(),
            vec!["a"],
            Reason::MinVersion,
            "the rule wants at least version 1.10; got 1.2.3",
        ),
        (
            one,
            "program_types = [\"xdp\"]",
            kprobe(),
            vec!["a"],
            Reason::ProgramType,
            "program \"open\" (kprobe/do_open) of open.o is of type kprobe; the rule allows xdp",
        ),
        (
            one,
            "program_types = [\"ext\"]\nload_targets = [\"ext:other\"]",
            ext.clone(),
            vec!["a"],
            Reason::LoadTarget,
            "program \"patch\" (freplace/xdp_main) of open.o has the target ext:xdp_main; the rule allows ext:other",
        ),
        (
            one,
            "load_targets = [\"struct_ops:tcp_congestion_ops:ssthresh\"]",
            member.clone(),
            vec!["a"],
            Reason::LoadTarget,
            "program \"ssthresh\" (struct_ops/ssthresh) of open.o has the target struct_ops:tcp_congestion_ops:undo_cwnd; the rule allows struct_ops:tcp_congestion_ops:ssthresh",
        ),
        (
            one,
            "load_targets = []",
            lsm.clone(),
            vec!["a"],
            Reason::LoadTarget,
            "program \"guard\" (lsm/file_open) of open.o has the target lsm:file_open; the rule allows none",
        ),
        (
            one,
            "attach = [\"kprobe:vfs_*\"]",
            kprobe(),
            vec!["a"],
            Reason::AttachPoint,
            "program \"open\" (kprobe/do_open) of open.o has the target kprobe:do_open; the rule allows kprobe:vfs_*",
        ),
        (
            one,
            "forbid_calls = [\"bpf_probe_write_user\", \"kfunc:bpf_task_release\"]",
            caller.clone(),
            vec!["a"],
            Reason::ForbiddenCall,
            "program \"open\" (kprobe/do_open) of open.o calls bpf_probe_write_user, kfunc:bpf_task_release, which the rule forbids",
        ),
        (
            one,
            "tunables = { build = \"any\" }",
            kprobe(),
            vec!["a"],
            Reason::Tunable,
            "the rule lets loaders set \"build\", but open.o declares it fixed",
        ),
        (
            one,
            "tunables = { count = { min = 0, max = 1 } }",
            kprobe(),
            vec!["a"],
            Reason::Tunable,
            "the rule limits \"count\", but in open.o it is in .bss, which can change at any time",
        ),
        (
            one,
            "tunables = { path = { min = 0, max = 1 } }",
            kprobe(),
            vec!["a"],
            Reason::Tunable,
            "the rule limits \"path\" as an integer, but in open.o it has 32 bytes: only \"any\" fits",
        ),
    ];
    for (signed_by, more, program, signers, reason, detail) in table {
        let got = decide(
            &policy(signed_by, more),
            &inventory(vec![program]),
            &ids(&signers),
            &context(),
        );
        let want = Refusal::new(reason, detail).by(RuleRef {
            name: "tools".into(),
            line: 6,
            until: None,
        });
        assert_eq!(got, Err(want), "{more}");
    }
}

#[test]
fn ext_and_syscall_programs_are_allowed_only_by_name() {
    for (kind, section) in [
        ("ext", "freplace/x"),
        ("syscall", "syscall"),
        ("unspec", "mine"),
    ] {
        let inventory = inventory(vec![program("p", kind, section)]);
        let got = decide(
            &policy("{ of = [\"a\"] }", ""),
            &inventory,
            &ids(&["a"]),
            &context(),
        );
        assert_eq!(got.unwrap_err().reason, Reason::ProgramType, "{kind}");
    }
}

#[test]
fn a_package_never_goes_back() {
    let policy = policy("{ of = [\"a\"] }", "");
    let inventory = inventory(Vec::new());
    let decide = |floor: &str| {
        let context = Context {
            version_floor: Some(floor.to_owned()),
            ..context()
        };
        decide(&policy, &inventory, &ids(&["a"]), &context)
            .map(drop)
            .map_err(|r| r.detail)
    };
    assert_eq!(decide("1.2.3"), Ok(()));
    assert_eq!(
        decide("1.2.4"),
        Err("this host already admitted version 1.2.4; got 1.2.3".to_owned())
    );
}

fn some_names() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len())
}

proptest! {
    #[test]
    fn admits_exactly_when_enough_distinct_named_keys_signed(
        of in proptest::sample::subsequence(NAMES.to_vec(), 1..=NAMES.len()),
        need in 1_usize..=4,
        twin in any::<bool>(),
        signers in some_names(),
    ) {
        let need = need.min(of.len());
        let mut names = of.clone();
        if twin {
            names.push("twin");
        }
        let policy = policy(&format!("{{ at_least = {need}, of = {names:?} }}"), "");
        let mut keys: BTreeSet<&str> = of.iter().copied().collect();
        if twin {
            keys.insert("a");
        }
        let counted = signers.iter().filter(|name| keys.contains(*name)).count();
        let got = decide(&policy, &inventory(Vec::new()), &ids(&signers), &context());
        prop_assert_eq!(got.is_ok(), counted >= need);
        if let Err(refusal) = got {
            prop_assert_eq!(refusal.reason, Reason::Threshold);
        }
    }

    #[test]
    fn another_signature_never_turns_a_yes_into_a_no(
        need in 1_usize..=2,
        signers in some_names(),
        more in some_names(),
    ) {
        let policy = policy(&format!("{{ at_least = {need}, of = [\"a\", \"b\", \"c\"] }}"), "");
        let inventory = inventory(vec![program("open", "kprobe", "kprobe/do_open")]);
        let before = decide(&policy, &inventory, &ids(&signers), &context());
        let all: Vec<&str> = signers.iter().chain(&more).copied().collect();
        let after = decide(&policy, &inventory, &ids(&all), &context());
        prop_assert!(before.is_err() || after.is_ok());
    }

    #[test]
    fn a_scope_that_no_rule_covers_is_always_refused(
        scope in "[a-z0-9.:/-]{0,40}",
        signers in some_names(),
    ) {
        prop_assume!(!scope.starts_with("registry.example/tools/"));
        let policy = policy("{ of = [\"a\", \"b\", \"c\", \"d\"] }", "");
        let got = decide(&policy, &inventory(Vec::new()), &ids(&signers), &Context::of(scope.clone()));
        let want = format!("none of the policy's 1 rules covers the scope {scope:?}");
        prop_assert_eq!(got, Err(Refusal::new(Reason::NoRule, want)));
    }

    #[test]
    fn only_declared_tunables_are_ever_opened(
        others in any::<bool>(),
        tunable in proptest::collection::vec(any::<bool>(), 0..8),
    ) {
        let more = if others { "tunables = { \"*\" = \"any\" }" } else { "" };
        let mut inventory = inventory(Vec::new());
        inventory.objects[0].data[0].variables = tunable
            .iter()
            .enumerate()
            .map(|(index, tunable)| variable(&format!("v{index}"), index as u32 * 4, 4, *tunable))
            .collect();
        let got = decide(&policy("{ of = [\"a\"] }", more), &inventory, &ids(&["a"]), &context()).unwrap();
        let opened: Vec<u32> = got.limits[0].tunables.values().flatten().map(|range| range.offset).collect();
        let want: Vec<u32> = tunable
            .iter()
            .enumerate()
            .filter(|(_, tunable)| others && **tunable)
            .map(|(index, _)| index as u32 * 4)
            .collect();
        prop_assert_eq!(opened, want);
    }
}
