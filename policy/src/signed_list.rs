//! Signed lists that replace one another: TOML, complete in itself, with a version that rises.
//!
//! One travels as a file, a DSSE envelope whose payload is the text.

use bundle::Digest;
use serde::de::DeserializeOwned;

use crate::{Reason, Refusal, dsse::Envelope, key::PublicKey};

/// What a list of one kind is.
pub trait List: Sized {
    /// `payloadType` of the envelope.
    const PAYLOAD_TYPE: &'static str;
    /// Why one below the version in force is refused.
    const OLDER: Reason;

    /// Reads the text.
    ///
    /// # Errors
    /// [`Reason::BadPolicy`], with what is wrong.
    fn parse(text: &str) -> Result<Self, Refusal>;

    /// Rises with each list, from 1 on.
    fn version(&self) -> u64;
}

/// A list whose signature was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed<L> {
    list: L,
    digest: Digest,
    signer: String,
}

impl<L: List> Signed<L> {
    /// Signs a list's text: the contents of the file that hosts take.
    ///
    /// # Errors
    /// `Err(Ok(refusal))` where the text is no list, else the error of `sign`, which gets the
    /// bytes to sign with `key`'s private half.
    pub fn seal<E>(
        text: &str,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, Result<Refusal, E>> {
        L::parse(text).map_err(Ok)?;
        Envelope::seal(L::PAYLOAD_TYPE, text.as_bytes(), key, sign)
            .map(|envelope| envelope.to_json())
            .map_err(Err)
    }

    /// Reads the list in a payload whose signature `signer` made.
    pub(crate) fn read(payload: &[u8], signer: String) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(payload)
            .map_err(|_| bad("the signed list is not text".to_owned()))?;
        Ok(Self {
            list: L::parse(text)?,
            digest: Digest::of(payload),
            signer,
        })
    }

    /// What it says.
    pub const fn list(&self) -> &L {
        &self.list
    }

    /// SHA-256 of its text.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Who signed it: the policy's name of the key, or the key's id.
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// Refuses a list below the one in force.
    ///
    /// # Errors
    /// [`List::OLDER`].
    pub fn check_not_older(&self, in_force: u64) -> Result<(), Refusal> {
        let version = self.list.version();
        if version >= in_force {
            return Ok(());
        }
        let detail = format!("version {in_force} is in force, got {version}");
        Err(Refusal::new(L::OLDER, detail))
    }
}

/// Reads TOML of at most `most` bytes.
pub(crate) fn read_toml<T: DeserializeOwned>(text: &str, most: usize) -> Result<T, Refusal> {
    if text.len() > most {
        let got = text.len();
        return Err(bad(format!(
            "the list has {got} bytes; at most {most} are read"
        )));
    }
    toml::from_str(text).map_err(|error| bad(error.to_string()))
}

/// Versions start at 1: 0 stands for no list.
pub(crate) fn check_version(version: u64) -> Result<(), Refusal> {
    match version {
        0 => Err(bad("`version` starts at 1".to_owned())),
        _ => Ok(()),
    }
}

pub(crate) fn bad(detail: String) -> Refusal {
    Refusal::new(Reason::BadPolicy, detail)
}
