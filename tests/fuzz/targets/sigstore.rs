//! A Sigstore bundle or trusted root.
#![no_main]

use policy::sigstore::{self, TrustRoot};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = sigstore::parse(bytes) {
        let _ = sigstore::needs_root(&bundle);
    }
    let _ = TrustRoot::from_json(bytes);
});
