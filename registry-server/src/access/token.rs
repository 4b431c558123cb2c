//! Bearer tokens of our own: JSON Web Tokens with HMAC-SHA-256 (RFC 7519).
//!
//! A token says who and what was asked for, not what is allowed: rights are looked up when
//! it is used, so that taking a right away needs no waiting for tokens to end.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};

use super::{Granted, ISSUED_FOR};
use crate::metadata;

/// Makes and checks tokens.
pub struct Issuer {
    key: hmac::Key,
    /// How long a token is good for.
    pub seconds: u64,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Claims {
    /// Which registry made it.
    pub aud: String,
    /// The principal's kind: `user`, `publisher`, `anonymous`.
    pub kind: String,
    /// The principal's name.
    pub sub: String,
    /// A publisher's subject at its own issuer; a user's password's fingerprint.
    pub proof: String,
    /// Not after, in seconds since 1970.
    pub exp: u64,
    /// Made, in seconds since 1970.
    pub iat: u64,
    /// What it is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Vec<Granted>>,
}

/// `{"alg":"HS256","typ":"JWT"}`: no other header is ever accepted.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Shortest secret that is taken.
const LEAST_SECRET: usize = 32;

impl Issuer {
    /// Tokens signed with `secret`.
    pub fn new(secret: &[u8], seconds: u64) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            seconds,
        }
    }

    /// Reads the secret in `path`, or makes one there if `create`.
    pub fn open(path: &Path, create: bool, seconds: u64) -> io::Result<Self> {
        let secret = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => make(path)?,
            read => read?,
        };
        if secret.len() < LEAST_SECRET {
            let message = format!("a token key has at least {LEAST_SECRET} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self::new(&secret, seconds))
    }

    /// Signs `claims`.
    pub fn sign(&self, claims: &Claims) -> String {
        // The claims are strings and numbers: they always have a JSON form.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{HEADER}.{}", BASE64.encode(claims));
        let tag = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(tag))
    }

    /// The claims of a token that this issuer made and whose time is not over.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        let (signed, tag) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &tag).ok()?;
        let claims: Claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let in_time = claims.exp > metadata::now().unsigned_abs();
        (header == HEADER && in_time && claims.aud == ISSUED_FOR).then_some(claims)
    }
}

fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut secret = [0; LEAST_SECRET];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| io::Error::other("there is no randomness"))?;
    let text = hex::encode(secret).into_bytes();
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file?;
    file.write_all(&text)?;
    file.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            aud: ISSUED_FOR.into(),
            kind: "user".into(),
            sub: "alice".into(),
            proof: "00".into(),
            exp: metadata::now().unsigned_abs() + 60,
            iat: 0,
            access: None,
        }
    }

    #[test]
    fn only_ones_own_tokens_in_time() {
        let issuer = Issuer::new(&[7; 32], 60);
        let token = issuer.sign(&claims());
        assert_eq!(issuer.verify(&token), Some(claims()));
        assert_eq!(Issuer::new(&[8; 32], 60).verify(&token), None);
        for changed in [
            Claims { exp: 1, ..claims() },
            Claims {
                aud: "another".into(),
                ..claims()
            },
        ] {
            assert_eq!(issuer.verify(&issuer.sign(&changed)), None, "{changed:?}");
        }
        let (signed, tag) = token.rsplit_once('.').unwrap();
        let (_, body) = signed.split_once('.').unwrap();
        // "alg": "none", with and without the tag.
        let none = BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for forged in [
            format!("{none}.{body}."),
            format!("{none}.{body}.{tag}"),
            format!("{HEADER}.{body}."),
            format!("{HEADER}.{body}x.{tag}"),
            "..".into(),
            String::new(),
        ] {
            assert_eq!(issuer.verify(&forged), None, "{forged}");
        }
    }
}
