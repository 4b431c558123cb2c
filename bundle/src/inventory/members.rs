//! Which member of a struct of functions (`struct_ops`) a program is for.
//!
//! The section's name does not say: it is whatever the publisher wrote. What counts is where the
//! relocations of the `.struct_ops` sections put the program, which libbpf and the kernel go by.

use std::collections::HashMap;

use goblin::elf::section_header::SHT_REL;

use super::{
    budget::Budget,
    code::Code,
    file::{File, Placed, Role},
};
use crate::{
    btf::{Btf, Kind},
    malformed::{At, MalformedObject},
};

/// `TYPE:MEMBER` of each function that some struct has, by the function's index; sorted.
pub(super) type Members = HashMap<usize, Vec<String>>;

/// Reads the relocations of all `.struct_ops` sections.
pub(super) fn read(
    file: &File<'_>,
    code: &Code<'_>,
    budget: &mut Budget,
) -> Result<Members, MalformedObject> {
    let mut members = Members::new();
    for section in file.all(Role::StructOps) {
        let name = file.section(section).name;
        let Some(datasec) = file.data_section(name) else {
            continue;
        };
        let variables = file.place(datasec, section, budget)?;
        for index in 0..file.roles.len() {
            let header = &file.section(index).header;
            if header.sh_type == SHT_REL && header.sh_info as usize == section {
                relocated(file, code, index, &variables, budget, &mut members)?;
            }
        }
    }
    for names in members.values_mut() {
        names.sort_unstable();
        names.dedup();
    }
    Ok(members)
}

/// The relocations in section `index`, which puts functions into `variables`.
fn relocated(
    file: &File<'_>,
    code: &Code<'_>,
    index: usize,
    variables: &[Placed<'_>],
    budget: &mut Budget,
    members: &mut Members,
) -> Result<(), MalformedObject> {
    let section = file.section(index);
    let btf = file.types(section.name)?;
    if section.header.sh_entsize != 16 {
        let size = section.header.sh_entsize;
        let why = format!("relocations of {size} bytes, not 16");
        return Err(At::Section(section.name).invalid(why));
    }
    for (number, relocation) in file.elf.relocations(index)?.iter().enumerate() {
        let at = At::Byte(section.name, number as u64 * 16);
        budget.work(1, at)?;
        let Some(symbol) = file.elf.symbol(relocation.r_sym) else {
            let symbol = relocation.r_sym;
            return Err(at.invalid(format!("symbol #{symbol} does not exist")));
        };
        let slot = u32::try_from(symbol.st_value / SLOT).unwrap_or(u32::MAX);
        let Some(function) = code.at(symbol.st_shndx, slot) else {
            continue;
        };
        let before =
            variables.partition_point(|variable| u64::from(variable.offset) <= relocation.r_offset);
        let Some(variable) = before.checked_sub(1).and_then(|last| variables.get(last)) else {
            continue;
        };
        let offset = relocation.r_offset - u64::from(variable.offset);
        if let Some(name) = member(btf, variable.type_id, offset, budget, at)? {
            budget.hold(name.len() + size_of::<String>(), at)?;
            members.entry(function).or_default().push(name);
        }
    }
    Ok(())
}

/// `TYPE:MEMBER` at a byte offset; the type's name without what CO-RE ignores of it (`___`).
fn member(
    btf: &Btf<'_>,
    id: u32,
    offset: u64,
    budget: &mut Budget,
    at: At<'_>,
) -> Result<Option<String>, MalformedObject> {
    let Some((_, found)) = btf
        .resolve(id)
        .filter(|(_, found)| found.kind == Kind::Struct)
    else {
        return Ok(None);
    };
    budget.work(found.members().len(), at)?;
    let Some(member) = found
        .members()
        .find(|member| u64::from(member.bit) == 8 * offset)
    else {
        return Ok(None);
    };
    let name = btf.name(found.name)?;
    let essential = name.rfind("___").map_or(name, |end| &name[..end]);
    Ok(Some(format!("{essential}:{}", btf.name(member.name)?)))
}

/// Bytes of an instruction slot.
const SLOT: u64 = 8;
