//! The certificate authority: what Fulcio checks, and certificates with the promise of a log.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL},
};
use bundle::Digest;
use policy::{key::PublicKey, signer::Signer};
use serde_json::{Value, json};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

use super::{
    Inner,
    der::{extension, name, signed, tlv, to_be_signed},
    now, sign,
};

impl Inner {
    /// What Fulcio checks, and what it answers.
    pub(super) fn certify(&self, request: &Value, bearer: &str) -> Result<Value, String> {
        let token = request["credentials"]["oidcIdentityToken"]
            .as_str()
            .unwrap_or(bearer);
        let (message, signature) = token.rsplit_once('.').ok_or("no token")?;
        let signature = BASE64_URL.decode(signature).map_err(|_| "no signature")?;
        self.issuer
            .public_key()
            .verify(message.as_bytes(), &signature)
            .map_err(|_| "the token's signature does not fit")?;
        let claims = message.split('.').nth(1).ok_or("no claims")?;
        let claims = BASE64_URL.decode(claims).map_err(|_| "no base64")?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| "no JSON")?;
        if claims["aud"] != "sigstore" {
            return Err("the token is for another audience".to_owned());
        }
        if claims["exp"].as_u64().unwrap_or(0) < now() {
            return Err("the token is over".to_owned());
        }
        let subject = claims["email"]
            .as_str()
            .or(claims["sub"].as_str())
            .ok_or("nobody")?;
        let key = match request["certificateSigningRequest"].as_str() {
            Some(pem) => requested(pem)?,
            None => proved(&request["publicKeyRequest"], subject)?,
        };
        let issuer = claims["iss"].as_str().ok_or("no issuer")?;
        let lie = claims["lie"].as_str().unwrap_or_default();
        let certificate = self.certificate(&key, subject, issuer, lie);
        Ok(
            json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": [
                policy::key::pem("CERTIFICATE", &certificate),
                policy::key::pem("CERTIFICATE", &self.authority_certificate),
            ]}}}),
        )
    }

    /// A token's claim `lie` spoils the promise of the certificate log.
    fn certificate(&self, key: &PublicKey, subject: &str, issuer: &str, lie: &str) -> Vec<u8> {
        let tag = if subject.contains('@') { 0x81 } else { 0x86 };
        let arc = [0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1];
        let mut extensions = vec![
            extension(&[0x55, 0x1d, 0x0f], true, &[3, 2, 7, 0x80]),
            extension(
                &[0x55, 0x1d, 0x25],
                false,
                &tlv(0x30, &[&tlv(6, &[&[0x2b, 6, 1, 5, 5, 7, 3, 3]])]),
            ),
            extension(
                &[0x55, 0x1d, 0x11],
                true,
                &tlv(0x30, &[&tlv(tag, &[subject.as_bytes()])]),
            ),
            // Fulcio's older form of the issuer, without a type (its `oid-info.md`).
            extension(&[&arc[..], &[1]].concat(), false, issuer.as_bytes()),
            extension(
                &[&arc[..], &[8]].concat(),
                false,
                &tlv(0x0c, &[issuer.as_bytes()]),
            ),
        ];
        let issued_by = tlv(0x80, &[&identifier(&self.authority)]);
        let issued_by = tlv(0x30, &[&issued_by]);
        extensions.push(extension(&[0x55, 0x1d, 0x23], false, &issued_by));
        let authority = name("stand-in");
        let nobody = tlv(0x30, &[]);
        // The log signs the certificate as it is without the log's promise (RFC 6962).
        let bare = to_be_signed(&authority, &nobody, key.spki(), &extensions);
        let promise = match lie {
            "a promise of another log" => self.promise(&bare, &super::key()),
            "a promise for another certificate" => self.promise(b"another", &self.certificate_log),
            _ => self.promise(&bare, &self.certificate_log),
        };
        if lie == "no promise" {
            return signed(&bare, &self.authority);
        }
        extensions.push(extension(
            &[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 2],
            false,
            &tlv(4, &[&promise]),
        ));
        let full = to_be_signed(&authority, &nobody, key.spki(), &extensions);
        signed(&full, &self.authority)
    }

    /// A list with one signed certificate timestamp by `log`.
    fn promise(&self, tbs: &[u8], log: &Signer) -> Vec<u8> {
        let time = (now() * 1000).to_be_bytes();
        let length = (tbs.len() as u32).to_be_bytes();
        let issuer = Digest::of(self.authority.public_key().spki());
        let message = [
            &[0, 0][..],
            &time,
            &[0, 1],
            issuer.as_bytes(),
            &length[1..],
            tbs,
            &[0, 0],
        ]
        .concat();
        let signature = sign(log, &message);
        let id = log.public_key().id();
        let size = (signature.len() as u16).to_be_bytes();
        let promise = [
            &[0][..],
            id.as_bytes(),
            &time,
            &[0, 0, 4, 3],
            &size,
            &signature,
        ]
        .concat();
        let size = promise.len() as u16;
        [&(size + 2).to_be_bytes()[..], &size.to_be_bytes(), &promise].concat()
    }
}

/// The key of a request (PKCS#10, PEM in base64) that is signed with it.
fn requested(request: &str) -> Result<PublicKey, String> {
    let pem = BASE64.decode(request).map_err(|_| "no base64")?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| "no PEM")?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| "no CSR")?;
    let info = &request.certification_request_info;
    let key = PublicKey::from_spki(info.subject_pki.raw).map_err(|error| error.to_string())?;
    key.verify(info.raw, &request.signature_value.data)
        .map_err(|_| "the request is not signed with its key")?;
    Ok(key)
}

/// The key of a request that proves its possession by signing who asks.
fn proved(request: &Value, subject: &str) -> Result<PublicKey, String> {
    let pem = request["publicKey"]["content"].as_str().ok_or("no key")?;
    let key = PublicKey::from_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    let proof = request["proofOfPossession"].as_str().ok_or("no proof")?;
    let proof = BASE64.decode(proof).map_err(|_| "no base64")?;
    key.verify(subject.as_bytes(), &proof)
        .map_err(|_| "the proof of possession does not fit")?;
    Ok(key)
}

/// By what certificates name the key of their issuer (RFC 7093, method 1).
pub(super) fn identifier(signer: &Signer) -> [u8; 20] {
    let digest = Digest::of(signer.public_key().spki());
    std::array::from_fn(|index| digest.as_bytes()[index])
}
