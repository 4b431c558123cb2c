//! A signature from a stranger, in each form: nothing that a fuzzer writes is accepted.
#![no_main]

use std::{fs, io, sync::OnceLock};

use bundle::{
    Layout,
    manifest::{Descriptor, Manifest},
    media,
    pack::{PackOptions, pack},
};
use jiff::Timestamp;
use policy::{Policy, sigstore::TrustRoot};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static SCENE: OnceLock<(Layout, Policy)> = OnceLock::new();
    let (layout, policy) = SCENE.get_or_init(|| (packed(), trusting()));
    for form in FORMS {
        let mut layout = layout.clone();
        attach(&mut layout, form, bytes);
        let bundle = layout.bundle().expect("a bundle");
        assert!(policy::verify(bundle, policy, "x", NOW).is_err(), "{form}");
    }
});

fn packed() -> Layout {
    let object = ("x.o".to_owned(), bundle::fixture::object("xdp", "x"));
    let packed = pack(vec![object], &PackOptions::default()).expect("a good object packs");
    packed.into_layout(None).expect("and is a layout")
}

/// All kinds of signers.
fn trusting() -> Policy {
    let file = |name: &str| -> io::Result<Vec<u8>> {
        match name {
            "root.json" => Ok(TrustRoot::embedded_json().as_bytes().to_vec()),
            name => fs::read(format!("{VECTORS}/{name}")),
        }
    };
    Policy::parse(POLICY, &file).expect("a good policy")
}

fn attach(layout: &mut Layout, form: &str, bytes: &[u8]) {
    let subject = layout.bundle_descriptor().expect("a bundle").clone();
    let config = layout.add_blob(media::EMPTY_JSON.to_vec());
    layout.add_blob(bytes.to_vec());
    let mut referrer = Manifest::artifact(
        form,
        Descriptor {
            digest: config,
            ..Descriptor::of(media::EMPTY, media::EMPTY_JSON)
        },
        vec![Descriptor::of(form, bytes)],
    );
    referrer.subject = Some(subject);
    layout
        .add_manifest(referrer.to_bytes(), None)
        .expect("a manifest");
}

/// A day on which all certificates of the vectors are valid.
const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);
const FORMS: [&str; 4] = [
    media::SIGSTORE_BUNDLE,
    media::DSSE_ENVELOPE,
    media::NOTATION_JWS,
    media::SIMPLE_SIGNING,
];
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors");
const POLICY: &str = r#"
version = 1
[keys.k]
file = "keys/p256.pub"
[x509.o]
roots = "x509/root.pem"
crls = "x509/root.crl"
timestamps = "x509/tsa.pem"
names = ["release@acme.example"]
[keyless.i]
identity = "https://github.com/acme/*"
issuer = "https://token.actions.githubusercontent.com"
trusted_root = "root.json"
[[rule]]
name = "all"
scope = "*"
signed_by = { of = ["k", "o", "i"] }
program_types = ["xdp"]
"#;
