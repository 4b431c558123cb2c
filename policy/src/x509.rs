//! An organisation's own certificates: a chain from a signature to a root that the policy
//! names, within the policy's constraints (RFC 5280, as `rustls-webpki` checks it).

use std::time::Duration;

use bundle::Digest;
use jiff::Timestamp;
use pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use sigstore_types::{DerCertificate, SignatureBytes, TimestampToken, TsaAuthority};
use sigstore_verify::tsa::verify_timestamp_for_authority;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
    ring::{
        ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
        RSA_PSS_2048_8192_SHA256_LEGACY_KEY, RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    },
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use crate::{Reason, Refusal, key::PublicKey, pattern::Pattern};

/// Whom an organisation's certificates are believed for.
#[derive(Clone, Debug)]
pub struct Authority {
    id: Digest,
    anchors: Vec<TrustAnchor<'static>>,
    names: Vec<Pattern>,
    usage: Option<String>,
    max_path_length: Option<usize>,
    crls: Vec<OwnedCertRevocationList>,
    stamps: Option<TsaAuthority>,
}

/// What the policy says about an authority, as bytes; see [`Authority::new`].
#[derive(Debug, Default)]
pub(crate) struct Parts<'a> {
    /// PEM certificates: roots, or intermediates that are trusted themselves.
    pub(crate) roots: &'a [u8],
    /// Who may sign.
    pub(crate) names: Vec<Pattern>,
    /// The OID of an extended key usage that the certificate must have; `None`: code
    /// signing, unless it is limited to nothing.
    pub(crate) usage: Option<String>,
    /// Most certificates between the root and the signer's.
    pub(crate) max_path_length: Option<usize>,
    /// PEM revocation lists.
    pub(crate) crls: Option<&'a [u8]>,
    /// PEM chain of the time-stamp authority: its certificate first, its root last.
    pub(crate) stamps: Option<&'a [u8]>,
}

/// Who holds a certificate that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Root and subject: the same for each certificate that is issued to one holder.
    pub id: Digest,
    /// The subject's distinguished name.
    pub subject: String,
    /// The distinguished name of the authority that issued it.
    pub issuer: String,
    /// The certificate's key.
    pub key: PublicKey,
    /// When the signature existed, if a time-stamp authority says so.
    pub time: Option<Timestamp>,
}

impl Authority {
    /// Reads it.
    ///
    /// # Errors
    /// A clause that says what cannot be used.
    pub(crate) fn new(parts: Parts<'_>) -> Result<Self, String> {
        let anchors = certificates(parts.roots)?
            .iter()
            .map(|der| {
                anchor_from_trusted_cert(&CertificateDer::from(der.as_slice()))
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| format!("a root certificate cannot be used: {error}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let crls = match parts.crls {
            None => Vec::new(),
            Some(pem) => blocks(pem, "X509 CRL")?
                .iter()
                .map(|der| {
                    OwnedCertRevocationList::from_der(der)
                        .map_err(|error| format!("a revocation list cannot be used: {error}"))
                })
                .collect::<Result<Vec<_>, _>>()?,
        };
        let stamps = match parts.stamps {
            None => None,
            Some(pem) => Some(stamp_authority(&certificates(pem)?)?),
        };
        let limits = format!(
            "{:?} {:?} {:?}",
            parts.names, parts.usage, parts.max_path_length
        );
        let texts = [
            parts.roots,
            parts.crls.unwrap_or_default(),
            parts.stamps.unwrap_or_default(),
            limits.as_bytes(),
        ];
        let id: Vec<u8> = texts
            .iter()
            .flat_map(|text| *Digest::of(text).as_bytes())
            .collect();
        Ok(Self {
            id: Digest::of(&id),
            anchors,
            names: parts.names,
            usage: parts.usage,
            max_path_length: parts.max_path_length,
            crls,
            stamps,
        })
    }

    /// SHA-256 over its roots, constraints, lists and time-stamp authority.
    pub const fn id(&self) -> Digest {
        self.id
    }

    /// The OID that a certificate must have as usage; `None`: code signing.
    pub fn usage(&self) -> Option<&str> {
        self.usage.as_deref()
    }

    /// Most certificates between root and signer.
    pub const fn max_path_length(&self) -> Option<usize> {
        self.max_path_length
    }

    /// Who may sign.
    pub fn names(&self) -> &[Pattern] {
        &self.names
    }

    /// Who holds the first certificate of `chain` (DER), if it leads to a root within the
    /// constraints at the time of `signature`.
    ///
    /// That time is what an RFC 3161 token among `stamps` says, if the policy trusts its
    /// authority; else the certificates have to be valid `now`.
    ///
    /// # Errors
    /// What does not hold.
    pub fn holder(
        &self,
        chain: &[Vec<u8>],
        signature: &[u8],
        stamps: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Holder, Refusal> {
        let refuse = |detail: String| Refusal::new(Reason::BadCertificate, detail);
        let (leaf, rest) = chain
            .split_first()
            .ok_or_else(|| refuse("it carries no certificate".to_owned()))?;
        if rest.len() > MOST_INTERMEDIATES {
            return Err(refuse(format!(
                "its chain has over {MOST_INTERMEDIATES} certificates"
            )));
        }
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| refuse("its certificate cannot be parsed".to_owned()))?;
        let key = PublicKey::from_spki(parsed.tbs_certificate.subject_pki.raw)
            .map_err(|error| Refusal::new(error.reason(), format!("its certificate: {error}")))?;
        let time = self.time(signature, stamps)?;
        let subject = parsed.subject().to_string();
        let anchor = self
            .check_path(leaf, rest, time.unwrap_or(now))
            .map_err(|error| {
                let when = match time {
                    Some(time) => format!("at {time}, by its time stamp"),
                    None => "now, and no trusted time stamp says when it signed".to_owned(),
                };
                refuse(format!(
                    "the certificate of {subject:?} is not valid {when}: {error}"
                ))
            })?;
        self.check_usage(&parsed).map_err(refuse)?;
        let names = names_of(&parsed);
        if !names
            .iter()
            .any(|name| self.names.iter().any(|p| p.covers(name)))
        {
            return Err(Refusal::new(
                Reason::UntrustedSigner,
                format!(
                    "its certificate is for {}, whom the policy does not name",
                    names.join(", ")
                ),
            ));
        }
        let id = [
            b"x509\0".as_slice(),
            anchor.as_bytes(),
            parsed.subject().as_raw(),
        ]
        .concat();
        Ok(Holder {
            id: Digest::of(&id),
            subject,
            issuer: parsed.issuer().to_string(),
            key,
            time,
        })
    }

    /// The earliest time by a trusted authority.
    fn time(&self, signature: &[u8], stamps: &[Vec<u8>]) -> Result<Option<Timestamp>, Refusal> {
        let Some(authority) = &self.stamps else {
            return Ok(None);
        };
        let mut times = Vec::new();
        for stamp in stamps.iter().take(MOST_STAMPS) {
            let token = TimestampToken::from_bytes(stamp);
            let signature = SignatureBytes::from_bytes(signature);
            let time = verify_timestamp_for_authority(&token, &signature, authority);
            times.push(time.map_err(|error| {
                Refusal::new(Reason::NoTrustedTime, format!("its time stamp: {error}"))
            })?);
        }
        Ok(times.into_iter().min())
    }

    /// The root that the path leads to, as SHA-256 of its name and key.
    fn check_path(
        &self,
        leaf: &[u8],
        rest: &[Vec<u8>],
        time: Timestamp,
    ) -> Result<Digest, webpki::Error> {
        let leaf = CertificateDer::from(leaf);
        let rest: Vec<CertificateDer<'_>> = rest
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let seconds = u64::try_from(time.as_second()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let crls: Vec<CertRevocationList<'_>> = self
            .crls
            .iter()
            .cloned()
            .map(CertRevocationList::from)
            .collect();
        let crls: Vec<&CertRevocationList<'_>> = crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|builder| {
            builder
                .with_depth(RevocationCheckDepth::Chain)
                // A list says who is revoked; that there is none for an issuer says nothing.
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let entity = EndEntityCert::try_from(&leaf)?;
        let usage = Usage {
            code_signing: self.usage.is_none(),
        };
        let path = entity.verify_for_usage(
            ALGORITHMS,
            &self.anchors,
            &rest,
            time,
            usage,
            revocation,
            None,
        )?;
        let length = path.intermediate_certificates().count();
        if self.max_path_length.is_some_and(|most| length > most) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        let anchor = path.anchor();
        let root = [
            anchor.subject.as_ref(),
            anchor.subject_public_key_info.as_ref(),
        ];
        Ok(Digest::of(&root.concat()))
    }

    /// What `webpki` leaves to its caller: the signer's own key usages.
    fn check_usage(&self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        if let Ok(Some(usage)) = certificate.key_usage()
            && !usage.value.digital_signature()
        {
            return Err("its certificate's key is not for signatures".to_owned());
        }
        let Some(want) = &self.usage else {
            return Ok(());
        };
        let extended = certificate.extended_key_usage().ok().flatten();
        let has = extended.is_some_and(|usage| {
            let usage = usage.value;
            (usage.code_signing && want == CODE_SIGNING)
                || (usage.email_protection && want == EMAIL_PROTECTION)
                || (usage.client_auth && want == CLIENT_AUTH)
                || usage.other.iter().any(|oid| oid.to_id_string() == *want)
        });
        match has {
            true => Ok(()),
            false => Err(format!(
                "its certificate lacks the extended key usage {want}"
            )),
        }
    }
}

/// Certificates of a chain may be limited to some uses; code signing has to be among them.
struct Usage {
    code_signing: bool,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, uses: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        if self.code_signing {
            return KeyUsage::required_if_present(CODE_SIGNING_DER).validate(uses);
        }
        Ok(())
    }
}

/// The names that a certificate's holder has: distinguished, common, and alternative ones.
fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names = vec![certificate.subject().to_string()];
    let common = certificate.subject().iter_common_name();
    names.extend(common.filter_map(|name| name.as_str().ok().map(str::to_owned)));
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
            for name in &alternative.general_names {
                match name {
                    GeneralName::RFC822Name(name)
                    | GeneralName::DNSName(name)
                    | GeneralName::URI(name) => names.push((*name).to_owned()),
                    _ => {}
                }
            }
        }
    }
    names
}

/// The certificates in a PEM text, as DER.
///
/// # Errors
/// A clause that says what is wrong.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    blocks(pem, "CERTIFICATE")
}

fn blocks(pem: &[u8], label: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| "its PEM cannot be parsed".to_owned())?;
        if block.label != label {
            return Err(format!("want PEM blocks {label}; got {:?}", block.label));
        }
        found.push(block.contents);
        if found.len() > MOST_BLOCKS {
            return Err(format!("it holds over {MOST_BLOCKS} PEM blocks"));
        }
    }
    if found.is_empty() {
        return Err(format!("it holds no PEM block {label}"));
    }
    Ok(found)
}

fn stamp_authority(chain: &[Vec<u8>]) -> Result<TsaAuthority, String> {
    let der = |bytes: &Vec<u8>| DerCertificate::new(bytes.clone());
    match chain {
        [leaf, between @ .., root] => Ok(TsaAuthority::new(
            der(leaf),
            between.iter().map(der).collect(),
            der(root),
            None,
        )),
        _ => Err(
            "the chain of the time-stamp authority has its certificate first and its root last"
                .to_owned(),
        ),
    }
}

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P256_SHA256,
    ECDSA_P256_SHA384,
    ECDSA_P384_SHA256,
    ECDSA_P384_SHA384,
    ED25519,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
const CODE_SIGNING_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const EMAIL_PROTECTION: &str = "1.3.6.1.5.5.7.3.4";
const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
/// Chains have two or three; more only cost time.
const MOST_INTERMEDIATES: usize = 8;
/// One is enough, several authorities are possible.
const MOST_STAMPS: usize = 8;
/// More roots or lists nobody names in one entry.
const MOST_BLOCKS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/x509");
        std::fs::read(format!("{folder}/{name}")).unwrap()
    }

    fn authority(stamps: bool) -> Authority {
        let (roots, tsa) = (file("root.pem"), file("tsa.pem"));
        Authority::new(Parts {
            roots: &roots,
            names: vec![Pattern::parse("release@acme.example").unwrap()],
            stamps: stamps.then_some(&tsa),
            ..Parts::default()
        })
        .unwrap()
    }

    #[test]
    fn a_time_stamp_outlives_the_certificate() {
        let chain = certificates(&file("leaf.pem")).unwrap();
        let stamp = vec![file("stamp.tsr")];
        // All certificates are over since 2120.
        let late: Timestamp = "2125-01-01T00:00:00Z".parse().unwrap();
        let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let judge = |trusted: bool, signature: &[u8], stamps: &[Vec<u8>], now| {
            let holder = authority(trusted).holder(&chain, signature, stamps, now);
            holder
                .map(|holder| holder.time.is_some())
                .map_err(|refusal| refusal.reason)
        };
        for (trusted, signature, stamps, at, want) in [
            (
                true,
                b"signature".as_slice(),
                stamp.as_slice(),
                late,
                Ok(true),
            ),
            (true, b"signature", &[], late, Err(Reason::BadCertificate)),
            (
                false,
                b"signature",
                &stamp,
                late,
                Err(Reason::BadCertificate),
            ),
            (true, b"another", &stamp, late, Err(Reason::NoTrustedTime)),
            (true, b"another", &stamp, now, Err(Reason::NoTrustedTime)),
            (
                true,
                b"signature",
                &[vec![0x30, 0]],
                now,
                Err(Reason::NoTrustedTime),
            ),
            (false, b"signature", &stamp, now, Ok(false)),
            (true, b"signature", &[], now, Ok(false)),
        ] {
            let got = judge(trusted, signature, stamps, at);
            assert_eq!(got, want, "{trusted} {signature:?} {} {at}", stamps.len());
        }
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        for (roots, want) in [
            ("", "it holds no PEM block CERTIFICATE"),
            (
                "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n",
                "want PEM blocks CERTIFICATE; got \"PUBLIC KEY\"",
            ),
        ] {
            let made = Authority::new(Parts {
                roots: roots.as_bytes(),
                ..Parts::default()
            });
            assert_eq!(made.map(drop), Err(want.to_owned()));
        }
    }
}
