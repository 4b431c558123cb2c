//! An object's functions and relocation places, read from its ELF bytes.

use std::collections::{BTreeMap, HashMap};

use goblin::elf::{
    section_header::{SHF_EXECINSTR, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS, SHT_PROGBITS, SHT_REL},
    sym::{STB_LOCAL, STT_FUNC},
};

use super::{Anatomy, Function, Site, insn, words};
use crate::{
    btf::{self, Btf},
    elf::Elf,
    insn::{Call, SLOT},
    inventory::Endianness,
    malformed::{At, MalformedObject},
};

impl Anatomy {
    /// Reads an object. What its inventory refuses is not looked at again: give it objects
    /// whose inventory was verified.
    ///
    /// # Errors
    /// Where the bytes are not a BPF object, or one for another byte order.
    pub fn read(bytes: &[u8]) -> Result<Self, MalformedObject> {
        let elf = Elf::read(bytes)?;
        if elf.endianness != Endianness::Little {
            return Err(At::File(5).invalid("only little-endian programs are compared"));
        }
        let mut places = functions(&elf)?;
        let by_place: HashMap<(usize, u32), usize> = places
            .iter()
            .enumerate()
            .rev()
            .map(|(index, place)| ((place.section, place.start), index))
            .collect();
        let relocations = relocations(&elf)?;
        let core = core_places(&elf)?;
        let mut anatomy = Self::default();
        let mut targets = HashMap::new();
        for place in &mut places {
            let mut sites = BTreeMap::new();
            let mut second_half = false;
            for (slot, word) in place.function.words.iter().enumerate() {
                let is_second = std::mem::take(&mut second_half);
                if is_second {
                    continue;
                }
                let key = (place.section, place.start + slot as u32);
                let found = insn(*word);
                second_half = found.is_wide();
                let site = match relocations.get(&key) {
                    Some(symbol) => Some(site(
                        &elf,
                        found,
                        *symbol,
                        &by_place,
                        &mut targets,
                        &mut anatomy.targets,
                    )?),
                    None => direct(found, key, &by_place),
                };
                let site = match (site, core.contains_key(&key)) {
                    (Some(site), _) => Some(site),
                    (None, true) => Some(Site::Kernel),
                    (None, false) => None,
                };
                if let Some(site) = site {
                    sites.insert(slot as u32, site);
                }
            }
            place.function.sites = sites;
        }
        anatomy.functions = places.into_iter().map(|place| place.function).collect();
        Ok(anatomy)
    }
}

struct Place {
    section: usize,
    start: u32,
    function: Function,
}

fn is_code(elf: &Elf<'_>, section: usize) -> bool {
    elf.sections.get(section).is_some_and(|found| {
        let header = &found.header;
        header.sh_type == SHT_PROGBITS
            && header.sh_flags & u64::from(SHF_EXECINSTR) != 0
            && header.sh_size > 0
    })
}

fn functions(elf: &Elf<'_>) -> Result<Vec<Place>, MalformedObject> {
    let mut found: Vec<(usize, u64, u64, String, bool)> = Vec::new();
    for (_, symbol) in elf.symbols() {
        let section = symbol.st_shndx;
        if symbol.st_type() != STT_FUNC || !is_code(elf, section) {
            continue;
        }
        let entry = elf.sections[section].name != ".text" && symbol.st_bind() != STB_LOCAL;
        let name = elf.symbol_name(&symbol)?.to_owned();
        found.push((section, symbol.st_value, symbol.st_size, name, entry));
    }
    found.sort_by_key(|(section, start, ..)| (*section, *start));
    let starts: Vec<(usize, u64)> = found.iter().map(|row| (row.0, row.1)).collect();
    let mut places = Vec::new();
    for (index, (section, start, size, name, entry)) in found.into_iter().enumerate() {
        let content = elf.content(section)?;
        // Assembly often gives no size: such a function ends where the next one starts.
        let end = match size {
            0 => starts[index + 1..]
                .iter()
                .take_while(|(other, _)| *other == section)
                .map(|(_, next)| *next)
                .find(|next| *next > start)
                .unwrap_or(content.len() as u64),
            size => start.saturating_add(size),
        };
        let at = At::Byte(elf.sections[section].name, start);
        let range = usize::try_from(start).unwrap_or(usize::MAX)
            ..usize::try_from(end).unwrap_or(usize::MAX);
        let body = content
            .get(range)
            .filter(|body| !body.is_empty() && body.len() % SLOT == 0 && start % SLOT as u64 == 0)
            .ok_or_else(|| at.out_of_bounds("a function", end, content.len() as u64))?;
        places.push(Place {
            section,
            start: (start / SLOT as u64) as u32,
            function: Function {
                name,
                entry,
                words: words(body),
                sites: BTreeMap::new(),
            },
        });
    }
    Ok(places)
}

/// The symbol of each relocated slot, by section and slot.
fn relocations(elf: &Elf<'_>) -> Result<HashMap<(usize, u32), usize>, MalformedObject> {
    let mut found = HashMap::new();
    for (index, section) in elf.sections.iter().enumerate() {
        let target = section.header.sh_info as usize;
        if section.header.sh_type != SHT_REL || !is_code(elf, target) {
            continue;
        }
        for relocation in elf.relocations(index)?.iter() {
            let slot = u32::try_from(relocation.r_offset / SLOT as u64).unwrap_or(u32::MAX);
            found.insert((target, slot), relocation.r_sym);
        }
    }
    Ok(found)
}

/// Slots that CO-RE relocations change.
fn core_places(elf: &Elf<'_>) -> Result<HashMap<(usize, u32), ()>, MalformedObject> {
    let mut found = HashMap::new();
    let named = |name: &str| {
        elf.sections
            .iter()
            .rposition(|section| section.name == name)
    };
    let (Some(types), Some(ext)) = (named(btf::BTF), named(btf::BTF_EXT)) else {
        return Ok(found);
    };
    let (types, ext) = (elf.content(types)?, elf.content(ext)?);
    if types.is_empty() || ext.is_empty() {
        return Ok(found);
    }
    let types = Btf::read(types)?;
    btf::core_places(ext, &mut |place| {
        let name = types.name(place.section)?;
        let holder = elf
            .sections
            .iter()
            .enumerate()
            .position(|(index, section)| section.name == name && is_code(elf, index));
        if let Some(section) = holder {
            found.insert((section, place.offset / SLOT as u32), ());
        }
        Ok(())
    })?;
    Ok(found)
}

/// A call or an address within one section that the compiler resolved by itself.
fn direct(
    found: crate::insn::Insn,
    (section, slot): (usize, u32),
    by_place: &HashMap<(usize, u32), usize>,
) -> Option<Site> {
    let target = |distance: i32| {
        let slot = u32::try_from(i64::from(slot) + 1 + i64::from(distance)).ok()?;
        by_place.get(&(section, slot)).copied()
    };
    match found.call() {
        Some(Call::Function(distance)) => target(distance).map(Site::Call),
        _ if found.loads_function() => target(found.imm).map(Site::Address),
        _ => None,
    }
}

fn site(
    elf: &Elf<'_>,
    found: crate::insn::Insn,
    symbol: usize,
    by_place: &HashMap<(usize, u32), usize>,
    known: &mut HashMap<(usize, u64), usize>,
    names: &mut Vec<String>,
) -> Result<Site, MalformedObject> {
    let Some(symbol) = elf.symbol(symbol) else {
        return Err(At::File(0).invalid(format!("symbol #{symbol} does not exist")));
    };
    let section = symbol.st_shndx;
    // Externs: what they are on this kernel, libbpf says.
    if section == SHN_UNDEF as usize || section >= SHN_LORESERVE as usize {
        return Ok(Site::Kernel);
    }
    let holder = &elf.sections[section.min(elf.sections.len() - 1)];
    if is_code(elf, section) {
        let value = i64::try_from(symbol.st_value).unwrap_or(i64::MAX);
        let slot = match found.call() {
            Some(Call::Function(distance)) => value / SLOT as i64 + i64::from(distance) + 1,
            _ => value.saturating_add(i64::from(found.imm)) / SLOT as i64,
        };
        let callee = u32::try_from(slot)
            .ok()
            .and_then(|slot| by_place.get(&(section, slot)).copied())
            .ok_or_else(|| At::Section(holder.name).invalid("no function there to call"))?;
        return Ok(match found.call() {
            Some(_) => Site::Call(callee),
            None => Site::Address(callee),
        });
    }
    let name = elf.symbol_name(&symbol)?;
    let is_maps = holder.name == ".maps";
    let data = [".data", ".rodata", ".bss"]
        .iter()
        .any(|prefix| holder.name == *prefix || holder.name.starts_with(&format!("{prefix}.")))
        && (holder.header.sh_type == SHT_PROGBITS || holder.header.sh_type == SHT_NOBITS);
    // One map a variable, one map a data section; of all else libbpf says what it is.
    let (key, name) = match (is_maps, data) {
        (true, _) => ((section, symbol.st_value), name),
        (_, true) => ((section, u64::MAX), holder.name),
        (false, false) => return Ok(Site::Kernel),
    };
    let target = *known.entry(key).or_insert_with(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    Ok(match is_maps {
        true => Site::Map(target),
        false => {
            let offset = symbol.st_value.wrapping_add(i64::from(found.imm) as u64);
            Site::Data(target, offset as u32)
        }
    })
}
