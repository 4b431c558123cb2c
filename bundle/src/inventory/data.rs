//! Global data sections and their variables.

use std::collections::HashMap;

use goblin::elf::sym::STT_OBJECT;

use super::{
    DataSection, Variable,
    budget::Budget,
    file::{File, Role},
};
use crate::malformed::{At, MalformedObject};

/// The global data of one object, with the index of each section.
pub(super) fn read(
    file: &File<'_>,
    budget: &mut Budget,
) -> Result<Vec<(usize, DataSection)>, MalformedObject> {
    let mut by_symbols = symbols(file, budget)?;
    let mut sections = Vec::new();
    for (index, role) in file.roles.iter().enumerate() {
        let section = file.section(index);
        let at = At::Section(section.name);
        if !(role.is_data() || *role == Role::Arena) || section.header.sh_size == 0 {
            continue;
        }
        // Checks that the bytes are there; `.bss` has none.
        file.elf.content(index)?;
        let mut variables = Vec::new();
        if let Some(datasec) = file.data_section(section.name) {
            for placed in file.place(datasec, index, budget)? {
                let btf = file.types(section.name)?;
                budget.hold(size_of::<Variable>(), at)?;
                variables.push(Variable {
                    name: budget.text(placed.name, at)?,
                    offset: placed.offset,
                    size: placed.size,
                    volatile: btf.is_volatile(placed.type_id),
                    signed: btf.is_signed(placed.type_id),
                    tunable: false,
                });
            }
        }
        add_symbols(
            &mut variables,
            by_symbols.remove(&index).unwrap_or_default(),
        );
        budget.hold(size_of::<DataSection>(), at)?;
        let data = DataSection {
            section: budget.text(section.name, at)?,
            size: section.header.sh_size,
            readonly: *role == Role::ReadOnlyData,
            variables,
        };
        sections.push((index, data));
    }
    Ok(sections)
}

/// Adds variables that only the symbol table has: all without BTF, and those that LLVM 9
/// left out of BTF.
fn add_symbols(variables: &mut Vec<Variable>, symbols: Vec<Variable>) {
    let described = variables.len();
    for symbol in symbols {
        let known = variables[..described]
            .binary_search_by_key(&symbol.offset, |variable| variable.offset)
            .is_ok();
        if !known {
            variables.push(symbol);
        }
    }
    variables.sort_by_key(|variable| variable.offset);
}

/// Object symbols of the data sections, by section.
fn symbols(
    file: &File<'_>,
    budget: &mut Budget,
) -> Result<HashMap<usize, Vec<Variable>>, MalformedObject> {
    let mut found: HashMap<usize, Vec<Variable>> = HashMap::new();
    for (_, symbol) in file.elf.symbols() {
        let index = symbol.st_shndx;
        let holds_data = file
            .role(index)
            .is_some_and(|role| role.is_data() || role == Role::Arena);
        if symbol.st_type() != STT_OBJECT || !holds_data {
            continue;
        }
        let section = file.section(index);
        let at = At::Byte(section.name, symbol.st_value);
        let end = symbol.st_value.saturating_add(symbol.st_size);
        let (Ok(offset), Ok(size), true) = (
            u32::try_from(symbol.st_value),
            u32::try_from(symbol.st_size),
            end <= section.header.sh_size,
        ) else {
            return Err(at.out_of_bounds("a variable", end, section.header.sh_size));
        };
        budget.hold(size_of::<Variable>(), at)?;
        found.entry(index).or_default().push(Variable {
            name: budget.text(file.elf.symbol_name(&symbol)?, at)?,
            offset,
            size,
            volatile: false,
            signed: false,
            tunable: false,
        });
    }
    for variables in found.values_mut() {
        variables.sort_by_key(|variable| variable.offset);
    }
    Ok(found)
}
