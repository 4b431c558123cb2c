//! A header with a light skeleton: the object that it becomes has its loader and its data.
#![no_main]

use bundle::{inventory, light};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = light::is_skeleton(bytes);
    let _ = light::data_of(bytes);
    let Ok(loader) = light::read(bytes) else {
        return;
    };
    let object = loader.to_object();
    assert_eq!(light::data_of(&object), Some(loader.data.as_slice()));
    let _ = inventory::read("fuzz.o", &object);
});
