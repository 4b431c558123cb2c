//! Writing admissions: images, their maps and data, and the set that is swapped as one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use bundle::{
    Digest,
    image::{Allowed, Contents, MAX_MAPS, MapSpec},
};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys::bpf_map_create_opts};

pub mod armed;
mod index;

use index::{Alike, helper_bits, index_settings, index_shape, references, unite_places};

use super::{
    rows,
    shared::{
        CHUNK_WORDS, DATA_BYTES, Fields, Header, Key, MAX_CHUNKS, MAX_TUNABLES, Origin,
        PLACE_BYTES, Use, class_number,
    },
};
use crate::gate::{Admissions, Armed, Class, Entry, GeneratorRule, ShapeRule};

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
/// As a probe's `attach_btf_id`: whatever target it asks about. No BTF is that large.
pub const ANY_TARGET: u32 = u32::MAX;
/// Most patterns of places of one image.
const MAX_PLACES: usize = 256;
/// `MODE_OPEN`: being disarmed.
const MODE_OPEN: u32 = 2;

fn other(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error)
}

fn write(map: &impl MapCore, key: &[u8], value: &[u8]) -> io::Result<()> {
    map.update(key, value, MapFlags::ANY).map_err(other)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The maps that hold images.
pub struct Store<'a> {
    /// By name, as in `bpf/maps.h`.
    pub maps: &'a BTreeMap<String, MapHandle>,
    /// Next image id; ids are never used again.
    pub next_image: u32,
}

/// A set that is complete but not yet in force.
pub struct Set {
    /// The inner map.
    pub map: MapHandle,
    /// Images that it refers to.
    pub images: Vec<u32>,
}

impl Store<'_> {
    fn map(&self, name: &str) -> io::Result<&MapHandle> {
        self.maps
            .get(name)
            .ok_or_else(|| io::Error::other(format!("the gate has no map {name}")))
    }

    /// Every image written so far.
    pub fn origins(&self) -> io::Result<HashMap<u32, Origin>> {
        let map = self.map("origins")?;
        let mut origins = HashMap::new();
        for (key, value) in rows::all(map)? {
            if let (Ok(id), Some(origin)) = (key.as_slice().try_into(), Origin::read(&value)) {
                origins.insert(u32::from_ne_bytes(id), origin);
            }
        }
        Ok(origins)
    }

    /// Writes what is new and prepares a set of exactly these admissions.
    pub fn prepare(&mut self, armed: &Armed, admissions: &Admissions) -> io::Result<Set> {
        let known: HashMap<Digest, u32> = self
            .origins()?
            .into_iter()
            .filter(|(_, origin)| !origin.revoked)
            .map(|(id, origin)| (origin.content, id))
            .collect();
        let mut rows: BTreeMap<Vec<u8>, Header> = BTreeMap::new();
        let mut images = Vec::new();
        let mut alike = Alike::of(&admissions.modules);
        // Fewest maps first: a stream fits its own image and those that tell more maps apart,
        // so the first that it fits is its own. Where a probe and a signed program are the
        // same, it is the signed one.
        let united = unite_places(&admissions.entries);
        let mut entries: Vec<&Entry> = admissions
            .entries
            .iter()
            .enumerate()
            .map(|(number, entry)| united.get(&number).unwrap_or(entry))
            .collect();
        entries.sort_by_key(|entry| (entry.image.maps.len(), entry.class == Class::Probe));
        for entry in entries {
            let id = match known.get(&content_of_entry(entry)) {
                Some(&id) => id,
                None => self.write_image(entry)?,
            };
            images.push(id);
            alike.add(&mut rows, entry, id)?;
        }
        let mut per_type = HashMap::new();
        for shape in &admissions.shapes {
            let content = content_of_shape(shape);
            let id = match known.get(&content) {
                Some(&id) => id,
                None => self.write_origin(Origin {
                    content,
                    bundle: None,
                    name: shape.name.clone(),
                    class: Class::Shape,
                    maps: shape.max_maps,
                    insns: shape.max_insns,
                    revoked: false,
                })?,
            };
            images.push(id);
            index_shape(&mut rows, &mut per_type, shape, id)?;
        }
        for rule in &admissions.generators {
            let content = content_of_generator(rule);
            let id = match known.get(&content) {
                Some(&id) => id,
                None => self.write_origin(Origin {
                    content,
                    bundle: None,
                    name: rule.name.clone(),
                    class: Class::Generated,
                    maps: rule.max_maps,
                    insns: rule.max_insns,
                    revoked: false,
                })?,
            };
            images.push(id);
            let key = Key {
                len: id,
                ..Key::of(Use::Generator)
            };
            let header = Header {
                image: id,
                class: class_number(Class::Generated),
                maps: rule.max_maps,
                max_insns: rule.max_insns,
                mode: 1, // functions of its own
                helpers: helper_bits(&rule.name, &rule.helpers)?,
                ..Header::default()
            };
            rows.insert(key.to_bytes(), header);
        }
        if !admissions.keyrings.is_empty() {
            let id = self.write_keyrings(&known, &admissions.keyrings)?;
            images.push(id);
            let header = Header {
                image: id,
                class: class_number(Class::Native),
                mode: admissions
                    .keyrings
                    .iter()
                    .fold(0, |all, ring| all | 1 << ring),
                ..Header::default()
            };
            rows.insert(Key::of(Use::Keyrings).to_bytes(), header);
        }
        index_settings(&mut rows, armed);
        let pieces = armed::pieces(armed)?;
        let map = create_set(rows.len() + pieces.len())?;
        for (key, header) in &rows {
            write(&map, key, &header.to_bytes())?;
        }
        for (key, piece) in &pieces {
            write(&map, &key.to_bytes(), piece)?;
        }
        Ok(Set { map, images })
    }

    /// The image that stands for whatever the kernel verifies.
    fn write_keyrings(
        &mut self,
        known: &HashMap<Digest, u32>,
        keyrings: &BTreeSet<u32>,
    ) -> io::Result<u32> {
        let content = Digest::of(format!("kernel keyrings {keyrings:?}").as_bytes());
        match known.get(&content) {
            Some(&id) => Ok(id),
            None => self.write_origin(Origin {
                content,
                bundle: None,
                name: "the kernel's signature".to_owned(),
                class: Class::Native,
                maps: 1,
                insns: 0,
                revoked: false,
            }),
        }
    }

    /// A set that refuses nothing.
    pub fn open(&self) -> io::Result<Set> {
        let map = create_set(1)?;
        let header = Header {
            mode: MODE_OPEN,
            ..Header::default()
        };
        write(&map, &Key::of(Use::Settings).to_bytes(), &header.to_bytes())?;
        Ok(Set {
            map,
            images: Vec::new(),
        })
    }

    /// A copy of the set in force with other settings.
    pub fn amend(&self, current: &MapHandle, armed: &Armed) -> io::Result<Set> {
        let mut rows = BTreeMap::new();
        index_settings(&mut rows, armed);
        let mut all: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for key in current.keys() {
            if key[Key::USAGE] == (Use::Armed as u16).to_ne_bytes() {
                continue;
            }
            if let Some(value) = current.lookup(&key, MapFlags::ANY).map_err(other)? {
                all.insert(key, value);
            }
        }
        all.extend(rows.into_iter().map(|(key, row)| (key, row.to_bytes())));
        all.extend(
            armed::pieces(armed)?
                .into_iter()
                .map(|(key, piece)| (key.to_bytes(), piece)),
        );
        let map = create_set(all.len())?;
        for (key, value) in &all {
            write(&map, key, value)?;
        }
        Ok(Set {
            map,
            images: Vec::new(),
        })
    }

    /// Marks images in place, so that nothing of theirs gets a descriptor any more: at once, where
    /// preparing another set takes long. They are never used again.
    pub fn revoke(&self, is_gone: &dyn Fn(&Origin) -> bool) -> io::Result<()> {
        for (id, origin) in self.origins()? {
            if origin.revoked || !is_gone(&origin) {
                continue;
            }
            let marked = Origin {
                revoked: true,
                ..origin
            };
            write(self.map("origins")?, &id.to_ne_bytes(), &marked.to_bytes())?;
        }
        Ok(())
    }

    /// Removes the words, maps and data of images that no set and no loaded program needs.
    pub fn forget_all_but(&self, keep: &dyn Fn(u32) -> bool) -> io::Result<()> {
        for (id, origin) in self.origins()? {
            if keep(id) {
                continue;
            }
            if origin.class == Class::Generated {
                let _never_looked_at = self.map("makers")?.delete(&id.to_ne_bytes());
            }
            let chunks = match origin.class {
                Class::Generated | Class::Shape => 0,
                _ => (origin.insns as usize).div_ceil(CHUNK_WORDS) as u32,
            };
            for chunk in 0..chunks {
                let _absent_for_shapes = self
                    .map("words")?
                    .delete(&Fields::default().u32s(&[id, chunk]).done(8));
            }
            for chunk in 0..chunks {
                let key = Fields::default().u32s(&[id, chunk]).done(8);
                if self.map("refs")?.delete(&key).is_err() {
                    break; // there are fewer references than instructions
                }
            }
            for place in 0..MAX_PLACES as u32 {
                let key = Fields::default().u32s(&[id, place]).done(8);
                if self.map("places")?.delete(&key).is_err() {
                    break;
                }
            }
            for map in 0..origin.maps.min(MAX_MAPS as u32) {
                let key = Fields::default().u32s(&[id, map]).done(8);
                let Some(spec) = self
                    .map("specs")?
                    .lookup(&key, MapFlags::ANY)
                    .map_err(other)?
                else {
                    continue;
                };
                let mut reader = super::shared::Reader(&spec);
                let _upto_flags: [u8; 28] = reader.bytes();
                let (size, tunables) = (reader.u32(), reader.u32());
                for chunk in 0..size.div_ceil(DATA_BYTES as u32) {
                    let _best_effort = self
                        .map("contents")?
                        .delete(&Fields::default().u32s(&[id, map, chunk, 0]).done(16));
                }
                for tunable in 0..tunables {
                    let _best_effort = self
                        .map("tunables")?
                        .delete(&Fields::default().u32s(&[id, map, tunable, 0]).done(16));
                }
                self.map("specs")?.delete(&key).map_err(other)?;
            }
            let _absent_for_most = self.map("results")?.delete(&id.to_ne_bytes());
            self.map("origins")?
                .delete(&id.to_ne_bytes())
                .map_err(other)?;
        }
        Ok(())
    }

    fn write_origin(&mut self, origin: Origin) -> io::Result<u32> {
        let id = self.next_image;
        self.next_image += 1;
        write(self.map("origins")?, &id.to_ne_bytes(), &origin.to_bytes())?;
        Ok(id)
    }

    /// Words, maps and data first, the origin last: a half-written image has no origin.
    fn write_image(&mut self, entry: &Entry) -> io::Result<u32> {
        let image = &entry.image;
        if image.words.is_empty() || image.words.len() > MAX_CHUNKS * CHUNK_WORDS {
            return Err(invalid(format!(
                "{}: {} instructions",
                image.name,
                image.words.len()
            )));
        }
        if image.maps.len() > MAX_MAPS {
            return Err(invalid(format!(
                "{}: {} maps",
                image.name,
                image.maps.len()
            )));
        }
        let id = self.next_image;
        for (number, chunk) in image.stored_words().chunks(CHUNK_WORDS).enumerate() {
            let mut words = chunk.to_vec();
            words.resize(CHUNK_WORDS, 0);
            write(
                self.map("words")?,
                &Fields::default().u32s(&[id, number as u32]).done(8),
                &Fields::default().u64s(&words).done(8 * CHUNK_WORDS),
            )?;
        }
        for (number, chunk) in references(image).chunks(CHUNK_WORDS).enumerate() {
            let mut chunk = chunk.to_vec();
            chunk.resize(CHUNK_WORDS, 0);
            write(
                self.map("refs")?,
                &Fields::default().u32s(&[id, number as u32]).done(8),
                &Fields::default().u64s(&chunk).done(8 * CHUNK_WORDS),
            )?;
        }
        if image.places.len() > MAX_PLACES {
            return Err(invalid(format!(
                "{}: {} places, the gate takes {MAX_PLACES}",
                image.name,
                image.places.len()
            )));
        }
        for (number, place) in image.places.iter().enumerate() {
            if place.len() >= PLACE_BYTES {
                return Err(invalid(format!(
                    "{}: the place {place} is longer than {} bytes",
                    image.name,
                    PLACE_BYTES - 1
                )));
            }
            write(
                self.map("places")?,
                &Fields::default().u32s(&[id, number as u32]).done(8),
                &Fields::default()
                    .bytes(place.as_bytes(), PLACE_BYTES)
                    .done(PLACE_BYTES),
            )?;
        }
        if let Some(result) = image.result {
            write(self.map("results")?, &id.to_ne_bytes(), result.as_bytes())?;
        }
        for (number, spec) in image.maps.iter().enumerate() {
            self.write_spec(id, number as u32, spec)?;
        }
        self.write_origin(Origin {
            content: content_of_entry(entry),
            bundle: entry.bundle,
            name: image.name.clone(),
            class: entry.class,
            maps: image.maps.len() as u32,
            insns: image.words.len() as u32,
            revoked: false,
        })
    }

    fn write_spec(&self, id: u32, number: u32, spec: &MapSpec) -> io::Result<()> {
        let mut size = 0;
        let mut limited = 0;
        if let Some(contents) = &spec.contents {
            size = contents.bytes.len() as u32;
            limited = self.write_contents(id, number, &spec.name, contents)?;
        }
        write(
            self.map("specs")?,
            &Fields::default().u32s(&[id, number]).done(8),
            &Fields::default()
                .u32s(&[
                    spec.map_type,
                    spec.key_size,
                    spec.value_size,
                    spec.max_entries.0,
                    spec.max_entries.1,
                    spec.flags,
                    spec.flags_free,
                    size,
                    limited,
                ])
                .u32s(&spec.inner.map_or([0; 5], |inner| {
                    [
                        inner.map_type,
                        inner.key_size,
                        inner.value_size,
                        inner.max_entries,
                        inner.flags,
                    ]
                }))
                .done(56),
        )
    }

    /// Returns how many tunables have limits that the kernel must check.
    fn write_contents(
        &self,
        id: u32,
        number: u32,
        name: &str,
        contents: &Contents,
    ) -> io::Result<u32> {
        let mut mask = vec![0xff; contents.bytes.len()];
        let mut limited = 0;
        for tunable in &contents.tunables {
            let start = tunable.offset as usize;
            let range = start..start + tunable.size as usize;
            mask.get_mut(range)
                .ok_or_else(|| invalid(format!("{name}: {} lies outside", tunable.name)))?
                .fill(0);
            let (count, values) = match &tunable.allowed {
                Allowed::Any => continue,
                Allowed::Range(low, high) => (0, vec![*low, *high]),
                Allowed::OneOf(values) if (1..=8).contains(&values.len()) => {
                    (values.len() as u32, values.clone())
                }
                Allowed::OneOf(values) => {
                    return Err(invalid(format!(
                        "{name}: {} values for {}, the gate takes 1 to 8",
                        values.len(),
                        tunable.name
                    )));
                }
            };
            if ![1, 2, 4, 8].contains(&tunable.size) {
                return Err(invalid(format!(
                    "{name}: {} has {} bytes; limits are for integers of 1, 2, 4 or 8",
                    tunable.name, tunable.size
                )));
            }
            let mut words: Vec<u64> = values.iter().map(|&value| value as u64).collect();
            words.resize(8, 0);
            write(
                self.map("tunables")?,
                &Fields::default().u32s(&[id, number, limited, 0]).done(16),
                &Fields::default()
                    .u32s(&[tunable.offset, tunable.size, tunable.signed.into(), count])
                    .u64s(&words)
                    .done(80),
            )?;
            limited += 1;
        }
        if limited as usize > MAX_TUNABLES {
            return Err(invalid(format!("{name}: {limited} tunables with limits")));
        }
        for (chunk, (want, mask)) in contents
            .bytes
            .chunks(DATA_BYTES)
            .zip(mask.chunks(DATA_BYTES))
            .enumerate()
        {
            write(
                self.map("contents")?,
                &Fields::default()
                    .u32s(&[id, number, chunk as u32, 0])
                    .done(16),
                &Fields::default()
                    .bytes(want, DATA_BYTES)
                    .bytes(mask, DATA_BYTES)
                    .done(2 * DATA_BYTES),
            )?;
        }
        Ok(limited)
    }
}

fn create_set(entries: usize) -> io::Result<MapHandle> {
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as _,
        map_flags: NO_PREALLOC,
        ..Default::default()
    };
    MapHandle::create(
        MapType::Hash,
        Some("bpfseal_set"),
        Key::SIZE as u32,
        Header::SIZE as u32,
        entries.max(1) as u32,
        &options,
    )
    .map_err(other)
}

/// Was disarming begun?
pub fn is_open(set: &MapHandle) -> io::Result<bool> {
    let settings = set
        .lookup(&Key::of(Use::Settings).to_bytes(), MapFlags::ANY)
        .map_err(other)?;
    Ok(settings.is_some_and(|bytes| bytes[16..20] == MODE_OPEN.to_ne_bytes()))
}

/// The bundles that a set's images come from.
pub fn bundles(set: &MapHandle, origins: &HashMap<u32, Origin>) -> io::Result<BTreeSet<Digest>> {
    let mut found = BTreeSet::new();
    for key in set.keys() {
        let Some(value) = set.lookup(&key, MapFlags::ANY).map_err(other)? else {
            continue;
        };
        let usage = key.get(Key::USAGE).map(<[u8]>::to_vec).unwrap_or_default();
        // Pieces of what is pinned are no headers.
        if usage == (Use::Armed as u16).to_ne_bytes() {
            continue;
        }
        let image = super::shared::Reader(&value).u32();
        found.extend(origins.get(&image).and_then(|origin| origin.bundle));
    }
    Ok(found)
}

/// Digest of everything that is written for an entry.
fn content_of_entry(entry: &Entry) -> Digest {
    // Debug output names every field of these plain types, and any change of a field changes
    // it; the digest only finds what the same build wrote.
    Digest::of(format!("{entry:?}").as_bytes())
}

fn content_of_generator(rule: &GeneratorRule) -> Digest {
    Digest::of(format!("{rule:?}").as_bytes())
}

/// The image that stands for a generator.
pub fn image_of_generator(origins: &HashMap<u32, Origin>, rule: &GeneratorRule) -> Option<u32> {
    let content = content_of_generator(rule);
    let found = origins.iter().find(|(_, origin)| origin.content == content);
    found.map(|(&id, _)| id)
}

fn content_of_shape(shape: &ShapeRule) -> Digest {
    Digest::of(format!("{shape:?}").as_bytes())
}
