//! `extern` variables and functions, and the `.kconfig` data made out of some.

use std::collections::HashMap;

use goblin::elf::{
    section_header::SHN_UNDEF,
    sym::{STB_GLOBAL, STB_WEAK, STT_NOTYPE, Sym},
};

use super::{
    DataSection, Extern, ExternKind, Variable,
    budget::Budget,
    file::{File, HASHED_PER_STEP},
};
use crate::{
    btf::{Btf, Kind, LINKAGE_EXTERN},
    malformed::{At, MalformedObject, quoted},
};

/// The externs of one object.
#[derive(Debug, Default)]
pub(super) struct Externs<'a> {
    by_symbol: HashMap<usize, (ExternKind, &'a str)>,
    /// Sorted by name.
    pub(super) list: Vec<Extern>,
    /// Does a kernel variable or function need kernel BTF?
    pub(super) typed: bool,
    /// The `.kconfig` section that a loader makes.
    pub(super) kconfig: Option<DataSection>,
}

impl<'a> Externs<'a> {
    pub(super) fn read(file: &File<'a>, budget: &mut Budget) -> Result<Self, MalformedObject> {
        let mut externs = Self::default();
        let known = Declared::read(file, budget)?;
        let mut kconfig = Vec::new();
        for (index, symbol) in file.elf.symbols() {
            if !is_extern(&symbol) {
                continue;
            }
            let name = file.elf.symbol_name(&symbol)?;
            if name.is_empty() {
                continue;
            }
            budget.work(1 + name.len() / HASHED_PER_STEP, AT)?;
            budget.hold(SYMBOL_ENTRY, AT)?;
            let declared = known.by_name.get(name);
            // Without BTF only its use tells; a function is called, see `kind_of_call`.
            let kind = declared.map_or(ExternKind::Variable, |declared| declared.kind);
            let weak = symbol.st_bind() == STB_WEAK;
            externs.by_symbol.insert(index, (kind, name));
            externs.list.push(Extern {
                name: budget.text(name, AT)?,
                kind,
                weak,
            });
            if let Some(declared) = declared {
                externs.typed |= declared.typed;
                if kind == ExternKind::Kconfig {
                    kconfig.push((name, declared.type_id));
                }
            }
        }
        externs.list.sort_by(|a, b| a.name.cmp(&b.name));
        if let (Some(btf), false) = (&file.btf, kconfig.is_empty()) {
            externs.kconfig = Some(lay_out_kconfig(btf, &kconfig, budget)?);
        }
        Ok(externs)
    }

    /// Kind and name of the extern that symbol `index` is.
    pub(super) fn of_symbol(&self, index: usize) -> Option<(ExternKind, &'a str)> {
        self.by_symbol.get(&index).copied()
    }

    /// Records that symbol `index` is called, which only a function can be.
    pub(super) fn called(&mut self, index: usize) {
        if let Some((kind @ ExternKind::Variable, name)) = self.by_symbol.get_mut(&index) {
            *kind = ExternKind::Function;
            if let Ok(found) = self
                .list
                .binary_search_by(|known| known.name.as_str().cmp(name))
            {
                self.list[found].kind = ExternKind::Function;
            }
        }
    }
}

/// Is it undefined here, to be found by a loader?
pub(super) fn is_extern(symbol: &Sym) -> bool {
    symbol.st_shndx == SHN_UNDEF as usize
        && matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK)
        && symbol.st_type() == STT_NOTYPE
}

/// What BTF says about externs.
struct Declared<'a> {
    by_name: HashMap<&'a str, Declaration>,
}

#[derive(Clone, Copy)]
struct Declaration {
    kind: ExternKind,
    type_id: u32,
    typed: bool,
}

impl<'a> Declared<'a> {
    fn read(file: &File<'a>, budget: &mut Budget) -> Result<Self, MalformedObject> {
        let mut by_name = HashMap::new();
        let Some(btf) = &file.btf else {
            return Ok(Self { by_name });
        };
        for (section, is_kconfig) in [(".kconfig", true), (".ksyms", false)] {
            let Some(datasec) = file.data_section(section) else {
                continue;
            };
            for variable in datasec.variables() {
                let Some(found) = btf.get(variable.id) else {
                    continue;
                };
                if found.linkage() != LINKAGE_EXTERN {
                    continue;
                }
                let kind = match (found.kind, is_kconfig) {
                    (Kind::Var, true) => ExternKind::Kconfig,
                    (Kind::Var, false) => ExternKind::Variable,
                    (Kind::Func, false) => ExternKind::Function,
                    _ => continue,
                };
                let name = btf.name(found.name)?;
                budget.work(1 + name.len() / HASHED_PER_STEP, AT)?;
                budget.hold(SYMBOL_ENTRY, AT)?;
                by_name.entry(name).or_insert(Declaration {
                    kind,
                    type_id: found.size_or_type,
                    // `extern const void x __ksym` is found by address, all else by type.
                    typed: !is_kconfig && btf.resolve(found.size_or_type).is_some(),
                });
            }
        }
        Ok(Self { by_name })
    }
}

/// Places kconfig variables as libbpf does: by alignment down, size up, then name.
fn lay_out_kconfig(
    btf: &Btf<'_>,
    variables: &[(&str, u32)],
    budget: &mut Budget,
) -> Result<DataSection, MalformedObject> {
    let mut sized = Vec::with_capacity(variables.len());
    for (name, id) in variables {
        let (Some(size), Some(alignment)) = (btf.size_of(*id), btf.alignment_of(*id)) else {
            let why = format!("the type of {} is no scalar or string", quoted(name));
            return Err(At::Section(KCONFIG).invalid(why));
        };
        sized.push((alignment, size, *name, *id));
    }
    sized.sort_by(|a, b| (b.0, a.1, a.2).cmp(&(a.0, b.1, b.2)));
    let mut end: u64 = 0;
    let mut placed = Vec::with_capacity(sized.len());
    for (alignment, size, name, id) in sized {
        let offset = end.next_multiple_of(u64::from(alignment));
        end = offset + u64::from(size);
        placed.push(Variable {
            name: budget.text(name, At::Section(KCONFIG))?,
            offset: u32::try_from(offset).map_err(|_| {
                At::Section(KCONFIG).limit("its size in bytes", u64::from(u32::MAX), offset)
            })?,
            size,
            volatile: btf.is_volatile(id),
            signed: btf.is_signed(id),
            tunable: false,
        });
    }
    Ok(DataSection {
        section: KCONFIG.to_owned(),
        size: end,
        readonly: true,
        variables: placed,
    })
}

/// The data section that a loader makes out of kernel configuration values.
pub(super) const KCONFIG: &str = ".kconfig";

const AT: At<'static> = At::Section(".symtab");

/// Bytes that an extern takes while it is read.
const SYMBOL_ENTRY: usize = 64;
