//! Predicate types of attestations, and their short names in policies and on command lines.

use bundle::media;

/// Short name and URI.
pub const NAMES: &[(&str, &str)] = &[
    ("cyclonedx", media::CYCLONEDX_PREDICATE),
    ("inventory", media::INVENTORY_PREDICATE),
    ("slsa-provenance", media::PROVENANCE_PREDICATE),
    ("spdx", media::SPDX_PREDICATE),
    ("verifier-evidence", media::VERIFIER_PREDICATE),
];

/// The URI that a short name stands for; a URI stands for itself.
pub fn uri(name: &str) -> Option<&str> {
    let short = NAMES.iter().find(|(short, _)| *short == name);
    match short {
        Some((_, uri)) => Some(uri),
        None if name.contains("://") && !name.chars().any(char::is_control) => Some(name),
        None => None,
    }
}

/// Is an attestation of the type `got` one of the type `want`? Versions of SPDX and
/// CycloneDX stand behind the type in the attestation framework, and cosign leaves them out.
pub fn is(want: &str, got: &str) -> bool {
    let versioned = [media::SPDX_PREDICATE, media::CYCLONEDX_PREDICATE].contains(&want);
    want == got
        || versioned
            && got
                .strip_prefix(want)
                .is_some_and(|rest| rest.starts_with("/v"))
}

#[cfg(test)]
mod tests {
    use super::{is, uri};

    #[test]
    fn short_names_and_uris() {
        for (name, want) in [
            ("spdx", Some("https://spdx.dev/Document")),
            ("https://example.com/p/v1", Some("https://example.com/p/v1")),
            ("sbom", None),
        ] {
            assert_eq!(uri(name), want);
        }
        assert!(is(
            "https://spdx.dev/Document",
            "https://spdx.dev/Document/v2.3"
        ));
        assert!(!is(
            "https://spdx.dev/Document",
            "https://spdx.dev/Documents"
        ));
        assert!(!is(
            "https://slsa.dev/provenance/v1",
            "https://slsa.dev/provenance/v1/v2"
        ));
    }
}
