//! The layer of a bpfman image, and a guest's evidence about a bundle.
#![no_main]

use bundle::{
    layout::Layout,
    manifest::Descriptor,
    media,
    verifier::{Statistics, Transcript, complaint},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let config = Descriptor::of(media::IMAGE_CONFIG, CONFIG);
    let layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", bytes);
    let mut layout = Layout::new();
    layout.add_blob(CONFIG.to_vec());
    layout.add_blob(bytes.to_vec());
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    layout
        .add_manifest(manifest.to_string().into_bytes(), Some("v1"))
        .expect("a manifest");
    if let Ok(mut bundle) = layout.bundle() {
        let _ = bundle.check_inventory();
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = (Statistics::parse(&text), complaint(&text));
    let mut transcript = Transcript::default();
    text.lines().for_each(|line| transcript.add(line));
    let _ = transcript.into_kernel();
});

const CONFIG: &[u8] = br#"{"config":{"Labels":{"io.ebpf.programs":"{\"x\":\"xdp\"}"}}}"#;
