//! A public key: what is taken is written and read again as the same key.
#![no_main]

use policy::key::PublicKey;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = PublicKey::from_pem(bytes) {
        let again = PublicKey::from_pem(key.to_pem().as_bytes()).expect("reads back");
        assert_eq!(key.id(), again.id());
    }
    if let Ok(key) = PublicKey::from_spki(bytes) {
        assert!(key.verify(b"nothing", bytes).is_err());
    }
});
