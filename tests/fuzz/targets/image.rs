//! A measured image, as the daemon reads it from its worker.
#![no_main]

use bundle::image::Image;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = serde_json::from_slice::<Image>(bytes) {
        let _ = image.stored_words();
        let json = serde_json::to_vec(&image).expect("an image is JSON");
        assert_eq!(
            serde_json::from_slice::<Image>(&json).expect("reads back"),
            image
        );
    }
});
