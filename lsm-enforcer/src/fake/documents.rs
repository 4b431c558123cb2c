//! What pretended parties sign: policies, permits and lists.

use std::{convert::Infallible, io};

use policy::{
    document::Statement,
    key::PublicKey,
    permit::{Action, Terms},
    probes::SignedProbes,
    revocation::SignedRevocations,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::{enforcer::ArmRequest, store::Document};

/// A key pair of a pretended party.
pub struct Party {
    pair: Ed25519KeyPair,
    /// Its public half.
    pub public: PublicKey,
}

impl Party {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        // RFC 8410, section 10.1: the SubjectPublicKeyInfo of an Ed25519 key.
        let mut spki = hex::decode("302a300506032b6570032100").unwrap();
        spki.extend(pair.public_key().as_ref());
        let public = PublicKey::from_spki(&spki).unwrap();
        Self { pair, public }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(self.pair.sign(bytes).as_ref().to_vec())
    }

    /// The public key as a file.
    pub fn pem(&self) -> String {
        self.public.to_pem()
    }
}

/// Who commands the gate.
pub fn authority() -> Party {
    Party::new(1)
}

/// Somebody else.
pub fn somebody() -> Party {
    Party::new(2)
}

/// The machine's id.
pub const HOST: &str = "0123456789abcdef";

/// A policy signed by the authority that admits packages by name.
pub fn policy(version: u64, mode: &str, admit: &str) -> Document {
    policy_by(authority(), version, mode, admit)
}

/// A policy signed by anybody.
pub fn policy_by(signer: Party, version: u64, mode: &str, admit: &str) -> Document {
    signed(signer, &policy_text(version, mode, admit))
}

/// The text of such a policy.
pub fn policy_text(version: u64, mode: &str, admit: &str) -> String {
    let pem = somebody().pem();
    format!(
        "version = {version}\nmode = {mode:?}\n[keys.release]\npem = {pem:?}\n[[rule]]\nname = \"all\"\n\
         scope = {admit:?}\nsigned_by = {{ of = [\"release\"] }}\n"
    )
}

/// Any text, signed as a policy.
pub fn signed(signer: Party, text: &str) -> Document {
    let nothing = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
    let statement = Statement::about(text, &nothing).unwrap();
    let signature = statement
        .seal(&signer.public, |bytes| signer.sign(bytes))
        .unwrap();
    Document {
        text: text.to_owned(),
        signature,
    }
}

/// Arming with that policy.
pub fn request(document: Document) -> ArmRequest {
    ArmRequest {
        document,
        authority: authority().pem(),
        audit_only: false,
        confirm_within: None,
        permit: None,
    }
}

/// A permit by the authority for this host and the first hour of the day.
pub fn permit(action: Action, nonce: u8) -> String {
    permit_by(authority(), HOST, action, nonce)
}

/// A permit by the authority, for a generator where there is one.
pub fn permit_for(generator: Option<&str>, action: Action, nonce: u8) -> String {
    sealed(authority(), generator, HOST, action, nonce)
}

/// A permit by anybody for any host.
pub fn permit_by(signer: Party, host: &str, action: Action, nonce: u8) -> String {
    sealed(signer, None, host, action, nonce)
}

fn sealed(signer: Party, generator: Option<&str>, host: &str, action: Action, nonce: u8) -> String {
    let terms = Terms {
        action,
        generator: generator.map(str::to_owned),
        host: host.to_owned(),
        not_before: "2026-11-22T00:00:00Z".parse().unwrap(),
        not_after: "2026-11-22T01:00:00Z".parse().unwrap(),
        nonce: [nonce; 8],
        reason: "a test".to_owned(),
    };
    terms.seal(|bytes| signer.sign(bytes)).unwrap()
}

/// A revocation list of the authority's with these rows.
pub fn revocations(version: u64, rows: &str) -> String {
    revocations_by(authority(), version, rows)
}

/// A revocation list by anybody.
pub fn revocations_by(signer: Party, version: u64, rows: &str) -> String {
    let text = format!("version = {version}\nissued = \"2026-11-22T00:00:00Z\"\n{rows}");
    SignedRevocations::seal(&text, &signer.public, |bytes| signer.sign(bytes)).unwrap()
}

/// A list of one probe program, by anybody.
pub fn probes_by(signer: Party, version: u64, name: &str) -> String {
    let text = format!(
        "version = {version}\nissued = \"2026-11-22T00:00:00Z\"\n[[probe]]\nname = {name:?}\n\
         reason = \"asks\"\nprogram_type = \"xdp\"\nwords = [\"0000000000000095\"]\n"
    );
    SignedProbes::seal(&text, &signer.public, |bytes| signer.sign(bytes)).unwrap()
}
