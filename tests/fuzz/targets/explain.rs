//! An object and a stream that is said to be a program of it: what is proved is what the object's own functions are
//! laid out as.
#![no_main]

use bundle::explain::{Anatomy, Order};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(anatomy) = Anatomy::read(bytes) else {
        return;
    };
    // What follows an object's last section is not the object's.
    let stream: Vec<u64> = bytes
        .rchunks_exact(8)
        .take(64)
        .map(|word| u64::from_le_bytes(word.try_into().expect("a chunk of eight")))
        .collect();
    for name in anatomy.programs() {
        let _ = anatomy.explain(name, &stream);
        let _ = anatomy.compare_start(name, &stream, stream.len().saturating_mul(2));
        for order in [Order::DepthFirst, Order::BreadthFirstByName] {
            let Some(layout) = anatomy.lay_out(name, order) else {
                continue;
            };
            // An object that no loader would take is refused, and nothing else is made of it.
            if let Ok(proved) = anatomy.explain(name, &layout.words) {
                assert_eq!(proved.words, layout.words);
            }
            let mut other = layout.words;
            let at = stream.first().map_or(0, |word| *word as usize) % other.len().max(1);
            if let (Some(word), Some(from)) = (other.get_mut(at), stream.last()) {
                *word = *from;
                if let Ok(proved) = anatomy.explain(name, &other) {
                    assert_eq!(proved.words.len(), other.len());
                }
            }
        }
    }
});
