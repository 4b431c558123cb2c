//! The signed policy: what a host's authority says, and nobody else can change.
//!
//! Beside `policy.toml` lies `policy.toml.sig`: a DSSE envelope whose payload binds the
//! policy's exact bytes by their SHA-256, its version, and *the contents of every key file
//! that it names*. Without the last, whoever can write those files on the host would be
//! the policy's author.

use std::{collections::BTreeMap, io};

use bundle::Digest;
use serde::{Deserialize, Serialize};

use crate::{Policy, Reason, Refusal, dsse::Envelope, key::PublicKey};

/// `payloadType` of the envelope in `policy.toml.sig`.
pub const PAYLOAD_TYPE: &str = "application/vnd.bpfseal.policy.v1+json";

/// What the authority signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// SHA-256 of the policy file.
    policy: Digest,
    /// Its version, for people who read the signature alone.
    version: u64,
    /// Key files (PEM), trusted roots and certificates by the name that the policy gives them.
    keys: BTreeMap<String, String>,
}

impl Statement {
    /// What is to be signed about this policy file; `load_key` reads the key files.
    ///
    /// # Errors
    /// The policy's faults, or [`Reason::BadPolicy`] where it does not say its version:
    /// a version that does not rise protects nobody from an older policy.
    pub fn about(
        text: &str,
        load_key: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, Refusal> {
        let policy = parse(text, load_key)?;
        if !policy.has_explicit_version() {
            return Err(Refusal::new(
                Reason::BadPolicy,
                "a signed policy says its version: write `version = 1` first, and raise it \
                 with each change",
            ));
        }
        let keys = policy
            .keys()
            .values()
            .filter_map(|trusted| Some((trusted.file.clone()?, trusted.key.to_pem())))
            .chain(policy.files().clone())
            .collect();
        Ok(Self {
            policy: policy.digest(),
            version: policy.version(),
            keys,
        })
    }

    /// Signs it: the contents of `policy.toml.sig`.
    ///
    /// # Errors
    /// Those of `sign`, which gets the bytes to sign with `authority`'s private half.
    pub fn seal<E>(
        &self,
        authority: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        // Digests, numbers and strings always serialise.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        Ok(Envelope::seal(PAYLOAD_TYPE, &payload, authority, sign)?.to_json())
    }
}

/// A policy that its authority signed.
#[derive(Clone, Debug)]
pub struct VerifiedPolicy {
    policy: Policy,
    authority: Digest,
}

impl VerifiedPolicy {
    /// Verifies `text` (`policy.toml`) with `signature` (`policy.toml.sig`) by `authority`.
    ///
    /// Only then is the policy read, with the keys that were signed with it.
    ///
    /// # Errors
    /// [`Reason::BadAuthority`] where the signature is missing, by somebody else or about
    /// other bytes; [`Reason::BadPolicy`] and [`Reason::Unsupported`] where the policy,
    /// though signed, cannot be used.
    pub fn verify(text: &str, signature: &str, authority: &PublicKey) -> Result<Self, Refusal> {
        let refuse = |detail: String| Refusal::new(Reason::BadAuthority, detail);
        if signature.trim().is_empty() {
            return Err(refuse("the policy has no signature".to_owned()));
        }
        let envelope = Envelope::parse(signature.as_bytes()).map_err(refuse)?;
        let payload = envelope.open(PAYLOAD_TYPE, authority)?;
        let statement: Statement = serde_json::from_slice(&payload)
            .map_err(|error| refuse(format!("the signed statement is malformed: {error}")))?;
        let digest = Digest::of(text.as_bytes());
        if statement.policy != digest {
            return Err(refuse(format!(
                "the policy was changed after it was signed: signed {}, got {digest}",
                statement.policy
            )));
        }
        let policy = parse(text, &|name| match statement.keys.get(name) {
            Some(pem) => Ok(pem.clone().into_bytes()),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "it was not signed with the policy",
            )),
        })?;
        if statement.version != policy.version() {
            let (signed, got) = (statement.version, policy.version());
            return Err(refuse(format!(
                "signed as version {signed}, but it says {got}"
            )));
        }
        Ok(Self {
            policy,
            authority: authority.id(),
        })
    }

    /// The policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy, by itself.
    pub fn into_policy(self) -> Policy {
        self.policy
    }

    /// SHA-256 of the policy file.
    pub const fn digest(&self) -> Digest {
        self.policy.digest()
    }

    /// The policy's version.
    pub const fn version(&self) -> u64 {
        self.policy.version()
    }

    /// SHA-256 of the SPKI of the authority's key.
    pub const fn authority(&self) -> Digest {
        self.authority
    }

    /// Refuses a version below the one in force.
    ///
    /// # Errors
    /// [`Reason::OlderPolicy`].
    pub fn check_not_older(&self, in_force: u64) -> Result<(), Refusal> {
        if self.version() >= in_force {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::OlderPolicy,
            format!("version {in_force} is in force, got {}", self.version()),
        ))
    }
}

fn parse(text: &str, load_key: &dyn Fn(&str) -> io::Result<Vec<u8>>) -> Result<Policy, Refusal> {
    Policy::parse(text, load_key).map_err(|error| Refusal::new(error.reason(), error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests;
