//! Content digests of the two algorithms that OCI registers: `sha256` and `sha512`.
//!
//! A registry serves any artifact, so unlike `bundle::Digest` this type knows both.

use std::{fmt, str::FromStr};

use serde::{Deserialize, de};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest algorithm (OCI image-spec 1.1, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the canonical one: manifests pushed by tag get it.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm, for tables and folders.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::Algorithm),
        }
    }
}

/// The digest of a blob or manifest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// 32 bytes of SHA-256.
    Sha256([u8; 32]),
    /// 64 bytes of SHA-512.
    Sha512([u8; 64]),
}

/// Text that is not a digest this registry can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm before the colon is neither `sha256` nor `sha512`.
    #[error("digest algorithm is neither sha256 nor sha512")]
    Algorithm,
    /// What follows the colon is not the algorithm's number of lower-case hex digits.
    #[error("digest is not the right number of lower-case hex digits")]
    Encoding,
}

impl Digest {
    /// Hashes `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which algorithm made it.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw bytes: 32 or 64.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The hex digits after the colon.
    pub fn to_hex(self) -> String {
        hex::encode(self.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, digits) = text.split_once(':').ok_or(DigestError::Algorithm)?;
        let algorithm: Algorithm = algorithm.parse()?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(DigestError::Encoding);
        }
        match algorithm {
            Algorithm::Sha256 => decode(digits).map(Self::Sha256),
            Algorithm::Sha512 => decode(digits).map(Self::Sha512),
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sha256 or sha512 digest")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn decode<const N: usize>(digits: &str) -> Result<[u8; N], DigestError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| DigestError::Encoding)?;
    Ok(bytes)
}

/// A digest being computed while bytes stream by.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256 in progress.
    Sha256(Sha256),
    /// SHA-512 in progress.
    Sha512(Sha512),
}

impl Hasher {
    /// Starts at zero bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Which digest this will be.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything taken so far.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_both_algorithms() {
        for (algorithm, text) in [
            (
                Algorithm::Sha256,
                "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            ),
            (
                Algorithm::Sha512,
                "sha512:27c74670adb75075fad058d5ceaf7b20c4e7786c83bae8a32f626f9782af34c9\
                 a33c2046ef60fd2a7878d378e29fec851806bbd9a67878f3a9f1cda4830763fd",
            ),
        ] {
            assert_eq!(Digest::of(algorithm, b"{}").to_string(), text);
            assert_eq!(text.parse(), Ok(Digest::of(algorithm, b"{}")));
        }
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        let short = "sha256:".to_owned() + &"a".repeat(63);
        let long = "sha512:".to_owned() + &"a".repeat(64);
        let upper = "sha256:".to_owned() + &"A".repeat(64);
        for (text, want) in [
            ("", DigestError::Algorithm),
            ("latest", DigestError::Algorithm),
            ("md5:00", DigestError::Algorithm),
            ("SHA256:00", DigestError::Algorithm),
            ("sha256:", DigestError::Encoding),
            ("sha256:../../etc/passwd", DigestError::Encoding),
            (short.as_str(), DigestError::Encoding),
            (long.as_str(), DigestError::Encoding),
            (upper.as_str(), DigestError::Encoding),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(want), "{text}");
        }
    }
}
