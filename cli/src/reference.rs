//! Names of artifacts in registries: `host[:port]/repository[:tag][@digest]`.
//!
//! The grammar is that of OCI distribution-spec 1.1 ("Pulling manifests") and of the
//! `reference` package that Docker, oras and skopeo share, with one difference: the host
//! is always written. There is no registry that is meant when none is named.

use std::{fmt, str::FromStr};

use bundle::Digest;

/// A registry's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

/// A repository in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// The registry.
    pub host: Host,
    /// Path components separated by slashes, at most 255 bytes.
    pub name: String,
}

/// An artifact in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// A name that can move; `latest` is meant where neither tag nor digest is written.
    pub tag: Option<String>,
    /// What it must be, whatever the tag says.
    pub digest: Option<Digest>,
}

/// Text that is not a reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// There is no host, or what stands there does not look like one.
    #[error("a reference starts with a registry: host[:port]/repository[:tag][@digest]")]
    NoHost,
    /// The host has letters that no host has, or the port is not a number up to 65535.
    #[error("`{0}` is not host[:port]")]
    BadHost(String),
    /// The repository is empty or has letters other than `a-z0-9._-/`.
    #[error("`{0}` is not a repository: lower-case letters and digits, separated by . _ __ - or /")]
    BadRepository(String),
    /// The repository is longer than 255 bytes.
    #[error("the repository's name is {0} bytes long, more than 255")]
    LongRepository(usize),
    /// The tag is empty, too long or has other letters.
    #[error("`{0}` is not a tag: at most 128 letters, digits, . _ or -")]
    BadTag(String),
    /// The digest is not SHA-256.
    #[error("`{text}` is not a digest")]
    BadDigest {
        /// What was written.
        text: String,
        /// What is wrong with it.
        source: bundle::digest::DigestError,
    },
}

impl Host {
    /// As written: `host[:port]`, IPv6 in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address without its port; IPv6 without brackets.
    pub fn name(&self) -> &str {
        match self.0.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.0.split(':').next().unwrap_or(&self.0),
        }
    }

    /// Is it this machine? Plain HTTP is spoken there unless a CA is given.
    pub fn is_loopback(&self) -> bool {
        let name = self.name();
        name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Does this look like a registry rather than a folder? A dot, a port, brackets or
    /// `localhost`, as Docker decides it.
    pub fn looks_like(text: &str) -> bool {
        let dots_only = text.bytes().all(|byte| byte == b'.');
        !dots_only && (text == "localhost" || text.contains(['.', ':']) || text.starts_with('['))
    }
}

impl FromStr for Host {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ReferenceError::BadHost(text.to_owned());
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or_else(bad)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                match after.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if after.is_empty() => (None, None),
                    None => return Err(bad()),
                }
            }
            None => match text.split_once(':') {
                Some((name, port)) => (Some(name), Some(port)),
                None => (Some(text), None),
            },
        };
        if let Some(port) = port {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse::<u16>().map_err(|_| bad())?;
            if !digits || number == 0 {
                return Err(bad());
            }
        }
        if name.is_some_and(|name| !name.split('.').all(is_host_label)) {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, name) = text.split_once('/').ok_or(ReferenceError::NoHost)?;
        if !Host::looks_like(host) {
            return Err(ReferenceError::NoHost);
        }
        let host = host.parse()?;
        if !name.split('/').all(is_path_component) {
            return Err(ReferenceError::BadRepository(name.to_owned()));
        }
        if name.len() > LONGEST_REPOSITORY {
            return Err(ReferenceError::LongRepository(name.len()));
        }
        Ok(Self {
            host,
            name: name.to_owned(),
        })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let path = rest.find('/').ok_or(ReferenceError::NoHost)?;
        let (rest, tag) = match rest[path..].find(':') {
            Some(colon) => {
                let tag = &rest[path + colon + 1..];
                if !is_tag(tag) {
                    return Err(ReferenceError::BadTag(tag.to_owned()));
                }
                (&rest[..path + colon], Some(tag.to_owned()))
            }
            None => (rest, None),
        };
        Ok(Self {
            repository: rest.parse()?,
            tag,
            digest,
        })
    }
}

impl Reference {
    /// The same artifact by its digest, without the tag.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// What to ask the registry for: the digest if there is one, else the tag, else `latest`.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    text.parse().map_err(|source| ReferenceError::BadDigest {
        text: text.to_owned(),
        source,
    })
}

/// Letters, digits and inner hyphens.
fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_plain = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    ends_plain
        && bytes
            .split(plain)
            .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || is_hyphens(between))
}

fn is_hyphens(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'-')
}

/// What Docker, oras and skopeo mean by no tag.
pub const DEFAULT_TAG: &str = "latest";

/// Of the `reference` package: host names and file names end there.
const LONGEST_REPOSITORY: usize = 255;

/// OCI distribution-spec 1.1.
const LONGEST_TAG: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reference(host: &str, name: &str, tag: Option<&str>, digest: bool) -> Reference {
        Reference {
            repository: Repository {
                host: Host(host.to_owned()),
                name: name.to_owned(),
            },
            tag: tag.map(str::to_owned),
            digest: digest.then(|| Digest::of(b"")),
        }
    }

    #[test]
    fn parses_and_prints_every_form() {
        let long_tag = "t".repeat(128);
        for (text, want) in [
            ("r.io/a".to_owned(), reference("r.io", "a", None, false)),
            (
                "r.io/a:v1".to_owned(),
                reference("r.io", "a", Some("v1"), false),
            ),
            (format!("r.io/a@{HEX}"), reference("r.io", "a", None, true)),
            (
                format!("r.io:443/a/b-c/d__e.f:V_1.0-x@{HEX}"),
                reference("r.io:443", "a/b-c/d__e.f", Some("V_1.0-x"), true),
            ),
            (
                "localhost/a".to_owned(),
                reference("localhost", "a", None, false),
            ),
            (
                "127.0.0.1:5000/a/b:latest".to_owned(),
                reference("127.0.0.1:5000", "a/b", Some("latest"), false),
            ),
            (
                "[::1]:5000/a".to_owned(),
                reference("[::1]:5000", "a", None, false),
            ),
            ("[::1]/a".to_owned(), reference("[::1]", "a", None, false)),
            (
                "registry:5000/a---b".to_owned(),
                reference("registry:5000", "a---b", None, false),
            ),
            (
                format!("R.io/a:{long_tag}"),
                reference("R.io", "a", Some(&long_tag), false),
            ),
        ] {
            assert_eq!(text.parse(), Ok(want.clone()), "{text}");
            assert_eq!(want.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_reference() {
        use ReferenceError::*;
        let long_tag = "t".repeat(129);
        let long_name = "n".repeat(256);
        let repository = |text: &str| BadRepository(text.to_owned());
        for (text, want) in [
            (String::new(), NoHost),
            ("a".to_owned(), NoHost),
            ("a:v1".to_owned(), NoHost),
            ("library/a".to_owned(), NoHost),
            ("../a.b".to_owned(), NoHost),
            ("./a.b".to_owned(), NoHost),
            ("/a.b/c".to_owned(), NoHost),
            ("r.io/".to_owned(), repository("")),
            ("r.io/A".to_owned(), repository("A")),
            ("r.io/a//b".to_owned(), repository("a//b")),
            ("r.io/a/".to_owned(), repository("a/")),
            ("r.io/a/../b".to_owned(), repository("a/../b")),
            ("r.io/-a".to_owned(), repository("-a")),
            ("r.io/a..b".to_owned(), repository("a..b")),
            ("r.io/a___b".to_owned(), repository("a___b")),
            ("r.io/a?x=y".to_owned(), repository("a?x=y")),
            (format!("r.io/{long_name}"), LongRepository(256)),
            ("r.io/a:".to_owned(), BadTag(String::new())),
            ("r.io/a:.v1".to_owned(), BadTag(".v1".to_owned())),
            ("r.io/a:v1/b".to_owned(), BadTag("v1/b".to_owned())),
            ("r.io/a:v1:v2".to_owned(), BadTag("v1:v2".to_owned())),
            (format!("r.io/a:{long_tag}"), BadTag(long_tag.clone())),
            ("r.io:/a".to_owned(), BadHost("r.io:".to_owned())),
            ("r.io:0/a".to_owned(), BadHost("r.io:0".to_owned())),
            ("r.io:+1/a".to_owned(), BadHost("r.io:+1".to_owned())),
            ("r.io:65536/a".to_owned(), BadHost("r.io:65536".to_owned())),
            ("-r.io/a".to_owned(), BadHost("-r.io".to_owned())),
            ("r..io/a".to_owned(), BadHost("r..io".to_owned())),
            (
                "u@r.io/a".to_owned(),
                BadDigest {
                    text: "r.io/a".to_owned(),
                    source: bundle::digest::DigestError::Algorithm,
                },
            ),
            ("[::1/a".to_owned(), BadHost("[::1".to_owned())),
            ("[::1]x/a".to_owned(), BadHost("[::1]x".to_owned())),
            ("[no]/a".to_owned(), BadHost("[no]".to_owned())),
            (
                "r.io/a@sha256:00".to_owned(),
                BadDigest {
                    text: "sha256:00".to_owned(),
                    source: bundle::digest::DigestError::Encoding,
                },
            ),
            ("http://r.io/a".to_owned(), BadHost("http:".to_owned())),
        ] {
            assert_eq!(text.parse::<Reference>(), Err(want), "{text}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.3.2.1:80", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("[::2]", false),
            ("10.0.0.1:5000", false),
        ] {
            let host: Host = host.parse().unwrap();
            assert_eq!(host.is_loopback(), want, "{host}");
        }
    }

    #[test]
    fn asks_for_the_digest_before_the_tag() {
        assert_eq!(reference("r.io", "a", Some("v1"), true).wanted(), HEX);
        assert_eq!(reference("r.io", "a", Some("v1"), false).wanted(), "v1");
        assert_eq!(reference("r.io", "a", None, false).wanted(), "latest");
        assert_eq!(
            reference("r.io", "a", Some("v1"), false).pinned(Digest::of(b"")),
            reference("r.io", "a", None, true)
        );
    }
}
