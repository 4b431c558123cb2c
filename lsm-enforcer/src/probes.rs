//! The programs by which libbpf, libbpf-tools, cilium/ebpf and aya ask a kernel what it can do, admitted exactly.
//!
//! libbpf loads them before every object and gives up, or takes another road, if they are
//! refused; so no unmodified loader works without them. They are harmless as programs, but
//! `r0 = 0; exit` attached to a tracepoint silences it for everybody, so the gate keeps them
//! apart ([`Class::Probe`]) and refuses to attach them.
//!
//! Read in libbpf 1.7's `features.c`, and seen in virtual machines with Debian's bpftool,
//! libbpf-tools and libbpf-rs, and in aya 0.13's `sys/bpf.rs`; other versions of libbpf may ask in
//! other words, which a signed list can add ([`policy::probes`]).

use std::collections::BTreeMap;

use bundle::{
    image::{Identity, Image, MAP_INDEX, MapSpec},
    kernel,
};
use policy::probes::Probe as Listed;

use crate::{
    gate::{Class, Entry},
    kernel::ANY_TARGET,
};

// enum bpf_prog_type
const SOCKET_FILTER: u32 = 1;
const KPROBE: u32 = 2;
const TRACEPOINT: u32 = 5;
const CGROUP_SKB: u32 = 8;
const CGROUP_SOCK: u32 = 9;
const TRACING: u32 = 26;
// enum bpf_attach_type
const CGROUP_INET_SOCK_CREATE: u32 = 2;
const TRACE_RAW_TP: u32 = 23;
const TRACE_FENTRY: u32 = 24;
const TRACE_UPROBE_MULTI: u32 = 48;
// enum bpf_func_id
const PROBE_READ_KERNEL: i32 = 113;
const KTIME_GET_COARSE_NS: i32 = 160;
const GET_FUNC_IP: i32 = 173;
const GET_ATTACH_COOKIE: i32 = 174;

pub(crate) const EXIT: u64 = word(0x95, 0, 0, 0, 0);
const RETURN_ZERO: u64 = word(0xb7, 0, 0, 0, 0);

/// One instruction slot.
pub(crate) const fn word(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    code as u64
        | (dst as u64) << 8
        | (src as u64) << 12
        | (off as u16 as u64) << 16
        | (imm as u32 as u64) << 32
}

pub(crate) const fn call(helper: i32) -> u64 {
    word(0x85, 0, 0, 0, helper)
}

/// First half of `r1 = &map[0] + …` for the only map.
const MAP_VALUE: u64 = word(0x18, 1, 2, 0, MAP_INDEX as i32);

/// Eight bytes from address 0 to the stack.
const READ_NOTHING: &[u64] = &[
    word(0xbf, 1, 10, 0, 0),
    word(0x07, 1, 0, 0, -8),
    word(0xb7, 2, 0, 0, 8),
    word(0xb7, 3, 0, 0, 0),
    call(PROBE_READ_KERNEL),
    EXIT,
];

struct Probe {
    name: &'static str,
    prog_type: u32,
    attach_type: u32,
    words: &'static [u64],
    /// Value size of its only map, a one-entry array.
    map: Option<u32>,
    /// Asks about a BTF target, whichever.
    targeted: bool,
}

const PROBES: &[Probe] = &[
    Probe {
        // probe_loading, prog_name, bind_map
        name: "libbpf: loads at all",
        prog_type: SOCKET_FILTER,
        attach_type: 0,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        // perf_link, and probe_loading where socket filters are not compiled in
        name: "libbpf: perf link",
        prog_type: TRACEPOINT,
        attach_type: 0,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        // haveBPFLinkPerfEvent, before each link to a kprobe, uprobe or tracepoint
        name: "cilium/ebpf: perf link",
        prog_type: KPROBE,
        attach_type: 0,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        name: "libbpf: uprobe multi link",
        prog_type: KPROBE,
        attach_type: TRACE_UPROBE_MULTI,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        name: "libbpf: expected attach type",
        prog_type: CGROUP_SOCK,
        attach_type: CGROUP_INET_SOCK_CREATE,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        name: "libbpf: global data",
        prog_type: SOCKET_FILTER,
        attach_type: 0,
        words: &[
            MAP_VALUE,
            word(0, 0, 0, 0, 16),
            word(0x7a, 1, 0, 0, 42),
            RETURN_ZERO,
            EXIT,
        ],
        map: Some(32),
        targeted: false,
    },
    Probe {
        name: "libbpf: probe_read_kernel",
        prog_type: TRACEPOINT,
        attach_type: 0,
        words: READ_NOTHING,
        map: None,
        targeted: false,
    },
    Probe {
        // Refused, it loads programs with bpf_probe_read() instead.
        name: "cilium/ebpf: probe_read_kernel",
        prog_type: KPROBE,
        attach_type: 0,
        words: READ_NOTHING,
        map: None,
        targeted: false,
    },
    Probe {
        name: "libbpf: attach cookie",
        prog_type: TRACEPOINT,
        attach_type: 0,
        words: &[call(GET_ATTACH_COOKIE), EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        name: "aya: attach cookie",
        prog_type: KPROBE,
        attach_type: 0,
        words: &[call(GET_ATTACH_COOKIE), EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        // Attached to nothing, with BPF_F_REPLACE; refused, runc starts no container.
        name: "cilium/ebpf: control groups",
        prog_type: CGROUP_SKB,
        attach_type: 0, // BPF_CGROUP_INET_INGRESS
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        // 1.4 and later
        name: "libbpf: context argument tag",
        prog_type: KPROBE,
        attach_type: 0,
        words: &[word(0x85, 0, 1, 0, 1), EXIT, call(GET_FUNC_IP), EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        name: "libbpf: memory accounting",
        prog_type: SOCKET_FILTER,
        attach_type: 0,
        words: &[call(KTIME_GET_COARSE_NS), EXIT],
        map: None,
        targeted: false,
    },
    Probe {
        // 1.7 and later; the verifier refuses it, and libbpf reads why
        name: "libbpf: full range of ld_imm64",
        prog_type: SOCKET_FILTER,
        attach_type: 0,
        words: &[MAP_VALUE, word(0, 0, 0, 0, 1 << 30), EXIT],
        map: Some(1),
        targeted: false,
    },
    Probe {
        // fentry_can_attach() in BCC's trace_helpers.c
        name: "libbpf-tools: fentry",
        prog_type: TRACING,
        attach_type: TRACE_FENTRY,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: true,
    },
    Probe {
        // probe_tp_btf() in BCC's trace_helpers.c
        name: "libbpf-tools: tp_btf",
        prog_type: TRACING,
        attach_type: TRACE_RAW_TP,
        words: &[RETURN_ZERO, EXIT],
        map: None,
        targeted: true,
    },
];

/// Every probe, ready to be admitted.
pub fn entries() -> Vec<Entry> {
    let maps = |probe: &Probe| probe.map.map(array).into_iter().collect();
    PROBES
        .iter()
        .map(|probe| Entry {
            image: unsigned(
                probe.name,
                identity(probe.prog_type, probe.attach_type, probe.targeted),
                probe.words.to_vec(),
                maps(probe),
            ),
            class: Class::Probe,
            bundle: None,
        })
        .collect()
}

/// A probe of a signed list; `None` where this program does not know one of its words.
pub fn entry(probe: &Listed) -> Option<Entry> {
    let maps = probe.maps.iter().map(|map| {
        Some(MapSpec {
            map_type: kernel::map_type(&map.kind)?,
            key_size: map.key_size,
            max_entries: (map.max_entries, map.max_entries),
            ..array(map.value_size)
        })
    });
    let prog_type = kernel::program_type(&probe.program_type)?;
    Some(Entry {
        image: unsigned(
            &probe.name,
            identity(prog_type, probe.attach_type, probe.any_target),
            probe.words.clone(),
            maps.collect::<Option<_>>()?,
        ),
        class: Class::Probe,
        bundle: None,
    })
}

fn identity(prog_type: u32, attach_type: u32, any_target: bool) -> Identity {
    Identity {
        prog_type,
        expected_attach_type: attach_type,
        attach_btf_id: if any_target { ANY_TARGET } else { 0 },
        flags: 0,
    }
}

/// A program that no bundle holds: of any licence, and without places.
pub(crate) fn unsigned(
    name: &str,
    identity: Identity,
    words: Vec<u64>,
    maps: Vec<MapSpec>,
) -> Image {
    Image {
        name: name.to_owned(),
        identity,
        words,
        maps,
        places: Vec::new(),
        result: None,
        gpl: None,
        module: None,
        calls: BTreeMap::new(),
    }
}

fn array(value_size: u32) -> MapSpec {
    MapSpec {
        name: "probe".into(),
        map_type: 2, // BPF_MAP_TYPE_ARRAY
        key_size: 4,
        value_size,
        max_entries: (1, 1),
        flags: 0,
        flags_free: 0,
        inner: None,
        contents: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_is_listed_once() {
        let mut identities: Vec<_> = entries()
            .into_iter()
            .map(|entry| {
                let identity = entry.image.identity;
                let kind = (identity.prog_type, identity.expected_attach_type);
                (kind, entry.image.words)
            })
            .collect();
        let count = identities.len();
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), count);
    }

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        // r1 = r10; r1 += -8
        assert_eq!(
            word(0xbf, 1, 10, 0, 0).to_le_bytes(),
            [0xbf, 0xa1, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            word(0x07, 1, 0, 0, -8).to_le_bytes(),
            [0x07, 0x01, 0, 0, 0xf8, 0xff, 0xff, 0xff]
        );
    }
}
