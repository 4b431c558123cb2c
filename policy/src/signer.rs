//! Private keys: made, read from PEM, used to sign. Randomness is passed in.

use pkcs8::{LineEnding, PrivateKeyInfoRef, SecretDocument, pkcs5::pbes2};
use ring::{
    rand::SecureRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair, UnparsedPublicKey,
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};
use zeroize::Zeroizing;

use crate::{
    cosign_key::SealedKey,
    kernel_signature::Hash,
    key::{Algorithm, PublicKey, pem},
};

/// A private key that can sign.
pub struct Signer {
    pair: Pair,
    public: PublicKey,
    certificates: Vec<Vec<u8>>,
}

/// Signs the bytes that it is given, or says why not.
pub type Sign = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync;

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    /// A key that is not in this process.
    External(Box<Sign>),
}

/// Why a private key cannot be used. The caller is at fault.
#[derive(Debug, thiserror::Error)]
pub enum BadPrivateKey {
    /// Not a key, or not one that can sign here.
    #[error("{0}")]
    Malformed(String),
    /// The passphrase does not open it.
    #[error("the passphrase does not open the key")]
    WrongPassphrase,
    /// The caller gave no passphrase.
    #[error("{0}")]
    NoPassphrase(String),
    /// Somebody else holds the key and did not sign.
    #[error("{0}")]
    External(String),
    /// The certificate is not this key's.
    #[error("{0}")]
    Certificate(String),
    /// The source of randomness failed.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// How a passphrase becomes a key: scrypt (RFC 7914).
///
/// N = 2^14 with p = 5 is as strong as N = 2^17 with p = 1 by OWASP's password storage
/// recommendations, and OpenSSL can read it: its limit of 32 MiB allows no N over 2^14.
/// cosign takes N = 2^16 with p = 1, a fifth less work for whoever guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// log2 of the cost N.
    pub log_n: u8,
    /// Block size r.
    pub r: u32,
    /// Parallelism p.
    pub p: u32,
}

impl Derivation {
    /// What `bpfseal keygen` writes.
    pub const DEFAULT: Self = Self {
        log_n: 14,
        r: 8,
        p: 5,
    };
}

/// `scrypt N=16384 r=8 p=5`.
impl std::fmt::Display for Derivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "scrypt N={} r={} p={}",
            1_u64 << self.log_n.min(63),
            self.r,
            self.p
        )
    }
}

/// How a private key file is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    None,
    /// By a passphrase; says the derivation and the cipher.
    Passphrase(String),
}

/// A new key as files.
pub struct KeyFiles {
    /// PKCS#8 as PEM.
    pub private: Zeroizing<String>,
    /// The public half.
    pub public: PublicKey,
}

/// Makes a key; encrypted (PBES2, scrypt, AES-256-CBC) if there is a passphrase.
///
/// # Errors
/// When there is no randomness or the algorithm cannot be generated.
pub fn generate(
    algorithm: Algorithm,
    passphrase: Option<&str>,
    random: &dyn SecureRandom,
) -> Result<KeyFiles, BadPrivateKey> {
    let der = match algorithm {
        Algorithm::EcdsaP256 => Zeroizing::new(
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random)
                .map_err(|_| BadPrivateKey::NoRandomness)?
                .as_ref()
                .to_vec(),
        ),
        Algorithm::Ed25519 => {
            let mut seed = Zeroizing::new([0; 32]);
            random
                .fill(seed.as_mut())
                .map_err(|_| BadPrivateKey::NoRandomness)?;
            // The first version of PKCS#8 (RFC 5208): OpenSSL reads no other for Ed25519.
            Zeroizing::new([ED25519_PKCS8, seed.as_ref()].concat())
        }
        Algorithm::EcdsaP384 | Algorithm::Rsa => {
            return Err(BadPrivateKey::Malformed(format!(
                "keys of {algorithm} are read, not made"
            )));
        }
    };
    let public = Signer::from_pkcs8(&der, random)?.public;
    let private = match passphrase {
        None => Zeroizing::new(pem("PRIVATE KEY", &der)),
        Some(passphrase) => encrypt(&der, passphrase, random)?,
    };
    Ok(KeyFiles { private, public })
}

impl Signer {
    /// Reads a private key file; `passphrase` is asked only if the file is encrypted.
    ///
    /// # Errors
    /// See [`BadPrivateKey`].
    pub fn from_pem(
        file: &[u8],
        passphrase: &mut dyn FnMut() -> Result<Zeroizing<String>, BadPrivateKey>,
        random: &dyn SecureRandom,
    ) -> Result<(Self, Protection), BadPrivateKey> {
        let text = std::str::from_utf8(file).map_err(|_| malformed("it is not a PEM file"))?;
        let label = pem_label(text)?;
        match label {
            "PRIVATE KEY" => {
                let (_, document) = SecretDocument::from_pem(text.trim())
                    .map_err(|_| malformed("its PEM cannot be parsed"))?;
                Ok((
                    Self::from_pkcs8(document.as_bytes(), random)?,
                    Protection::None,
                ))
            }
            "ENCRYPTED PRIVATE KEY" => {
                let (_, document) = SecretDocument::from_pem(text.trim())
                    .map_err(|_| malformed("its PEM cannot be parsed"))?;
                let (der, protection) = decrypt(document.as_bytes(), passphrase)?;
                Ok((Self::from_pkcs8(der.as_bytes(), random)?, protection))
            }
            "EC PRIVATE KEY" | "RSA PRIVATE KEY" => Err(malformed(
                "it is an older OpenSSL key; convert it: openssl pkcs8 -topk8 -in OLD -out NEW",
            )),
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let (_, block) = x509_parser::pem::parse_x509_pem(file)
                    .map_err(|_| malformed("its PEM cannot be parsed"))?;
                let sealed = SealedKey::parse(&block.contents)?;
                let der = sealed.open(&passphrase()?)?;
                Ok((
                    Self::from_pkcs8(&der, random)?,
                    Protection::Passphrase(sealed.derivation().to_owned()),
                ))
            }
            "PUBLIC KEY" => Err(malformed(
                "it is a public key, where a private key is wanted",
            )),
            _ => Err(malformed("its PEM block is not a PRIVATE KEY")),
        }
    }

    /// A key that somebody else holds: a token, a service. What `sign` returns is checked
    /// before it is believed.
    pub fn external(public: PublicKey, sign: Box<Sign>) -> Self {
        Self {
            pair: Pair::External(sign),
            public,
            certificates: Vec::new(),
        }
    }

    /// Signs with this certificate chain (DER), the key's own certificate first.
    ///
    /// # Errors
    /// When the first certificate is for another key.
    pub fn with_certificates(self, certificates: Vec<Vec<u8>>) -> Result<Self, BadPrivateKey> {
        let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| {
            BadPrivateKey::Certificate("the certificate cannot be parsed".to_owned())
        })?;
        if parsed.tbs_certificate.subject_pki.raw != self.public.spki() {
            return Err(BadPrivateKey::Certificate(format!(
                "the first certificate, of {:?}, is for another key",
                parsed.subject().to_string()
            )));
        }
        Ok(Self {
            certificates,
            ..self
        })
    }

    /// The certificate chain (DER) that it signs with; empty: the key alone.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// The public half.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`. Ed25519 and RSA give the same signature each time; ECDSA does not.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn sign(
        &self,
        message: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, BadPrivateKey> {
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| BadPrivateKey::NoRandomness),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::External(sign) => {
                let signature = sign(message).map_err(BadPrivateKey::External)?;
                match self.public.verify(message, &signature) {
                    Ok(()) => Ok(signature),
                    Err(_) => Err(BadPrivateKey::External(format!(
                        "what it signed does not fit its public key {}",
                        self.public.id()
                    ))),
                }
            }
            Pair::Rsa(pair) => sign_rsa(pair, Hash::Sha256, message, random),
        }
    }

    /// The same, where whoever checks takes RSA by PKCS#1 v1.5 alone; `hash` is for RSA keys in
    /// this process, others sign with SHA-256.
    ///
    /// # Errors
    /// When there is no randomness, or a holder elsewhere signs otherwise.
    pub fn sign_pkcs1(
        &self,
        message: &[u8],
        hash: Hash,
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, BadPrivateKey> {
        let is_rsa = self.public.algorithm() == Algorithm::Rsa;
        match &self.pair {
            Pair::Rsa(pair) => sign_rsa(pair, hash, message, random),
            Pair::External(_) if is_rsa && hash != Hash::Sha256 => Err(BadPrivateKey::External(
                "keys that are not in a file sign with SHA-256".to_owned(),
            )),
            Pair::External(_) if is_rsa => {
                let signature = self.sign(message, random)?;
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.public.raw())
                    .verify(message, &signature)
                    .map(|()| signature)
                    .map_err(|_| {
                        BadPrivateKey::External(
                            "it signs by PSS, and PKCS#1 v1.5 is wanted".to_owned(),
                        )
                    })
            }
            _ => self.sign(message, random),
        }
    }

    fn from_pkcs8(der: &[u8], random: &dyn SecureRandom) -> Result<Self, BadPrivateKey> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| malformed("it is not PKCS#8"))?;
        let (pair, prefix) = match info.algorithm.oid.to_string().as_str() {
            EC_PUBLIC_KEY => ecdsa(der, random)?,
            ED25519 => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                    .map_err(|_| malformed("its Ed25519 key cannot be parsed"))?;
                (Pair::Ed25519(pair), Algorithm::Ed25519)
            }
            RSA_ENCRYPTION => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|error| {
                    malformed(&format!(
                        "its RSA key cannot be used ({error}); 2048 to 4096 bits are read"
                    ))
                })?;
                (Pair::Rsa(Box::new(pair)), Algorithm::Rsa)
            }
            other => {
                return Err(malformed(&format!(
                    "a key of algorithm {other} cannot sign here: use ECDSA P-256 or P-384, Ed25519 or RSA"
                )));
            }
        };
        let raw = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::External(_) => return Err(malformed("it is not in a file")),
        };
        let public =
            PublicKey::from_raw(prefix, raw).map_err(|error| malformed(&error.to_string()))?;
        Ok(Self {
            pair,
            public,
            certificates: Vec::new(),
        })
    }
}

fn ecdsa(der: &[u8], random: &dyn SecureRandom) -> Result<(Pair, Algorithm), BadPrivateKey> {
    let kinds = [
        (&ECDSA_P256_SHA256_ASN1_SIGNING, Algorithm::EcdsaP256),
        (&ECDSA_P384_SHA384_ASN1_SIGNING, Algorithm::EcdsaP384),
    ];
    kinds
        .into_iter()
        .find_map(|(kind, algorithm)| {
            let pair = EcdsaKeyPair::from_pkcs8(kind, der, random).ok()?;
            Some((Pair::Ecdsa(pair), algorithm))
        })
        .ok_or_else(|| {
            malformed("its elliptic-curve key is neither P-256 nor P-384 with a public half")
        })
}

fn encrypt(
    der: &[u8],
    passphrase: &str,
    random: &dyn SecureRandom,
) -> Result<Zeroizing<String>, BadPrivateKey> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    random
        .fill(&mut salt)
        .map_err(|_| BadPrivateKey::NoRandomness)?;
    random
        .fill(&mut iv)
        .map_err(|_| BadPrivateKey::NoRandomness)?;
    let Derivation { log_n, r, p } = Derivation::DEFAULT;
    let failed = |_| malformed("it cannot be encrypted");
    let scrypt =
        scrypt::Params::new(log_n, r, p).map_err(|_| malformed("scrypt refuses its parameters"))?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(scrypt, &salt, iv)
        .map_err(|_| malformed("scrypt refuses its parameters"))?;
    PrivateKeyInfoRef::try_from(der)
        .map_err(failed)?
        .encrypt_with_params(parameters, passphrase)
        .map_err(failed)?
        .to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)
        .map_err(|_| malformed("it cannot be encoded"))
}

fn decrypt(
    der: &[u8],
    passphrase: &mut dyn FnMut() -> Result<Zeroizing<String>, BadPrivateKey>,
) -> Result<(SecretDocument, Protection), BadPrivateKey> {
    let encrypted = pkcs8::EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|_| malformed("it is not an encrypted PKCS#8 key that can be read (PBES2)"))?;
    let protection = describe(&encrypted.encryption_algorithm)?;
    let passphrase = passphrase()?;
    let document = encrypted
        .decrypt(passphrase.as_bytes())
        .map_err(|_| BadPrivateKey::WrongPassphrase)?;
    Ok((document, Protection::Passphrase(protection)))
}

/// Says how the key is derived, and refuses parameters that would eat the machine.
fn describe(scheme: &pkcs8::pkcs5::EncryptionScheme) -> Result<String, BadPrivateKey> {
    let pkcs8::pkcs5::EncryptionScheme::Pbes2(parameters) = scheme else {
        return Err(malformed(
            "it is encrypted with PBES1, which is broken; encrypt it again: openssl pkcs8 -topk8",
        ));
    };
    let derivation = match &parameters.kdf {
        pbes2::Kdf::Scrypt(scrypt) => {
            let (n, r, p) = (
                scrypt.cost_parameter,
                scrypt.block_size,
                scrypt.parallelization,
            );
            let memory = n.saturating_mul(u64::from(r)).saturating_mul(128);
            if memory > MAX_MEMORY || memory.saturating_mul(u64::from(p)) > MAX_WORK {
                return Err(malformed(&format!(
                    "its derivation, scrypt N={n} r={r} p={p}, would take over {} MiB or many seconds",
                    MAX_MEMORY >> 20
                )));
            }
            format!("scrypt N={n} r={r} p={p}")
        }
        pbes2::Kdf::Pbkdf2(pbkdf2) => {
            if pbkdf2.iteration_count > MAX_ITERATIONS {
                return Err(malformed("its derivation takes over ten million rounds"));
            }
            format!("PBKDF2 {:?} {} rounds", pbkdf2.prf, pbkdf2.iteration_count)
        }
        _ => return Err(malformed("its key derivation is unknown")),
    };
    Ok(derivation)
}

fn pem_label(text: &str) -> Result<&str, BadPrivateKey> {
    text.lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("-----BEGIN ")?
                .strip_suffix("-----")
        })
        .ok_or_else(|| malformed("it is not a PEM file"))
}

/// PKCS#1 v1.5. `ring` checks what it signed, for faults that would give the key away.
fn sign_rsa(
    pair: &RsaKeyPair,
    hash: Hash,
    message: &[u8],
    random: &dyn SecureRandom,
) -> Result<Vec<u8>, BadPrivateKey> {
    let padding = match hash {
        Hash::Sha256 => &RSA_PKCS1_SHA256,
        Hash::Sha384 => &RSA_PKCS1_SHA384,
        Hash::Sha512 => &RSA_PKCS1_SHA512,
    };
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, random, message, &mut signature)
        .map(|()| signature)
        .map_err(|_| malformed("it signs nothing: its parts do not fit together"))
}

fn malformed(what: &str) -> BadPrivateKey {
    BadPrivateKey::Malformed(what.to_owned())
}

/// PKCS#8 version 1 with an Ed25519 seed (RFC 8410, section 7), up to the seed.
const ED25519_PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
/// Scrypt's memory: four times what OWASP asks for.
const MAX_MEMORY: u64 = 512 << 20;
/// Scrypt's memory times p: about five seconds.
const MAX_WORK: u64 = 2 << 30;
/// Sixteen times what OWASP asks for.
const MAX_ITERATIONS: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    fn read(pem: &str, passphrase: &str) -> Result<(Signer, Protection), String> {
        let mut ask = || Ok(Zeroizing::new(passphrase.to_owned()));
        Signer::from_pem(pem.as_bytes(), &mut ask, &SystemRandom::new()).map_err(|e| e.to_string())
    }

    /// Found by fuzzing: a changed exponent was said to be a lack of randomness.
    #[test]
    fn an_rsa_key_whose_parts_do_not_fit_signs_nothing() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/vectors/x509/rsa2048.key"
        );
        let good = std::fs::read_to_string(path).unwrap();
        for (pem, want) in [
            (good.replace("NyYhNgSSkBH", "NyYh/gSSkBH"), false),
            (good, true),
        ] {
            let signer = read(&pem, "").unwrap().0;
            let random = SystemRandom::new();
            for signed in [
                signer.sign(b"message", &random),
                signer.sign_pkcs1(b"message", Hash::Sha512, &random),
            ] {
                let said = signed.map(|_| ()).map_err(|error| error.to_string());
                let parts = "it signs nothing: its parts do not fit together".to_owned();
                assert_eq!(said, if want { Ok(()) } else { Err(parts) });
            }
        }
    }

    #[test]
    fn made_keys_are_read_and_their_signatures_fit() {
        let random = SystemRandom::new();
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            for passphrase in [None, Some("correct horse")] {
                let files = generate(algorithm, passphrase, &random).unwrap();
                let (signer, protection) = read(&files.private, "correct horse").unwrap();
                assert_eq!(signer.public_key(), &files.public);
                assert_eq!(
                    protection,
                    match passphrase {
                        None => Protection::None,
                        Some(_) => Protection::Passphrase(Derivation::DEFAULT.to_string()),
                    }
                );
                let signature = signer.sign(b"message", &random).unwrap();
                assert_eq!(files.public.verify(b"message", &signature), Ok(()));
                assert_eq!(
                    files.public.verify(b"massage", &signature),
                    Err(crate::key::BadSignature)
                );
            }
        }
    }

    #[test]
    fn a_wrong_passphrase_opens_nothing() {
        let files = generate(Algorithm::Ed25519, Some("a"), &SystemRandom::new()).unwrap();
        assert_eq!(
            read(&files.private, "b").map(drop),
            Err("the passphrase does not open the key".to_owned())
        );
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        for (file, want) in [
            ("", "it is not a PEM file"),
            (
                "-----BEGIN PUBLIC KEY-----\n",
                "it is a public key, where a private key is wanted",
            ),
            (
                "-----BEGIN EC PRIVATE KEY-----\n",
                "it is an older OpenSSL key; convert it: openssl pkcs8 -topk8 -in OLD -out NEW",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n",
                "its PEM block is not a PRIVATE KEY",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\n!\n",
                "its PEM cannot be parsed",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
                "it is not PKCS#8",
            ),
        ] {
            assert_eq!(read(file, "").map(drop), Err(want.to_owned()), "{file:?}");
        }
    }
}
