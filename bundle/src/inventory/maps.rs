//! Maps: BTF-defined, legacy, and those that libbpf makes of `struct_ops` variables.

use goblin::elf::sym::{STT_FILE, STT_SECTION, Sym};

use super::{
    Endianness, Map,
    budget::Budget,
    file::{File, Role},
};
use crate::{
    btf::{Btf, Kind, Member, Type},
    kernel,
    malformed::{At, MalformedObject, quoted},
};

/// A map and the variable that declares it.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) map: Map,
    /// Section index of the variable.
    pub(super) section: usize,
    /// Byte offset of the variable in it.
    pub(super) offset: u64,
}

/// All maps of one object: BTF-defined, legacy, then `struct_ops`.
pub(super) fn read(file: &File<'_>, budget: &mut Budget) -> Result<Vec<Declared>, MalformedObject> {
    let mut maps = Vec::new();
    if let Some(section) = file.last(Role::Maps) {
        defined(file, section, budget, &mut maps)?;
    }
    legacy(file, budget, &mut maps)?;
    for section in file.all(Role::StructOps) {
        struct_ops(file, section, budget, &mut maps)?;
    }
    Ok(maps)
}

fn defined(
    file: &File<'_>,
    section: usize,
    budget: &mut Budget,
    maps: &mut Vec<Declared>,
) -> Result<(), MalformedObject> {
    let name = file.section(section).name;
    let btf = file.types(name)?;
    let Some(datasec) = file.data_section(name) else {
        return Err(At::Section(name).invalid("BTF does not describe it"));
    };
    for variable in file.place(datasec, section, budget)? {
        let at = At::Byte(name, u64::from(variable.offset));
        let definition = btf
            .resolve(variable.type_id)
            .map(|(_, found)| found)
            .filter(|found| found.kind == Kind::Struct)
            .ok_or_else(|| at.invalid(format!("map {} is not a struct", quoted(variable.name))))?;
        let label = budget.text(variable.name, at)?;
        maps.push(Declared {
            map: Definition {
                btf,
                at,
                name: variable.name,
            }
            .read(definition, label, true, budget)?,
            section,
            offset: u64::from(variable.offset),
        });
    }
    Ok(())
}

/// One BTF map definition: members' types carry the numbers.
struct Definition<'a, 'b> {
    btf: &'b Btf<'a>,
    at: At<'b>,
    name: &'b str,
}

impl<'a> Definition<'a, '_> {
    fn read(
        &self,
        definition: Type<'a>,
        label: String,
        outer: bool,
        budget: &mut Budget,
    ) -> Result<Map, MalformedObject> {
        budget.work(definition.members().len(), self.at)?;
        budget.hold(size_of::<Map>(), self.at)?;
        let mut kind = 0;
        let mut map = Map {
            name: label,
            kind: String::new(),
            key_size: 0,
            value_size: 0,
            max_entries: 0,
            flags: 0,
            map_extra: 0,
            pinning: "none".to_owned(),
            legacy: false,
            optional: false,
            inner: None,
        };
        for member in definition.members() {
            match self.btf.name(member.name)? {
                "type" => kind = self.number(member)?,
                "max_entries" => map.max_entries = self.number(member)?,
                "map_flags" => map.flags = self.number(member)?,
                "map_extra" => map.map_extra = self.long_number(member)?,
                "key_size" => self.size(&mut map.key_size, self.number(member)?, "key")?,
                "value_size" => self.size(&mut map.value_size, self.number(member)?, "value")?,
                "key" => self.size(&mut map.key_size, self.pointee_size(member)?, "key")?,
                "value" => self.size(&mut map.value_size, self.pointee_size(member)?, "value")?,
                "pinning" if outer => {
                    map.pinning = match self.number(member)? {
                        0 => "none".to_owned(),
                        1 => "by_name".to_owned(),
                        other => return Err(self.invalid(format!("unknown pinning {other}"))),
                    }
                }
                "values" if outer => {
                    self.size(&mut map.value_size, 4, "value")?;
                    map.inner = self.inner(member, kind, budget)?;
                }
                "pinning" | "values" => {
                    return Err(self.invalid("an inner map with values or pinning".to_owned()));
                }
                // Loaders ignore what they do not know (iproute2), or refuse it themselves.
                _ => {}
            }
        }
        if kind == 0 {
            return Err(self.invalid("no map type".to_owned()));
        }
        map.kind = type_name(kind);
        if matches!(map.kind.as_str(), "ringbuf" | "user_ringbuf") {
            map.max_entries = ring_size(map.max_entries);
        }
        Ok(map)
    }

    /// The inner map's definition, which is the type of the elements of `values`.
    fn inner(
        &self,
        member: Member,
        kind: u32,
        budget: &mut Budget,
    ) -> Result<Option<Box<Map>>, MalformedObject> {
        let holds_maps = matches!(
            kernel::map_type_name(kind),
            Some("array_of_maps" | "hash_of_maps")
        );
        if !holds_maps && kernel::map_type_name(kind) != Some("prog_array") {
            return Err(self.invalid("values of a map that holds no maps or programs".to_owned()));
        }
        let pointee = self
            .btf
            .get(member.id)
            .filter(|array| array.kind == Kind::Array)
            .and_then(|array| self.btf.resolve(array.array().0))
            .filter(|(_, pointer)| pointer.kind == Kind::Ptr)
            .and_then(|(_, pointer)| self.btf.resolve(pointer.size_or_type));
        match pointee {
            Some((_, proto)) if !holds_maps && proto.kind == Kind::FuncProto => Ok(None),
            Some((_, definition)) if holds_maps && definition.kind == Kind::Struct => {
                let label = budget.text(&format!("{}.inner", self.name), self.at)?;
                let inner = self.read(definition, label, false, budget)?;
                Ok(Some(Box::new(inner)))
            }
            _ => Err(self.invalid("values are of an unexpected type".to_owned())),
        }
    }

    /// A number, written as the length of an array behind a pointer.
    fn number(&self, member: Member) -> Result<u32, MalformedObject> {
        self.btf
            .resolve(member.id)
            .filter(|(_, pointer)| pointer.kind == Kind::Ptr)
            .and_then(|(_, pointer)| self.btf.get(pointer.size_or_type))
            .filter(|array| array.kind == Kind::Array)
            .map(|array| array.array().1)
            .ok_or_else(|| self.odd(member, "does not point to an array"))
    }

    /// A number of up to 64 bits: as before, or an enumeration of one value.
    fn long_number(&self, member: Member) -> Result<u64, MalformedObject> {
        match self.btf.resolve(member.id) {
            Some((_, found)) if matches!(found.kind, Kind::Enum | Kind::Enum64) => found
                .only_value()
                .ok_or_else(|| self.odd(member, "is not an enumeration of one value")),
            _ => self.number(member).map(u64::from),
        }
    }

    fn pointee_size(&self, member: Member) -> Result<u32, MalformedObject> {
        self.btf
            .get(member.id)
            .filter(|pointer| pointer.kind == Kind::Ptr)
            .and_then(|pointer| self.btf.size_of(pointer.size_or_type))
            .ok_or_else(|| self.odd(member, "does not point to a type with a size"))
    }

    /// Sets a size that may be given twice, but not twice differently.
    fn size(&self, size: &mut u32, new: u32, what: &str) -> Result<(), MalformedObject> {
        if *size != 0 && *size != new {
            return Err(self.invalid(format!("{what} sizes {size} and {new} contradict")));
        }
        *size = new;
        Ok(())
    }

    fn odd(&self, member: Member, why: &str) -> MalformedObject {
        let name = self.btf.name(member.name).unwrap_or_default();
        self.invalid(format!("member {} {why}", quoted(name)))
    }

    fn invalid(&self, why: String) -> MalformedObject {
        self.at.invalid(format!("map {}: {why}", quoted(self.name)))
    }
}

/// Maps as structs of numbers: `struct bpf_map_def` of libbpf before 1.0, of iproute2, of
/// kernel samples; they agree on the first four or five words.
fn legacy(
    file: &File<'_>,
    budget: &mut Budget,
    maps: &mut Vec<Declared>,
) -> Result<(), MalformedObject> {
    let mut symbols: Vec<(usize, Sym)> = Vec::new();
    for (_, symbol) in file.elf.symbols() {
        if file.role(symbol.st_shndx) == Some(Role::LegacyMaps)
            && !matches!(symbol.st_type(), STT_SECTION | STT_FILE)
        {
            let at = At::Section(file.section(symbol.st_shndx).name);
            budget.hold(size_of::<(usize, Sym)>(), at)?;
            symbols.push((symbol.st_shndx, symbol));
        }
    }
    symbols.sort_by_key(|(section, symbol)| (*section, symbol.st_value));
    let mut rest = symbols.as_slice();
    while let Some((section, _)) = rest.first() {
        let count = rest.partition_point(|(other, _)| other == section);
        let content = file.elf.content(*section)?;
        let name = file.section(*section).name;
        // All definitions of a section have one size; the section tells which.
        let size = content.len() / count;
        for (_, symbol) in &rest[..count] {
            let at = At::Byte(name, symbol.st_value);
            let start = usize::try_from(symbol.st_value).unwrap_or(usize::MAX);
            let end = start.saturating_add(size);
            let Some(bytes) = content.get(start..end).filter(|bytes| bytes.len() >= 16) else {
                return Err(at.out_of_bounds(
                    "a map definition of 16 bytes or more",
                    end as u64,
                    content.len() as u64,
                ));
            };
            budget.hold(size_of::<Declared>(), at)?;
            let label = budget.text(file.elf.symbol_name(symbol)?, at)?;
            maps.push(Declared {
                map: legacy_map(label, bytes, file.elf.endianness),
                section: *section,
                offset: symbol.st_value,
            });
        }
        rest = &rest[count..];
    }
    Ok(())
}

fn legacy_map(name: String, bytes: &[u8], endianness: Endianness) -> Map {
    let word = |index: usize| {
        let bytes = bytes
            .get(4 * index..4 * index + 4)
            .and_then(|word| word.try_into().ok())
            .unwrap_or_default();
        match endianness {
            Endianness::Little => u32::from_le_bytes(bytes),
            Endianness::Big => u32::from_be_bytes(bytes),
        }
    };
    // Nine words is iproute2's `struct bpf_elf_map`, whose seventh says how it is pinned.
    let pinning = match (bytes.len(), word(6)) {
        (36, 1) => "object_ns",
        (36, 2) => "by_name",
        _ => "none",
    };
    Map {
        name,
        kind: type_name(word(0)),
        key_size: word(1),
        value_size: word(2),
        max_entries: word(3),
        flags: word(4),
        map_extra: 0,
        pinning: pinning.to_owned(),
        legacy: true,
        optional: false,
        inner: None,
    }
}

fn struct_ops(
    file: &File<'_>,
    section: usize,
    budget: &mut Budget,
    maps: &mut Vec<Declared>,
) -> Result<(), MalformedObject> {
    let name = file.section(section).name;
    let btf = file.types(name)?;
    let Some(datasec) = file.data_section(name) else {
        return Err(At::Section(name).invalid("BTF does not describe it"));
    };
    for variable in file.place(datasec, section, budget)? {
        let at = At::Byte(name, u64::from(variable.offset));
        let Some((_, found)) = btf
            .resolve(variable.type_id)
            .filter(|(_, found)| found.kind == Kind::Struct)
        else {
            return Err(at.invalid(format!("{} is not a struct", quoted(variable.name))));
        };
        budget.hold(size_of::<Declared>(), at)?;
        maps.push(Declared {
            map: Map {
                name: budget.text(variable.name, at)?,
                kind: "struct_ops".to_owned(),
                key_size: 4,
                value_size: found.size_or_type,
                max_entries: 1,
                flags: if name.ends_with(".link") { F_LINK } else { 0 },
                map_extra: 0,
                pinning: "none".to_owned(),
                legacy: false,
                optional: name.starts_with('?'),
                inner: None,
            },
            section,
            offset: u64::from(variable.offset),
        });
    }
    Ok(())
}

fn type_name(number: u32) -> String {
    match kernel::map_type_name(number) {
        Some(name) => name.to_owned(),
        None => format!("map#{number}"),
    }
}

/// A ring buffer's bytes, rounded up to pages of 4 KiB times a power of two, as libbpf does.
fn ring_size(bytes: u32) -> u32 {
    let pages = bytes.div_ceil(PAGE);
    if bytes == 0 || (bytes.is_multiple_of(PAGE) && pages.is_power_of_two()) {
        return bytes;
    }
    pages
        .checked_next_power_of_two()
        .and_then(|pages| pages.checked_mul(PAGE))
        .unwrap_or(bytes)
}

const PAGE: u32 = 4096;

/// `BPF_F_LINK`.
const F_LINK: u32 = 1 << 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_as_libbpf_rounds_them() {
        for (bytes, want) in [
            (0, 0),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (12288, 16384),
            (262_144, 262_144),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(ring_size(bytes), want, "{bytes}");
        }
    }
}
