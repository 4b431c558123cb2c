//! Names that clients choose: repositories and tags (distribution-spec 1.1, "Pulling manifests").
//!
//! A value of these types matches the specification's grammar, so nothing after the
//! router checks a name again and none can climb out of a folder.

use std::{fmt, str::FromStr};

/// Longest repository name. Clients limit host, slash and name to 255 characters
/// together; a name of exactly 255 can still be used through a short host.
pub const MAX_REPOSITORY: usize = 255;

/// Longest tag, by the specification's regular expression.
pub const MAX_TAG: usize = 128;

/// A repository's name, such as `tools/opensnoop`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Box<str>);

/// A tag, such as `1.2.3`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// Text outside the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "a repository is lower-case letters, digits and single . _ __ or dashes between them, \
         in components separated by /, at most {MAX_REPOSITORY} characters"
    )]
    Repository,
    /// Not a tag.
    #[error(
        "a tag is a letter, digit or _ followed by letters, digits, . _ or -, \
         at most {MAX_TAG} characters"
    )]
    Tag,
}

impl Repository {
    /// The name as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The tag as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= MAX_REPOSITORY && text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Repository)
        }
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        match text.as_bytes() {
            [head, tail @ ..]
                if text.len() <= MAX_TAG && first(*head) && tail.iter().all(|b| rest(*b)) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(NameError::Tag),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    let separators = bytes
        .split(word)
        .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'));
    ends && separators
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_follow_the_specification() {
        let longest = "a".repeat(MAX_REPOSITORY);
        for good in [
            "a",
            "a/b",
            "tools/opensnoop",
            "a.b_c__d-e---f/0",
            "blobs/uploads",
            longest.as_str(),
        ] {
            assert_eq!(good.parse::<Repository>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(MAX_REPOSITORY + 1);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "_a",
            "a_",
            "-a",
            "a-",
            ".",
            "..",
            "../a",
            "a/../b",
            "a b",
            "a\0b",
            "a%2fb",
            "é",
            "a.-b",
            too_long.as_str(),
        ] {
            assert_eq!(
                bad.parse::<Repository>(),
                Err(NameError::Repository),
                "{bad}"
            );
        }
    }

    #[test]
    fn tags_follow_the_specification() {
        let longest = "a".repeat(MAX_TAG);
        for good in ["latest", "1.2.3", "_", "A-b.c_d", longest.as_str()] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(MAX_TAG + 1);
        for bad in [
            "",
            ".",
            "..",
            "-a",
            ".a",
            "a/b",
            "a:b",
            "a b",
            "é",
            too_long.as_str(),
        ] {
            assert_eq!(bad.parse::<Tag>(), Err(NameError::Tag), "{bad}");
        }
    }
}
