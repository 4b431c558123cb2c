//! From an object's bytes to its inventory.

use super::{
    Extern, ExternKind, Object, Program, Subprogram,
    budget::Budget,
    code::{Code, Function, Kfunc, Names, Reach, Walk},
    data,
    externs::Externs,
    file::{File, Role},
    maps,
    members::{self, Members},
    needs::needs,
};
use crate::{
    Blob, Digest, kernel,
    malformed::{At, MalformedObject},
    section::convention,
};

/// Reads what a BPF object is and can do from its bytes.
///
/// `name` is what the object is called in the bundle; nothing is read from it. The same
/// bytes give the same inventory everywhere.
///
/// # Errors
///
/// The place and the reason, where the bytes are no BPF object, contradict themselves, or
/// would take more memory or time than any real object.
pub fn read(name: &str, bytes: &[u8]) -> Result<Object, MalformedObject> {
    Reader::default().read(name, bytes)
}

/// Reads the objects of one file, which together cost no more than one.
#[derive(Debug)]
pub struct Reader {
    budget: Budget,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            budget: Budget::of_file(),
        }
    }
}

impl Reader {
    /// Reads the next object, see [`read`].
    ///
    /// # Errors
    ///
    /// Those of [`read`], and a limit where this and the objects before are too much.
    pub fn read(&mut self, name: &str, bytes: &[u8]) -> Result<Object, MalformedObject> {
        self.object(name, bytes, Digest::of(bytes))
    }

    /// As [`Self::read`], without computing the digest again.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read`].
    pub fn read_blob(&mut self, name: &str, blob: &Blob) -> Result<Object, MalformedObject> {
        self.object(name, blob, blob.digest())
    }

    fn object(
        &mut self,
        name: &str,
        bytes: &[u8],
        digest: Digest,
    ) -> Result<Object, MalformedObject> {
        let mut budget = self.budget.of_object(bytes.len());
        let object = object(name, bytes, digest, &mut budget);
        self.budget.charge(&budget);
        object
    }
}

fn object(
    name: &str,
    bytes: &[u8],
    digest: Digest,
    budget: &mut Budget,
) -> Result<Object, MalformedObject> {
    let file = File::read(bytes, budget)?;
    let mut externs = Externs::read(&file, budget)?;
    let declared = maps::read(&file, budget)?;
    let data = data::read(&file, budget)?;

    let mut names = Names::default();
    for found in &declared {
        let is_arena = found.map.kind == "arena";
        let at = At::Section(file.section(found.section).name);
        budget.hold(NAME_ENTRY + found.map.name.len(), at)?;
        names.add_map(&found.map.name, found.section, found.offset, is_arena);
    }
    for (index, section) in &data {
        let at = At::Section(file.section(*index).name);
        budget.hold(NAME_ENTRY + section.section.len(), at)?;
        names.add_section(&section.section, *index);
    }
    for (index, role) in file.roles.iter().enumerate() {
        let section = file.section(index);
        if role.is_unknown_data(section) {
            budget.hold(NAME_ENTRY + section.name.len(), At::Section(section.name))?;
            names.add_section(section.name, index);
        }
    }
    if externs.kconfig.is_some() {
        names.add_kconfig();
    }
    let code = Code::read(&file, &names, &mut externs, budget)?;

    let members = members::read(&file, &code, budget)?;
    let (programs, extensions) = programs(&file, &code, &names, members, &externs, budget)?;
    let mut data: Vec<_> = data.into_iter().map(|(_, section)| section).collect();
    data.extend(externs.kconfig.take());
    let mut object = Object {
        name: name.to_owned(),
        digest,
        size: bytes.len() as u64,
        endianness: file.elf.endianness,
        license: license(&file)?,
        btf: file.btf.is_some(),
        btf_ext: file.last(Role::BtfExt).is_some(),
        programs,
        subprograms: subprograms(&file, &code, budget)?,
        maps: declared.into_iter().map(|found| found.map).collect(),
        data,
        externs: once(std::mem::take(&mut externs.list)),
        needs: super::Needs::default(),
    };
    object.needs = needs(&object, extensions, externs.typed);
    Ok(object)
}

/// The entry programs, and which instruction-set extensions they use together.
fn programs(
    file: &File<'_>,
    code: &Code<'_>,
    names: &Names,
    mut members: Members,
    externs: &Externs<'_>,
    budget: &mut Budget,
) -> Result<(Vec<Program>, u8), MalformedObject> {
    let mut walk = Walk::new(code);
    let mut programs = Vec::new();
    let mut extensions = 0;
    for (index, function) in code.functions.iter().enumerate() {
        if function.entry {
            let at = At::Section(file.section(function.section).name);
            let reach = walk.from(index, at, budget)?;
            extensions |= reach.extensions;
            let section = file.section(function.section).name;
            let text = &mut Text {
                names,
                externs,
                code,
                budget,
                at,
            };
            let program = program(function, section, reach, text)?;
            programs.push(Program {
                members: members.remove(&index).unwrap_or_default(),
                ..program
            });
        }
    }
    Ok((programs, extensions))
}

/// Turns indices into names, and pays for them.
struct Text<'a, 'b> {
    names: &'b Names,
    externs: &'b Externs<'a>,
    code: &'b Code<'a>,
    budget: &'b mut Budget,
    at: At<'b>,
}

fn program(
    function: &Function<'_>,
    section: &str,
    reach: Reach,
    text: &mut Text<'_, '_>,
) -> Result<Program, MalformedObject> {
    let convention = convention(section);
    let helpers = text.helpers(&reach)?;
    let kfuncs = text.kfuncs(&reach)?;
    let repeats = |names: &[String]| names.iter().any(|name| is_repeating(name));
    let at = text.at;
    text.budget
        .hold(size_of::<Program>() + 2 * section.len(), at)?;
    Ok(Program {
        name: text.budget.text(function.name, at)?,
        section: section.to_owned(),
        kind: convention.program_type.to_owned(),
        attach_type: convention.attach_type.map(str::to_owned),
        target: convention.target.map(str::to_owned),
        members: Vec::new(),
        sleepable: convention.sleepable,
        optional: convention.optional,
        insns: function.length,
        total_insns: u32::try_from(reach.slots).unwrap_or(u32::MAX),
        loops: reach.loops || repeats(&helpers) || repeats(&kfuncs),
        helpers,
        kfuncs,
        calls: text.calls(&reach)?,
        maps: text.maps(&reach)?,
        core_relocations: u32::try_from(reach.core_relocations).unwrap_or(u32::MAX),
    })
}

impl Text<'_, '_> {
    fn helpers(&mut self, reach: &Reach) -> Result<Vec<String>, MalformedObject> {
        self.collect(reach.helpers.iter(), |_, id| {
            let known = u32::try_from(*id).ok().and_then(kernel::helper_name);
            known.map_or_else(|| format!("helper#{id}"), str::to_owned)
        })
    }

    fn kfuncs(&mut self, reach: &Reach) -> Result<Vec<String>, MalformedObject> {
        self.collect(reach.kfuncs.iter(), |text, kfunc| match kfunc {
            Kfunc::Symbol(symbol) => {
                let found = text.externs.of_symbol(*symbol as usize);
                found.map_or("", |(_, name)| name).to_owned()
            }
            Kfunc::Id(id) => format!("kfunc#{id}"),
        })
    }

    fn calls(&mut self, reach: &Reach) -> Result<Vec<String>, MalformedObject> {
        self.collect(reach.functions.iter(), |text, index| {
            text.code.functions[*index as usize].name.to_owned()
        })
    }

    fn maps(&mut self, reach: &Reach) -> Result<Vec<String>, MalformedObject> {
        self.collect(reach.names.iter(), |text, index| {
            text.names.list[*index as usize].clone()
        })
    }

    /// Names, paid for, sorted, each once.
    fn collect<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        name: impl Fn(&Self, T) -> String,
    ) -> Result<Vec<String>, MalformedObject> {
        let mut found = Vec::new();
        for item in items {
            let text = name(self, item);
            self.budget
                .hold(text.len() + size_of::<String>(), self.at)?;
            found.push(text);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// Does calling it repeat something?
fn is_repeating(name: &str) -> bool {
    matches!(name, "bpf_loop" | "bpf_for_each_map_elem")
        || name.starts_with("bpf_iter_") && name.ends_with("_next")
}

fn subprograms(
    file: &File<'_>,
    code: &Code<'_>,
    budget: &mut Budget,
) -> Result<Vec<Subprogram>, MalformedObject> {
    let mut subprograms = Vec::new();
    for function in code.functions.iter().filter(|function| !function.entry) {
        let section = file.section(function.section).name;
        let at = At::Section(section);
        budget.hold(size_of::<Subprogram>(), at)?;
        subprograms.push(Subprogram {
            name: budget.text(function.name, at)?,
            section: budget.text(section, at)?,
            linkage: function.linkage,
            insns: function.length,
        });
    }
    subprograms.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(subprograms)
}

/// The licence as a kernel sees it: up to the first NUL, at most 63 bytes as in libbpf.
fn license(file: &File<'_>) -> Result<Option<String>, MalformedObject> {
    let Some(index) = file.last(Role::License) else {
        return Ok(None);
    };
    let content = file.elf.content(index)?;
    let text = &content[..content.len().min(MAX_LICENSE)];
    let length = memchr::memchr(0, text).unwrap_or(text.len());
    match std::str::from_utf8(&text[..length]) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(At::Section(file.section(index).name).invalid("the licence is not UTF-8")),
    }
}

/// Externs, each once: several symbols of one name are one extern.
fn once(mut externs: Vec<Extern>) -> Vec<Extern> {
    externs.dedup_by(|second, first| {
        let same = first.name == second.name;
        if same {
            first.weak &= second.weak;
            if second.kind == ExternKind::Function {
                first.kind = second.kind;
            }
        }
        same
    });
    externs
}

const MAX_LICENSE: usize = 63;

/// Bytes that a name which programs may refer to takes.
const NAME_ENTRY: usize = 64;
