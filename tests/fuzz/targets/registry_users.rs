//! The registry's htpasswd file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::users(bytes));
