//! The registry's Authorization header, tokens, scopes and forms: nothing that a fuzzer writes is accepted.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::credentials(bytes));
