//! cosign's encrypted private keys: PKCS#8 in a NaCl secret box under a passphrase
//! (`encrypted` of go-securesystemslib: scrypt, XSalsa20, Poly1305).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use poly1305::{Poly1305, universal_hash::KeyInit as _};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::signer::BadPrivateKey;

/// A box as the file has it.
pub(crate) struct SealedKey {
    salt: Vec<u8>,
    nonce: [u8; 24],
    tag: [u8; 16],
    ciphertext: Vec<u8>,
    params: scrypt::Params,
    derivation: String,
}

impl SealedKey {
    /// Reads the JSON in the PEM block.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, BadPrivateKey> {
        let file: File = serde_json::from_slice(json)
            .map_err(|_| malformed("its encryption cannot be parsed"))?;
        let (kdf, cipher) = (&file.kdf, &file.cipher);
        if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
            return Err(malformed(&format!(
                "it is encrypted by {} with {}; scrypt with nacl/secretbox is read",
                kdf.name, cipher.name
            )));
        }
        let (n, r, p) = (kdf.params.n, kdf.params.r, kdf.params.p);
        let memory = n.saturating_mul(u64::from(r)).saturating_mul(128);
        if !n.is_power_of_two() || memory.saturating_mul(u64::from(p)) > MAX_WORK {
            return Err(malformed(&format!(
                "its derivation, scrypt N={n} r={r} p={p}, is none or would take many seconds"
            )));
        }
        let params = scrypt::Params::new(n.ilog2() as u8, r, p)
            .map_err(|_| malformed("scrypt refuses its parameters"))?;
        let bytes = |text: &str| {
            BASE64
                .decode(text)
                .map_err(|_| malformed("it is not base64"))
        };
        let nonce = bytes(&cipher.nonce)?;
        let sealed = bytes(&file.ciphertext)?;
        let (tag, ciphertext) = sealed
            .split_first_chunk::<16>()
            .ok_or_else(|| malformed("its ciphertext is too short"))?;
        Ok(Self {
            salt: bytes(&kdf.salt)?,
            nonce: nonce
                .try_into()
                .map_err(|_| malformed("its nonce has not 24 bytes"))?,
            tag: *tag,
            ciphertext: ciphertext.to_vec(),
            params,
            derivation: format!("scrypt N={n} r={r} p={p}"),
        })
    }

    /// How the passphrase becomes a key, in words.
    pub(crate) fn derivation(&self) -> &str {
        &self.derivation
    }

    /// The PKCS#8 within.
    pub(crate) fn open(&self, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, BadPrivateKey> {
        let mut key = Zeroizing::new([0; 32]);
        scrypt::scrypt(
            passphrase.as_bytes(),
            &self.salt,
            &self.params,
            key.as_mut(),
        )
        .map_err(|_| malformed("scrypt refuses its parameters"))?;
        let mut stream = XSalsa20::new((&*key).into(), &self.nonce.into());
        // The stream's first 32 bytes are the authenticator's key, the message follows.
        let mut first = Zeroizing::new([0; 32]);
        stream.apply_keystream(first.as_mut());
        let tag = Poly1305::new((&*first).into()).compute_unpadded(&self.ciphertext);
        if tag.as_slice() != self.tag {
            return Err(BadPrivateKey::WrongPassphrase);
        }
        let mut plain = Zeroizing::new(self.ciphertext.clone());
        stream.apply_keystream(&mut plain);
        Ok(plain)
    }
}

fn malformed(what: &str) -> BadPrivateKey {
    BadPrivateKey::Malformed(what.to_owned())
}

#[derive(Deserialize)]
struct File {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: KdfParams,
    salt: String,
}

#[derive(Deserialize)]
struct KdfParams {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Scrypt's memory times p: about five seconds.
const MAX_WORK: u64 = 2 << 30;
