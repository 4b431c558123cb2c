//! Permits: the authority's word for one action, on one host, for a while, once.
//!
//! A permit is one line that can be pasted or read out over a phone:
//! `bpfseal-permit-v1.PAYLOAD.SIGNATURE`, both in base32. The payload is five lines of text
//! (action, host, first and last second in Unix time, 16 hex digits of nonce) and then the
//! reason in the words of whoever gave it. The signature is over the DSSE encoding of the
//! payload with its own type, so that no other signature of the same key fits.

use std::{fmt, str::FromStr};

use bundle::Digest;
use jiff::Timestamp;
use serde::Serialize;

use crate::{Reason, Refusal, base32, dsse::pre_authentication, key::PublicKey};

/// Payload type in the signed bytes.
pub const PAYLOAD_TYPE: &str = "application/vnd.bpfseal.permit.v1";

const PREFIX: &str = "bpfseal-permit-v1";

/// Longest permit line: the reason is a sentence, not a file.
const MAX_LINE: usize = 4096;

/// What a permit can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Take the gate away.
    Disarm,
    /// Report only, after the gate has enforced.
    Audit,
    /// Bring a policy with a lower version into force.
    Downgrade,
    /// Let one generator of the policy work until the permit ends.
    Generator,
}

impl Action {
    /// Every action.
    pub const ALL: &[Self] = &[Self::Disarm, Self::Audit, Self::Downgrade, Self::Generator];

    /// The word in a permit and on command lines.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Disarm => "disarm",
            Self::Audit => "audit",
            Self::Downgrade => "downgrade",
            Self::Generator => "generator",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.word() == word)
            .ok_or_else(|| {
                format!("unknown action {word:?}: want disarm, audit, downgrade or generator")
            })
    }
}

/// What a permit says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// What is allowed.
    pub action: Action,
    /// The generator's name, for that action and for no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// The one host, as `bpfseal-enforcer status` prints its id.
    pub host: String,
    /// Not good before.
    pub not_before: Timestamp,
    /// Not good after.
    pub not_after: Timestamp,
    /// Makes each permit good once; from a good source of randomness.
    #[serde(serialize_with = "as_hex")]
    pub nonce: [u8; 8],
    /// Why it was given, for the audit log.
    pub reason: String,
}

impl Terms {
    /// Signs the terms: one line of text.
    ///
    /// # Errors
    /// `Err(Ok(clause))` where the terms cannot be written, else the error of `sign`, which
    /// gets the bytes to sign with the authority's private key.
    pub fn seal<E>(
        &self,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, Result<String, E>> {
        self.check().map_err(Ok)?;
        let payload = self.to_payload();
        let message = pre_authentication(PAYLOAD_TYPE, payload.as_bytes());
        let signature = sign(&message).map_err(Err)?;
        let (payload, signature) = (
            base32::encode(payload.as_bytes()),
            base32::encode(&signature),
        );
        Ok(format!("{PREFIX}.{payload}.{signature}"))
    }

    fn check(&self) -> Result<(), String> {
        let is_odd = |c: char| c.is_control() || c.is_whitespace();
        if self.host.is_empty() || self.host.len() > 128 || self.host.contains(is_odd) {
            return Err(format!(
                "a host id has 1 to 128 characters without spaces; got {:?}",
                self.host
            ));
        }
        let name = self.generator.as_deref();
        if name.is_some() != (self.action == Action::Generator)
            || name.is_some_and(|name| {
                name.is_empty() || name.len() > 400 || name.contains(char::is_control)
            })
        {
            return Err(format!(
                "the action {} names one generator, and no other action names any",
                Action::Generator
            ));
        }
        if self.reason.len() > 500 || self.reason.contains(char::is_control) {
            return Err("a reason is one line of at most 500 bytes".to_owned());
        }
        if self.not_before >= self.not_after {
            return Err(format!(
                "it would end ({}) before it begins ({})",
                self.not_after, self.not_before
            ));
        }
        Ok(())
    }

    fn to_payload(&self) -> String {
        let name = self.generator.as_deref();
        format!(
            "{}{}\n{}\n{}\n{}\n{}\n{}",
            self.action,
            name.map_or_else(String::new, |name| format!(":{name}")),
            self.host,
            self.not_before.as_second(),
            self.not_after.as_second(),
            hex::encode(self.nonce),
            self.reason
        )
    }

    fn from_payload(payload: &str) -> Option<Self> {
        let mut lines = payload.splitn(6, '\n');
        let mut next = || lines.next();
        let first = next()?;
        let (action, generator) = match first.split_once(':') {
            Some((action, name)) => (action, Some(name.to_owned())),
            None => (first, None),
        };
        let terms = Self {
            action: action.parse().ok()?,
            generator,
            host: next()?.to_owned(),
            not_before: Timestamp::from_second(next()?.parse().ok()?).ok()?,
            not_after: Timestamp::from_second(next()?.parse().ok()?).ok()?,
            nonce: hex::FromHex::from_hex(next()?).ok()?,
            reason: next()?.to_owned(),
        };
        // Only what we would have written ourselves is read.
        (terms.check().is_ok() && terms.to_payload() == payload).then_some(terms)
    }
}

fn as_hex<S: serde::Serializer>(nonce: &[u8; 8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(nonce))
}

/// A permit that the authority signed. Whether it fits is still to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPermit {
    terms: Terms,
    digest: Digest,
}

impl SignedPermit {
    /// Reads a permit's line and verifies that `authority` signed it. Spaces, line breaks and
    /// the case of letters do not matter, because people retype it.
    ///
    /// # Errors
    /// [`Reason::BadAuthority`], with what is wrong.
    pub fn verify(line: &str, authority: &PublicKey) -> Result<Self, Refusal> {
        let refuse = |detail: &str| Refusal::new(Reason::BadAuthority, detail);
        let line: String = line
            .chars()
            .filter(|c| !c.is_whitespace())
            .take(MAX_LINE)
            .collect::<String>()
            .to_lowercase();
        let parts: Vec<&str> = line.split('.').collect();
        let [PREFIX, payload, signature] = parts.as_slice() else {
            return Err(refuse(
                "it is not a permit: want one line `bpfseal-permit-v1.….…`",
            ));
        };
        let (Some(payload), Some(signature)) = (base32::decode(payload), base32::decode(signature))
        else {
            return Err(refuse(
                "the permit has a letter too many, too few or wrong: it is written in a to z and \
                 2 to 7",
            ));
        };
        let message = pre_authentication(PAYLOAD_TYPE, &payload);
        if authority.verify(&message, &signature).is_err() {
            return Err(Refusal::new(
                Reason::BadAuthority,
                format!(
                    "the permit is not signed by the authority {}, or was mistyped",
                    authority.id()
                ),
            ));
        }
        let terms = std::str::from_utf8(&payload)
            .ok()
            .and_then(Terms::from_payload)
            .ok_or_else(|| refuse("the permit is signed, but for a version of its own kind"))?;
        Ok(Self {
            terms,
            digest: Digest::of(&message),
        })
    }

    /// What it says.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Names this permit, nonce included: remember it, so that it is good once.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Does it allow `action` on `host` at `now`, and was it not `used`?
    ///
    /// # Errors
    /// [`Reason::PermitScope`], with what the permit says and what was asked.
    pub fn allow(
        self,
        action: Action,
        host: &str,
        now: Timestamp,
        used: &[Digest],
    ) -> Result<Permit, Refusal> {
        let terms = &self.terms;
        let misfit = if terms.action != action {
            format!("the permit is for {}, not {action}", terms.action)
        } else if terms.host != host {
            format!("the permit is for host {:?}, this is {host:?}", terms.host)
        } else if now < terms.not_before {
            format!(
                "the permit is good from {} on, it is {now}",
                terms.not_before
            )
        } else if now > terms.not_after {
            format!("the permit was good until {}, it is {now}", terms.not_after)
        } else if used.contains(&self.digest) {
            "the permit was used already".to_owned()
        } else {
            return Ok(Permit(self));
        };
        Err(Refusal::new(Reason::PermitScope, misfit))
    }
}

/// Proof that the authority allows one action, here and now, for the first time.
#[derive(Debug)]
pub struct Permit(SignedPermit);

impl Permit {
    /// What it says.
    pub const fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// To be remembered as used.
    pub const fn digest(&self) -> Digest {
        self.0.digest
    }
}

#[cfg(test)]
mod tests;
