//! Patterns for names in certificates.

use serde::{Serialize, Serializer};

/// A text in which `*` stands for any run of characters but `/`, and a final `/*` for
/// everything below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern. One that covers everything is refused: it would trust whoever has
    /// an account.
    ///
    /// # Errors
    /// A clause that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(format!("want a name or a pattern of names; got {text:?}"));
        }
        if text
            .chars()
            .all(|c| matches!(c, '*' | '/' | '.' | '@' | ':'))
        {
            return Err(format!("{text:?} would trust everybody"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Is `name` covered?
    pub fn covers(&self, name: &str) -> bool {
        if let Some(folder) = self.0.strip_suffix("/*") {
            // The folder itself may have patterns, segment by segment.
            let depth = folder.matches('/').count() + 1;
            let mut ends = name.match_indices('/').map(|(at, _)| at);
            return ends.nth(depth - 1).is_some_and(|at| {
                covers(folder.as_bytes(), &name.as_bytes()[..at]) && at + 1 < name.len()
            });
        }
        covers(self.0.as_bytes(), name.as_bytes())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Matching with one place to go back to, so that it takes no more than the product of the
/// lengths.
fn covers(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p + 1, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after, taken)) = back
            && name[taken] != b'/'
        {
            back = Some((after, taken + 1));
            p = after;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_star_stays_in_its_segment() {
        let flow = "https://github.com/acme/tool/.github/workflows/release.yml@refs/tags/v1.2";
        for (pattern, name, want) in [
            (flow, flow, true),
            (
                "https://github.com/acme/tool/.github/workflows/release.yml@refs/tags/*",
                flow,
                true,
            ),
            ("https://github.com/acme/*", flow, true),
            ("https://github.com/*/tool/*", flow, true),
            ("https://github.com/*", flow, true),
            (
                "https://github.com/acme/*/.github/workflows/*@refs/tags/*",
                flow,
                true,
            ),
            (
                "https://github.com/*/release.yml@refs/tags/v1.2",
                flow,
                false,
            ),
            ("https://github.com/acm/*", flow, false),
            ("https://github.com/acme", flow, false),
            (
                "https://github.com/acme/*",
                "https://github.com/acme/",
                false,
            ),
            (
                "https://github.com/acme/*",
                "https://github.com/acme",
                false,
            ),
            ("*@acme.example", "ann@acme.example", true),
            ("*@acme.example", "ann@acme.example.evil", false),
            ("*@acme.example", "https://evil/x@acme.example", false),
            ("ann@acme.example", "ANN@acme.example", false),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.covers(name), want, "{pattern:?} {name}");
        }
    }

    #[test]
    fn nobody_is_trusted_by_a_star_alone() {
        for text in ["*", "**", "*@*", "*/*", "*.*", ""] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }
}
