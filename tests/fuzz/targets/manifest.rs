//! An OCI manifest or index, and the bundle it would make of one good object.
#![no_main]

use bundle::{
    layout::Layout,
    manifest::{Index, Manifest},
    pack::{PackOptions, pack},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Index::parse(bytes);
    if Manifest::parse(bytes).is_err() {
        return;
    }
    let object = ("x.o".to_owned(), bundle::fixture::object("xdp", "x"));
    let packed = pack(vec![object], &PackOptions::default()).expect("a good object packs");
    let mut layout: Layout = packed.into_layout(None).expect("and is a layout");
    if layout.add_manifest(bytes.to_vec(), Some("fuzz")).is_ok() {
        let _ = layout.bundle();
    }
});
