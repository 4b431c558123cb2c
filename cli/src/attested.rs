//! What attestations say, in a line or a few: for people who verify.

use bundle::{media, verifier::Evidence};
use serde_json::Value;

/// The gist of a predicate of this type; empty for types that are not known.
pub fn gist(predicate_type: &str, predicate: &Value) -> Vec<String> {
    match predicate_type {
        media::PROVENANCE_PREDICATE => provenance(predicate),
        media::VERIFIER_PREDICATE => verifier(predicate),
        _ => Vec::new(),
    }
}

fn provenance(predicate: &Value) -> Vec<String> {
    let builder = predicate["runDetails"]["builder"]["id"].as_str();
    let source = predicate["buildDefinition"]["resolvedDependencies"][0]["uri"].as_str();
    let line = |what: &str, value: Option<&str>| value.map(|value| format!("{what} {value}"));
    line("built by", builder)
        .into_iter()
        .chain(line("from", source))
        .collect()
}

fn verifier(predicate: &Value) -> Vec<String> {
    let Ok(evidence) = serde_json::from_value::<Evidence>(predicate.clone()) else {
        return Vec::new();
    };
    let lines = evidence.kernels.iter().map(|kernel| {
        let loaded = kernel.programs.iter().filter(|program| program.loaded);
        let (loaded, all) = (loaded.count(), kernel.programs.len());
        format!("{}: {loaded} of {all} programs load", kernel.release)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_predicates_are_told_and_others_are_not() {
        let build = json!({
            "buildDefinition": { "resolvedDependencies": [{ "uri": "git+https://git.example/x" }] },
            "runDetails": { "builder": { "id": "https://ci.example" } },
        });
        let kernels = json!({ "kernels": [{
            "release": "6.12.9", "version": "#1", "architecture": "x86_64",
            "programs": [
                { "object": "a", "name": "one", "loaded": true },
                { "object": "a", "name": "two", "loaded": false, "error": "EINVAL" },
            ],
        }]});
        for (kind, predicate, want) in [
            (
                media::PROVENANCE_PREDICATE,
                &build,
                vec![
                    "built by https://ci.example",
                    "from git+https://git.example/x",
                ],
            ),
            (
                media::VERIFIER_PREDICATE,
                &kernels,
                vec!["6.12.9: 1 of 2 programs load"],
            ),
            (media::VERIFIER_PREDICATE, &build, vec![]),
            (media::SPDX_PREDICATE, &build, vec![]),
        ] {
            assert_eq!(gist(kind, predicate), want, "{kind}");
        }
    }
}
