use super::{
    seal::{CLEANUP, LD_IMM64, insn, offset, words},
    *,
};
use crate::inventory::{Endianness, Map};

const EXIT: u64 = insn(0x95, 0, 0);

/// As `gen_loader` writes it, for one program and one map: the prologue, clean-up code, a size
/// and a content from the caller, a check that leaves, and the reports.
fn generated() -> Loader {
    let check =
        |from: usize| insn(0xc5, 7, 0) | u64::from((CLEANUP as i16 - from as i16 - 1) as u16) << 16;
    let mut words = vec![
        insn(0xbf, 6, 1),
        insn(0xbf, 1, 10),
        insn(0x07, 1, 0) | 0xffff_ff78 << 32,
        insn(0xb7, 2, 0) | 136 << 32,
        insn(0xb7, 3, 0),
        insn(0x85, 0, 0) | 113 << 32,
        insn(0x05, 0, 0) | 3 << 16,
        insn(0x61, 1, 10) | 0xff78 << 16,
        insn(0xbf, 0, 7),
        EXIT,
    ];
    words.extend([
        insn(0x61, 0, 6) | 28 << 16,
        insn(0x15, 0, 0) | 3 << 16,
        insn(LD_IMM64, 1, 6),
        64 << 32,
        insn(0x63, 1, 0),
    ]);
    words.push(check(words.len()));
    words.extend([
        insn(0x79, 3, 6) | 32 << 16,
        insn(0x15, 3, 0) | 8 << 16,
        insn(LD_IMM64, 1, 6),
        96 << 32,
        insn(0xb7, 2, 0) | 4 << 32,
        insn(0x61, 0, 6) | 4 << 16,
        insn(0x45, 0, 0) | 2 << 16 | 1 << 32,
        insn(0x85, 0, 0) | 148 << 32,
        insn(0x05, 0, 0) | 1 << 16,
        insn(0x85, 0, 0) | 113 << 32,
    ]);
    words.push(check(words.len()));
    words.extend([
        insn(0x61, 0, 6) | 8 << 16,
        insn(0x63, 6, 0) | 40 << 16,
        insn(0x63, 6, 0) | 24 << 16,
        insn(0xb7, 0, 0),
        EXIT,
    ]);
    Loader {
        insns: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        data: vec![1; 128],
    }
}

fn about(form: Form) -> About {
    About {
        form,
        object: Digest::of(b"object"),
        maps: vec!["counts".to_owned()],
        programs: vec!["count".to_owned()],
    }
}

#[test]
fn nothing_of_the_caller_is_left_but_how_to_log() {
    let made = KernelLoader::make(&generated(), about(Form::MapSigned)).unwrap();
    let got = words(&made.loader.insns).unwrap();
    let leave = |from: u64| insn(0xc5, 7, 0) | ((7 - from as i16 - 1) as u16 as u64) << 16;
    assert_eq!(
        got[10..],
        [
            leave(10),
            leave(11),
            insn(0x61, 0, 6) | 8 << 16,
            insn(0x63, 6, 0) | 40 << 16,
            insn(0x63, 6, 0) | 24 << 16,
            insn(0xb7, 0, 0),
            EXIT,
        ]
    );
    assert_eq!(made.context_size(), 24 + 16 + 4);
    let all = [made.loader.insns.as_slice(), &[1; 128]].concat();
    assert_eq!(made.signed_bytes(), all);
}

#[test]
fn a_form_without_signed_map_checks_it_first() {
    let made = KernelLoader::make(&generated(), about(Form::MapChecked)).unwrap();
    let got = words(&made.loader.insns).unwrap();
    assert_eq!(got.len(), 17 + 33);
    // The prologue's jump goes to the check, and what leaves still leaves.
    assert_eq!(got[6], insn(0x05, 0, 0) | 3 << 16);
    assert_eq!(got[10..12], [insn(LD_IMM64, 1, 5), 0]);
    let target = |at: usize| at as i64 + 1 + i64::from(offset(got[at]));
    assert_eq!(
        (target(14), target(21), target(43), target(44)),
        (7, 7, 7, 7)
    );
    assert_eq!(made.signed_bytes(), made.loader.insns);
    let digest = Digest::of(&[1; 128]);
    assert_eq!(
        (got[18] >> 32) as u32,
        u32::from_le_bytes(digest.as_bytes()[..4].try_into().unwrap())
    );
}

#[test]
fn a_loader_goes_into_an_object_and_comes_back() {
    for form in Form::ALL {
        for signature in [None, Some(vec![0x30, 0])] {
            let made = KernelLoader::make(&generated(), about(form)).unwrap();
            let made = KernelLoader { signature, ..made };
            let object = made.to_object();
            assert_eq!(KernelLoader::read(&object), Ok(made));
            let inventory = crate::inventory::read("x.loader.o", &object).unwrap();
            assert_eq!(inventory.programs[0].kind, "syscall");
            let longer = [object.as_slice(), &[0]].concat();
            assert!(KernelLoader::read(&longer).is_err());
        }
    }
}

#[test]
fn what_is_not_whole_is_no_loader() {
    let made = KernelLoader::make(&generated(), about(Form::MapChecked)).unwrap();
    let without_check = KernelLoader {
        about: about(Form::MapChecked),
        ..KernelLoader::make(&generated(), about(Form::MapSigned)).unwrap()
    };
    let mut other_data = made.clone();
    other_data.loader.data[0] ^= 1;
    let mut obedient = made.clone();
    obedient.about.form = Form::MapSigned;
    obedient.loader = generated();
    let mut more = made.clone();
    more.about.programs.push("more".to_owned());
    for (loader, want) in [
        (without_check, "it does not check its map"),
        (other_data, "it does not check its map"),
        (obedient, "it takes more from its caller than how to log"),
        (more, "it reports 1 maps and 1 programs, and names 1 and 2"),
    ] {
        assert_eq!(
            KernelLoader::read(&loader.to_object()),
            Err(want.to_owned())
        );
    }
}

#[test]
fn a_bundle_holds_loaders_of_its_own_objects_alone() {
    let elf = crate::fixture::object("xdp", "count");
    let object = crate::inventory::read("x.bpf.o", &elf).unwrap();
    let layer = |title: &str, form, edit: &dyn Fn(&mut About)| {
        let mut about = About {
            object: object.digest,
            ..about(form)
        };
        edit(&mut about);
        let made = KernelLoader::make(&generated(), about).unwrap();
        (title.to_owned(), Blob::new(made.to_object()))
    };
    let objects = [object.clone()];
    let one = layer("a", Form::MapChecked, &|_| ());
    let two = layer("b", Form::MapSigned, &|_| ());
    let described = describe(&objects, &[one.clone(), two.clone()]).unwrap();
    let forms: Vec<Form> = described[0].loaders.iter().map(|l| l.form).collect();
    assert_eq!((described[0].obstacle, forms), (None, Form::ALL.to_vec()));
    let none = describe(&objects, &[]).unwrap();
    assert_eq!(none[0].obstacle, Some(Obstacle::NotGenerated));
    let same_title = ("a".to_owned(), two.1.clone());
    let same_form = layer("b", Form::MapChecked, &|_| ());
    let stranger = layer("b", Form::MapSigned, &|about| {
        about.object = Digest::of(b"other")
    });
    let other = layer("b", Form::MapSigned, &|about| {
        about.programs = vec!["other".into()]
    });
    for (second, want) in [
        (same_title, "\"a\" cannot be a loader's title"),
        (same_form, "object \"x.bpf.o\" has two loaders of one form"),
        (stranger, "loader \"b\" is of an object that is not here"),
        (
            other,
            "loader \"b\": it loads {\"other\"}, and the object has {\"count\"}",
        ),
    ] {
        let got = describe(&objects, &[one.clone(), second]);
        assert_eq!(got, Err(want.to_owned()));
    }
    let optional = crate::inventory::read("y.o", &crate::fixture::object("?xdp", "count"));
    let objects = [Object {
        digest: object.digest,
        ..optional.unwrap()
    }];
    assert_eq!(
        describe(&objects, &[one]),
        Err("loader \"a\": it loads {\"count\"}, and the object has {}".to_owned())
    );
}

#[test]
fn every_obstacle_has_a_code_of_its_own() {
    let object = |edit: &dyn Fn(&mut Object)| {
        let elf = crate::fixture::object("xdp", "drop");
        let mut object = crate::inventory::read("x.o", &elf).unwrap();
        edit(&mut object);
        Obstacle::of(&object)
    };
    let map = |edit: &dyn Fn(&mut Map)| {
        let mut map: Map = serde_json::from_value(serde_json::json!({
            "name": "m", "type": "array", "key_size": 4, "value_size": 4, "max_entries": 1,
            "flags": 0, "pinning": "none", "legacy": false
        }))
        .unwrap();
        edit(&mut map);
        map
    };
    assert_eq!(object(&|_| ()), None);
    let plain = map(&|_| ());
    assert_eq!(object(&|o| o.maps = vec![plain.clone(); 64]), None);
    let got = [
        object(&|o| o.endianness = Endianness::Big),
        object(&|o| o.maps.push(map(&|m| m.kind = "struct_ops".into()))),
        object(&|o| o.maps = vec![plain.clone(); 65]),
        object(&|o| o.programs = vec![o.programs[0].clone(); 33]),
        object(&|o| o.maps.push(map(&|m| m.pinning = "by_name".into()))),
        object(&|o| o.maps.push(map(&|m| m.legacy = true))),
        object(&|o| {
            o.maps.push(map(&|m| {
                m.kind = "perf_event_array".into();
                m.max_entries = 0;
            }));
        }),
        object(&|o| o.programs[0].kind = "ext".into()),
        object(&|o| o.programs[0].kind = "lsm".into()),
        object(&|o| o.programs[0].name = light::PROGRAM.into()),
        object(&|o| o.programs[0].optional = true),
    ];
    let codes: Vec<_> = got
        .iter()
        .map(|o| o.map_or("none", Obstacle::code))
        .collect();
    assert_eq!(
        codes,
        [
            "big-endian",
            "struct-ops",
            "too-many-maps",
            "too-many-functions",
            "pinned-map",
            "legacy-map",
            "processor-count",
            "replaces",
            "no-target",
            "is-loader",
            "no-program"
        ]
    );
    let written = serde_json::to_value(Obstacle::ProcessorCount).unwrap();
    assert_eq!(written, Obstacle::ProcessorCount.code());
}
