//! Which crate may reach which: the design's arrows, read from what cargo resolves; and
//! where `unsafe` may stand.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use cargo_metadata::{Metadata, MetadataCommand};
use tests::{e2e, lab};

/// Each crate of ours, and which others of ours it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("bundle", &[]),
    ("policy", &["bundle"]),
    ("command", &["policy"]),
    ("gen-loader", &["bundle"]),
    ("bpfseal", &["bundle", "command", "gen-loader", "policy"]),
    ("bpfseal-registry", &["bundle", "command", "policy"]),
    (
        "bpfseal-enforcer",
        &["bundle", "command", "gen-loader", "policy"],
    ),
    // Nothing may depend on it.
    ("tests", &["bundle", "policy", "bpfseal-enforcer"]),
];

/// HTTP and TLS: the privileged process has no way to the network.
const NETWORK: &[&str] = &[
    "axum",
    "curl",
    "h2",
    "h3",
    "hyper",
    "hyper-util",
    "isahc",
    "native-tls",
    "openssl",
    "openssl-sys",
    "quinn",
    "reqwest",
    "rustls",
    "tokio",
    "tokio-rustls",
    "tonic",
    "ureq",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .current_dir(lab::workspace())
        .other_options(["--locked".to_owned()])
        .exec()
        .unwrap()
}

#[test]
fn crates_of_ours_depend_only_as_designed() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut seen = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let arrows: BTreeSet<&str> = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .filter(|name| ours.contains(name))
            .collect();
        seen.insert(package.name.as_str(), arrows);
    }
    assert_eq!(
        seen.keys().copied().collect::<BTreeSet<_>>(),
        ARROWS.iter().map(|(name, _)| *name).collect()
    );
    for (name, allowed) in ARROWS {
        let forbidden: Vec<_> = seen[name]
            .iter()
            .filter(|arrow| !allowed.contains(arrow))
            .collect();
        assert_eq!(
            forbidden,
            Vec::<&&str>::new(),
            "{name} may depend on {allowed:?} only"
        );
    }
}

#[test]
fn the_enforcer_reaches_no_network_crate() {
    let reached = reached_from("bpfseal-enforcer");
    assert!(
        reached.contains("libbpf-rs"),
        "the walk reaches what the enforcer uses"
    );
    let network: Vec<_> = NETWORK
        .iter()
        .filter(|name| reached.contains(**name))
        .collect();
    assert_eq!(network, Vec::<&&str>::new());
}

#[test]
fn bundle_and_policy_reach_no_network_crate() {
    for name in ["bundle", "policy"] {
        let reached = reached_from(name);
        let network: Vec<_> = NETWORK
            .iter()
            .filter(|name| reached.contains(**name))
            .collect();
        assert_eq!(network, Vec::<&&str>::new(), "{name}");
    }
}

#[test]
fn tests_add_no_features_to_what_is_built() {
    let built = features("normal,build");
    let tested = features("normal,build,dev");
    let changed: Vec<_> = built.difference(&tested).collect();
    assert_eq!(
        changed,
        Vec::<&String>::new(),
        "`cargo test` would compile these again, and all that uses them"
    );
    assert!(built.len() > 100, "{built:?}");
}

#[test]
fn a_program_that_is_built_alone_brings_its_libbpf() {
    let features = [
        "--no-dedupe",
        "--format",
        "{p} {f}",
        "--edges",
        "normal,build",
    ];
    for name in ["bpfseal", "bpfseal-enforcer"] {
        let tree = tree(&[&features[..], &["--package", name]].concat());
        let libbpf: Vec<_> = tree
            .iter()
            .filter(|line| line.starts_with("libbpf-sys "))
            .collect();
        assert_eq!(libbpf.len(), 1, "{name}: {libbpf:?}");
        assert!(libbpf[0].contains("vendored-libbpf"), "{name}: {libbpf:?}");
    }
}

#[test]
fn only_files_that_say_why_hold_unsafe_code() {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ])
        .current_dir(lab::workspace())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files = if listed.is_empty() {
        walk()
    } else {
        listed.lines().map(str::to_owned).collect()
    };
    assert!(files.contains(&"bundle/src/lib.rs".to_owned()), "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(lab::workspace().join(&file)) else {
            continue;
        };
        if !text.lines().any(holds_unsafe) {
            continue;
        }
        let place = UNSAFE.iter().any(|allowed| file.starts_with(allowed));
        if !place
            || !text.contains("expect(unsafe_code, reason")
                && !text.contains("expect(\n    unsafe_code,")
        {
            wrong.push(file);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_cli_loads_the_c_library_alone() {
    let file = std::fs::read(e2e::program("bpfseal")).unwrap();
    let elf = goblin::elf::Elf::parse(&file).unwrap();
    let others: Vec<_> = elf
        .libraries
        .iter()
        .filter(|name| !name.starts_with("libc.so") && !name.starts_with("ld-linux"))
        .collect();
    assert_eq!(
        others,
        Vec::<&&str>::new(),
        "each takes a tenth of the time of a verification"
    );
    assert!(!elf.libraries.is_empty());
}

/// Where the kernel or libbpf is called, or a name given that the linker knows.
const UNSAFE: &[&str] = &[
    "cli/src/pow.rs",
    "gen-loader/src/lib.rs",
    "lsm-enforcer/src/",
    "tests/benches/against_cosign.rs",
    "tests/src/bin/attacker",
    "tests/src/bin/crowd.rs",
    "tests/src/bin/forger.rs",
    "tests/tests/inventory.rs",
];

// `unsafe` as a word of code: not in a comment, not in a string, not `unsafe_code`.
fn holds_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let before = code.split('"').next().unwrap_or_default();
    before
        .split(|c: char| c != '_' && !c.is_alphanumeric())
        .any(|word| word == "unsafe")
}

// For sources that are not in a git tree.
fn walk() -> Vec<String> {
    let mut files = Vec::new();
    let mut folders: Vec<String> = ARROWS
        .iter()
        .map(|(name, _)| folder(name).to_owned())
        .collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(lab::workspace().join(&folder)) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files
}

fn folder(package: &str) -> &str {
    match package {
        "bpfseal" => "cli",
        "bpfseal-registry" => "registry-server",
        "bpfseal-enforcer" => "lsm-enforcer",
        same => same,
    }
}

// Each package of the workspace with its features, one line for each.
fn features(edges: &str) -> BTreeSet<String> {
    tree(&[
        "--workspace",
        "--no-dedupe",
        "--format",
        "{p} {f}",
        "--edges",
        edges,
    ])
}

// Every crate that building `name` alone reaches, on any platform, but not what only its
// tests use. `cargo metadata` would also count what other crates of the workspace switch on.
fn reached_from(name: &str) -> BTreeSet<String> {
    tree(&[
        "--target",
        "all",
        "--edges",
        "normal,build",
        "--package",
        name,
    ])
    .iter()
    .filter_map(|line| line.split(' ').next())
    .map(str::to_owned)
    .collect()
}

// What `cargo tree` prints, line by line.
fn tree(args: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none"])
        .args(args)
        .current_dir(lab::workspace())
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().map(str::to_owned).collect()
}
