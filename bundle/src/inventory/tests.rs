//! Objects built byte by byte, read whole.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::fixture::{
    Builder, GLOBAL_FUNC, GLOBAL_NOTYPE, GLOBAL_OBJECT, LOCAL_FUNC, RETURN_ZERO, Types, WEAK_FUNC,
    insn,
};

const CALL_STATIC: [u8; 8] = insn(0x85, 0, 1, 0, -1);
const EXIT: [u8; 8] = insn(0x95, 0, 0, 0, 0);

fn program(name: &str, section: &str, kind: &str) -> Program {
    Program {
        name: name.to_owned(),
        section: section.to_owned(),
        kind: kind.to_owned(),
        attach_type: None,
        target: None,
        members: vec![],
        sleepable: false,
        optional: false,
        insns: 2,
        total_insns: 2,
        helpers: vec![],
        kfuncs: vec![],
        calls: vec![],
        maps: vec![],
        core_relocations: 0,
        loops: false,
    }
}

#[test]
fn programs_subprograms_and_their_linkage() {
    let mut builder = Builder::new(Endianness::Little);
    let text = builder.code(".text", &[RETURN_ZERO; 3].concat());
    builder.symbol("weak", WEAK_FUNC, text, 0, 16);
    builder.symbol("hidden", GLOBAL_FUNC, text, 16, 16);
    builder.visibility(2);
    builder.symbol("global", GLOBAL_FUNC, text, 32, 16);
    let xdp = builder.code("xdp", &[RETURN_ZERO; 3].concat());
    builder.symbol("second", GLOBAL_FUNC, xdp, 16, 16);
    builder.symbol("first", GLOBAL_FUNC, xdp, 0, 16);
    builder.symbol("static", LOCAL_FUNC, xdp, 32, 16);
    builder.program("?kprobe.multi/tcp_*", "probe", &RETURN_ZERO);
    let object = read("a.o", &builder.build()).unwrap();
    assert_eq!(
        object.programs,
        [
            Program {
                attach_type: Some("xdp".to_owned()),
                ..program("first", "xdp", "xdp")
            },
            Program {
                attach_type: Some("xdp".to_owned()),
                ..program("second", "xdp", "xdp")
            },
            Program {
                attach_type: Some("trace_kprobe_multi".to_owned()),
                target: Some("tcp_*".to_owned()),
                optional: true,
                ..program("probe", "?kprobe.multi/tcp_*", "kprobe")
            },
        ]
    );
    let subprogram = |name: &str, section: &str, linkage| Subprogram {
        name: name.to_owned(),
        section: section.to_owned(),
        linkage,
        insns: 2,
    };
    assert_eq!(
        object.subprograms,
        [
            subprogram("global", ".text", Linkage::Global),
            subprogram("hidden", ".text", Linkage::Static),
            subprogram("static", "xdp", Linkage::Static),
            subprogram("weak", ".text", Linkage::Weak),
        ]
    );
}

#[test]
fn calls_helpers_kfuncs_and_loops_are_those_of_all_that_is_reached() {
    let mut builder = Builder::new(Endianness::Little);
    // leaf: helper 6 and an unknown one; loop: jumps back; unused: nobody calls it.
    let leaf = [insn(0x85, 0, 0, 0, 6), insn(0x85, 0, 0, 0, 9999), EXIT];
    let looping = [insn(0xb7, 0, 0, 0, 0), insn(0x05, 0, 0, -2, 0), EXIT];
    let text = builder.code(".text", &[&leaf[..], &looping, &RETURN_ZERO].concat());
    let leaf = builder.symbol("leaf", LOCAL_FUNC, text, 0, 24);
    builder.symbol("looping", LOCAL_FUNC, text, 24, 24);
    builder.symbol("unused", LOCAL_FUNC, text, 48, 16);
    let text_symbol = builder.symbol("", 3, text, 0, 0);
    let kfunc = builder.symbol("bpf_task_release", GLOBAL_NOTYPE, 0, 0, 0);
    let main = builder.program(
        "tp_btf/sched_switch",
        "main",
        &[
            CALL_STATIC,
            // The address of `looping`, as a callback.
            insn(0x18, 1, 4, 0, 24),
            insn(0, 0, 0, 0, 0),
            insn(0x85, 0, 2, 0, -1),
            EXIT,
        ],
    );
    builder.relocations(main, &[(0, leaf), (8, text_symbol), (24, kfunc)]);
    let object = read("a.o", &builder.build()).unwrap();
    assert_eq!(
        object.programs,
        [Program {
            attach_type: Some("trace_raw_tp".to_owned()),
            target: Some("sched_switch".to_owned()),
            insns: 5,
            total_insns: 11,
            helpers: vec!["bpf_trace_printk".to_owned(), "helper#9999".to_owned()],
            kfuncs: vec!["bpf_task_release".to_owned()],
            calls: vec!["leaf".to_owned(), "looping".to_owned()],
            loops: true,
            ..program("main", "tp_btf/sched_switch", "tracing")
        }]
    );
    let extern_ = Extern {
        name: "bpf_task_release".to_owned(),
        kind: ExternKind::Function,
        weak: false,
    };
    assert_eq!(object.externs, [extern_]);
    assert_eq!(object.needs.oldest_kernel.as_deref(), Some("5.13"));
    assert!(object.needs.kernel_btf);
}

/// An object with one of each kind of map and data, and its BTF.
fn full(order: Endianness) -> Vec<u8> {
    let mut types = Types::new(order);
    let int = types.int(true);
    let (hash, array, four, page) = (
        types.number(1),
        types.number(12),
        types.number(4),
        types.number(5000),
    );
    let int_pointer = types.pointer(int);
    let pinned = types.number(1);
    let inner = types.structure(&[("type", four), ("max_entries", hash)]);
    let inner_pointer = types.pointer(inner);
    let values = types.add("", (3, 0), 0, &[inner_pointer, int, 0]);
    let flags = types.number(0x480);
    let hash = types.structure(&[
        ("type", hash),
        ("key", int_pointer),
        ("value_size", four),
        ("max_entries", page),
        ("map_flags", flags),
        ("pinning", pinned),
    ]);
    let outer = types.structure(&[
        ("type", array),
        ("key_size", four),
        ("max_entries", four),
        ("values", values),
    ]);
    let ring = types.number(27);
    let ring = types.structure(&[("type", ring), ("max_entries", page)]);
    let maps = [
        types.variable("outer", outer, 1),
        types.variable("counts", hash, 1),
        types.variable("events", ring, 1),
    ];
    types.section(
        ".maps",
        0,
        &[[maps[0], 0, 32], [maps[1], 0, 48], [maps[2], 0, 16]],
    );
    let volatile = types.add("", (9, 0), int, &[]);
    let constant = types.add("", (10, 0), volatile, &[]);
    let elements = types.add("", (3, 0), 0, &[constant, int, 2]);
    let rodata = [
        types.variable("target", constant, 1),
        types.variable("table", elements, 0),
    ];
    types.section(".rodata", 0, &[[rodata[0], 0, 4], [rodata[1], 4, 8]]);
    let config = types.variable("CONFIG_HZ", int, 2);
    types.section(".kconfig", 0, &[[config, 0, 4]]);

    let mut builder = Builder::new(order);
    builder.bytes("license", b"Dual BSD/GPL\0");
    let maps = builder.bytes(".maps", &[0; 96]);
    builder.symbol("counts", GLOBAL_OBJECT, maps, 0, 48);
    builder.symbol("outer", GLOBAL_OBJECT, maps, 48, 32);
    builder.symbol("events", GLOBAL_OBJECT, maps, 80, 16);
    let rodata = builder.bytes(".rodata", &[1; 12]);
    builder.symbol("target", GLOBAL_OBJECT, rodata, 0, 4);
    builder.bytes(".rodata.str1.1", b"hello\0");
    let data = builder.bytes(".data.own", &[2; 8]);
    builder.symbol("counter", GLOBAL_OBJECT, data, 0, 8);
    builder.zeros(".bss", 16);
    builder.bytes(".data.empty", &[]);
    builder.symbol("CONFIG_HZ", GLOBAL_NOTYPE, 0, 0, 0);
    let legacy: Vec<u8> = [2u32, 4, 8, 16, 0, 0, 2, 0, 0]
        .iter()
        .flat_map(|word| match order {
            Endianness::Little => word.to_le_bytes(),
            Endianness::Big => word.to_be_bytes(),
        })
        .collect();
    let legacy = builder.bytes("maps", &legacy);
    builder.symbol("old", GLOBAL_OBJECT, legacy, 0, 36);
    builder.bytes(".BTF", &types.build());
    builder.build()
}

#[test]
fn maps_and_data_in_both_byte_orders() {
    let map = |name: &str, kind: &str, sizes: [u32; 3]| Map {
        name: name.to_owned(),
        kind: kind.to_owned(),
        key_size: sizes[0],
        value_size: sizes[1],
        max_entries: sizes[2],
        flags: 0,
        map_extra: 0,
        pinning: "none".to_owned(),
        legacy: false,
        optional: false,
        inner: None,
    };
    let variable = |name: &str, offset, size, volatile, signed| Variable {
        name: name.to_owned(),
        offset,
        size,
        volatile,
        signed,
        tunable: false,
    };
    let section = |name: &str, size, readonly, variables: &[Variable]| DataSection {
        section: name.to_owned(),
        size,
        readonly,
        variables: variables.to_vec(),
    };
    for order in [Endianness::Little, Endianness::Big] {
        let object = read("full.o", &full(order)).unwrap();
        assert_eq!(object.endianness, order);
        assert_eq!(object.license.as_deref(), Some("Dual BSD/GPL"));
        assert_eq!(
            object.maps,
            [
                Map {
                    flags: 0x480,
                    pinning: "by_name".to_owned(),
                    ..map("counts", "hash", [4, 4, 5000])
                },
                Map {
                    inner: Some(Box::new(map("outer.inner", "perf_event_array", [0, 0, 1]))),
                    ..map("outer", "array_of_maps", [4, 4, 4])
                },
                map("events", "ringbuf", [0, 0, 8192]),
                Map {
                    legacy: true,
                    pinning: "by_name".to_owned(),
                    ..map("old", "array", [4, 8, 16])
                },
            ]
        );
        assert_eq!(
            object.data,
            [
                section(
                    ".rodata",
                    12,
                    true,
                    &[
                        variable("target", 0, 4, true, true),
                        variable("table", 4, 8, true, false),
                    ]
                ),
                section(".rodata.str1.1", 6, true, &[]),
                section(
                    ".data.own",
                    8,
                    false,
                    &[variable("counter", 0, 8, false, false)]
                ),
                section(".bss", 16, false, &[]),
                section(
                    ".kconfig",
                    4,
                    true,
                    &[variable("CONFIG_HZ", 0, 4, false, true)]
                ),
            ]
        );
        let volatile: Vec<_> = object
            .volatile_constants()
            .map(|found| &found.name)
            .collect();
        assert_eq!(volatile, ["target", "table"]);
    }
}

#[test]
fn members_of_structs_of_functions_are_where_relocations_put_them() {
    let mut types = Types::new(Endianness::Little);
    let pointer = types.pointer(0);
    let names = ["first", "second"].map(|name| types.string(name));
    let body = [names[0], pointer, 0, names[1], pointer, 64];
    let ops = types.add("ops___newer", (4, 2), 16, &body);
    let mine = types.variable("mine", ops, 1);
    let yours = types.variable("yours", ops, 1);
    types.section(".struct_ops", 0, &[[mine, 0, 16], [yours, 16, 16]]);
    let mut builder = Builder::new(Endianness::Little);
    let mut function = |section: &str, name: &str| {
        let code = builder.code(section, &RETURN_ZERO);
        builder.symbol(name, GLOBAL_FUNC, code, 0, 16)
    };
    let one = function("struct_ops/first", "one");
    let two = function("struct_ops/anything", "two");
    function("struct_ops/first", "three");
    let structs = builder.bytes(".struct_ops", &[0; 32]);
    builder.symbol("mine", GLOBAL_OBJECT, structs, 0, 16);
    builder.symbol("yours", GLOBAL_OBJECT, structs, 16, 16);
    builder.relocations(structs, &[(8, one), (16, two), (24, one)]);
    builder.bytes(".BTF", &types.build());
    let object = read("a.o", &builder.build()).unwrap();
    let members: Vec<_> = object
        .programs
        .iter()
        .map(|program| (program.name.as_str(), program.members.join(" ")))
        .collect();
    let want = [("one", "ops:second"), ("two", "ops:first"), ("three", "")];
    assert_eq!(members, want.map(|(name, of)| (name, of.to_owned())));
}

#[test]
fn an_inventory_survives_json() {
    let inventory = Inventory::of(vec![read("full.o", &full(Endianness::Little)).unwrap()]);
    let json = serde_json::to_string(&inventory).unwrap();
    assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
}

/// What each broken object is refused with.
#[test]
fn refusals_name_the_place() {
    type Break = fn(&mut Vec<u8>);
    let cases: &[(Break, &str)] = &[
        (|file| file.truncate(3), "offset 0x0: not an ELF file"),
        (
            |file| file.truncate(40),
            "offset 0x0: the ELF header ends at 0x40, beyond the end at 0x28",
        ),
        (|file| file[4] = 1, "offset 0x4: not a 64-bit ELF file"),
        (|file| file[5] = 7, "offset 0x5: unknown byte order"),
        (
            |file| file[18] = 62,
            "offset 0x12: machine 62 is not BPF (247)",
        ),
        (
            |file| file[16] = 2,
            "offset 0x10: ELF type 2 is not a relocatable object (1)",
        ),
        (
            |file| file[40..48].fill(0),
            "offset 0x28: there is no section table",
        ),
        (
            |file| file[40..48].fill(0xff),
            "offset 0x28: the section table ends at 0xffffffffffffffff, beyond the end at 0x1f0",
        ),
        (
            |file| file[58] = 63,
            "offset 0x3a: section headers of 63 bytes, not 64",
        ),
        (
            |file| file[62] = 99,
            "offset 0x3e: section names are in section #99, which does not exist",
        ),
        (
            |file| file.truncate(file.len() - 1),
            "offset 0xb0: the section table ends at 0x1f0, beyond the end at 0x1ef",
        ),
    ];
    for (break_, want) in cases {
        let mut file = crate::fixture::object("xdp", "main");
        break_(&mut file);
        assert_eq!(read("a.o", &file).unwrap_err().to_string(), *want);
    }
}

/// Reads, and holds the reader to its promise about time.
fn quickly(file: &[u8]) -> Result<Object, crate::MalformedObject> {
    let start = Instant::now();
    let result = read("hostile.o", file);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    result
}

#[test]
fn fifty_thousand_programs_sharing_a_long_name() {
    for (length, want) in [
        (
            1 << 20,
            "section '.symtab': a name's length in bytes is 4097, the limit is 4096",
        ),
        (
            4000,
            "section 'xdp': the size of its inventory in bytes is 11087546, the limit is 11083840",
        ),
    ] {
        let mut builder = Builder::new(Endianness::Little);
        let xdp = builder.code("xdp", &RETURN_ZERO);
        let name = "n".repeat(length);
        builder.symbol(&name, GLOBAL_FUNC, xdp, 0, 16);
        for _ in 0..50_000 {
            builder.symbol("", GLOBAL_FUNC, xdp, 0, 16);
        }
        let mut file = builder.build();
        // Every symbol's name becomes the first one's.
        let table = file
            .windows(6)
            .position(|bytes| bytes == b"\0nnnnn")
            .unwrap();
        let symbols = table - 24 * 50_001 - (table - 24 * 50_001) % 8;
        for index in 0..50_000 {
            let at = symbols + 24 * (index + 1);
            file[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
        }
        assert_eq!(quickly(&file).unwrap_err().to_string(), want);
    }
}

#[test]
fn a_chain_of_thirty_thousand_calls() {
    let length = 30_000u64;
    let mut code = Vec::new();
    for _ in 1..length {
        code.extend([insn(0x85, 0, 1, 0, 1), EXIT]);
    }
    code.extend(RETURN_ZERO);
    let mut builder = Builder::new(Endianness::Little);
    let text = builder.code(".text", &code);
    for index in 0..length {
        builder.symbol(&format!("f{index:05}"), LOCAL_FUNC, text, index * 16, 16);
    }
    let first = builder.symbol("first", LOCAL_FUNC, text, 0, 0);
    let xdp = builder.program("xdp", "main", &[CALL_STATIC, EXIT]);
    builder.relocations(xdp, &[(0, first)]);
    let object = quickly(&builder.build()).unwrap();
    assert_eq!(object.programs[0].total_insns, 60_002);
    assert_eq!(object.programs[0].calls.len(), 30_000);
}

#[test]
fn everything_reaching_everything_is_a_limit() {
    // Programs of one long section that all overlap, each calling all functions.
    let functions = 2_000u64;
    let mut code = Vec::new();
    for index in 0..functions {
        let callee = index * 7 % functions;
        code.push(insn(0x85, 0, 1, 0, callee as i32 - index as i32 - 1));
    }
    code.push(EXIT);
    let mut builder = Builder::new(Endianness::Little);
    let xdp = builder.code("xdp", &code);
    for index in 0..functions {
        let start = index * 8;
        builder.symbol(
            &format!("p{index}"),
            GLOBAL_FUNC,
            xdp,
            start,
            functions * 8 - start,
        );
    }
    let error = quickly(&builder.build()).unwrap_err();
    assert!(error.is_limit(), "{error}");
}

#[test]
fn every_truncation_is_an_error_or_an_object() {
    let file = full(Endianness::Little);
    for length in 0..file.len() {
        let error = read("short.o", &file[..length]).unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn mutations_never_panic(
        big in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 0..4),
    ) {
        let order = if big { Endianness::Big } else { Endianness::Little };
        let mut file = full(order);
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        for (place, word) in moves {
            let place = place.index(file.len() / 4 - 1) * 4;
            file[place..place + 4].copy_from_slice(&word.to_le_bytes());
        }
        match read("mutated.o", &file) {
            Ok(object) => prop_assert!(serde_json::to_string(&object).is_ok()),
            Err(error) => {
                let line = error.to_string();
                prop_assert!(!line.contains(char::is_control), "{line}");
                prop_assert!(line.len() < 1000, "{line}");
            }
        }
    }
}
