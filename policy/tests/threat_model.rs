//! Every test that the threat model names exists.

use std::{collections::BTreeMap, fs, path::Path};

#[test]
fn the_threat_model_s_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let places = places(&page);
    let mut named = 0;
    let mut missing = Vec::new();
    for quoted in page.split('`').skip(1).step_by(2) {
        let Some((label, test)) = quoted.split_once(": ") else {
            continue;
        };
        let Some(place) = places.get(label) else {
            missing.push(quoted.to_owned());
            continue;
        };
        named += 1;
        let place = root.join(place);
        let is_there = if place.is_dir() {
            place.join(test).is_dir() || place.join(test).with_extension("rs").is_file()
        } else {
            // Long tests stand in files of their own beside it.
            let folder = fs::read_dir(place.with_extension(""));
            let parts = folder.into_iter().flatten().flatten();
            std::iter::once(place)
                .chain(parts.map(|part| part.path()))
                .any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(test)))
        };
        if !is_there {
            missing.push(quoted.to_owned());
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(named > 80, "only {named} tests are named");
}

/// The table of labels at the top: label to path from the root of the repository.
fn places(page: &str) -> BTreeMap<String, String> {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("| `")?;
            let (label, rest) = rest.split_once('`')?;
            let (_, link) = rest.split_once("](../")?;
            let (path, _) = link.split_once(')')?;
            Some((label.to_owned(), path.to_owned()))
        })
        .collect()
}
