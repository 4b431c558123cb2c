//! Every example policy can be used, with the key files beside it, and leaves no note but
//! those that it is meant to leave.

use std::{fs, path::Path};

use policy::Policy;

#[test]
fn every_example_is_a_policy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let policy = Policy::parse(&text, &|key| fs::read(folder.join(key)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let notes: Vec<String> = policy
            .notes()
            .iter()
            .map(|note| note.message.clone())
            .collect();
        found.push((name, policy.rules().len(), policy.shapes().len(), notes));
    }
    found.sort();
    let attach = "rule \"tracing tools\": `attach` is compared when a program is attached to a \
                  function, a tracepoint or a network device; elsewhere such a program is refused";
    let made = |name: &str, exe: &str| {
        format!(
            "generator {name:?}: what it makes is not attested: whoever may run {exe} chooses the programs"
        )
    };
    let none = Vec::new;
    assert_eq!(
        found,
        [
            ("audit.toml".to_owned(), 1, 1, none()),
            (
                "generators.toml".to_owned(),
                1,
                1,
                vec![
                    made("systemd", "/usr/lib/systemd/systemd"),
                    made("bpftrace", "/usr/bin/bpftrace")
                ]
            ),
            (
                "shapes-only.toml".to_owned(),
                0,
                2,
                vec!["no [[rule]]: every bundle is refused".to_owned()]
            ),
            ("small-team.toml".to_owned(), 1, 1, none()),
            (
                "two-person-rule.toml".to_owned(),
                2,
                1,
                vec![attach.to_owned()]
            ),
            ("vendor-tools.toml".to_owned(), 3, 1, none()),
        ]
    );
}
