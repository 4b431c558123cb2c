//! A signature from a stranger: nothing that a fuzzer writes is accepted.
#![no_main]

use std::io;

use bundle::{
    manifest::{Descriptor, Manifest},
    media,
    pack::{PackOptions, pack},
};
use policy::Policy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let object = ("x.o".to_owned(), bundle::fixture::object("xdp", "x"));
    let packed = pack(vec![object], &PackOptions::default()).expect("a good object packs");
    let mut layout = packed.into_layout(None).expect("and is a layout");
    let subject = layout.bundle_descriptor().expect("a bundle").clone();
    let layer = Descriptor::of(media::SIGSTORE_BUNDLE, bytes);
    let config = layout.add_blob(media::EMPTY_JSON.to_vec());
    layout.add_blob(bytes.to_vec());
    let mut referrer = Manifest::artifact(
        media::SIGSTORE_BUNDLE,
        Descriptor {
            digest: config,
            ..Descriptor::of(media::EMPTY, media::EMPTY_JSON)
        },
        vec![layer],
    );
    referrer.subject = Some(subject);
    layout
        .add_manifest(referrer.to_bytes(), None)
        .expect("a manifest");
    let key = |_: &str| -> io::Result<Vec<u8>> { Ok(KEY.to_vec()) };
    let policy = Policy::parse(POLICY, &key).expect("a good policy");
    let bundle = layout.bundle().expect("a bundle");
    assert!(policy::verify(bundle, &policy, "x").is_err());
});

const KEY: &[u8] = include_bytes!("../../vectors/keys/p256.pub");
const POLICY: &str = r#"
version = 1
[keys.k]
file = "k.pub"
[[rule]]
name = "all"
scope = "*"
signed_by = { of = ["k"] }
program_types = ["xdp"]
"#;
