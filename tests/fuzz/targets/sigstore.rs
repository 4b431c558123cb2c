//! A Sigstore bundle, a trusted root, a signing config, a certificate.
#![no_main]

use policy::{
    anchor,
    key::PublicKey,
    sigstore::{self, SigningConfig, Subject, TrustRoot},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = sigstore::parse(bytes) {
        let _ = sigstore::needs_root(&bundle);
        let root = TrustRoot::embedded().expect("it can be used");
        let key = PublicKey::from_pem(KEY).expect("a good key");
        let subject = Subject::Bytes(b"nothing");
        assert!(sigstore::prove_identity(&bundle, subject, &root).is_err());
        assert!(sigstore::prove_key(&bundle, subject, &key, Some(&root)).is_err());
    }
    let _ = TrustRoot::from_json(bytes);
    let _ = anchor::anchors(bytes);
    if let Ok(config) = SigningConfig::from_json(bytes) {
        let _ = (config.fulcio(), config.issuer(), config.stamps(), config.logs());
    }
    let _ = sigstore::identity_of(bytes);
});

const KEY: &[u8] = include_bytes!("../../vectors/keys/p256.pub");
