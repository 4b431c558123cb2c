//! The registry's Range and Content-Range headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfseal_registry::strangers::ranges(bytes));
