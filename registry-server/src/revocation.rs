//! The authority's revocation list: what was good is not good any more.
//!
//! The same signed file that hosts take (`bpfseal revoke`). It counts wherever a policy does.

use std::{fs, path::Path};

use bundle::{Digest, UnverifiedBundle};
use policy::{
    Reason, Refusal,
    decision::SignedBy,
    key::PublicKey,
    revocation::{MAX_BYTES, SignedRevocations, Signer, Subject},
};

use crate::config::{self, ConfigError};

/// The list in force.
pub struct Revoked(SignedRevocations);

/// What the list is asked about.
pub struct Artifact {
    digest: Digest,
    objects: Vec<Digest>,
    name: Option<String>,
    version: Option<String>,
}

/// A signed list is its text in base64 with a signature around it.
const LARGEST_FILE: u64 = 2 * MAX_BYTES as u64;

/// An authority's key in PEM has 1.6 KB at most.
const LARGEST_KEY: u64 = 16 << 10;

impl Revoked {
    /// Reads the list and the key that must have signed it.
    pub fn read(config: &config::Revocation) -> Result<Self, ConfigError> {
        let unusable = |path: &Path, why: &dyn std::fmt::Display| {
            ConfigError::Unusable(format!("{}: {why}", path.display()))
        };
        let key = read(&config.authority, LARGEST_KEY)?;
        let key = PublicKey::from_pem(key.as_bytes())
            .map_err(|error| unusable(&config.authority, &error))?;
        let file = read(&config.list, LARGEST_FILE)?;
        let signed = SignedRevocations::verify(&file, &key);
        let signed = signed.map_err(|refusal| unusable(&config.list, &said(&refusal)))?;
        if let Some(next) = signed.list().next
            && next < jiff::Timestamp::now()
        {
            tracing::warn!(list = %config.list.display(), due = %next, "a newer revocation list is due");
        }
        if signed.list().names_programs() {
            tracing::info!(
                list = %config.list.display(),
                "entries of the kind `program` are obeyed by hosts alone: a registry measures nothing"
            );
        }
        Ok(Self(signed))
    }

    /// Refuses a list that is older than the one in force.
    pub fn check_not_older(&self, in_force: &Self) -> Result<(), ConfigError> {
        let checked = self.0.check_not_older(in_force.version());
        checked.map_err(|refusal| ConfigError::Unusable(said(&refusal)))
    }

    /// Rises with each list.
    pub fn version(&self) -> u64 {
        self.0.list().version
    }

    /// SHA-256 of its text.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// Why an artifact is refused whoever signed it.
    pub fn find(&self, artifact: &Artifact) -> Option<Refusal> {
        self.ask(artifact, &[], 0)
    }

    /// Why too few of those who signed it are left, of whom the rule wants `at_least`.
    pub fn find_signer(
        &self,
        artifact: &Artifact,
        signed: &[SignedBy],
        at_least: usize,
    ) -> Option<Refusal> {
        let signers: Vec<Signer> = signed.iter().map(Signer::from).collect();
        self.ask(artifact, &signers, at_least)
    }

    fn ask(&self, artifact: &Artifact, signers: &[Signer], at_least: usize) -> Option<Refusal> {
        let subject = Subject {
            bundle: artifact.digest,
            objects: &artifact.objects,
            name: artifact.name.as_deref(),
            version: artifact.version.as_deref(),
            signers,
            at_least,
        };
        let entry = self.0.list().find(&subject)?;
        Some(Refusal::new(Reason::Revoked, entry.to_string()))
    }
}

impl Artifact {
    /// Something that is no bundle: only its digest can be named.
    pub fn of(digest: Digest) -> Self {
        Self {
            digest,
            objects: Vec::new(),
            name: None,
            version: None,
        }
    }

    /// A bundle, whose inventory was found to be true.
    pub fn of_bundle(bundle: &UnverifiedBundle) -> Self {
        let inventory = bundle.recorded_inventory();
        let objects = inventory.objects.iter();
        Self {
            digest: bundle.digest(),
            objects: objects.map(|object| object.digest).collect(),
            name: inventory.name.clone(),
            version: inventory.version.clone(),
        }
    }
}

fn said(refusal: &Refusal) -> String {
    let reason = refusal.reason;
    format!("E{} {}: {refusal}", reason.number(), reason.code())
}

fn read(path: &Path, most: u64) -> Result<String, ConfigError> {
    let size = fs::metadata(path).map(|metadata| metadata.len());
    let text = size.and_then(|size| match size <= most {
        true => fs::read_to_string(path),
        false => Err(std::io::Error::other(format!(
            "it has {size} bytes; at most {most} are read"
        ))),
    });
    text.map_err(|error| ConfigError::Read {
        path: path.display().to_string(),
        error,
    })
}
