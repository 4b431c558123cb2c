//! Names of repositories, tags and digests, as the registry reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::names(bytes));
