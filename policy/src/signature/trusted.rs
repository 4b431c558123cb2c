//! Whom a policy trusts, as a signature is compared with it.

use bundle::Digest;
use jiff::Timestamp;
use sigstore_types::bundle::{Bundle, VerificationMaterialContent};

use super::{Budget, Form, Rejected, Valid, rejected};
use crate::{
    Policy, Reason,
    key::PublicKey,
    language::{TrustedAuthority, TrustedIdentity},
    sigstore::{self, Identity, Subject},
    x509::Holder,
};

/// Keys, identities and authorities that are trusted, and the time to judge them at.
#[derive(Debug)]
pub struct Trusted<'p> {
    pub(super) keys: Vec<(&'p str, &'p PublicKey)>,
    identities: Vec<&'p TrustedIdentity>,
    authorities: Vec<&'p TrustedAuthority>,
    pub(crate) now: Timestamp,
}

/// The holder of an organisation's certificate, and the entries that trust it.
pub(super) struct Trustee {
    pub(super) holder: Holder,
    names: Vec<String>,
}

impl<'p> Trusted<'p> {
    /// Whom `policy` trusts, at the moment `now`.
    pub fn at(policy: &'p Policy, now: Timestamp) -> Self {
        Self {
            keys: policy
                .keys()
                .values()
                .map(|trusted| (trusted.name.as_str(), &trusted.key))
                .collect(),
            identities: policy.keyless().values().collect(),
            authorities: policy.x509().values().collect(),
            now,
        }
    }

    /// These keys alone, by name, at the moment `now`.
    pub fn keys(keys: impl IntoIterator<Item = (&'p str, &'p PublicKey)>, now: Timestamp) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            identities: Vec::new(),
            authorities: Vec::new(),
            now,
        }
    }

    pub(super) fn names_of(&self, key: &PublicKey) -> Vec<String> {
        let names = self.keys.iter().filter(|(_, other)| *other == key);
        names.map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Is it a certificate of an organisation's own authority, as far as one can tell
    /// before anything is checked? Fulcio's leave a trace in a log, and the others do not.
    pub(super) fn is_own_certificate(&self, bundle: &Bundle) -> bool {
        let logged = !bundle.verification_material.tlog_entries.is_empty();
        !self.authorities.is_empty() && (!logged || self.identities.is_empty())
    }

    /// The identity behind a keyless signature.
    pub(super) fn identity(
        &self,
        bundle: &Bundle,
        subject: Subject<'_>,
        form: Form,
        budget: &mut Budget,
    ) -> Result<Valid, Rejected> {
        let mut worst = rejected(
            Reason::UntrustedSigner,
            "it is keyless (it carries a certificate), and the policy has no [keyless.NAME]",
        );
        let mut roots: Vec<Digest> = Vec::new();
        for trusted in &self.identities {
            let root = trusted.root.get()?;
            if roots.contains(&root.digest()) {
                continue;
            }
            roots.push(root.digest());
            budget.spend(KEYLESS_COST)?;
            let proof = match sigstore::prove_identity(bundle, subject, &root) {
                Ok(proof) => proof,
                Err(refusal) => {
                    worst = refusal.into();
                    continue;
                }
            };
            let (Some(identity), Some(algorithm)) = (&proof.identity, proof.algorithm) else {
                continue;
            };
            let mut names = Vec::new();
            for other in &self.identities {
                if other.root.get()?.digest() == root.digest() && other.trusts(identity) {
                    names.push(other.name.clone());
                }
            }
            if names.is_empty() {
                worst = rejected(
                    Reason::UntrustedSigner,
                    format!("it is by {identity}, whom the policy does not name"),
                );
                continue;
            }
            let id = format!(
                "keyless\0{}\0{}\0{}",
                root.digest(),
                identity.issuer,
                identity.identity
            );
            return Ok(Valid {
                key: Digest::of(id.as_bytes()),
                identity: Some(identity.clone()),
                trusted_as: names,
                form,
                algorithm,
                times: proof.times,
                logged: proof.logged,
                trusted_root: proof.trusted_root,
                predicate_type: None,
                statement: None,
            });
        }
        Err(worst)
    }

    /// The holder of the certificate in `bundle`.
    pub(super) fn holder_of(
        &self,
        bundle: &Bundle,
        signature: &[u8],
        budget: &mut Budget,
    ) -> Result<Trustee, Rejected> {
        let material = &bundle.verification_material;
        let chain = match &material.content {
            VerificationMaterialContent::Certificate(certificate) => {
                vec![certificate.raw_bytes.as_bytes().to_vec()]
            }
            VerificationMaterialContent::X509CertificateChain { certificates } => certificates
                .iter()
                .map(|certificate| certificate.raw_bytes.as_bytes().to_vec())
                .collect(),
            _ => Vec::new(),
        };
        let stamps = &material.timestamp_verification_data.rfc3161_timestamps;
        let stamps: Vec<Vec<u8>> = stamps
            .iter()
            .map(|stamp| stamp.signed_timestamp.as_bytes().to_vec())
            .collect();
        self.holder(&chain, signature, &stamps, budget)
    }

    /// The holder of the first certificate of a chain.
    pub(super) fn holder(
        &self,
        chain: &[Vec<u8>],
        signature: &[u8],
        stamps: &[Vec<u8>],
        budget: &mut Budget,
    ) -> Result<Trustee, Rejected> {
        let mut worst = rejected(
            Reason::UntrustedSigner,
            "it carries an organisation's certificate, and the policy has no [x509.NAME]",
        );
        let mut trustee: Option<Trustee> = None;
        for trusted in &self.authorities {
            budget.spend(CHAIN_COST)?;
            let holder = trusted.authority.holder(chain, signature, stamps, self.now);
            match (holder, &mut trustee) {
                (Err(refusal), _) => worst = refusal.into(),
                (Ok(holder), None) => {
                    trustee = Some(Trustee {
                        holder,
                        names: vec![trusted.name.clone()],
                    });
                }
                (Ok(holder), Some(first)) if first.holder.id == holder.id => {
                    first.names.push(trusted.name.clone());
                }
                (Ok(_), Some(_)) => {}
            }
        }
        trustee.ok_or(worst)
    }
}

impl Trustee {
    pub(super) fn valid(self, form: Form, predicate_type: Option<String>) -> Valid {
        Valid {
            key: self.holder.id,
            identity: Some(Identity {
                identity: self.holder.subject,
                issuer: self.holder.issuer,
            }),
            trusted_as: self.names,
            form,
            algorithm: self.holder.key.algorithm(),
            times: self.holder.time.into_iter().collect(),
            logged: false,
            trusted_root: None,
            predicate_type,
            statement: None,
        }
    }
}

/// A keyless signature takes as long as so many checks of a key.
const KEYLESS_COST: u32 = 20;
/// A chain of certificates takes as long as so many.
const CHAIN_COST: u32 = 8;
