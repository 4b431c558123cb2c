//! Any file: whatever is found inside lies within it.
#![no_main]

use bundle::embedded;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for found in embedded::find(bytes) {
        assert!(bytes.get(found.range).is_some_and(embedded::is_object));
    }
});
