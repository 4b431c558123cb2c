//! A private key file: what is taken signs, and what is encrypted asks for its passphrase.
#![no_main]

use policy::signer::{BadPrivateKey, Signer};
use ring::rand::SystemRandom;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let random = SystemRandom::new();
    // Deriving takes a second on purpose; what comes after it is a key that is not encrypted.
    let mut none = || Err(BadPrivateKey::WrongPassphrase);
    if let Ok((signer, _)) = Signer::from_pem(bytes, &mut none, &random) {
        // The parts of an RSA key need not fit together.
        if let Ok(signature) = signer.sign(b"message", &random) {
            assert!(signer.public_key().verify(b"message", &signature).is_ok());
        }
    }
});
