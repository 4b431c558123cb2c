//! Public keys that a policy trusts.

use bundle::Digest;
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

/// A public key, known by its SPKI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadKey(pub String);

impl PublicKey {
    /// Reads a PEM public key (`PUBLIC KEY`, SPKI).
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadKey> {
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem).map_err(|_| BadKey("not PEM".to_owned()))?;
        if pem.label != "PUBLIC KEY" {
            return Err(BadKey(format!("want PUBLIC KEY, got {}", pem.label)));
        }
        let (_, _) = SubjectPublicKeyInfo::from_der(&pem.contents)
            .map_err(|_| BadKey("not an SPKI".to_owned()))?;
        Ok(Self { spki: pem.contents })
    }

    /// SHA-256 of the SPKI: one key has one identity, whatever its names.
    pub fn id(&self) -> Digest {
        Digest::of(&self.spki)
    }
}
