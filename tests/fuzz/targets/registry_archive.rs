//! A tar file that is imported into the registry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::archive(bytes));
