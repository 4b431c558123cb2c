//! What is believed: trusted roots and public keys that are named on a command line.

use std::{path::Path, sync::Arc};

use policy::{
    Refusal,
    key::{BadKey, PublicKey},
    sigstore::{Proof, TrustRoot},
};

use crate::{Failure, failure::Exit, files};

/// The trusted root in `path`, or the one that this program carries.
pub fn root(path: Option<&Path>) -> Result<Arc<TrustRoot>, Failure> {
    let failed = |refusal: Refusal, place: &str| {
        Failure::refused(refusal.reason, format!("{place}: {refusal}"))
    };
    match path {
        None => TrustRoot::embedded().map_err(|refusal| failed(refusal, "the embedded root")),
        Some(path) => {
            let json = files::read_bundle(path)?;
            TrustRoot::from_json(&json)
                .map(Arc::new)
                .map_err(|refusal| failed(refusal, &path.display().to_string()))
        }
    }
}

/// A public key file. A weak key is refused as a check would refuse it; any other fault is
/// a wrong argument.
pub fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let pem = files::read_small(path, "cannot read the key")?;
    PublicKey::from_pem(&pem).map_err(|error| unusable(path, &error))
}

/// What a person is told about a public key that cannot be used.
pub fn unusable(path: &Path, error: &BadKey) -> Failure {
    let failure = Failure::refused(error.reason(), format!("{}: {error}", path.display()));
    match error {
        BadKey::Weak(_) => failure,
        BadKey::Malformed(_) | BadKey::Unsupported(_) => Failure {
            exit: Exit::Usage,
            ..failure
        },
    }
}

/// What a proof says, in lines for people.
pub fn describe(proof: &Proof) -> String {
    let mut text = String::new();
    if let Some(identity) = &proof.identity {
        text += &format!("  signed by {}\n", identity.identity);
        text += &format!("  issuer    {}\n", identity.issuer);
    }
    for time in &proof.times {
        text += &format!("  time      {time}\n");
    }
    if proof.logged {
        text += "  log       inclusion proved\n";
    }
    if let Some(root) = &proof.trusted_root {
        text += &format!("  root      {root}\n");
    }
    text
}
