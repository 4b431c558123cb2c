//! The registry's If-Match and If-None-Match.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::conditions(bytes));
