//! Fulcio: an identity token and a key of a moment for a certificate of ten minutes
//! (`fulcio.proto`, `CreateSigningCertificate`).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use policy::{
    key::Algorithm,
    signer::{self, Signer},
    sigstore::{self, Identity},
    x509,
};
use reqwest::Method;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::{http::Http, token::Token};
use crate::Failure;

/// A key of this process alone, with its certificate.
pub struct Certified {
    signer: Signer,
    /// The certificate (DER).
    pub certificate: Vec<u8>,
    /// Whom it names.
    pub identity: Option<Identity>,
}

/// Makes a key and has it certified.
pub fn certify(http: &Http, base: &str, token: &Token) -> Result<Certified, Failure> {
    let random = SystemRandom::new();
    let internal = |error: signer::BadPrivateKey| Failure::internal(error.to_string());
    let files = signer::generate(Algorithm::EcdsaP256, None, &random).map_err(internal)?;
    let mut none = || Err(signer::BadPrivateKey::NoPassphrase(String::new()));
    let (signer, _) =
        Signer::from_pem(files.private.as_bytes(), &mut none, &random).map_err(internal)?;
    let proof = signer
        .sign(token.subject.as_bytes(), &random)
        .map_err(internal)?;
    let request = json!({
        "credentials": { "oidcIdentityToken": token.text.as_str() },
        "publicKeyRequest": {
            "publicKey": { "algorithm": "ECDSA", "content": files.public.to_pem() },
            "proofOfPossession": BASE64.encode(proof),
        },
    });
    let url = format!("{}/api/v2/signingCert", base.trim_end_matches('/'));
    let (reply, answer) = http.json(SERVICE, Method::POST, &url, Some(&request), None)?;
    if !(200..300).contains(&answer.status) {
        return Err(answer.failure(SERVICE, &url));
    }
    let certificate = leaf(&reply).ok_or_else(|| {
        Failure::network(format!("{SERVICE} {url} answered without a certificate"))
    })?;
    let signer = signer
        .with_certificates(vec![certificate.clone()])
        .map_err(|error| Failure::network(format!("{SERVICE} {url}: {error}")))?;
    Ok(Certified {
        signer,
        identity: sigstore::identity_of(&certificate),
        certificate,
    })
}

impl Certified {
    /// Signs with the key of the moment.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.signer
            .sign(message, &SystemRandom::new())
            .map_err(|error| Failure::internal(error.to_string()))
    }
}

/// The first certificate of the chain, whichever way its log's promise comes.
fn leaf(reply: &Value) -> Option<Vec<u8>> {
    let forms = [
        "signedCertificateEmbeddedSct",
        "signedCertificateDetachedSct",
    ];
    let chain = forms
        .iter()
        .find_map(|form| reply[form]["chain"]["certificates"].as_array())?;
    let pem = chain.first()?.as_str()?;
    x509::certificates(pem.as_bytes()).ok()?.into_iter().next()
}

const SERVICE: &str = "the certificate authority";
