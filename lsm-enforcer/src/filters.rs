//! Device filters that are made at run time and yet always the same, admitted word for word.
//!
//! A shape has no maps, because what a program does with one cannot be seen from its calls. libvirt's
//! filter of devices looks them up in a map, by instructions that never differ: they only read it, and
//! answer yes or no about a device. So it is harmless, and exactly it is let in wherever a shape of the
//! policy lets in device filters.
//!
//! Read in libvirt's `virCgroupV2DevicesLoadProg`, the same since 6.0 (2020), and seen in a virtual
//! machine with Debian's libvirt 11.3.

use bundle::image::{Identity, MAP_INDEX, MapSpec};

use crate::{
    gate::{Class, Entry, ShapeRule},
    probes::{EXIT, call, unsigned, word},
};

/// `BPF_PROG_TYPE_CGROUP_DEVICE`
const CGROUP_DEVICE: u32 = 15;
/// `BPF_MAP_TYPE_HASH`
const HASH: u32 = 1;
const MAP_LOOKUP_ELEM: i32 = 1;
/// Instructions from the end of a question to the last one, `exit`: how far a yes jumps.
const YES: [i16; 4] = [50, 32, 15, 1];

/// What shapes let in beside what they say.
pub fn entries(shapes: &[ShapeRule]) -> Vec<Entry> {
    let devices = |shape: &ShapeRule| shape.prog_types.contains(&CGROUP_DEVICE);
    match shapes.iter().any(devices) {
        true => vec![libvirt()],
        false => Vec::new(),
    }
}

fn libvirt() -> Entry {
    let identity = Identity {
        prog_type: CGROUP_DEVICE,
        expected_attach_type: 0,
        attach_btf_id: 0,
        flags: 0,
    };
    let devices = MapSpec {
        name: "devices".into(),
        map_type: HASH,
        key_size: 8,
        value_size: 4,
        // It starts with 64 and doubles.
        max_entries: (1, u32::MAX),
        flags: 0,
        flags_free: 0,
        inner: None,
        contents: None,
    };
    Entry {
        image: unsigned("libvirt: devices", identity, libvirt_words(), vec![devices]),
        class: Class::Known,
        bundle: None,
    }
}

/// Is the access allowed to this device, to all minor numbers, to all major numbers, to all devices?
fn libvirt_words() -> Vec<u64> {
    // r6 = the context: access type, major, minor
    let mut words = vec![word(0xbf, 6, 1, 0, 0)];
    // r2 = major << 32 | minor
    words.extend([
        word(0x61, 1, 6, 8, 0),
        word(0x61, 2, 6, 4, 0),
        word(0x67, 2, 0, 0, 32),
        word(0x4f, 2, 1, 0, 0),
    ]);
    words.extend(ask(2, YES[0]));
    // r1 = major << 32 | 0xffffffff
    words.extend([
        word(0x61, 1, 6, 4, 0),
        word(0x67, 1, 0, 0, 32),
        word(0x18, 2, 0, 0, -1),
        word(0, 0, 0, 0, 0),
        word(0x4f, 1, 2, 0, 0),
    ]);
    words.extend(ask(1, YES[1]));
    // r1 = 0xffffffff << 32 | minor
    words.extend([
        word(0x61, 1, 6, 8, 0),
        word(0x18, 2, 0, 0, 0),
        word(0, 0, 0, 0, -1),
        word(0x4f, 1, 2, 0, 0),
    ]);
    words.extend(ask(1, YES[2]));
    words.push(word(0xb7, 1, 0, 0, -1));
    words.extend(ask(1, YES[3]));
    words.extend([word(0xb7, 0, 0, 0, 0), EXIT]);
    words
}

/// Looks the key in a register up; with all of the access in the value, jumps with `r0 = 1`.
fn ask(key: u8, yes: i16) -> [u64; 13] {
    [
        word(0x7b, 10, key, -8, 0),
        word(0xbf, 2, 10, 0, 0),
        word(0x07, 2, 0, 0, -8),
        word(0x18, 1, 1, 0, MAP_INDEX as i32),
        word(0, 0, 0, 0, 0),
        call(MAP_LOOKUP_ELEM),
        word(0xbf, 1, 0, 0, 0),
        word(0x15, 1, 0, 5, 0),
        word(0xb7, 0, 0, 0, 1),
        word(0x61, 2, 6, 0, 0),
        word(0x61, 1, 1, 0, 0),
        word(0x5f, 1, 2, 0, 0),
        word(0x1d, 1, 2, yes, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_ends_the_program() {
        let words = libvirt_words();
        assert_eq!(words.len(), 69);
        let jumps = words
            .iter()
            .enumerate()
            .filter(|(_, word)| **word & 0xff == 0x1d);
        let ends: Vec<usize> = jumps
            .map(|(at, word)| at + 1 + usize::from((word >> 16) as u16))
            .collect();
        assert_eq!(ends, [68; 4]);
    }

    #[test]
    fn without_device_filters_there_is_none() {
        let mut shape = ShapeRule {
            name: "x".into(),
            prog_types: vec![1],
            helpers: vec![],
            max_maps: 0,
            max_insns: 4096,
        };
        assert_eq!(entries(&[]), []);
        assert_eq!(entries(std::slice::from_ref(&shape)), []);
        shape.prog_types.push(CGROUP_DEVICE);
        assert_eq!(entries(&[shape]).len(), 1);
    }
}
