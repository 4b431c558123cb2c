//! Programs that the gate has admitted, and those that differ from them in one thing.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use bundle::{
    Digest,
    image::{
        Allowed, Contents, Identity, Image, InnerMap, MapSpec, TunableRange, index_maps,
        is_map_reference, mask,
    },
};
use enforcer::{
    filters,
    gate::{Admissions, Class, Entry, ShapeRule},
};
use policy::Reason;

use super::{
    ARRAY, Attr, CGROUP_DEVICE, EXIT, EXT, HASH, INSN_ARRAY, Load, MAP_CREATE, MAP_FREEZE,
    RAW_TRACEPOINT, RDONLY_PROG, SOCKET_FILTER, TRACING, XDP, data_map, map, r0, swap, touching,
};

pub const DATA: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 50, 0, 0, 0, 0, 0, 0, 0];

pub fn array_spec() -> MapSpec {
    MapSpec {
        name: "counts".into(),
        map_type: ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: (1, 1),
        flags: 0,
        flags_free: 0,
        inner: None,
        contents: None,
    }
}

/// An array of arrays.
fn outer_spec() -> MapSpec {
    MapSpec {
        map_type: ARRAY_OF_MAPS,
        value_size: 4,
        inner: Some(InnerMap {
            map_type: ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            flags: 0,
        }),
        ..array_spec()
    }
}

/// With another answer than what uses one map that holds no others.
fn outer(fd: RawFd) -> Load {
    let mut words = touching(1, &[fd]);
    words[2] = r0(3);
    Load::new("outer", SOCKET_FILTER, &words)
}

/// Loads it with an array of such maps.
fn outer_of(inner: &OwnedFd) -> io::Result<OwnedFd> {
    let made = Attr::new()
        .u32(0, ARRAY_OF_MAPS)
        .u32(4, 4)
        .u32(8, 4)
        .u32(12, 1)
        .u32(20, inner.as_raw_fd() as u32)
        .open(MAP_CREATE)?;
    outer(made.as_raw_fd()).load()
}

const ARRAY_OF_MAPS: u32 = 12;

/// For the same instructions as `one`.
pub fn wide_spec() -> MapSpec {
    MapSpec {
        value_size: 32,
        ..array_spec()
    }
}

pub fn data_spec() -> MapSpec {
    MapSpec {
        name: ".rodata".into(),
        value_size: DATA.len() as u32,
        flags: RDONLY_PROG,
        contents: Some(Contents {
            bytes: DATA.to_vec(),
            tunables: vec![TunableRange {
                name: "limit".into(),
                offset: 8,
                size: 4,
                signed: false,
                allowed: Allowed::Range(10, 100),
            }],
        }),
        ..array_spec()
    }
}

pub fn entry(load: &Load, maps: Vec<MapSpec>, class: Class) -> Entry {
    let mut words = load.words.clone();
    index_maps(&mut words);
    Entry {
        image: Image {
            name: load.name.into(),
            identity: Identity {
                prog_type: load.prog_type,
                expected_attach_type: load.attach_type,
                attach_btf_id: load.btf_id,
                flags: load.flags,
            },
            words,
            maps,
            places: vec![],
            result: None,
            gpl: Some(load.licence.is_none()),
            module: None,
            calls: BTreeMap::new(),
        },
        class,
        bundle: (class == Class::Signed).then(bundle),
    }
}

/// Of every signed program here.
pub fn bundle() -> Digest {
    Digest::of(b"the attacker's bundle")
}

pub struct Attempt {
    pub what: &'static str,
    pub load: Box<dyn Fn() -> io::Result<OwnedFd>>,
    pub reason: Reason,
    /// Succeeds without a gate; else the kernel itself refuses it as well.
    pub harmless: bool,
}

pub fn attempt(
    what: &'static str,
    reason: Reason,
    load: impl Fn() -> io::Result<OwnedFd> + 'static,
) -> Attempt {
    Attempt {
        what,
        load: Box::new(load),
        reason,
        harmless: true,
    }
}

/// A longer program, so that comparing takes several blocks, the last one partial.
pub fn long(len: usize, differs_at: Option<usize>) -> Load {
    let mut words: Vec<u64> = (0..len - 2).map(|n| r0(n as u32)).collect();
    words.extend([r0(0), EXIT]);
    if let Some(at) = differs_at {
        words[at] ^= 1 << 32;
    }
    Load::new("long", SOCKET_FILTER, &words)
}

/// Refers to one map, with a number of its own in between.
pub fn table_words(fd: RawFd) -> Vec<u64> {
    let mut words = vec![r0(0x7ab1)];
    words.extend(touching(1, &[fd]));
    words
}

pub fn simple() -> Load {
    Load::new("simple", SOCKET_FILTER, &[r0(0x51), EXIT])
}

pub fn admitted() -> Vec<Entry> {
    let one = touching(1, &[7]);
    let two = touching(1, &[7, 8]);
    let again = touching(1, &[7, 7]);
    let thrice = touching(1, &[7, 7, 7]);
    let data = touching(2, &[7]);
    let load = |name, words: &[u64]| Load::new(name, SOCKET_FILTER, words);
    vec![
        entry(&simple(), vec![], Class::Signed),
        entry(&long(1000, None), vec![], Class::Signed),
        entry(&load("one", &one), vec![array_spec()], Class::Signed),
        entry(
            &load("two", &two),
            vec![array_spec(), array_spec()],
            Class::Signed,
        ),
        entry(&load("again", &again), vec![array_spec()], Class::Signed),
        entry(&load("thrice", &thrice), vec![array_spec()], Class::Signed),
        entry(&load("wide", &one), vec![wide_spec()], Class::Signed),
        entry(&load("data", &data), vec![data_spec()], Class::Signed),
        entry(&outer(7), vec![outer_spec()], Class::Signed),
        entry(&probe(), vec![], Class::Probe),
    ]
    .into_iter()
    .chain([entry(
        &load("table", &table_words(7)),
        vec![MapSpec {
            map_type: INSN_ARRAY,
            value_size: 16,
            ..array_spec()
        }],
        Class::Signed,
    )])
    .chain(swap::entries())
    .chain(filters::entries(&[shape()]))
    .collect()
}

pub fn probe() -> Load {
    Load::new("probe", RAW_TRACEPOINT, &[r0(0), EXIT])
}

pub fn device() -> Load {
    Load::new("sd_devices", CGROUP_DEVICE, &[r0(1), EXIT])
}

/// A named load that must succeed.
pub type Good = (&'static str, Box<dyn Fn() -> io::Result<OwnedFd>>);

pub fn good() -> Vec<Good> {
    vec![
        ("an admitted program", Box::new(|| simple().load())),
        (
            "one with maps in a map",
            Box::new(|| outer_of(&map(ARRAY, 8, 0))),
        ),
        (
            "a long admitted program",
            Box::new(|| long(1000, None).load()),
        ),
        (
            "a program with a map",
            Box::new(|| {
                let a = map(ARRAY, 8, 0);
                Load::new("one", SOCKET_FILTER, &touching(1, &[a.as_raw_fd()])).load()
            }),
        ),
        (
            "the same program with another admitted map",
            Box::new(|| {
                let a = map(ARRAY, 32, 0);
                Load::new("wide", SOCKET_FILTER, &touching(1, &[a.as_raw_fd()])).load()
            }),
        ),
        (
            "a program with two maps",
            Box::new(|| {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), b.as_raw_fd()];
                Load::new("two", SOCKET_FILTER, &touching(1, &fds)).load()
            }),
        ),
        (
            "a program with two maps beside an idle thread",
            Box::new(|| {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), b.as_raw_fd()];
                beside_a_thread(|| Load::new("two", SOCKET_FILTER, &touching(1, &fds)).load())
            }),
        ),
        (
            "a program with dead code beside an idle thread",
            Box::new(|| {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), b.as_raw_fd()];
                beside_a_thread(|| swap::alternating(fds, swap::Form::Dead).load())
            }),
        ),
        (
            "a program that uses a map twice",
            Box::new(|| {
                let a = map(ARRAY, 8, 0);
                let fds = [a.as_raw_fd(), a.as_raw_fd()];
                Load::new("again", SOCKET_FILTER, &touching(1, &fds)).load()
            }),
        ),
        (
            "read-only data as signed",
            Box::new(|| data_load(&DATA, true)),
        ),
        (
            "read-only data with a tunable in range",
            Box::new(|| {
                let mut data = DATA;
                data[8] = 99;
                data_load(&data, true)
            }),
        ),
        ("a shape", Box::new(|| device().load())),
        (
            "libvirt's device filter",
            Box::new(|| libvirt(&devices(8), 0)),
        ),
        ("a probe", Box::new(|| probe().load())),
    ]
}

/// Runs it in a process whose file table another thread shares.
pub fn beside_a_thread<T>(act: impl FnOnce() -> T) -> T {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let idle = std::thread::spawn(move || {
        let _closed = receiver.recv();
    });
    let result = act();
    drop(sender);
    idle.join().expect("the thread only waits");
    result
}

pub fn data_load(bytes: &[u8], freeze: bool) -> io::Result<OwnedFd> {
    let a = data_map(bytes, freeze);
    Load::new("data", SOCKET_FILTER, &touching(2, &[a.as_raw_fd()])).load()
}

pub fn one_map(make: impl Fn() -> OwnedFd + 'static) -> impl Fn() -> io::Result<OwnedFd> {
    move || {
        let a = make();
        Load::new("one", SOCKET_FILTER, &touching(1, &[a.as_raw_fd()])).load()
    }
}

/// With a map beside what is admitted.
fn beside() -> io::Result<OwnedFd> {
    let a = map(ARRAY, 8, 0);
    Load {
        fd_array: vec![a.as_raw_fd()],
        counted: true,
        ..simple()
    }
    .load()
}

pub fn bad() -> Vec<Attempt> {
    let mut all = vec![
        attempt("an unsigned program", Reason::Unsigned, || evil().load()),
        attempt("an admitted program as XDP", Reason::OtherType, || {
            Load::new("simple", XDP, &[r0(0x51), EXIT]).load()
        }),
        attempt(
            "one instruction changed",
            Reason::InstructionDiffers,
            || long(1000, Some(700)).load(),
        ),
        attempt("one more instruction", Reason::InstructionDiffers, || {
            long(1001, None).load()
        }),
        attempt(
            "a second map where one was signed",
            Reason::MapReference,
            || {
                let (a, b) = (map(ARRAY, 8, 0), map(ARRAY, 8, 0));
                let fds = [a.as_raw_fd(), a.as_raw_fd(), b.as_raw_fd()];
                Load::new("thrice", SOCKET_FILTER, &touching(1, &fds)).load()
            },
        ),
        attempt("odd load flags", Reason::LoadFlags, || {
            Load {
                flags: 1,
                ..simple()
            }
            .load()
        }),
        attempt("a map by index", Reason::MapIndex, || {
            let a = map(ARRAY, 8, 0);
            Load {
                fd_array: vec![a.as_raw_fd()],
                ..Load::new("index", SOCKET_FILTER, &touching(5, &[0]))
            }
            .load()
        }),
        attempt("one map where two were signed", Reason::MapCount, || {
            let a = map(ARRAY, 8, 0);
            let b = a.try_clone().expect("descriptors can be copied");
            let fds = [a.as_raw_fd(), b.as_raw_fd()];
            Load::new("two", SOCKET_FILTER, &touching(1, &fds)).load()
        }),
        attempt(
            "a hash instead of an array",
            Reason::MapKind,
            one_map(|| map(HASH, 8, 0)),
        ),
        attempt(
            "a larger map",
            Reason::MapSize,
            one_map(|| map(ARRAY, 16, 0)),
        ),
        attempt("maps in a map of another kind", Reason::MapKind, || {
            outer_of(&map(HASH, 8, 0))
        }),
        attempt("larger maps in a map", Reason::MapSize, || {
            outer_of(&map(ARRAY, 16, 0))
        }),
        attempt("maps in a map with other flags", Reason::MapFlags, || {
            outer_of(&map(ARRAY, 8, RDONLY_PROG))
        }),
        attempt(
            "a map with other flags",
            Reason::MapFlags,
            one_map(|| map(ARRAY, 8, RDONLY_PROG)),
        ),
        attempt("data that is not frozen", Reason::NotFrozen, || {
            data_load(&DATA, false)
        }),
        attempt("other data", Reason::DataDiffers, || {
            let mut data = DATA;
            data[3] = 9;
            data_load(&data, true)
        }),
        attempt("a tunable out of range", Reason::TunableRange, || {
            let mut data = DATA;
            data[8] = 101;
            data_load(&data, true)
        }),
        attempt("a shape with a helper call", Reason::Unsigned, || {
            // call ktime_get_ns; r0 = 1; exit
            Load::new("calls", CGROUP_DEVICE, &[5 << 32 | 0x85, r0(1), EXIT]).load()
        }),
        attempt(
            "libvirt's device filter with another answer",
            Reason::Unsigned,
            || libvirt(&devices(8), 1),
        ),
        attempt(
            "libvirt's device filter with another map",
            Reason::MapSize,
            || libvirt(&devices(4), 0),
        ),
    ];
    // 6.19 and later.
    if Attr::new()
        .u32(0, INSN_ARRAY)
        .u32(4, 4)
        .u32(8, 16)
        .u32(12, 1)
        .open(MAP_CREATE)
        .is_ok()
    {
        all.push(attempt("a jump table", Reason::MapKind, || {
            let table = map(INSN_ARRAY, 16, 0);
            Attr::new()
                .u32(0, table.as_raw_fd() as u32)
                .call(MAP_FREEZE)?;
            Load::new("table", SOCKET_FILTER, &table_words(table.as_raw_fd())).load()
        }));
    }
    for (what, reason, load) in [
        (
            "an admitted program under another licence",
            Reason::OtherType,
            Load {
                licence: Some(c"Proprietary"),
                ..simple()
            },
        ),
        (
            "kernel-side relocation",
            Reason::KernelCore,
            Load {
                core_relos: 1,
                ..simple()
            },
        ),
        (
            "a module's function",
            Reason::ModuleBtf,
            Load {
                fd_array: vec![0, 0],
                // call kfunc 1 of the BTF at fd_array[1]
                ..Load::new(
                    "module",
                    SOCKET_FILTER,
                    &[1 << 32 | 1 << 16 | 0x2085, r0(0), EXIT],
                )
            },
        ),
        (
            "a tracer of another program",
            Reason::AttachProgram,
            Load {
                attach_type: 24, // BPF_TRACE_FENTRY
                btf_id: 1,
                ..Load::new("trace", TRACING, &[r0(0), EXIT])
            },
        ),
        (
            "a replacement that nobody signed",
            Reason::Unsigned,
            Load {
                btf_id: 1,
                ..Load::new("replace", EXT, &[r0(0x66), EXIT])
            },
        ),
    ] {
        all.push(Attempt {
            what,
            reason,
            harmless: false,
            load: Box::new(move || {
                let mut load = load.clone();
                let target = simple().load()?;
                if [EXT, TRACING].contains(&load.prog_type) {
                    load.attach_fd = target.as_raw_fd() as u32;
                }
                load.load()
            }),
        });
    }
    // Kernels from before 6.14 say so, in one of these ways.
    let unknown = [Some(libc::E2BIG), Some(libc::EINVAL)];
    if beside().is_err_and(|error| unknown.contains(&error.raw_os_error())) {
        return all;
    }
    let name = "an admitted program with a map that it does not use";
    all.push(attempt(name, Reason::MapIndex, beside));
    all
}

pub fn evil() -> Load {
    Load::new("evil", SOCKET_FILTER, &[r0(0x666), EXIT])
}

pub fn admissions() -> Admissions {
    Admissions {
        entries: admitted(),
        shapes: vec![shape()],
        ..Admissions::default()
    }
}

fn shape() -> ShapeRule {
    ShapeRule {
        name: "device filters".into(),
        prog_types: vec![CGROUP_DEVICE],
        helpers: vec![],
        max_maps: 0,
        max_insns: 4096,
    }
}

/// libvirt's device filter with a map of somebody's, and with what it says about devices that are
/// not in the map.
fn libvirt(devices: &OwnedFd, otherwise: u32) -> io::Result<OwnedFd> {
    let mut words = filters::entries(&[shape()])[0].image.words.clone();
    for word in words.iter_mut().filter(|word| is_map_reference(**word)) {
        *word = mask(*word) | (devices.as_raw_fd() as u64) << 32;
    }
    let last = words.len() - 2;
    words[last] = r0(otherwise);
    Load::new("", CGROUP_DEVICE, &words).load()
}

fn devices(key_size: u32) -> OwnedFd {
    Attr::new()
        .u32(0, HASH)
        .u32(4, key_size)
        .u32(8, 4)
        .u32(12, 64)
        .open(MAP_CREATE)
        .expect("maps can be made")
}
