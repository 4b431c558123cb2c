//! An ELF object: what is read can be written and read again, and is found again in a file.
#![no_main]

use bundle::{embedded, inventory};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(object) = inventory::read("fuzz.o", bytes) {
        let json = serde_json::to_vec(&object).expect("an inventory is JSON");
        let again: inventory::Object = serde_json::from_slice(&json).expect("and reads back");
        assert_eq!(object, again);
    }
    let _ = embedded::is_object(bytes);
});
