//! A permit or a signed policy from a stranger: nothing that a fuzzer writes is accepted.
#![no_main]

use policy::{document::VerifiedPolicy, key::PublicKey, permit::SignedPermit};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let authority = PublicKey::from_pem(KEY).expect("a good key");
    assert!(SignedPermit::verify(text, &authority).is_err());
    assert!(VerifiedPolicy::verify("version = 1\n", text, &authority).is_err());
});

const KEY: &[u8] = include_bytes!("../../vectors/keys/p256.pub");
