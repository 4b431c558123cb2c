//! Which artifacts a rule is about: a pattern over `host[:port]/repository`.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

/// The scope of a local file that names no package and for which none was given.
pub const LOCAL_FILE: &str = "file";

/// A pattern over scopes.
///
/// `*` stands for any characters within one path segment, so that
/// `*.acme.example/tools` can never match `evil.example/x.acme.example/tools`.
/// Only a pattern that ends in `/*` covers everything below, at any depth, and `*` alone
/// covers everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Scope(String);

impl Scope {
    /// Reads a pattern; the error is a clause for people.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("a scope cannot be empty; `*` covers everything".to_owned());
        }
        if pattern.contains("**") {
            return Err(
                "`**` has no meaning here: a final `/*` covers everything below".to_owned(),
            );
        }
        if pattern.starts_with('/') || pattern.contains("://") {
            return Err(
                "a scope is `host/repository` without a scheme, as in `registry.example/tools/*`"
                    .to_owned(),
            );
        }
        if let Some(c) = pattern.chars().find(|c| !is_allowed(*c)) {
            return Err(format!("the character {c:?} cannot stand in a scope"));
        }
        if pattern.contains('@') {
            return Err("a scope names a repository, not a digest".to_owned());
        }
        Ok(Self(pattern.to_owned()))
    }

    /// A scope that covers nothing, for a rule that is not read yet.
    pub(crate) const fn nothing() -> Self {
        Self(String::new())
    }

    /// Does the pattern cover this scope?
    pub fn covers(&self, scope: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        let (pattern, below) = match self.0.strip_suffix("/*") {
            Some(prefix) => (prefix, true),
            None => (self.0.as_str(), false),
        };
        let mut wanted = pattern.split('/');
        let mut got = scope.split('/');
        loop {
            match (wanted.next(), got.next()) {
                (Some(pattern), Some(segment)) if matches(pattern, segment) => {}
                (None, None) => return !below,
                (None, Some(segment)) => return below && !segment.is_empty(),
                _ => return false,
            }
        }
    }

    /// Surely every scope that `other` covers is covered here (no means: not proved).
    pub fn includes(&self, other: &Self) -> bool {
        self.0 == "*"
            || self.0 == other.0
            || self.0.strip_suffix('*').is_some_and(|prefix| {
                prefix.ends_with('/') && !prefix.contains('*') && other.0.starts_with(prefix)
            })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The scope of a bundle read from a local file: what the caller gave, else the package
/// name in its signed inventory, else [`LOCAL_FILE`].
pub fn of_file(given: Option<&str>, package: Option<&str>) -> String {
    given.or(package).unwrap_or(LOCAL_FILE).to_owned()
}

/// Does `text` match `pattern`, in which `*` stands for any run of characters?
///
/// Linear in `text` for each star: no input makes it slow.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-/:*@[]+~%".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_segment_except_at_the_end() {
        let table = [
            ("*", "registry.example/a/b", true),
            ("*", "file", true),
            ("registry.example/a/*", "registry.example/a/b", true),
            ("registry.example/a/*", "registry.example/a/b/c", true),
            ("registry.example/a/*", "registry.example/a", false),
            ("registry.example/a/*", "registry.example/a/", false),
            ("registry.example/a/*", "registry.example/ab/c", false),
            ("registry.example/a", "registry.example/a", true),
            ("registry.example/a", "registry.example/a/b", false),
            ("*.example/tools", "x.example/tools", true),
            ("*.example/tools", "evil.test/x.example/tools", false),
            (
                "registry.example/*/probes",
                "registry.example/net/probes",
                true,
            ),
            (
                "registry.example/*/probes",
                "registry.example/a/b/probes",
                false,
            ),
            (
                "127.0.0.1:*/tools/*",
                "127.0.0.1:5000/tools/opensnoop",
                true,
            ),
            ("opensnoop*", "opensnoop-2", true),
            ("file", "file", true),
            ("file", "filed", false),
        ];
        for (pattern, scope, want) in table {
            let got = Scope::parse(pattern).unwrap().covers(scope);
            assert_eq!(got, want, "{pattern} over {scope}");
        }
    }

    #[test]
    fn patterns_that_mean_nothing_are_errors() {
        for pattern in [
            "",
            "a/**",
            "https://a/b",
            "/a",
            "a b",
            "a@sha256:00",
            "a\u{1b}",
        ] {
            assert!(Scope::parse(pattern).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn several_stars_in_one_word() {
        assert!(matches("do_*_*at", "do_sys_openat"));
        assert!(!matches("do_*_*at", "do_sys"));
        assert!(matches("a*a", "aa"));
        assert!(!matches("a*a", "a"));
        assert!(matches("*", ""));
    }

    #[test]
    fn a_file_s_scope_is_given_named_or_file() {
        assert_eq!(of_file(Some("a/b"), Some("c")), "a/b");
        assert_eq!(of_file(None, Some("c")), "c");
        assert_eq!(of_file(None, None), "file");
    }
}
