//! The rows of a set: under which keys the kernel side finds images, shapes and settings.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use bundle::image::{self, Image, ModuleBtf};

use super::{
    super::shared::{Header, Key, MAX_ALIKE, Use, class_number},
    ANY_TARGET, invalid,
};
use crate::{
    gate::{Armed, Class, Entry, Mode, ShapeRule},
    limits::EXT,
};

/// `FINGERPRINT_PRIME`, used for names here.
const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
/// No types have this number.
const NOT_LOADED: u32 = u32::MAX;
/// Shape rules for one program type that the kernel side looks at.
const MAX_SHAPES_PER_TYPE: u32 = 2;

/// References to maps, which matter where a thread could exchange one map for another.
pub(super) fn references(image: &Image) -> Vec<u64> {
    if image.maps.len() < 2 {
        return Vec::new();
    }
    image.map_references()
}

pub(super) fn header_of(image: &Image, class: Class, id: u32) -> Header {
    // LICENCE_ANY, LICENCE_GPL, LICENCE_OTHER: a union with the helpers of shapes.
    let licence = match image.gpl {
        None => 0,
        Some(true) => 1,
        Some(false) => 2,
    };
    Header {
        image: id,
        class: class_number(class),
        maps: image.maps.len() as u32,
        max_insns: image.words.len() as u32,
        places: image.places.len() as u32,
        prog_type: image.identity.prog_type,
        refs: references(image).len() as u32,
        mode: u32::from(image.slots().into_iter().eq(0..image.maps.len() as u32)),
        helpers: [licence, 0, 0, 0],
    }
}

/// Programs that are equal but for the places where their rules let them be attached, by their
/// number, with the places of all of them: the kernel cannot tell whose a loaded one is, and each
/// rule said yes to its own. One that may be attached anywhere makes them all so; but a
/// replacement without a target has none.
pub(super) fn unite_places(entries: &[Entry]) -> BTreeMap<usize, Entry> {
    let mut alike: HashMap<(image::Identity, u64), Vec<usize>> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        if entry.class == Class::Signed {
            let key = (entry.image.identity, image::fingerprint(&entry.image.words));
            alike.entry(key).or_default().push(number);
        }
    }
    let mut united = BTreeMap::new();
    for numbers in alike.values().filter(|numbers| numbers.len() > 1) {
        for &number in numbers {
            let image = &entries[number].image;
            let same = || {
                numbers
                    .iter()
                    .map(|&other| &entries[other].image)
                    .filter(|other| same_stream(other, image))
            };
            if same().all(|other| other.places == image.places) {
                continue;
            }
            let is_replacement = image.identity.prog_type == EXT;
            let anywhere = !is_replacement && same().any(|other| other.places.is_empty());
            let all: BTreeSet<&String> = match anywhere {
                true => BTreeSet::new(),
                false => same().flat_map(|other| &other.places).collect(),
            };
            let mut entry = entries[number].clone();
            entry.image.places = all.into_iter().cloned().collect();
            united.insert(number, entry);
        }
    }
    united
}

/// Can the kernel not tell programs of the two images apart, but for licence and target?
pub(super) fn same_stream(one: &Image, other: &Image) -> bool {
    one.words == other.words
        && one.maps == other.maps
        && one.result == other.result
        && one.module == other.module
        && one.calls == other.calls
}

/// The name as the kernel keeps it: fifteen bytes.
pub(super) fn name_key(name: &str) -> u64 {
    let mut bytes = [0; 16];
    let n = name.len().min(15);
    bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| half.try_into().map_or(0, u64::from_ne_bytes);
    word(low).wrapping_mul(PRIME) ^ word(high)
}

/// Images by key: those that only the sharing of maps tells apart, and of each those that
/// only the maps themselves tell apart. The kernel side walks both as chains.
pub(super) struct Alike<'a> {
    modules: &'a BTreeMap<ModuleBtf, u32>,
    by_key: HashMap<Vec<u8>, Vec<Siblings<'a>>>,
}

/// Images and their ids, equal but for their maps and the modules that they call.
type Siblings<'a> = Vec<(&'a Image, u32)>;

impl<'a> Alike<'a> {
    /// None yet, of a kernel with these modules.
    pub(super) fn of(modules: &'a BTreeMap<ModuleBtf, u32>) -> Self {
        Self {
            modules,
            by_key: HashMap::new(),
        }
    }

    /// For one that is not there nothing can be loaded; once it is, the set is made anew.
    fn number(&self, module: &ModuleBtf) -> u32 {
        self.modules.get(module).copied().unwrap_or(NOT_LOADED)
    }

    pub(super) fn add(
        &mut self,
        rows: &mut BTreeMap<Vec<u8>, Header>,
        entry: &'a Entry,
        id: u32,
    ) -> io::Result<()> {
        let image = &entry.image;
        let header = header_of(image, entry.class, id);
        let any = image.identity.attach_btf_id == ANY_TARGET && entry.class == Class::Probe;
        let exact = Key {
            fingerprint: image::fingerprint(&image.words),
            len: image.words.len() as u32,
            prog_type: image.identity.prog_type,
            attach_type: image.identity.expected_attach_type,
            btf_id: if any { 0 } else { image.identity.attach_btf_id },
            flags: image.identity.flags,
            usage: match image.result {
                _ if any => Use::AnyTarget,
                Some(_) => Use::Indexed,
                None => Use::Image,
            } as u32,
            btf: image
                .module
                .as_ref()
                .map_or(0, |module| self.number(module)),
        };
        for (&number, module) in &image.calls {
            let key = Key {
                fingerprint: id.into(),
                len: number.into(),
                ..Key::of(Use::Calls)
            };
            let module = Header {
                image: id,
                mode: self.number(module),
                ..Header::default()
            };
            rows.insert(key.to_bytes(), module);
        }
        let groups = self.by_key.entry(exact.to_bytes()).or_default();
        let after = |usage, image: u32| Key {
            fingerprint: image.into(),
            ..Key::of(usage)
        };
        let full = || {
            invalid(format!(
                "{}: more than {MAX_ALIKE} programs with the same instructions",
                image.name
            ))
        };
        match groups
            .iter_mut()
            .find(|group| group[0].0.words == image.words)
        {
            Some(group) => {
                let same = |known: &Image| {
                    known.maps == image.maps
                        && known.result == image.result
                        && known.calls == image.calls
                };
                if group.iter().any(|(known, _)| same(known)) {
                    return Ok(());
                }
                let &(_, last) = group.last().ok_or_else(full)?;
                if group.len() == MAX_ALIKE {
                    return Err(full());
                }
                rows.insert(after(Use::Sibling, last).to_bytes(), header);
                group.push((image, id));
            }
            None => {
                match groups.last() {
                    None => rows.insert(exact.to_bytes(), header),
                    Some(_) if groups.len() == MAX_ALIKE => return Err(full()),
                    Some(last) => rows.insert(after(Use::Other, last[0].1).to_bytes(), header),
                };
                groups.push(vec![(image, id)]);
            }
        }
        // `r0 = 0; exit` is like too many programs to help anybody, and of a light skeleton's
        // programs the other layout helps.
        if entry.class == Class::Probe || image.result.is_some() {
            return Ok(());
        }
        let alike = Key {
            fingerprint: exact.fingerprint,
            len: exact.len,
            ..Key::of(Use::Alike)
        };
        rows.entry(alike.to_bytes()).or_insert(header);
        let named = Key {
            fingerprint: name_key(&image.name),
            prog_type: image.identity.prog_type,
            ..Key::of(Use::Named)
        };
        rows.entry(named.to_bytes()).or_insert(header);
        Ok(())
    }
}

pub(super) fn index_shape(
    rows: &mut BTreeMap<Vec<u8>, Header>,
    per_type: &mut HashMap<u32, u32>,
    shape: &ShapeRule,
    id: u32,
) -> io::Result<()> {
    let helpers = helper_bits(&shape.name, &shape.helpers)?;
    for &prog_type in &shape.prog_types {
        let number = per_type.entry(prog_type).or_insert(0);
        if *number == MAX_SHAPES_PER_TYPE {
            return Err(invalid(format!(
                "{}: more than {MAX_SHAPES_PER_TYPE} shapes for program type {prog_type}",
                shape.name
            )));
        }
        let key = Key {
            prog_type,
            len: *number,
            ..Key::of(Use::Shape)
        };
        *number += 1;
        let header = Header {
            image: id,
            class: class_number(Class::Shape),
            maps: shape.max_maps,
            max_insns: shape.max_insns,
            mode: 0,
            places: 0,
            helpers,
            prog_type,
            refs: 0,
        };
        rows.insert(key.to_bytes(), header);
    }
    Ok(())
}

pub(super) fn helper_bits(name: &str, helpers: &[u32]) -> io::Result<[u64; 4]> {
    let mut bits = [0u64; 4];
    for &helper in helpers {
        *bits
            .get_mut(helper as usize / 64)
            .ok_or_else(|| invalid(format!("{name}: helper {helper}")))? |= 1 << (helper % 64);
    }
    Ok(bits)
}

pub(super) fn index_settings(rows: &mut BTreeMap<Vec<u8>, Header>, armed: &Armed) {
    let header = Header {
        mode: match armed.mode {
            Mode::Enforce => 0,
            Mode::Audit => 1,
        },
        places: armed.protect.bits(),
        ..Header::default()
    };
    rows.insert(Key::of(Use::Settings).to_bytes(), header);
}

#[cfg(test)]
mod tests {
    use bundle::Digest;

    use super::*;
    use crate::fake;

    fn entry(bundle: &[u8], places: &[&str], prog_type: u32) -> Entry {
        let mut image = fake::image("x");
        image.identity.prog_type = prog_type;
        image.places = places.iter().map(|place| (*place).to_owned()).collect();
        Entry {
            image,
            class: Class::Signed,
            bundle: Some(Digest::of(bundle)),
        }
    }

    fn places(entries: &[Entry]) -> Vec<Vec<String>> {
        let united = unite_places(entries);
        let numbers = 0..entries.len();
        numbers
            .map(|n| united.get(&n).unwrap_or(&entries[n]).image.places.clone())
            .collect()
    }

    #[test]
    fn equal_programs_may_be_attached_wherever_one_of_their_rules_says() {
        let one = entry(b"one", &["vfs_*"], 2);
        let two = entry(b"two", &["do_exit", "vfs_*"], 2);
        let mut other = entry(b"other", &["sys_*"], 2);
        other.image.words[0] ^= 1 << 32;
        let got = places(&[one.clone(), two, other]);
        assert_eq!(
            got,
            [
                vec!["do_exit", "vfs_*"],
                vec!["do_exit", "vfs_*"],
                vec!["sys_*"]
            ]
        );
        let anywhere = places(&[one, entry(b"any", &[], 2)]);
        assert_eq!(anywhere, [vec![""; 0], vec![]]);
    }

    #[test]
    fn a_replacement_without_a_target_gets_none_but_those_of_others() {
        let one = entry(b"one", &["dispatch:slot_*"], EXT);
        let got = places(&[one, entry(b"none", &[], EXT)]);
        assert_eq!(got, [["dispatch:slot_*"], ["dispatch:slot_*"]]);
        let none = places(&[entry(b"none", &[], EXT), entry(b"either", &[], EXT)]);
        assert_eq!(none, [vec![""; 0], vec![]]);
    }
}
