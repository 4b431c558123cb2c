//! Walks an instruction stream against the object that it is said to come from.
//!
//! A loader may lay an object's functions out as it likes, and writes what it found out about
//! the kernel into the places that relocations name. So a stream is accepted exactly where it
//! is the program's entry function followed by whole functions of the object, each reached by
//! a call or by having its address taken, every instruction as signed but for relocations, and
//! every relocation with a value that is legal on this kernel. Which values are legal, libbpf
//! says: its own measurement of the same object for the same kernel is walked first, which
//! checks it as well ([`Anatomy::learn`]).
//!
//! Three uses: it verifies measurements, it says in words how a refused stream differs, and
//! it makes the layouts of other loaders ([`Anatomy::lay_out`]).

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    image::{self, Image, MAP_INDEX, MapSpec},
    insn::{Insn, SLOT},
    inventory::Endianness,
};

mod difference;
mod object;
mod walk;

pub use difference::{Difference, What};
use walk::Walk;

/// An object's functions and the places that a loader fills in, with the values that are legal
/// on one kernel once [`Anatomy::learn`] was told.
#[derive(Clone, Debug, Default)]
pub struct Anatomy {
    functions: Vec<Function>,
    /// Names of maps and data sections that instructions refer to.
    targets: Vec<String>,
    /// What libbpf wrote into a place: the word, and the next one of a 64-bit load.
    values: HashMap<(usize, u32), (u64, u64)>,
    /// What each target's map must be.
    specs: BTreeMap<usize, MapSpec>,
}

#[derive(Clone, Debug)]
struct Function {
    name: String,
    entry: bool,
    words: Vec<u64>,
    /// By slot, the first one of a 64-bit load.
    sites: BTreeMap<u32, Site>,
}

/// A place that a loader fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    /// A call of another function of the object.
    Call(usize),
    /// A 64-bit load of another function's address.
    Address(usize),
    /// A 64-bit load of a map.
    Map(usize),
    /// A 64-bit load of a place in a data section's map.
    Data(usize, u32),
    /// Whatever the kernel at hand says: CO-RE, externs.
    Kernel,
}

/// A stream that is the object's own, in whatever layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The words, each map reference by the index of its first appearance.
    pub words: Vec<u64>,
    /// The functions in it, with the slot at which each starts.
    pub functions: Vec<(String, u32)>,
    /// The maps, in order of first appearance.
    maps: Vec<usize>,
}

/// The order in which a loader puts the functions that a program reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each function right after the first one that calls it, depth first, in the order of the
    /// calls: libbpf (`bpf_object__reloc_code`), aya.
    DepthFirst,
    /// Breadth first, what one function calls sorted by name: cilium/ebpf
    /// (`flattenInstructions`).
    BreadthFirstByName,
}

/// Which bits of a stream say something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maps {
    /// Descriptors or indices: equal where and only where the map is the same.
    Told,
    /// Masked, as in events.
    Masked,
}

impl Anatomy {
    /// Takes over the values that libbpf wrote for the kernel at hand. Checks on the way that
    /// the image is the object's program, so that a wrong measurement is not admitted.
    ///
    /// # Errors
    /// Where the image is not what the object says.
    pub fn learn(&mut self, measured: &Image) -> Result<(), Difference> {
        let entry = self.entry(&measured.name)?;
        let mut values = HashMap::new();
        let length = measured.words.len();
        let placed = self.walk(
            entry,
            &measured.words,
            length,
            &mut |function, slot, words| {
                let known = values.entry((function, slot)).or_insert(words);
                // One function stands once in a stream, and means the same in all of them.
                *known == words
            },
        )?;
        self.values.extend(values);
        self.find_maps_of_externs(&placed, measured);
        let targets = self.targets_of(&placed, &measured.words);
        for (index, target) in targets.iter().enumerate() {
            if let Some(spec) = measured.maps.get(index) {
                self.specs.insert(*target, spec.clone());
            }
        }
        Ok(())
    }

    /// Externs of the kernel's configuration are places in a map that the loader makes up.
    fn find_maps_of_externs(&mut self, placed: &BTreeMap<usize, usize>, measured: &Image) {
        for (start, function) in placed {
            let function = &mut self.functions[*function];
            for (slot, site) in &mut function.sites {
                let at = start + *slot as usize;
                let (Some(&word), Some(&second)) =
                    (measured.words.get(at), measured.words.get(at + 1))
                else {
                    continue;
                };
                if *site != Site::Kernel || !image::is_map_reference(word) {
                    continue;
                }
                let index = (word >> 32) as u32 & !MAP_INDEX;
                let Some(spec) = measured.maps.get(index as usize) else {
                    continue;
                };
                let known = self.targets.iter().position(|name| *name == spec.name);
                let target = known.unwrap_or_else(|| {
                    self.targets.push(spec.name.clone());
                    self.targets.len() - 1
                });
                *site = match (word >> 12) & 0xf {
                    PSEUDO_VALUE => Site::Data(target, (second >> 32) as u32),
                    _ => Site::Map(target),
                };
            }
        }
    }

    /// Is `stream` the program `name` of this object, as some loader could have made it for
    /// the kernel that [`Anatomy::learn`] was told about? Map references may hold descriptors,
    /// indices, or nothing at all (as in events, where maps then are not compared).
    ///
    /// # Errors
    /// The first difference.
    pub fn explain(&self, name: &str, stream: &[u64]) -> Result<Layout, Difference> {
        let entry = self.entry(name)?;
        let placed = self.walk(entry, stream, stream.len(), &mut |function, slot, words| {
            self.values.get(&(function, slot)) == Some(&words)
        })?;
        let functions: Vec<usize> = placed.values().copied().collect();
        // Made anew from what is known, so that nothing of the stream gets into an image but
        // the order of functions and another loader's way to poison.
        self.assemble(&functions, &|at| {
            stream.get(at).copied().filter(|word| is_poison(*word))
        })
        .ok_or_else(|| Difference::nowhere(name, What::NotMeasured))
    }

    /// The same where only the first words of `length` are known, as from an event.
    ///
    /// # Errors
    /// The first difference; none says nothing about the words that are not known.
    pub fn compare_start(
        &self,
        name: &str,
        start: &[u64],
        length: usize,
    ) -> Result<(), Difference> {
        let entry = self.entry(name)?;
        let length = length.max(start.len());
        self.walk(entry, start, length, &mut |function, slot, words| {
            self.values.get(&(function, slot)) == Some(&words)
        })
        .map(drop)
    }

    /// The stream that a loader with this order of functions makes of the program `name`.
    /// `None` where a value was not learned, or where there is nothing to order.
    pub fn lay_out(&self, name: &str, order: Order) -> Option<Layout> {
        let entry = self.entry(name).ok()?;
        self.assemble(&self.ordered(entry, order), &|_| None)
    }

    /// Links these functions in this order. `poison` says what a loader wrote into a slot that
    /// libbpf poisoned.
    fn assemble(
        &self,
        functions: &[usize],
        poison: &dyn Fn(usize) -> Option<u64>,
    ) -> Option<Layout> {
        let mut places: BTreeMap<usize, u32> = BTreeMap::new();
        let mut end = 0;
        for &function in functions {
            places.insert(function, end);
            end += self.functions[function].words.len() as u32;
        }
        let mut words = Vec::new();
        for &function in functions {
            self.link(function, &places, poison, &mut words)?;
        }
        let starts = functions
            .iter()
            .map(|function| (places[function] as usize, *function));
        let placed: BTreeMap<usize, usize> = starts.collect();
        image::index_maps(&mut words);
        Some(Layout {
            maps: self.targets_of(&placed, &words),
            functions: self.named(&placed),
            words,
        })
    }

    /// The image for a layout of the program that `measured` is: the same in all but the order
    /// of functions and maps. `None` where a map of it was never measured.
    pub fn image(&self, measured: &Image, layout: &Layout) -> Option<Image> {
        let maps = layout
            .maps
            .iter()
            .map(|target| self.specs.get(target).cloned());
        Some(Image {
            name: measured.name.clone(),
            identity: measured.identity,
            words: layout.words.clone(),
            maps: maps.collect::<Option<_>>()?,
            places: measured.places.clone(),
            result: None,
            gpl: measured.gpl,
            module: measured.module.clone(),
            calls: measured.calls.clone(),
        })
    }

    /// Names of the programs.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        let entries = self.functions.iter().filter(|function| function.entry);
        entries.map(|function| function.name.as_str())
    }

    fn entry(&self, name: &str) -> Result<usize, Difference> {
        let is_it = |function: &Function| function.entry && function.name == name;
        self.functions
            .iter()
            .position(is_it)
            .ok_or_else(|| Difference::nowhere(name, What::NoSuchProgram))
    }

    /// Places whole functions until everything that is called has a place, comparing each word.
    /// `legal` is asked about the places that depend on the kernel.
    fn walk(
        &self,
        entry: usize,
        stream: &[u64],
        length: usize,
        legal: &mut dyn FnMut(usize, u32, (u64, u64)) -> bool,
    ) -> Result<BTreeMap<usize, usize>, Difference> {
        Walk::new(self, entry, stream, length).through(legal)
    }

    /// The target of each map index, in order.
    fn targets_of(&self, placed: &BTreeMap<usize, usize>, words: &[u64]) -> Vec<usize> {
        let mut found: BTreeMap<u32, usize> = BTreeMap::new();
        for (start, function) in placed {
            for (slot, site) in &self.functions[*function].sites {
                let target = match site {
                    Site::Map(target) | Site::Data(target, _) => *target,
                    Site::Call(_) | Site::Address(_) | Site::Kernel => continue,
                };
                let Some(word) = words.get(start + *slot as usize) else {
                    continue;
                };
                if image::is_map_reference(*word) {
                    found
                        .entry((word >> 32) as u32 & !MAP_INDEX)
                        .or_insert(target);
                }
            }
        }
        found.into_values().collect()
    }

    fn named(&self, placed: &BTreeMap<usize, usize>) -> Vec<(String, u32)> {
        placed
            .iter()
            .map(|(start, function)| (self.functions[*function].name.clone(), *start as u32))
            .collect()
    }

    /// Functions that `function` calls or whose address it takes, in order of first mention.
    fn callees(&self, function: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for site in self.functions[function].sites.values() {
            if let Site::Call(callee) | Site::Address(callee) = site
                && !found.contains(callee)
            {
                found.push(*callee);
            }
        }
        found
    }

    fn ordered(&self, entry: usize, order: Order) -> Vec<usize> {
        let mut done = vec![entry];
        let mut open: VecDeque<usize> = VecDeque::new();
        let sorted = |function: usize| {
            let mut callees = self.callees(function);
            match order {
                Order::DepthFirst => {}
                Order::BreadthFirstByName => {
                    callees.sort_by(|a, b| self.functions[*a].name.cmp(&self.functions[*b].name));
                }
            }
            callees
        };
        open.extend(sorted(entry));
        while let Some(function) = open.pop_front() {
            if done.contains(&function) {
                continue;
            }
            done.push(function);
            match order {
                Order::BreadthFirstByName => open.extend(sorted(function)),
                Order::DepthFirst => {
                    for callee in sorted(function).into_iter().rev() {
                        open.push_front(callee);
                    }
                }
            }
        }
        done
    }

    /// Appends one function with everything filled in.
    fn link(
        &self,
        function: usize,
        places: &BTreeMap<usize, u32>,
        poison: &dyn Fn(usize) -> Option<u64>,
        words: &mut Vec<u64>,
    ) -> Option<()> {
        let start = words.len();
        let Function {
            words: signed,
            sites,
            ..
        } = &self.functions[function];
        words.extend(signed);
        for (&slot, site) in sites {
            let at = start + slot as usize;
            let distance = |callee: &usize| {
                let place = i64::from(*places.get(callee)?);
                i32::try_from(place - at as i64 - 1).ok()
            };
            match site {
                Site::Call(callee) => {
                    words[at] = with_imm(with_source(words[at], PSEUDO_CALL), distance(callee)?);
                }
                Site::Address(callee) => {
                    words[at] = with_imm(with_source(words[at], PSEUDO_FUNC), distance(callee)?);
                    *words.get_mut(at + 1)? = 0;
                }
                Site::Map(target) => {
                    // Any number stands for a descriptor, if it is another for each map.
                    words[at] = with_imm(with_source(words[at], PSEUDO_MAP), *target as i32 + 1);
                    *words.get_mut(at + 1)? = 0;
                }
                Site::Data(target, offset) => {
                    words[at] = with_imm(with_source(words[at], PSEUDO_VALUE), *target as i32 + 1);
                    *words.get_mut(at + 1)? = with_imm(0, *offset as i32);
                }
                Site::Kernel => {
                    let (first, second) = *self.values.get(&(function, slot))?;
                    let wide = is_wide(signed[slot as usize]);
                    let other = |at| poison(at).filter(|_| is_poison(first));
                    words[at] = other(at).unwrap_or(first);
                    if wide {
                        *words.get_mut(at + 1)? = other(at + 1).unwrap_or(second);
                    }
                }
            }
        }
        Some(())
    }
}

fn mode(stream: &[u64]) -> Maps {
    let mut references = stream.iter().filter(|word| image::is_map_reference(**word));
    match references.all(|word| word >> 32 == 0) {
        true => Maps::Masked,
        false => Maps::Told,
    }
}

const fn is_wide(word: u64) -> bool {
    word & 0xff == 0x18
}

const fn with_imm(word: u64, imm: i32) -> u64 {
    word & 0xffff_ffff | (imm as u32 as u64) << 32
}

const fn with_source(word: u64, source: u64) -> u64 {
    word & !0xf000 | source << 12
}

/// What loaders write where a relocation has no answer: a call that no kernel takes.
/// libbpf: 0x0bad2310 (CO-RE), 2,001,000,000 (maps) and 2,002,000,000 (functions) upwards;
/// cilium/ebpf: 0x0bad2310, 0xdedc0de.
const fn is_poison(word: u64) -> bool {
    let imm = (word >> 32) as u32;
    let call = word & 0xffff_ffff == 0x85;
    let number =
        imm == 0x0bad_2310 || imm == 0x0ded_c0de || imm >= 2_001_000_000 && imm < 2_003_000_000;
    call && number
}

/// One instruction slot as memory has it on a little-endian machine.
fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(SLOT)
        .map(|slot| slot.try_into().map_or(0, u64::from_le_bytes))
        .collect()
}

fn insn(word: u64) -> Insn {
    Insn::read(&word.to_le_bytes(), Endianness::Little)
}

/// `BPF_PSEUDO_MAP_FD`.
const PSEUDO_MAP: u64 = 1;
/// `BPF_PSEUDO_MAP_VALUE`.
const PSEUDO_VALUE: u64 = 2;
/// `BPF_PSEUDO_CALL`.
const PSEUDO_CALL: u64 = 1;
/// `BPF_PSEUDO_FUNC`.
const PSEUDO_FUNC: u64 = 4;

#[cfg(test)]
mod tests;
