//! The files that a policy names: certificates, revocation lists, trusted roots.
#![no_main]

use std::io;

use policy::Policy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for entries in ENTRIES {
        let file = |name: &str| -> io::Result<Vec<u8>> {
            Ok(match name {
                "roots.pem" => ROOTS.to_vec(),
                _ => bytes.to_vec(),
            })
        };
        if let Err(error) = Policy::parse(entries, &file) {
            assert!(!error.to_string().is_empty());
        }
    }
});

const ROOTS: &[u8] = include_bytes!("../../vectors/x509/root.pem");
/// Any other file than `roots.pem` is the fuzzer's.
const ENTRIES: [&str; 4] = [
    "version = 1\n[x509.a]\nroots = \"a\"\nnames = [\"a@b.example\"]\n",
    "version = 1\n[x509.a]\nroots = \"roots.pem\"\nnames = [\"a@b.example\"]\ncrls = \"a\"\n",
    "version = 1\n[x509.a]\nroots = \"roots.pem\"\nnames = [\"a@b.example\"]\ntimestamps = \"a\"\n",
    "version = 1\n[keyless.a]\nidentity = \"a\"\nissuer = \"b\"\ntrusted_root = \"a\"\n",
];
