//! A tar of an OCI layout: what is read is written and read again as it was.
#![no_main]

use bundle::layout::{Layout, Limits};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(layout) = Layout::read(bytes, &Limits::default()) else {
        return;
    };
    let mut written = Vec::new();
    layout.write(&mut written, 0).expect("memory takes all");
    let again = Layout::read(written.as_slice(), &Limits::default()).expect("reads back");
    assert_eq!(layout, again);
    if let Ok(mut bundle) = layout.bundle() {
        let _ = bundle.check_inventory();
    }
});
