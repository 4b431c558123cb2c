use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::image::Identity;

const MOVE: u64 = 0xb7;
const CALL: u64 = 0x85;
const WIDE: u64 = 0x18;
const EXIT: u64 = 0x95;

fn function(name: &str, entry: bool, words: &[u64], sites: &[(u32, Site)]) -> Function {
    Function {
        name: name.to_owned(),
        entry,
        words: words.to_vec(),
        sites: sites.iter().copied().collect(),
    }
}

fn call(distance: i32) -> u64 {
    with_imm(CALL | 1 << 12, distance)
}

fn map(descriptor: i32) -> u64 {
    with_imm(WIDE | 1 << 12, descriptor)
}

fn value(descriptor: i32) -> u64 {
    with_imm(WIDE | 2 << 12, descriptor)
}

/// `main` calls `b` and then `a`, `b` calls `a`; a map, read-only data, one CO-RE place.
fn object() -> Anatomy {
    let move5 = with_imm(MOVE, 5);
    Anatomy {
        functions: vec![
            function(
                "main",
                true,
                &[WIDE, 0, call(-1), move5, call(-1), EXIT],
                &[(0, Site::Map(0)), (2, Site::Call(1)), (4, Site::Call(2))],
            ),
            function(
                "b",
                false,
                &[call(-1), WIDE, 0, EXIT],
                &[(0, Site::Call(2)), (1, Site::Data(1, 8))],
            ),
            function(
                "a",
                false,
                &[with_imm(MOVE, 0), WIDE, 0, EXIT],
                &[(0, Site::Kernel), (1, Site::Map(0))],
            ),
        ],
        targets: vec!["events".to_owned(), ".rodata".to_owned()],
        ..Anatomy::default()
    }
}

/// As libbpf lays it out: main, b, a; descriptors 7 and 9; the kernel says 64.
fn libbpf() -> Vec<u64> {
    let main = [map(7), 0, call(3), with_imm(MOVE, 5), call(5), EXIT];
    let b = [call(3), value(9), with_imm(0, 8), EXIT];
    let a = [with_imm(MOVE, 64), map(7), 0, EXIT];
    [&main[..], &b, &a].concat()
}

/// As cilium/ebpf does: main, a, b.
fn cilium() -> Vec<u64> {
    let main = [map(4), 0, call(7), with_imm(MOVE, 5), call(1), EXIT];
    let a = [with_imm(MOVE, 64), map(4), 0, EXIT];
    let b = [call(-5), value(5), with_imm(0, 8), EXIT];
    [&main[..], &a, &b].concat()
}

fn spec(name: &str) -> MapSpec {
    MapSpec {
        name: name.to_owned(),
        map_type: 1,
        key_size: 4,
        value_size: 8,
        max_entries: (1, 1),
        flags: 0,
        flags_free: 0,
        inner: None,
        contents: None,
    }
}

fn measured(mut words: Vec<u64>) -> Image {
    image::index_maps(&mut words);
    Image {
        name: "main".to_owned(),
        identity: Identity {
            prog_type: 5,
            expected_attach_type: 0,
            attach_btf_id: 0,
            flags: 0,
        },
        words,
        maps: vec![spec("events"), spec(".rodata")],
        places: vec!["sys_*".to_owned()],
        result: None,
        gpl: None,
        module: None,
        calls: BTreeMap::new(),
    }
}

fn learned() -> Anatomy {
    let mut anatomy = object();
    anatomy.learn(&measured(libbpf())).unwrap();
    anatomy
}

#[test]
fn every_layout_of_the_same_functions_is_accepted() {
    let anatomy = learned();
    for (stream, order, functions) in [
        (
            libbpf(),
            Order::DepthFirst,
            [("main", 0), ("b", 6), ("a", 10)],
        ),
        (
            cilium(),
            Order::BreadthFirstByName,
            [("main", 0), ("a", 6), ("b", 10)],
        ),
    ] {
        let layout = anatomy.explain("main", &stream).unwrap();
        let want = functions.map(|(name, start)| (name.to_owned(), start));
        assert_eq!(layout.functions, want);
        let mut words = stream;
        image::index_maps(&mut words);
        assert_eq!(layout.words, words);
        assert_eq!(anatomy.lay_out("main", order), Some(layout.clone()));
        // The same maps, in the order in which this layout mentions them.
        let image = anatomy.image(&measured(libbpf()), &layout).unwrap();
        let names: Vec<&str> = image.maps.iter().map(|map| map.name.as_str()).collect();
        assert_eq!(names, ["events", ".rodata"]);
        assert_eq!(
            (image.words, image.places),
            (words, vec!["sys_*".to_owned()])
        );
    }
}

#[test]
fn a_masked_stream_is_compared_but_for_its_maps() {
    let masked: Vec<u64> = cilium().into_iter().map(image::mask).collect();
    let anatomy = learned();
    assert_eq!(
        anatomy.explain("main", &masked),
        anatomy.explain("main", &cilium())
    );
}

#[test]
fn each_difference_is_said_in_words() {
    let change = |at: usize, word: u64| {
        let mut words = libbpf();
        words[at] = word;
        words
    };
    let cut = libbpf()[..13].to_vec();
    let more = [libbpf(), vec![EXIT, EXIT]].concat();
    let table: [(Vec<u64>, &str); 14] = [
        (
            change(3, with_imm(MOVE, 7)),
            "instruction 3 (number 3 of function \"main\"): the constant is 7, signed is 5",
        ),
        (
            change(3, with_imm(MOVE | 1 << 8, 5)),
            "instruction 3 (number 3 of function \"main\"): the registers are r1, r0, signed are r0, r0",
        ),
        (
            change(3, with_imm(MOVE | 1 << 16, 5)),
            "instruction 3 (number 3 of function \"main\"): the offset is 1, signed is 0",
        ),
        (
            change(5, with_imm(CALL, 6)),
            "instruction 5 (number 5 of function \"main\"): another instruction: 0000000600000085, signed is 0000000000000095",
        ),
        (
            change(10, with_imm(MOVE, 65)),
            "instruction 10 (number 0 of function \"a\"): a relocation has a value that this kernel does not give: the constant is 65, signed is 64",
        ),
        (
            change(2, call(7)),
            "instruction 4 (number 4 of function \"main\"): it calls the function \"b\", signed is \"a\"",
        ),
        (
            change(2, call(4)),
            "instruction 4 (number 4 of function \"main\"): it does not lead to the start of the function \"a\"",
        ),
        (
            change(2, call(-3)),
            "instruction 2 (number 2 of function \"main\"): it calls the function \"main\", signed is \"b\"",
        ),
        (
            change(2, call(i32::MAX)),
            "instruction 2 (number 2 of function \"main\"): it does not lead to the start of the function \"b\"",
        ),
        (
            change(11, map(9)),
            "instruction 11 (number 1 of function \"a\"): it uses the map \".rodata\", signed is \"events\"",
        ),
        (
            change(11, map(8)),
            "instruction 11 (number 1 of function \"a\"): it uses another map than before in the place of \"events\"",
        ),
        (
            change(8, with_imm(0, 16)),
            "instruction 7 (number 1 of function \"b\"): it refers to byte 16 of .rodata, signed is byte 8",
        ),
        (
            cut,
            "instruction 4 (number 4 of function \"main\"): the program ends within the function \"a\"",
        ),
        (
            more,
            "instruction 14: 2 instructions that belong to no function which the program calls",
        ),
    ];
    let anatomy = learned();
    for (stream, want) in table {
        let difference = anatomy.explain("main", &stream).unwrap_err();
        assert_eq!(difference.to_string(), want);
    }
    let nowhere = anatomy.explain("other", &libbpf()).unwrap_err();
    assert_eq!(nowhere.to_string(), "the object has no program \"other\"");
}

#[test]
fn a_wrong_measurement_is_noticed() {
    let mut wrong = libbpf();
    wrong[3] = with_imm(MOVE, 6);
    let difference = object().learn(&measured(wrong)).unwrap_err();
    let want = "instruction 3 (number 3 of function \"main\"): the constant is 6, signed is 5";
    assert_eq!(difference.to_string(), want);
}

#[test]
fn what_libbpf_poisoned_may_be_poisoned_otherwise_and_not_revived() {
    let poisoned = |word: u64| {
        let mut words = libbpf();
        words[10] = word;
        words
    };
    let mut anatomy = object();
    anatomy
        .learn(&measured(poisoned(with_imm(CALL, 0x0bad_2310))))
        .unwrap();
    let theirs = poisoned(with_imm(CALL, 0x0ded_c0de));
    let layout = anatomy.explain("main", &theirs).unwrap();
    assert_eq!(layout.words[10], with_imm(CALL, 0x0ded_c0de));
    for word in [with_imm(MOVE, 64), with_imm(CALL, 6)] {
        assert!(anatomy.explain("main", &poisoned(word)).is_err());
    }
    // Nor is what is alive poisoned, unseen.
    let alive = learned();
    assert!(alive.explain("main", &theirs).is_err());
}

#[test]
fn the_map_of_kernel_configuration_is_told_by_the_measurement() {
    let mut anatomy = object();
    anatomy.functions[2].sites.insert(1, Site::Kernel);
    let with_config = |descriptor: i32| {
        let mut words = libbpf();
        words[11] = value(descriptor);
        words[12] = with_imm(0, 4);
        words
    };
    let mut image = measured(with_config(11));
    image.maps.push(spec("x.kconfig"));
    anatomy.learn(&image).unwrap();
    let layout = anatomy.explain("main", &with_config(3)).unwrap();
    let maps = anatomy.image(&image, &layout).unwrap().maps;
    assert_eq!(maps, image.maps);
    let difference = anatomy.explain("main", &with_config(7)).unwrap_err();
    let want = "instruction 11 (number 1 of function \"a\"): it uses the map \"events\", signed is \"x.kconfig\"";
    assert_eq!(difference.to_string(), want);
}

#[test]
fn the_start_of_a_stream_is_compared_as_far_as_it_goes() {
    let anatomy = learned();
    let stream = libbpf();
    for known in 0..stream.len() {
        anatomy
            .compare_start("main", &stream[..known], stream.len())
            .unwrap();
    }
    let mut wrong = stream.clone();
    wrong[3] = with_imm(MOVE, 7);
    let difference = anatomy
        .compare_start("main", &wrong[..5], stream.len())
        .unwrap_err();
    assert_eq!(difference.at, Some(3));
}

/// An object of some functions, each called by one before it.
#[derive(Clone, Debug)]
struct Made {
    anatomy: Anatomy,
    /// An order of the functions, the entry first.
    order: Vec<usize>,
}

fn made() -> impl Strategy<Value = Made> {
    let piece = (0u8..5, any::<u16>(), any::<u8>());
    let bodies = prop::collection::vec(prop::collection::vec(piece, 0..12), 1..6);
    (bodies, any::<u64>()).prop_map(|(bodies, seed)| {
        let count = bodies.len();
        let mut anatomy = Anatomy {
            targets: (0..4).map(|n| format!("map{n}")).collect(),
            ..Anatomy::default()
        };
        for (index, pieces) in bodies.into_iter().enumerate() {
            let mut words = Vec::new();
            let mut sites = Vec::new();
            // Somebody must call each one.
            if index + 1 < count {
                sites.push((words.len() as u32, Site::Call(index + 1)));
                words.push(call(-1));
            }
            for (kind, number, other) in pieces {
                let slot = words.len() as u32;
                match kind {
                    0 => words.push(with_imm(MOVE, i32::from(number))),
                    1 => {
                        sites.push((slot, Site::Kernel));
                        words.push(MOVE);
                        let legal = with_imm(MOVE, i32::from(number) + 1);
                        anatomy.values.insert((index, slot), (legal, 0));
                    }
                    2 => {
                        sites.push((slot, Site::Map(usize::from(other % 2))));
                        words.extend([WIDE, 0]);
                    }
                    3 => {
                        let target = 2 + usize::from(other % 2);
                        sites.push((slot, Site::Data(target, number.into())));
                        words.extend([WIDE, 0]);
                    }
                    _ if count > 1 => {
                        let callee = 1 + usize::from(number) % (count - 1);
                        sites.push((slot, Site::Call(callee)));
                        words.push(call(-1));
                    }
                    _ => words.push(EXIT),
                }
            }
            words.push(EXIT);
            let name = format!("f{index}");
            anatomy
                .functions
                .push(function(&name, index == 0, &words, &sites));
        }
        let mut order: Vec<usize> = (0..count).collect();
        let mut seed = seed;
        for place in (2..count).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(place, 1 + (seed >> 33) as usize % place);
        }
        Made { anatomy, order }
    })
}

impl Made {
    /// Linked by the other end of the contract: what a loader writes, not what we know.
    fn linked(&self) -> Vec<u64> {
        let mut starts = vec![0; self.order.len()];
        let mut end = 0;
        for &function in &self.order {
            starts[function] = end;
            end += self.anatomy.functions[function].words.len();
        }
        let mut stream = Vec::new();
        for &index in &self.order {
            let function = &self.anatomy.functions[index];
            for (slot, word) in function.words.iter().enumerate() {
                let at = (starts[index] + slot) as i32;
                let before = slot
                    .checked_sub(1)
                    .and_then(|b| function.sites.get(&(b as u32)));
                stream.push(match (function.sites.get(&(slot as u32)), before) {
                    (Some(Site::Call(callee)), _) => call(starts[*callee] as i32 - at - 1),
                    (Some(Site::Map(target)), _) => map(100 + *target as i32),
                    (Some(Site::Data(target, _)), _) => value(100 + *target as i32),
                    (Some(Site::Kernel), _) => self.anatomy.values[&(index, slot as u32)].0,
                    (_, Some(Site::Data(_, offset))) => with_imm(0, *offset as i32),
                    _ => *word,
                });
            }
        }
        stream
    }
}

proptest! {
    #[test]
    fn any_order_of_functions_is_proved(made in made()) {
        let stream = made.linked();
        let layout = made.anatomy.explain("f0", &stream).unwrap();
        let names: Vec<String> = made.order.iter().map(|index| format!("f{index}")).collect();
        let got: Vec<String> = layout.functions.into_iter().map(|(name, _)| name).collect();
        prop_assert_eq!(got, names);
        let mut words = stream;
        image::index_maps(&mut words);
        prop_assert_eq!(layout.words, words);
    }

    #[test]
    fn any_changed_bit_is_refused(made in made(), at: prop::sample::Index, bit in 0u32..64) {
        let mut stream = made.linked();
        let at = at.index(stream.len());
        // A descriptor alone says nothing.
        prop_assume!(bit < 32 || !image::is_map_reference(stream[at]));
        stream[at] ^= 1 << bit;
        prop_assert!(made.anatomy.explain("f0", &stream).is_err());
    }

    #[test]
    fn another_length_is_refused(made in made(), cut: prop::sample::Index, more in any::<u64>()) {
        let stream = made.linked();
        let cut = cut.index(stream.len());
        prop_assert!(made.anatomy.explain("f0", &stream[..cut]).is_err());
        let longer = [stream, vec![more]].concat();
        prop_assert!(made.anatomy.explain("f0", &longer).is_err());
    }

    #[test]
    fn another_map_is_refused(made in made(), at: prop::sample::Index, descriptor in 100i32..104) {
        let mut stream = made.linked();
        let references: Vec<usize> = (0..stream.len())
            .filter(|at| image::is_map_reference(stream[*at]))
            .collect();
        prop_assume!(!references.is_empty());
        let at = references[at.index(references.len())];
        let told = (stream[at] >> 32) as i32;
        let shared = |descriptor: i32| {
            references.iter().filter(|at| (stream[**at] >> 32) as i32 == descriptor).count()
        };
        // Renaming every use of a map is no change.
        prop_assume!(told != descriptor && (shared(told) > 1 || shared(descriptor) > 0));
        stream[at] = with_imm(stream[at], descriptor);
        prop_assert!(made.anatomy.explain("f0", &stream).is_err());
    }

    #[test]
    fn no_stream_panics(made in made(), stream in prop::collection::vec(any::<u64>(), 0..64), length in 0usize..200) {
        let _ = made.anatomy.explain("f0", &stream);
        let _ = made.anatomy.compare_start("f0", &stream, length);
    }
}
