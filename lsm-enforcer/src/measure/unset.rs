//! What some loaders set on an object's maps before they load it, and the object leaves open: the
//! number of entries, and the maps inside a map of maps. Measuring creates the maps, so it needs
//! some value. The number is then one that a rule's `map_sizes` may replace; maps inside are input.

#![expect(unsafe_code, reason = "libbpf's own maps")]

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::OnceLock,
};

use libbpf_sys::bpf_map;

const HASH: u32 = libbpf_sys::BPF_MAP_TYPE_HASH;
const ARRAY: u32 = libbpf_sys::BPF_MAP_TYPE_ARRAY;
const LPM_TRIE: u32 = libbpf_sys::BPF_MAP_TYPE_LPM_TRIE;
const ARRAY_OF_MAPS: u32 = libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS;
const HASH_OF_MAPS: u32 = libbpf_sys::BPF_MAP_TYPE_HASH_OF_MAPS;

/// Fills in what is missing in a map of an object that is open and not prepared. What libbpf
/// refuses to take shows when it makes the map.
pub fn complete(map: *mut bpf_map) {
    // SAFETY: the map is the open object's, for all these calls.
    let (kind, entries, inner) = unsafe {
        (
            libbpf_sys::bpf_map__type(map),
            libbpf_sys::bpf_map__max_entries(map),
            libbpf_sys::bpf_map__inner_map(map),
        )
    };
    let counted = [HASH, ARRAY, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS];
    if entries == 0 && counted.contains(&kind) {
        // SAFETY: as above.
        let _shows_later = unsafe { libbpf_sys::bpf_map__set_max_entries(map, 1) };
    }
    if [ARRAY_OF_MAPS, HASH_OF_MAPS].contains(&kind)
        && inner.is_null()
        && let Some(any) = any_map()
    {
        // SAFETY: as above; libbpf does not close the descriptor, which stays open.
        let _shows_later = unsafe { libbpf_sys::bpf_map__set_inner_map_fd(map, any.as_raw_fd()) };
    }
}

/// A map of this process that stands for any; nothing is ever put into it.
fn any_map() -> Option<&'static OwnedFd> {
    static ANY: OnceLock<Option<OwnedFd>> = OnceLock::new();
    ANY.get_or_init(|| {
        // SAFETY: no name and no options are passed.
        let fd = unsafe { libbpf_sys::bpf_map_create(HASH, ptr::null(), 4, 4, 1, ptr::null_mut()) };
        // SAFETY: the call returned a descriptor that is ours alone.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    })
    .as_ref()
}
