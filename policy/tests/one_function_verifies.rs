//! Code leaves a bundle through one door, and one function has the key.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const DOOR: &str = concat!("danger_", "into_parts");

#[test]
fn only_verify_takes_the_code_out_of_an_unverified_bundle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = [
        "bundle",
        "policy",
        "cli",
        "registry-server",
        "lsm-enforcer",
        "tests",
    ];
    let mut found: Vec<_> = crates
        .iter()
        .flat_map(|name| sources(&workspace.join(name).join("src")))
        .filter(|path| fs::read_to_string(path).unwrap().contains(DOOR))
        .map(|path| path.strip_prefix(&workspace).unwrap().to_owned())
        .collect();
    found.sort();
    let want = ["bundle/src/unverified.rs", "policy/src/verify.rs"];
    assert_eq!(found, want.map(PathBuf::from));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
