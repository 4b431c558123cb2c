//! A policy file: read or refused with a place, never anything else.
#![no_main]

use std::io;

use policy::Policy;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let key = |_: &str| -> io::Result<Vec<u8>> { Ok(KEY.to_vec()) };
    if let Err(error) = Policy::parse(text, &key) {
        assert!(!error.to_string().is_empty());
    }
});

const KEY: &[u8] = include_bytes!("../../vectors/keys/p256.pub");
