//! Public keys: read strictly, known by one identity, able to check a signature.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::Digest;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{prelude::FromDer as _, public_key, x509::SubjectPublicKeyInfo};

use crate::Reason;

/// A public key that is strong enough to be believed.
///
/// It is read from canonical DER only, so that one key has one [`PublicKey::id`]: a
/// threshold of two cannot be met by one key spelled in two ways.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    spki: Vec<u8>,
    /// Where in `spki` the part starts that `ring` takes.
    raw: usize,
}

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on NIST P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA on NIST P-384 with SHA-384, or SHA-256 as some signers do.
    EcdsaP384,
    /// Ed25519 (RFC 8032, without prehashing).
    Ed25519,
    /// RSA of 2048 to 8192 bits, PKCS#1 v1.5 or PSS.
    Rsa,
}

/// A signature algorithm as JWS names it (RFC 7518), of those that Notary Project allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jws {
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256, both numbers at full length.
    Es256,
    /// ECDSA on P-384 with SHA-384, both numbers at full length.
    Es384,
}

impl Jws {
    /// Reads the name.
    ///
    /// # Errors
    /// A clause that says what is allowed.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "PS256" => Ok(Self::Ps256),
            "PS384" => Ok(Self::Ps384),
            "PS512" => Ok(Self::Ps512),
            "ES256" => Ok(Self::Es256),
            "ES384" => Ok(Self::Es384),
            _ => Err(format!(
                "it is signed by the algorithm {name:?}; PS256, PS384, PS512, ES256 and ES384 \
                 are checked"
            )),
        }
    }
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The file is not a PEM public key, or its DER is not canonical.
    #[error("{0}")]
    Malformed(String),
    /// The key is too weak to be believed.
    #[error("{0}")]
    Weak(String),
    /// The key is of a kind that this version cannot check.
    #[error("{0}")]
    Unsupported(String),
}

/// The signature does not fit the message and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit")]
pub struct BadSignature;

impl Algorithm {
    /// The word for it on command lines and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }

    fn verifiers(self) -> &'static [&'static dyn VerificationAlgorithm] {
        match self {
            Self::EcdsaP256 => &ECDSA_P256,
            Self::EcdsaP384 => &ECDSA_P384,
            Self::Ed25519 => &ED25519,
            Self::Rsa => &RSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl BadKey {
    /// The numbered reason.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Weak(_) => Reason::WeakAlgorithm,
            Self::Malformed(_) | Self::Unsupported(_) => Reason::BadKey,
        }
    }
}

impl PublicKey {
    /// Reads the one PEM block `PUBLIC KEY` (SPKI, RFC 5280) of a file.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn from_pem(file: &[u8]) -> Result<Self, BadKey> {
        let malformed = |what: &str| BadKey::Malformed(what.to_owned());
        let (rest, pem) = x509_parser::pem::parse_x509_pem(file)
            .map_err(|_| malformed("it is not a PEM file"))?;
        if rest.windows(11).any(|window| window == b"-----BEGIN ") {
            return Err(malformed("it holds more than one PEM block"));
        }
        match pem.label.as_str() {
            "PUBLIC KEY" => Self::from_spki(&pem.contents),
            label if label.ends_with("PRIVATE KEY") => Err(malformed(
                "it is a private key, where a public key is wanted",
            )),
            "RSA PUBLIC KEY" => Err(malformed(
                "it is a PKCS#1 key; convert it: openssl rsa -RSAPublicKey_in -pubout",
            )),
            "CERTIFICATE" => Err(BadKey::Unsupported(
                "it is a certificate; take its key: openssl x509 -pubkey -noout".to_owned(),
            )),
            _ => Err(malformed("its PEM block is not a PUBLIC KEY")),
        }
    }

    /// Reads a DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, BadKey> {
        for (algorithm, prefix, length) in FIXED_FORMS {
            if spki.starts_with(prefix) && spki.len() == prefix.len() + length {
                return Ok(Self {
                    algorithm: *algorithm,
                    spki: spki.to_vec(),
                    // The point's leading 4 (uncompressed) is part of the prefix and of the key.
                    raw: prefix.len() - usize::from(*algorithm != Algorithm::Ed25519),
                });
            }
        }
        Self::from_rsa(spki)
    }

    /// SHA-256 of the SPKI: who this is, whatever names the key has.
    pub fn id(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// The key hint that cosign writes into a Sigstore bundle: base64 of [`PublicKey::id`].
    pub fn hint(&self) -> String {
        BASE64.encode(self.id().as_bytes())
    }

    /// What kind of key it is.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key as a PEM file.
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki)
    }

    /// Checks a signature over `message`.
    ///
    /// # Errors
    /// When it does not fit by any of the algorithms that belong to this kind of key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let raw = self.raw();
        self.algorithm
            .verifiers()
            .iter()
            .find_map(|&algorithm| {
                UnparsedPublicKey::new(algorithm, raw)
                    .verify(message, signature)
                    .ok()
            })
            .ok_or(BadSignature)
    }

    /// Checks a signature over `message` by exactly this algorithm.
    ///
    /// # Errors
    /// When it does not fit, or the key is of another kind.
    pub fn verify_jws(
        &self,
        algorithm: Jws,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let verifier: &dyn VerificationAlgorithm = match (algorithm, self.algorithm) {
            (Jws::Ps256, Algorithm::Rsa) => &signature::RSA_PSS_2048_8192_SHA256,
            (Jws::Ps384, Algorithm::Rsa) => &signature::RSA_PSS_2048_8192_SHA384,
            (Jws::Ps512, Algorithm::Rsa) => &signature::RSA_PSS_2048_8192_SHA512,
            (Jws::Es256, Algorithm::EcdsaP256) => &signature::ECDSA_P256_SHA256_FIXED,
            (Jws::Es384, Algorithm::EcdsaP384) => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return Err(BadSignature),
        };
        let raw = self.raw();
        UnparsedPublicKey::new(verifier, raw)
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }

    /// The key as `ring` takes it.
    pub(crate) fn raw(&self) -> &[u8] {
        self.spki.get(self.raw..).unwrap_or_default()
    }

    /// The public half of a private key, as `ring` gives it.
    pub(crate) fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, BadKey> {
        let spki = match FIXED_FORMS.iter().find(|(fixed, ..)| *fixed == algorithm) {
            Some((_, prefix, length)) => {
                let before = (prefix.len() + length).saturating_sub(raw.len());
                [prefix.get(..before).unwrap_or_default(), raw].concat()
            }
            None => {
                let bits = tlv(0x03, &[&[0], raw].concat());
                tlv(0x30, &[RSA_ENCRYPTION, bits.as_slice()].concat())
            }
        };
        Self::from_spki(&spki)
    }

    fn from_rsa(spki: &[u8]) -> Result<Self, BadKey> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(spki)
            .map_err(|_| BadKey::Malformed("it is not a DER public key (SPKI)".to_owned()))?;
        if !rest.is_empty() {
            return Err(BadKey::Malformed("bytes follow the key".to_owned()));
        }
        let rsa = match info.parsed() {
            Ok(public_key::PublicKey::RSA(rsa)) => rsa,
            Ok(other) => return Err(unsupported(&other, &info)),
            Err(_) => return Err(BadKey::Malformed("its key cannot be parsed".to_owned())),
        };
        let (modulus, exponent) = (unsigned(rsa.modulus), unsigned(rsa.exponent));
        check_rsa(modulus, exponent)?;
        let inner = tlv(0x30, &[integer(modulus), integer(exponent)].concat());
        let bits = tlv(0x03, &[&[0], inner.as_slice()].concat());
        if tlv(0x30, &[RSA_ENCRYPTION, bits.as_slice()].concat()) != spki {
            return Err(BadKey::Malformed("its DER is not canonical".to_owned()));
        }
        Ok(Self {
            algorithm: Algorithm::Rsa,
            raw: spki.len() - inner.len(),
            spki: spki.to_vec(),
        })
    }
}

/// As `ecdsa-p256 sha256:…`.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.id())
    }
}

/// Encodes DER as PEM with lines of 64 characters (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|start| &text[start..text.len().min(start + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), BadKey> {
    let bits = modulus.len() * 8
        - modulus
            .first()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < 2048 {
        return Err(BadKey::Weak(format!(
            "an RSA key of {bits} bits is too weak, 2048 are needed"
        )));
    }
    if bits > 8192 {
        return Err(BadKey::Unsupported(format!(
            "an RSA key of {bits} bits is over 8192"
        )));
    }
    let small = matches!(exponent, [] | [0..=2]);
    let even = exponent.last().is_none_or(|byte| byte % 2 == 0);
    if small || even {
        return Err(BadKey::Weak(
            "an RSA key with an even or tiny exponent proves nothing".to_owned(),
        ));
    }
    // `ring` takes exponents below 2^33.
    if exponent.len() > 5 {
        return Err(BadKey::Unsupported(
            "its RSA exponent is over 33 bits".to_owned(),
        ));
    }
    Ok(())
}

fn unsupported(key: &public_key::PublicKey<'_>, info: &SubjectPublicKeyInfo<'_>) -> BadKey {
    match key {
        public_key::PublicKey::DSA(_) => BadKey::Weak("DSA keys are too weak".to_owned()),
        public_key::PublicKey::EC(_) => BadKey::Unsupported(format!(
            "an elliptic-curve key on {} is neither P-256 nor P-384 with an uncompressed point",
            curve_of(info)
        )),
        _ => BadKey::Unsupported(format!(
            "a key of algorithm {} is not supported: use ECDSA P-256, P-384, Ed25519 or RSA",
            info.algorithm.algorithm
        )),
    }
}

/// The name of its curve (RFC 5480), else its number.
fn curve_of(info: &SubjectPublicKeyInfo<'_>) -> String {
    let curve = info.algorithm.parameters.as_ref();
    let Some(curve) = curve.and_then(|curve| curve.as_oid().ok()) else {
        return "a curve of its own".to_owned();
    };
    let number = curve.to_id_string();
    let known = CURVES.iter().find(|(known, _)| *known == number);
    known.map_or(number, |(_, name)| (*name).to_owned())
}

/// Curves that people have keys on.
const CURVES: [(&str, &str); 4] = [
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.132.0.35", "P-521"),
    ("1.3.132.0.10", "secp256k1"),
];

/// An integer's bytes without leading zeros.
fn unsigned(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    &bytes[zeros..]
}

/// A non-negative DER INTEGER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let sign = bytes.first().is_none_or(|byte| byte & 0x80 != 0);
    let padded = [if sign { &[0][..] } else { &[] }, bytes].concat();
    tlv(0x02, &padded)
}

/// One DER value; up to 65,535 bytes, which no key reaches.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = unsigned(&length);
    let mut der = vec![tag];
    if content.len() < 0x80 {
        der.push(content.len() as u8);
    } else {
        der.push(0x80 | significant.len() as u8);
        der.extend_from_slice(significant);
    }
    der.extend_from_slice(content);
    der
}

static ECDSA_P256: [&dyn VerificationAlgorithm; 1] = [&signature::ECDSA_P256_SHA256_ASN1];
static ECDSA_P384: [&dyn VerificationAlgorithm; 2] = [
    &signature::ECDSA_P384_SHA384_ASN1,
    &signature::ECDSA_P384_SHA256_ASN1,
];
static ED25519: [&dyn VerificationAlgorithm; 1] = [&signature::ED25519];
static RSA: [&dyn VerificationAlgorithm; 6] = [
    &signature::RSA_PKCS1_2048_8192_SHA256,
    &signature::RSA_PSS_2048_8192_SHA256,
    &signature::RSA_PKCS1_2048_8192_SHA384,
    &signature::RSA_PSS_2048_8192_SHA384,
    &signature::RSA_PKCS1_2048_8192_SHA512,
    &signature::RSA_PSS_2048_8192_SHA512,
];

/// SPKI up to the key bytes, and how many follow (RFC 5480, RFC 8410).
const FIXED_FORMS: &[(Algorithm, &[u8], usize)] = &[
    (
        Algorithm::EcdsaP256,
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04",
        64,
    ),
    (
        Algorithm::EcdsaP384,
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04",
        96,
    ),
    (
        Algorithm::Ed25519,
        b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
        32,
    ),
];

/// `AlgorithmIdentifier` of rsaEncryption with its NULL parameters (RFC 3279).
const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(name: &str) -> Result<PublicKey, BadKey> {
        let path = format!(
            "{}/../tests/vectors/keys/{name}.pub",
            env!("CARGO_MANIFEST_DIR")
        );
        PublicKey::from_pem(&std::fs::read(path).unwrap())
    }

    #[test]
    fn reads_the_four_kinds_that_openssl_writes() {
        for (name, want) in [
            ("p256", Algorithm::EcdsaP256),
            ("p384", Algorithm::EcdsaP384),
            ("ed25519", Algorithm::Ed25519),
            ("rsa2048", Algorithm::Rsa),
        ] {
            let key = vector(name).unwrap();
            assert_eq!(key.algorithm(), want);
            assert_eq!(
                PublicKey::from_pem(key.to_pem().as_bytes()),
                Ok(key),
                "{name}"
            );
        }
    }

    #[test]
    fn says_why_a_key_is_refused() {
        let malformed = |what: &str| BadKey::Malformed(what.to_owned());
        let weak = |what: &str| BadKey::Weak(what.to_owned());
        let unsupported = |what: &str| BadKey::Unsupported(what.to_owned());
        for (name, want) in [
            ("dsa", weak("DSA keys are too weak")),
            (
                "rsa1024",
                weak("an RSA key of 1024 bits is too weak, 2048 are needed"),
            ),
            ("p256-trailing", malformed("bytes follow the key")),
            (
                "rsa2048-without-parameters",
                malformed("its DER is not canonical"),
            ),
            (
                "private",
                malformed("it is a private key, where a public key is wanted"),
            ),
            ("ssh", malformed("it is not a PEM file")),
            ("two", malformed("it holds more than one PEM block")),
            (
                "p521",
                unsupported(
                    "an elliptic-curve key on P-521 is neither P-256 nor P-384 with an uncompressed point",
                ),
            ),
        ] {
            assert_eq!(vector(name), Err(want), "{name}");
        }
        for name in ["p256-compressed", "secp256k1", "rsa-pss", "x25519"] {
            assert!(
                matches!(vector(name), Err(BadKey::Unsupported(_))),
                "{name}: {:?}",
                vector(name)
            );
        }
    }

    #[test]
    fn the_hint_is_cosigns() {
        // `cosign generate-key-pair` and `cosign sign` 3.1.1 wrote this key and this hint.
        let key = PublicKey::from_pem(COSIGN_KEY.as_bytes()).unwrap();
        assert_eq!(key.hint(), "6v9dUxBinS/hwiPpYgZEV+jR810MgB4Qqn8I/4cz+Zw=");
    }

    const COSIGN_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0Ma/Bx36RiIsmXzSJdykUNcG4w40
YPpxa7Bil62D1srR3itO51XJs7UYX+bHyVHrgmedRhDZmir8eqq4ynRBpA==
-----END PUBLIC KEY-----
";
}
