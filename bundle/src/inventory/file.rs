//! What all parts of the reader share: the file, its types, the role of each section.

use std::collections::HashMap;

use goblin::elf::{
    section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_PROGBITS},
    sym::{STB_GLOBAL, STB_LOCAL, STB_WEAK, STT_OBJECT},
};

use super::budget::Budget;
use crate::{
    btf::{self, Btf, Kind, LINKAGE_EXTERN, Type, VAR_STATIC},
    elf::{Elf, Section},
    malformed::{At, MalformedObject, quoted},
};

/// An object being read.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) elf: Elf<'a>,
    pub(super) btf: Option<Btf<'a>>,
    /// Role of each section, by index.
    pub(super) roles: Vec<Role>,
    /// `Datasec` types by name; the first of each name.
    data_sections: HashMap<&'a str, u32>,
    /// Values of global and weak object symbols by name; the first of each name.
    objects: HashMap<&'a str, u64>,
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing that a loader looks at.
    Other,
    /// `.text`: subprograms only.
    Text,
    /// Programs.
    Programs,
    /// BTF-defined maps.
    Maps,
    /// Legacy maps.
    LegacyMaps,
    /// Writable global data, with initial values.
    Data,
    /// Read-only global data.
    ReadOnlyData,
    /// Writable global data, zero at the start.
    Bss,
    /// `struct_ops` maps.
    StructOps,
    /// Initial contents of the arena.
    Arena,
    /// Jump tables.
    JumpTables,
    License,
    Btf,
    BtfExt,
}

/// A variable of a data section, where it really is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub(super) name: &'a str,
    pub(super) offset: u32,
    pub(super) size: u32,
    /// Its declared type, below the `Var`.
    pub(super) type_id: u32,
}

impl<'a> File<'a> {
    pub(super) fn read(bytes: &'a [u8], budget: &mut Budget) -> Result<Self, MalformedObject> {
        let elf = Elf::read(bytes)?;
        let roles: Vec<Role> = elf.sections.iter().map(Role::of).collect();
        let btf = match last(&roles, Role::Btf) {
            Some(index) => {
                let content = elf.content(index)?;
                if content.is_empty() {
                    None
                } else {
                    Some(Btf::read(content)?)
                }
            }
            None => None,
        };
        let mut file = Self {
            elf,
            btf,
            roles,
            data_sections: HashMap::new(),
            objects: HashMap::new(),
        };
        file.index(budget)?;
        Ok(file)
    }

    /// The last section with a role.
    pub(super) fn last(&self, role: Role) -> Option<usize> {
        last(&self.roles, role)
    }

    /// Sections with a role, in order.
    pub(super) fn all(&self, role: Role) -> impl Iterator<Item = usize> + '_ {
        let indices = self.roles.iter().enumerate();
        indices.filter_map(move |(index, found)| (*found == role).then_some(index))
    }

    pub(super) fn section(&self, index: usize) -> &Section<'a> {
        &self.elf.sections[index]
    }

    pub(super) fn role(&self, index: usize) -> Option<Role> {
        self.roles.get(index).copied()
    }

    /// The types, which section `needed_by` cannot be read without.
    pub(super) fn types(&self, needed_by: &str) -> Result<&Btf<'a>, MalformedObject> {
        self.btf
            .as_ref()
            .ok_or_else(|| At::Section(needed_by).invalid("there is no BTF that describes it"))
    }

    /// The `Datasec` type of a name.
    pub(super) fn data_section(&self, name: &str) -> Option<Type<'a>> {
        let id = self.data_sections.get(name)?;
        self.btf.as_ref()?.get(*id)
    }

    /// The variables that BTF has in `datasec`, which describes section `index`, by offset.
    ///
    /// LLVM leaves sizes of sections and offsets of variables with external linkage zero;
    /// a static linker fills them in. Where they are zero the symbol table has them.
    pub(super) fn place(
        &self,
        datasec: Type<'a>,
        index: usize,
        budget: &mut Budget,
    ) -> Result<Vec<Placed<'a>>, MalformedObject> {
        let section = self.section(index);
        let at = At::Section(section.name);
        let btf = self.types(section.name)?;
        let unplaced = datasec.size_or_type == 0;
        budget.hold(datasec.variables().len() * size_of::<Placed<'_>>(), at)?;
        let mut placed = Vec::with_capacity(datasec.variables().len());
        for variable in datasec.variables() {
            let Some(var) = btf.get(variable.id).filter(|var| var.kind == Kind::Var) else {
                let id = variable.id;
                return Err(At::Section(btf::BTF).invalid(format!("type {id} is not a variable")));
            };
            let linkage = var.linkage();
            if linkage == LINKAGE_EXTERN {
                continue;
            }
            let name = btf.name(var.name)?;
            budget.work(1 + name.len() / HASHED_PER_STEP, at)?;
            let mut offset = variable.offset;
            if unplaced && linkage != VAR_STATIC {
                let Some(value) = self.objects.get(name) else {
                    return Err(at.invalid(format!("variable {} has no symbol", quoted(name))));
                };
                offset = u32::try_from(*value).unwrap_or(u32::MAX);
            }
            let end = u64::from(offset) + u64::from(variable.size);
            if end > section.header.sh_size {
                let at = At::Byte(section.name, u64::from(offset));
                return Err(at.out_of_bounds("a variable", end, section.header.sh_size));
            }
            placed.push(Placed {
                name,
                offset,
                size: variable.size,
                type_id: var.size_or_type,
            });
        }
        placed.sort_by_key(|variable| variable.offset);
        Ok(placed)
    }

    fn index(&mut self, budget: &mut Budget) -> Result<(), MalformedObject> {
        let Some(btf) = &self.btf else {
            return Ok(());
        };
        let at = At::Section(btf::BTF);
        for (id, found) in btf.types() {
            if found.kind == Kind::Datasec {
                let name = btf.name(found.name)?;
                budget.work(1 + name.len() / HASHED_PER_STEP, at)?;
                budget.hold(INDEX_ENTRY, at)?;
                self.data_sections.entry(name).or_insert(id);
            }
        }
        if self.data_sections.is_empty() {
            return Ok(());
        }
        for (_, symbol) in self.elf.symbols() {
            let global = matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK);
            if global && symbol.st_type() == STT_OBJECT {
                let name = self.elf.symbol_name(&symbol)?;
                budget.work(1 + name.len() / HASHED_PER_STEP, at)?;
                budget.hold(INDEX_ENTRY, at)?;
                self.objects.entry(name).or_insert(symbol.st_value);
            }
        }
        Ok(())
    }
}

impl Role {
    fn of(section: &Section<'_>) -> Self {
        let executable = section.header.sh_flags & u64::from(SHF_EXECINSTR) != 0;
        let filled = section.header.sh_type == SHT_PROGBITS && section.header.sh_size > 0;
        match section.name {
            "license" => Self::License,
            "version" => Self::Other,
            ".maps" => Self::Maps,
            ".BTF" => Self::Btf,
            ".BTF.ext" => Self::BtfExt,
            ".text" if filled && executable => Self::Text,
            _ if filled && executable => Self::Programs,
            // gobpf writes `maps/NAME`, the lirc decoders of v4l-utils `lirc_mode2/maps`.
            name if filled && (is_or_below(name, "maps", '/') || name.ends_with("/maps")) => {
                Self::LegacyMaps
            }
            name if filled && is_or_below(name, ".data", '.') => Self::Data,
            name if filled && is_or_below(name, ".rodata", '.') => Self::ReadOnlyData,
            ".struct_ops" | ".struct_ops.link" | "?.struct_ops" | "?.struct_ops.link" if filled => {
                Self::StructOps
            }
            ".addr_space.1" if filled => Self::Arena,
            ".jumptables" if filled => Self::JumpTables,
            name if section.header.sh_type == SHT_NOBITS && is_or_below(name, ".bss", '.') => {
                Self::Bss
            }
            _ => Self::Other,
        }
    }

    /// Does it hold functions?
    pub(super) const fn is_code(self) -> bool {
        matches!(self, Self::Text | Self::Programs)
    }

    /// Does it hold bytes that a program might refer to, although libbpf knows no use?
    pub(super) fn is_unknown_data(self, section: &Section<'_>) -> bool {
        self == Self::Other
            && section.header.sh_type == SHT_PROGBITS
            && section.header.sh_flags & u64::from(SHF_ALLOC) != 0
    }

    /// Does it become a map of global data?
    pub(super) const fn is_data(self) -> bool {
        matches!(self, Self::Data | Self::ReadOnlyData | Self::Bss)
    }
}

/// Is a symbol visible to its own file only?
pub(super) const fn is_local(bind: u8) -> bool {
    bind == STB_LOCAL
}

fn last(roles: &[Role], role: Role) -> Option<usize> {
    roles.iter().rposition(|found| *found == role)
}

/// Is `name` `base`, or `base`, the separator and more?
fn is_or_below(name: &str, base: &str, separator: char) -> bool {
    name.strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// Bytes of a name hashed in about one step of work.
pub(super) const HASHED_PER_STEP: usize = 16;

/// Bytes that an entry of an index takes.
const INDEX_ENTRY: usize = 32;
