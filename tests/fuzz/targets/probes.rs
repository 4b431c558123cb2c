//! A list of probe programs: read or refused with a reason, and what is read is within its limits.
#![no_main]

use bundle::image::{MAP_INDEX, is_index_reference, is_map_reference};
use policy::{
    probes::{MAX_MAPS, MAX_WORDS, MOST, NEVER, Probes},
    signed_list::List,
};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let list = match Probes::parse(text) {
        Ok(list) => list,
        Err(refusal) => return assert!(!refusal.detail.is_empty()),
    };
    assert!(list.version > 0 && list.probes.len() <= MOST);
    for probe in &list.probes {
        assert!((1..=MAX_WORDS).contains(&probe.words.len()) && probe.maps.len() <= MAX_MAPS);
        assert!(!NEVER.contains(&probe.program_type.as_str()));
        assert!(!probe.words.iter().any(|word| is_index_reference(*word)));
        for word in probe.words.iter().filter(|word| is_map_reference(**word)) {
            let number = (word >> 32) as u32 ^ MAP_INDEX;
            assert!((number as usize) < probe.maps.len());
        }
    }
});
