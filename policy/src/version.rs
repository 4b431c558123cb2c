//! Package versions, compared as people read them.

use std::{cmp::Ordering, fmt};

/// A version: numbers separated by dots, then an optional pre-release (`1.4.0-rc.1`).
///
/// Ordered as Semantic Versioning 2.0.0 section 11 says, for any count of numbers
/// (missing ones are 0); a leading `v` and build metadata (`+…`) do not count.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    numbers: Vec<u64>,
    prerelease: Option<String>,
}

impl Version {
    /// Reads a version; `None` where it is not numbers and dots.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let bare = bare.split_once('+').map_or(bare, |(bare, _build)| bare);
        let (numbers, prerelease) = match bare.split_once(['-', '~']) {
            Some((numbers, prerelease)) if !prerelease.is_empty() => {
                (numbers, Some(prerelease.to_owned()))
            }
            Some(_) => return None,
            None => (bare, None),
        };
        let mut numbers = numbers
            .split('.')
            .map(|number| {
                let plain = number.bytes().all(|byte| byte.is_ascii_digit());
                plain.then(|| number.parse().ok()).flatten()
            })
            .collect::<Option<Vec<u64>>>()?;
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self {
            text: text.to_owned(),
            numbers,
            prerelease,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| match (&self.prerelease, &other.prerelease) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(ours), Some(theirs)) => compare_prereleases(ours, theirs),
            })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

/// Identifier by identifier; numbers are below words, and fewer below more.
fn compare_prereleases(ours: &str, theirs: &str) -> Ordering {
    let key = |identifier: &str| match identifier.parse::<u64>() {
        Ok(number) => (0, number, String::new()),
        Err(_) => (1, 0, identifier.to_owned()),
    };
    ours.split('.').map(key).cmp(theirs.split('.').map(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_semver_does() {
        let rising = [
            "0.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
        ];
        for pair in rising.windows(2) {
            let (low, high) = (Version::parse(pair[0]), Version::parse(pair[1]));
            assert!(low.unwrap() < high.unwrap(), "{pair:?}");
        }
        assert_eq!(Version::parse("v1.4"), Version::parse("1.4.0+build"));
    }

    #[test]
    fn words_are_no_versions() {
        for text in [
            "",
            "latest",
            "1..2",
            "1.x",
            "-1",
            "1.-rc",
            "+1",
            "1-",
            "99999999999999999999",
        ] {
            assert!(Version::parse(text).is_none(), "{text:?}");
        }
    }
}
