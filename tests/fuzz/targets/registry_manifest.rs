//! A manifest that is pushed to the registry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::manifest(bytes));
