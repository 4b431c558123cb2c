//! Every crate that we link is under a licence that `deny.toml` allows. cargo-deny checks the
//! same and more, where it is installed.

#![expect(clippy::unwrap_used, reason = "tests")]

use cargo_metadata::MetadataCommand;
use tests::lab;

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = allowed();
    assert!(allowed.contains(&"Apache-2.0".to_owned()), "{allowed:?}");
    let metadata = MetadataCommand::new()
        .current_dir(lab::workspace())
        .other_options(["--offline".to_owned(), "--locked".to_owned()])
        .exec()
        .unwrap();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{} {}: {licence}", package.name, package.version));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn an_expression_is_allowed_where_each_part_has_a_choice() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    let table = [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only/MIT", true),
        ("(GPL-3.0-only OR MIT) AND ISC", true),
        ("MIT AND GPL-3.0-only", false),
    ];
    for (expression, want) in table {
        assert_eq!(is_allowed(expression, &allowed), want, "{expression}");
    }
}

// Our dependencies nest no further than AND over OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    expression.replace('/', " OR ").split(" AND ").all(|part| {
        let choices = part.trim_matches(['(', ')']);
        choices
            .split(" OR ")
            .any(|choice| allowed.iter().any(|name| name == choice.trim()))
    })
}

fn allowed() -> Vec<String> {
    let text = std::fs::read_to_string(lab::workspace().join("deny.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let allow = table["licenses"]["allow"].as_array().unwrap();
    allow
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}
