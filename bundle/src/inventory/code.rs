//! Functions: where they are, what each does itself, what each can reach.

use std::collections::{BTreeSet, HashMap};

use goblin::elf::{
    section_header::{SHN_LORESERVE, SHT_REL},
    sym::{STB_LOCAL, STB_WEAK, STT_FUNC, STV_HIDDEN, STV_INTERNAL},
};

use super::{
    Linkage,
    budget::Budget,
    externs::{Externs, KCONFIG},
    file::{File, HASHED_PER_STEP, Role, is_local},
};
use crate::{
    btf::{self, CorePlace, Kind, LINKAGE_EXTERN},
    insn::{Call, Insn, SLOT},
    inventory::ExternKind,
    malformed::{At, MalformedObject, quoted},
};

/// All functions of an object, sorted by section and place.
#[derive(Debug)]
pub(super) struct Code<'a> {
    pub(super) functions: Vec<Function<'a>>,
}

/// One function.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) section: usize,
    /// First instruction slot in its section.
    pub(super) start: u32,
    /// Number of slots.
    pub(super) length: u32,
    pub(super) linkage: Linkage,
    /// Is it a program, rather than something that programs call?
    pub(super) entry: bool,
    pub(super) body: Body,
}

/// What one function does itself.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Functions that it calls or whose address it takes, by index.
    pub(super) calls: BTreeSet<u32>,
    /// Numbers of helpers.
    pub(super) helpers: BTreeSet<i32>,
    pub(super) kfuncs: BTreeSet<Kfunc>,
    /// Maps and data sections, by index in [`Names`].
    pub(super) names: BTreeSet<u32>,
    pub(super) core_relocations: u32,
    pub(super) loops: bool,
    /// One bit per [`crate::insn::Extension`].
    pub(super) extensions: u8,
}

impl Body {
    fn entries(&self) -> usize {
        self.calls.len() + self.helpers.len() + self.kfuncs.len() + self.names.len()
    }
}

/// A kernel function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kfunc {
    /// An extern's symbol.
    Symbol(u32),
    /// A BTF id that is already in the instruction.
    Id(i32),
}

/// Names of maps and data sections, and which place of the file belongs to which.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) list: Vec<String>,
    /// Maps: (section, offset) of the variable.
    maps: HashMap<(usize, u64), u32>,
    /// Data: section.
    sections: HashMap<usize, u32>,
    kconfig: Option<u32>,
    arena: Option<u32>,
}

impl Names {
    /// Adds the map that a variable at `offset` of `section` declares.
    pub(super) fn add_map(&mut self, name: &str, section: usize, offset: u64, is_arena: bool) {
        let index = self.add(name);
        self.maps.entry((section, offset)).or_insert(index);
        if is_arena {
            self.arena = Some(index);
        }
    }

    /// Adds a data section.
    pub(super) fn add_section(&mut self, name: &str, section: usize) {
        let index = self.add(name);
        self.sections.insert(section, index);
    }

    /// Adds the `.kconfig` that a loader makes.
    pub(super) fn add_kconfig(&mut self) {
        self.kconfig = Some(self.add(KCONFIG));
    }

    fn add(&mut self, name: &str) -> u32 {
        self.list.push(name.to_owned());
        self.list.len() as u32 - 1
    }
}

impl<'a> Code<'a> {
    /// Finds all functions and reads each one's instructions.
    pub(super) fn read(
        file: &File<'a>,
        names: &Names,
        externs: &mut Externs<'a>,
        budget: &mut Budget,
    ) -> Result<Self, MalformedObject> {
        let mut code = Self {
            functions: functions(file, budget)?,
        };
        let relocations = Relocations::read(file, budget)?;
        for index in 0..code.functions.len() {
            let body = Reader {
                file,
                names,
                code: &code,
                relocations: relocations.of(code.functions[index].section),
                function: &code.functions[index],
                body: Body::default(),
            }
            .read(externs, budget)?;
            code.functions[index].body = body;
        }
        code.count_core_relocations(file, budget)?;
        code.add_exception_callbacks(file, budget)?;
        Ok(code)
    }

    /// The function that holds slot `slot` of `section`.
    pub(super) fn at(&self, section: usize, slot: u32) -> Option<usize> {
        let after = self
            .functions
            .partition_point(|function| (function.section, function.start) <= (section, slot));
        let index = after.checked_sub(1)?;
        let function = &self.functions[index];
        let holds = function.section == section && slot - function.start < function.length;
        holds.then_some(index)
    }

    fn count_core_relocations(
        &mut self,
        file: &File<'a>,
        budget: &mut Budget,
    ) -> Result<(), MalformedObject> {
        let Some((btf, section)) = file.btf.as_ref().zip(file.last(Role::BtfExt)) else {
            return Ok(());
        };
        let content = file.elf.content(section)?;
        if content.is_empty() {
            return Ok(());
        }
        let at = At::Section(btf::BTF_EXT);
        let mut sections: HashMap<&str, usize> = HashMap::new();
        for (index, role) in file.roles.iter().enumerate() {
            if role.is_code() {
                let name = file.section(index).name;
                budget.work(1 + name.len() / HASHED_PER_STEP, at)?;
                sections.entry(name).or_insert(index);
            }
        }
        let mut last: Option<(u32, Option<usize>)> = None;
        btf::core_places(content, &mut |CorePlace { section, offset }| {
            budget.work(1, at)?;
            let index = match last {
                Some((name, index)) if name == section => index,
                _ => {
                    let name = btf.name(section)?;
                    budget.work(name.len() / HASHED_PER_STEP, at)?;
                    let index = sections.get(name).copied();
                    last = Some((section, index));
                    index
                }
            };
            // A weak function that a static linker has overridden leaves its relocations.
            let function = index.and_then(|index| self.at(index, offset / SLOT as u32));
            if let Some(function) = function {
                self.functions[function].body.core_relocations += 1;
            }
            Ok(())
        })
    }

    /// Declaration tags name the function that handles a program's exceptions; libbpf
    /// appends it although nothing calls it.
    fn add_exception_callbacks(
        &mut self,
        file: &File<'a>,
        budget: &mut Budget,
    ) -> Result<(), MalformedObject> {
        let Some(btf) = &file.btf else {
            return Ok(());
        };
        let at = At::Section(btf::BTF);
        for (_, tag) in btf.types() {
            let is_callback = tag.kind == Kind::DeclTag
                && tag.component() == -1
                && btf.name_starts_with(tag.name, CALLBACK_TAG);
            if !is_callback {
                continue;
            }
            let Some(program) = btf
                .get(tag.size_or_type)
                .filter(|found| found.kind == Kind::Func && found.linkage() != LINKAGE_EXTERN)
            else {
                continue;
            };
            let program = btf.name(program.name)?;
            let callback = &btf.name(tag.name)?[CALLBACK_TAG.len()..];
            budget.work(self.functions.len(), at)?;
            let find = |name: &str, entry: bool| {
                self.functions
                    .iter()
                    .position(|function| function.entry == entry && function.name == name)
            };
            if let (Some(program), Some(callback)) = (find(program, true), find(callback, false)) {
                let calls = &mut self.functions[program].body.calls;
                calls.insert(callback as u32);
            }
        }
        Ok(())
    }
}

/// The function symbols of code sections, sorted by section and place.
fn functions<'a>(
    file: &File<'a>,
    budget: &mut Budget,
) -> Result<Vec<Function<'a>>, MalformedObject> {
    let mut functions = Vec::new();
    for (_, symbol) in file.elf.symbols() {
        let section = symbol.st_shndx;
        let role = match file.role(section) {
            Some(role) if role.is_code() && symbol.st_type() == STT_FUNC => role,
            _ => continue,
        };
        let holder = file.section(section);
        let at = At::Byte(holder.name, symbol.st_value);
        let size = holder.header.sh_size;
        let end = symbol.st_value.saturating_add(symbol.st_size);
        if end > size || symbol.st_value >= size {
            return Err(at.out_of_bounds("a function", end, size));
        }
        if symbol.st_value % SLOT as u64 != 0 || symbol.st_size % SLOT as u64 != 0 {
            let bytes = symbol.st_size;
            return Err(at.invalid(format!(
                "a function of {bytes} bytes is not whole instructions"
            )));
        }
        budget.hold(size_of::<Function<'_>>(), at)?;
        let static_ = is_local(symbol.st_bind());
        let hidden = matches!(symbol.st_visibility(), STV_HIDDEN | STV_INTERNAL);
        functions.push(Function {
            name: file.elf.symbol_name(&symbol)?,
            section,
            start: (symbol.st_value / SLOT as u64) as u32,
            length: (symbol.st_size / SLOT as u64) as u32,
            linkage: match symbol.st_bind() {
                _ if hidden => Linkage::Static,
                STB_LOCAL => Linkage::Static,
                STB_WEAK => Linkage::Weak,
                _ => Linkage::Global,
            },
            entry: role == Role::Programs && !static_,
            body: Body::default(),
        });
    }
    functions.sort_by_key(|function| (function.section, function.start));
    // Assembly often gives no size: such a function ends where the next one starts.
    for index in 0..functions.len() {
        let Function {
            section,
            start,
            length,
            ..
        } = functions[index];
        if length == 0 {
            let next = functions[index + 1..]
                .iter()
                .take_while(|next| next.section == section)
                .find(|next| next.start > start);
            let end = match next {
                Some(next) => next.start,
                None => (file.section(section).header.sh_size / SLOT as u64) as u32,
            };
            budget.work(1, At::Section(file.section(section).name))?;
            functions[index].length = end - start;
        }
    }
    Ok(functions)
}

/// Relocations of code, by section, sorted by slot.
#[derive(Debug, Default)]
struct Relocations {
    by_section: HashMap<usize, Vec<Relocation>>,
}

#[derive(Clone, Copy, Debug)]
struct Relocation {
    slot: u32,
    symbol: u32,
}

impl Relocations {
    fn read(file: &File<'_>, budget: &mut Budget) -> Result<Self, MalformedObject> {
        let mut relocations = Self::default();
        for index in 0..file.roles.len() {
            let section = file.section(index);
            let target = section.header.sh_info as usize;
            if section.header.sh_type != SHT_REL || !file.role(target).is_some_and(Role::is_code) {
                continue;
            }
            if section.header.sh_entsize != 16 {
                let size = section.header.sh_entsize;
                let why = format!("relocations of {size} bytes, not 16");
                return Err(At::Section(section.name).invalid(why));
            }
            let target_size = file.section(target).header.sh_size;
            let found = relocations.by_section.entry(target).or_default();
            for (number, relocation) in file.elf.relocations(index)?.iter().enumerate() {
                let at = At::Byte(section.name, number as u64 * 16);
                budget.work(1, at)?;
                let offset = relocation.r_offset;
                if offset >= target_size {
                    return Err(at.out_of_bounds("its place", offset, target_size));
                }
                if offset % SLOT as u64 != 0 {
                    return Err(
                        at.invalid(format!("its place {offset:#x} is inside an instruction"))
                    );
                }
                if relocation.r_sym >= file.elf.symbol_count() {
                    let symbol = relocation.r_sym;
                    return Err(at.invalid(format!("symbol #{symbol} does not exist")));
                }
                found.push(Relocation {
                    slot: (offset / SLOT as u64) as u32,
                    symbol: relocation.r_sym as u32,
                });
            }
        }
        for found in relocations.by_section.values_mut() {
            found.sort_by_key(|relocation| relocation.slot);
        }
        Ok(relocations)
    }

    fn of(&self, section: usize) -> &[Relocation] {
        self.by_section.get(&section).map_or(&[], Vec::as_slice)
    }
}

/// Reads one function's instructions.
struct Reader<'a, 'b> {
    file: &'b File<'a>,
    names: &'b Names,
    code: &'b Code<'a>,
    relocations: &'b [Relocation],
    function: &'b Function<'a>,
    body: Body,
}

impl<'a> Reader<'a, '_> {
    fn read(
        mut self,
        externs: &mut Externs<'a>,
        budget: &mut Budget,
    ) -> Result<Body, MalformedObject> {
        let section = self.function.section;
        let name = self.file.section(section).name;
        let content = self.file.elf.content(section)?;
        let (slots, _) = content.as_chunks::<SLOT>();
        let start = self.function.start;
        let end = start + self.function.length;
        budget.work(self.function.length as usize, At::Section(name))?;
        let first = self
            .relocations
            .partition_point(|relocation| relocation.slot < start);
        let mut relocations = self.relocations[first..].iter().peekable();
        let mut wide = false;
        let mut paid = 0;
        for slot in start..end {
            let insn = Insn::read(&slots[slot as usize], self.file.elf.endianness);
            let at = At::Byte(name, u64::from(slot) * SLOT as u64);
            let second_half = wide;
            wide = !second_half && insn.is_wide();
            let mut symbol = None;
            while let Some(found) = relocations.next_if(|found| found.slot == slot) {
                symbol = Some(found.symbol);
            }
            if second_half {
                continue;
            }
            match symbol {
                Some(symbol) => self.relocated(insn, symbol as usize, externs, at)?,
                None => self.plain(insn, slot, at)?,
            }
            self.body.loops |= insn.jumps_back();
            if let Some(extension) = insn.extension() {
                self.body.extensions |= 1 << extension as u8;
            }
            // Most add nothing to the sets; what does is paid for at once, since a file may
            // hold nothing but calls of different helpers.
            let entries = self.body.entries();
            if entries > paid {
                budget.hold((entries - paid) * SET_ENTRY, at)?;
                paid = entries;
            }
        }
        Ok(self.body)
    }

    /// An instruction that no relocation changes.
    fn plain(&mut self, insn: Insn, slot: u32, at: At<'_>) -> Result<(), MalformedObject> {
        match insn.call() {
            Some(Call::Helper(id)) => {
                self.body.helpers.insert(id);
            }
            Some(Call::Kernel(id)) => {
                self.body.kfuncs.insert(Kfunc::Id(id));
            }
            Some(Call::Function(distance)) => {
                let target = i64::from(slot) + i64::from(distance) + 1;
                self.calls(self.function.section, target, at)?;
            }
            Some(Call::Register) | None => {}
        }
        Ok(())
    }

    /// An instruction whose immediate a loader replaces.
    fn relocated(
        &mut self,
        insn: Insn,
        symbol_index: usize,
        externs: &mut Externs<'a>,
        at: At<'_>,
    ) -> Result<(), MalformedObject> {
        let call = insn.call();
        if call.is_none() && !insn.is_wide() {
            let code = insn.code;
            return Err(at.invalid(format!("a relocation of instruction {code:#04x}")));
        }
        if let Some((kind, _)) = externs.of_symbol(symbol_index) {
            if call.is_some() {
                externs.called(symbol_index);
                self.body.kfuncs.insert(Kfunc::Symbol(symbol_index as u32));
            } else if kind == ExternKind::Kconfig {
                self.body.names.extend(self.names.kconfig);
            }
            return Ok(());
        }
        let Some(symbol) = self.file.elf.symbol(symbol_index) else {
            return Err(at.invalid(format!("symbol #{symbol_index} does not exist")));
        };
        let section = symbol.st_shndx;
        let Some(role) = self
            .file
            .role(section)
            .filter(|_| section != 0 && section < SHN_LORESERVE as usize)
        else {
            let name = self.file.elf.symbol_name(&symbol)?;
            return Err(at.invalid(format!("symbol {} is in no section", quoted(name))));
        };
        let value = i64::try_from(symbol.st_value).unwrap_or(i64::MAX);
        match (call, role) {
            (Some(Call::Function(distance)), role) if role.is_code() => {
                let target = value / SLOT as i64 + i64::from(distance) + 1;
                self.calls(section, target, at)
            }
            (Some(_), _) => {
                let name = self.file.section(section).name;
                Err(at.invalid(format!("a call into section {}", quoted(name))))
            }
            (None, role) if role.is_code() => {
                let target = value.saturating_add(i64::from(insn.imm)) / SLOT as i64;
                self.calls(section, target, at)
            }
            (None, role) => {
                let name = self.reference(role, section, symbol.st_value, insn.imm);
                match name {
                    Reference::Name(index) => {
                        self.body.names.insert(index);
                        Ok(())
                    }
                    Reference::Nameless => Ok(()),
                    Reference::Unknown => {
                        let name = self.file.section(section).name;
                        let why =
                            format!("a reference to no map or data in section {}", quoted(name));
                        Err(at.invalid(why))
                    }
                }
            }
        }
    }

    /// What a 64-bit load refers to.
    fn reference(&self, role: Role, section: usize, value: u64, imm: i32) -> Reference {
        let found = match role {
            Role::Maps => self.names.maps.get(&(section, value)),
            // Relocations against the section itself have the place in the immediate.
            Role::LegacyMaps => self
                .names
                .maps
                .get(&(section, value.wrapping_add(u64::from(imm.cast_unsigned())))),
            Role::Arena => self.names.arena.as_ref(),
            Role::JumpTables => return Reference::Nameless,
            _ => self.names.sections.get(&section),
        };
        found.map_or(Reference::Unknown, |index| Reference::Name(*index))
    }

    fn calls(&mut self, section: usize, slot: i64, at: At<'_>) -> Result<(), MalformedObject> {
        let target = u32::try_from(slot)
            .ok()
            .and_then(|slot| self.code.at(section, slot));
        match target {
            Some(target) => {
                self.body.calls.insert(target as u32);
                Ok(())
            }
            None => {
                let name = self.file.section(section).name;
                let place = slot.saturating_mul(SLOT as i64);
                let name = quoted(name);
                Err(at.invalid(format!(
                    "no function at offset {place} of section {name} to call"
                )))
            }
        }
    }
}

enum Reference {
    Name(u32),
    Nameless,
    Unknown,
}

/// What all functions that one program can reach do together, itself included.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Functions by index, without the program itself.
    pub(super) functions: Vec<u32>,
    pub(super) slots: u64,
    pub(super) helpers: BTreeSet<i32>,
    pub(super) kfuncs: BTreeSet<Kfunc>,
    pub(super) names: BTreeSet<u32>,
    pub(super) core_relocations: u64,
    pub(super) loops: bool,
    pub(super) extensions: u8,
}

/// Walks the call graph from one program after another.
///
/// Without recursion, since a chain of calls may be as long as the file; with one mark
/// per function that is never cleared, since there may be as many programs.
pub(super) struct Walk<'a, 'b> {
    code: &'b Code<'a>,
    marks: Vec<u32>,
    round: u32,
}

impl<'a, 'b> Walk<'a, 'b> {
    pub(super) fn new(code: &'b Code<'a>) -> Self {
        Self {
            code,
            marks: vec![0; code.functions.len()],
            round: 0,
        }
    }

    /// Everything that function `root` can reach.
    pub(super) fn from(
        &mut self,
        root: usize,
        at: At<'_>,
        budget: &mut Budget,
    ) -> Result<Reach, MalformedObject> {
        self.round += 1;
        let mut reach = Reach::default();
        let mut open = vec![root as u32];
        self.marks[root] = self.round;
        while let Some(index) = open.pop() {
            let function = &self.code.functions[index as usize];
            let body = &function.body;
            let entries = body.helpers.len() + body.kfuncs.len() + body.names.len();
            budget.work(1 + body.calls.len() + 2 * entries, at)?;
            if index as usize != root {
                budget.hold(size_of::<u32>(), at)?;
                reach.functions.push(index);
            }
            reach.slots += u64::from(function.length);
            reach.helpers.extend(&body.helpers);
            reach.kfuncs.extend(&body.kfuncs);
            reach.names.extend(&body.names);
            reach.core_relocations += u64::from(body.core_relocations);
            reach.loops |= body.loops;
            reach.extensions |= body.extensions;
            for callee in &body.calls {
                let mark = &mut self.marks[*callee as usize];
                if *mark != self.round {
                    *mark = self.round;
                    open.push(*callee);
                }
            }
        }
        Ok(reach)
    }
}

/// Bytes that an entry of a set takes, with its share of the tree.
const SET_ENTRY: usize = 16;

const CALLBACK_TAG: &str = "exception_callback:";
