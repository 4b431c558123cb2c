//! What else tells the language: its page, its schema, the effective policy and differences.

use super::*;

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
    let page = include_str!("../../../../docs/policy.md");
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
    let page = include_str!("../../../../docs/policy.md");
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
