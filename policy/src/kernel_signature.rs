//! Signatures that Linux checks itself: CMS (RFC 5652) over bytes that are not in it.
//!
//! The kernel's reader (`crypto/asymmetric_keys/pkcs7_parser.c`) takes them without signed
//! attributes and finds the certificate in a keyring, so nothing is in it but who signed and the
//! signature. The bytes are those of `openssl cms -sign -binary -noattr -nocerts` and of the
//! kernel's `scripts/sign-file`.

use cms::{
    cert::IssuerAndSerialNumber,
    content_info::{CmsVersion, ContentInfo},
    signed_data::{
        EncapsulatedContentInfo, SignatureValue, SignedData, SignerIdentifier, SignerInfo,
        SignerInfos,
    },
};
use ring::rand::SecureRandom;
use x509_cert::{
    Certificate,
    der::{
        self, Any, Decode as _, Encode as _,
        asn1::{ObjectIdentifier, SetOfVec},
    },
    ext::pkix::SubjectKeyIdentifier,
    spki::AlgorithmIdentifierOwned,
};

use crate::{
    key::Algorithm,
    signer::{BadPrivateKey, Signer},
};

/// By which digest an RSA key signs. A curve has its own: SHA-256 with P-256, SHA-384 with P-384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How the signature names its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By the subject key identifier; by issuer and serial number where it has none.
    KeyId,
    /// By issuer and serial number, as sign-file does.
    Issuer,
}

/// Why nothing could be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The certificate is missing, unreadable or another key's.
    #[error("{0}")]
    Certificate(String),
    /// No kernel checks signatures by such keys.
    #[error("the kernel checks signatures by RSA and ECDSA keys, not by {0}")]
    Algorithm(Algorithm),
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] BadPrivateKey),
    /// The parts cannot be encoded.
    #[error("the signature cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
}

/// Signs `content` with the key and names the first of its certificates, in DER.
///
/// RSA signs by PKCS#1 v1.5 and gives the same bytes each time; ECDSA does not.
///
/// # Errors
/// See [`SignError`]. `hash` is asked only of RSA keys; those elsewhere sign with SHA-256.
pub fn sign(
    content: &[u8],
    signer: &Signer,
    hash: Hash,
    naming: Naming,
    random: &dyn SecureRandom,
) -> Result<Vec<u8>, SignError> {
    let certificate = signer.certificates().first().ok_or_else(|| {
        SignError::Certificate("the kernel finds a key by its certificate, which is missing".into())
    })?;
    let certificate = Certificate::from_der(certificate).map_err(|error| {
        SignError::Certificate(format!("the certificate cannot be read: {error}"))
    })?;
    let (hash, signature_algorithm) = match signer.public_key().algorithm() {
        Algorithm::Rsa => (hash, algorithm(RSA_ENCRYPTION, Some(Any::null()))),
        Algorithm::EcdsaP256 => (Hash::Sha256, algorithm(ECDSA_WITH_SHA256, None)),
        Algorithm::EcdsaP384 => (Hash::Sha384, algorithm(ECDSA_WITH_SHA384, None)),
        other @ Algorithm::Ed25519 => return Err(SignError::Algorithm(other)),
    };
    let signature = signer.sign_pkcs1(content, hash, random)?;
    let digest_alg = algorithm(hash.oid(), None);
    let (version, sid) = identifier(certificate, naming)?;
    let info = SignerInfo {
        version,
        sid,
        digest_alg: digest_alg.clone(),
        signed_attrs: None,
        signature_algorithm,
        signature: SignatureValue::new(signature)?,
        unsigned_attrs: None,
    };
    let data = SignedData {
        version,
        digest_algorithms: SetOfVec::try_from(vec![digest_alg])?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: ID_DATA,
            econtent: None,
        },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info])?),
    };
    let whole = ContentInfo {
        content_type: ID_SIGNED_DATA,
        content: Any::from_der(&data.to_der()?)?,
    };
    Ok(whole.to_der()?)
}

/// RFC 5652, section 5.3: version 3 goes with a key identifier.
fn identifier(
    certificate: Certificate,
    naming: Naming,
) -> Result<(CmsVersion, SignerIdentifier), der::Error> {
    let certificate = certificate.tbs_certificate;
    let key_id = match naming {
        Naming::KeyId => certificate.get::<SubjectKeyIdentifier>()?,
        Naming::Issuer => None,
    };
    Ok(match key_id {
        Some((_, key_id)) => (
            CmsVersion::V3,
            SignerIdentifier::SubjectKeyIdentifier(key_id),
        ),
        None => (
            CmsVersion::V1,
            SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: certificate.issuer,
                serial_number: certificate.serial_number,
            }),
        ),
    })
}

const fn algorithm(oid: ObjectIdentifier, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters }
}

impl Hash {
    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha256 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
            Self::Sha384 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
            Self::Sha512 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        }
    }
}

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::signer::generate;

    #[test]
    fn a_key_without_certificate_signs_nothing_for_the_kernel() {
        let random = SystemRandom::new();
        let files = generate(Algorithm::EcdsaP256, None, &random).unwrap();
        let mut ask = || unreachable!("it is not encrypted");
        let (signer, _) = Signer::from_pem(files.private.as_bytes(), &mut ask, &random).unwrap();
        let error = sign(b"x", &signer, Hash::Sha256, Naming::KeyId, &random).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel finds a key by its certificate, which is missing"
        );
    }
}
