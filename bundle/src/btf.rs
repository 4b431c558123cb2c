//! BTF, the type format of BPF objects (kernel `Documentation/bpf/btf.rst`).
//!
//! This reads what an inventory needs: map definitions, global variables, externs, and the
//! places of CO-RE relocations. It resolves no relocation: that is libbpf's work.

use crate::{
    elf,
    inventory::Endianness,
    malformed::{At, MalformedObject},
};

/// The types of one object.
#[derive(Debug)]
pub(crate) struct Btf<'a> {
    endianness: Endianness,
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts in `types`; index 0 is `void` and means nothing.
    starts: Vec<u32>,
}

/// One type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Offset of its name in the strings.
    pub(crate) name: u32,
    /// Size in bytes or the type that it refers to, depending on the kind.
    pub(crate) size_or_type: u32,
    /// The kind flag.
    pub(crate) flag: bool,
    vlen: u16,
    body: &'a [u8],
    endianness: Endianness,
}

/// The kinds of type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

/// One variable of a data section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionVariable {
    /// Its `Var` or `Func` type.
    pub(crate) id: u32,
    /// Byte offset in the section; 0 where the symbol table must be asked.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) size: u32,
}

/// One member of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Offset of its name in the strings.
    pub(crate) name: u32,
    /// Its type.
    pub(crate) id: u32,
    /// Where it is, in bits. Bit fields with a flag of the struct for them have their width above.
    pub(crate) bit: u32,
}

/// `BTF_VAR_STATIC`.
pub(crate) const VAR_STATIC: u32 = 0;
/// `BTF_VAR_GLOBAL_EXTERN` and `BTF_FUNC_EXTERN`.
pub(crate) const LINKAGE_EXTERN: u32 = 2;

impl<'a> Btf<'a> {
    /// Reads the content of a `.BTF` section.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, MalformedObject> {
        let (endianness, header) = header(bytes, HEADER_SIZE, BTF)?;
        let [type_offset, type_length, string_offset, string_length] =
            [0, 1, 2, 3].map(|field| u64::from(word(header, 8 + 4 * field, endianness)));
        let header_length = u64::from(word(header, 4, endianness));
        if type_offset % 4 != 0 {
            return Err(At::Byte(BTF, 8).invalid("types are not aligned to 4 bytes"));
        }
        let part = |what, start: u64, length: u64| {
            let end = header_length + start + length;
            bytes
                .get((header_length + start) as usize..end as usize)
                .ok_or_else(|| At::Section(BTF).out_of_bounds(what, end, bytes.len() as u64))
        };
        let types = part("the types", type_offset, type_length)?;
        let strings = part("the strings", string_offset, string_length)?;
        if type_offset + type_length > string_offset {
            return Err(At::Byte(BTF, 16).invalid("the strings start before the types end"));
        }
        let base = header_length + type_offset;
        let mut btf = Self {
            endianness,
            types,
            strings,
            starts: vec![0],
        };
        btf.index(base)?;
        Ok(btf)
    }

    /// Finds where each type starts.
    fn index(&mut self, base: u64) -> Result<(), MalformedObject> {
        let mut start = 0;
        while start < self.types.len() {
            let at = At::Byte(BTF, base + start as u64);
            let Some(head) = self.types.get(start..start + 12) else {
                return Err(at.out_of_bounds("a type", start as u64 + 12, self.types.len() as u64));
            };
            let info = word(head, 4, self.endianness);
            let Some(kind) = Kind::from_info(info) else {
                return Err(at.invalid(format!("unknown kind of type {}", (info >> 24) & 0x1f)));
            };
            let end = start + 12 + kind.body_size((info & 0xffff) as usize);
            if end > self.types.len() {
                return Err(at.out_of_bounds("a type", end as u64, self.types.len() as u64));
            }
            if self.starts.len() > MAX_TYPES {
                return Err(at.limit(
                    "the number of types",
                    MAX_TYPES as u64,
                    self.starts.len() as u64,
                ));
            }
            self.starts.push(start as u32);
            start = end;
        }
        Ok(())
    }

    /// All types with their id, `void` left out.
    pub(crate) fn types(&self) -> impl Iterator<Item = (u32, Type<'a>)> + '_ {
        (1..self.starts.len() as u32).filter_map(|id| self.get(id).map(|found| (id, found)))
    }

    /// Type `id`; `None` for `void` and for ids beyond the end.
    pub(crate) fn get(&self, id: u32) -> Option<Type<'a>> {
        if id == 0 {
            return None;
        }
        let start = *self.starts.get(id as usize)? as usize;
        let head = self.types.get(start..start + 12)?;
        let info = word(head, 4, self.endianness);
        let kind = Kind::from_info(info)?;
        let vlen = (info & 0xffff) as u16;
        let end = start + 12 + kind.body_size(usize::from(vlen));
        Some(Type {
            kind,
            name: word(head, 0, self.endianness),
            size_or_type: word(head, 8, self.endianness),
            flag: info >> 31 == 1,
            vlen,
            body: self.types.get(start + 12..end)?,
            endianness: self.endianness,
        })
    }

    /// The string at `offset`.
    pub(crate) fn name(&self, offset: u32) -> Result<&'a str, MalformedObject> {
        elf::string(self.strings, offset as usize, At::Section(BTF))
    }

    /// Does the string at `offset` start with `prefix`?
    pub(crate) fn name_starts_with(&self, offset: u32, prefix: &str) -> bool {
        self.strings
            .get(offset as usize..)
            .is_some_and(|rest| rest.starts_with(prefix.as_bytes()))
    }

    /// Follows qualifiers and typedefs from type `id` to what they stand for.
    pub(crate) fn resolve(&self, mut id: u32) -> Option<(u32, Type<'a>)> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            if !found.kind.is_modifier() {
                return Some((id, found));
            }
            id = found.size_or_type;
        }
        None
    }

    /// The size in bytes of a value of type `id`; `None` where it has none.
    pub(crate) fn size_of(&self, mut id: u32) -> Option<u32> {
        let mut elements: u32 = 1;
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Datasec
                | Kind::Float => return elements.checked_mul(found.size_or_type),
                Kind::Ptr => return elements.checked_mul(POINTER),
                Kind::Var | Kind::DeclTag => id = found.size_or_type,
                Kind::Array => {
                    let (element, count) = found.array();
                    elements = elements.checked_mul(count)?;
                    id = element;
                }
                kind if kind.is_modifier() => id = found.size_or_type,
                _ => return None,
            }
        }
        None
    }

    /// The alignment in bytes of a value of type `id`, for scalars and arrays of them.
    pub(crate) fn alignment_of(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                Kind::Int | Kind::Enum | Kind::Enum64 | Kind::Float => {
                    return Some(found.size_or_type.clamp(1, POINTER));
                }
                Kind::Ptr => return Some(POINTER),
                Kind::Array => id = found.array().0,
                kind if kind.is_modifier() => id = found.size_or_type,
                _ => return None,
            }
        }
        None
    }

    /// Is a variable of type `id`, or an element of it, declared `volatile`?
    pub(crate) fn is_volatile(&self, mut id: u32) -> bool {
        for _ in 0..MAX_DEPTH {
            match self.get(id) {
                Some(found) if found.kind == Kind::Volatile => return true,
                Some(found) if found.kind.is_modifier() => id = found.size_or_type,
                Some(found) if found.kind == Kind::Array => id = found.array().0,
                _ => return false,
            }
        }
        false
    }

    /// Is type `id` a signed integer or a signed enumeration?
    pub(crate) fn is_signed(&self, id: u32) -> bool {
        match self.resolve(id) {
            Some((_, found)) if found.kind == Kind::Int => found.integer_is_signed(),
            Some((_, found)) => matches!(found.kind, Kind::Enum | Kind::Enum64) && found.flag,
            None => false,
        }
    }
}

impl Type<'_> {
    /// Element type and number of elements of an array.
    pub(crate) fn array(&self) -> (u32, u32) {
        (self.word(0), self.word(2))
    }

    /// Linkage of a variable or a function.
    pub(crate) fn linkage(&self) -> u32 {
        match self.kind {
            Kind::Func => u32::from(self.vlen),
            _ => self.word(0),
        }
    }

    /// Which member or parameter a declaration tag is on; -1 for the whole.
    pub(crate) fn component(&self) -> i32 {
        self.word(0).cast_signed()
    }

    /// Members of a struct or union.
    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = Member> + '_ {
        (0..usize::from(self.vlen)).map(|index| Member {
            name: self.word(3 * index),
            id: self.word(3 * index + 1),
            bit: self.word(3 * index + 2),
        })
    }

    /// Variables of a data section.
    pub(crate) fn variables(&self) -> impl ExactSizeIterator<Item = SectionVariable> + '_ {
        (0..usize::from(self.vlen)).map(|index| SectionVariable {
            id: self.word(3 * index),
            offset: self.word(3 * index + 1),
            size: self.word(3 * index + 2),
        })
    }

    /// The value of an enumeration that has exactly one.
    pub(crate) fn only_value(&self) -> Option<u64> {
        match (self.kind, self.vlen) {
            (Kind::Enum, 1) => Some(i64::from(self.word(1).cast_signed()).cast_unsigned()),
            (Kind::Enum64, 1) => Some(u64::from(self.word(2)) << 32 | u64::from(self.word(1))),
            _ => None,
        }
    }

    fn integer_is_signed(&self) -> bool {
        (self.word(0) >> 24) & 1 == 1
    }

    fn word(&self, index: usize) -> u32 {
        word(self.body, 4 * index, self.endianness)
    }
}

impl Kind {
    fn from_info(info: u32) -> Option<Self> {
        Some(match (info >> 24) & 0x1f {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    const fn body_size(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12 * vlen,
            Self::Enum | Self::FuncProto => 8 * vlen,
            _ => 0,
        }
    }

    const fn is_modifier(self) -> bool {
        matches!(
            self,
            Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag
        )
    }
}

/// One CO-RE relocation's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CorePlace {
    /// Name of the section, as an offset in the BTF strings.
    pub(crate) section: u32,
    /// Byte offset of the instruction in that section.
    pub(crate) offset: u32,
}

/// Where the CO-RE relocations in a `.BTF.ext` section are, in file order.
pub(crate) fn core_places(
    bytes: &[u8],
    each: &mut dyn FnMut(CorePlace) -> Result<(), MalformedObject>,
) -> Result<(), MalformedObject> {
    let (endianness, header) = header(bytes, EXT_HEADER_SIZE, BTF_EXT)?;
    let header_length = u64::from(word(header, 4, endianness));
    // Objects from before CO-RE (LLVM 9) have the two older tables only.
    if header_length < EXT_HEADER_SIZE as u64 + 8 {
        return Ok(());
    }
    let start = header_length + u64::from(word(header, 24, endianness));
    let length = u64::from(word(header, 28, endianness));
    if length == 0 {
        return Ok(());
    }
    let end = start + length;
    let Some(table) = bytes.get(start as usize..end as usize) else {
        let what = "the CO-RE relocations";
        return Err(At::Section(BTF_EXT).out_of_bounds(what, end, bytes.len() as u64));
    };
    let at = |offset: usize| At::Byte(BTF_EXT, start + offset as u64);
    if table.len() < 4 {
        return Err(at(0).out_of_bounds("the record size", 4, length));
    }
    let record = word(table, 0, endianness) as usize;
    if record < 16 || !record.is_multiple_of(4) {
        return Err(at(0).invalid(format!("CO-RE relocations of {record} bytes, at least 16")));
    }
    let mut position = 4;
    while position < table.len() {
        if position + 8 > table.len() {
            return Err(at(position).out_of_bounds(
                "a section's header",
                position as u64 + 8,
                length,
            ));
        }
        let section = word(table, position, endianness);
        let count = word(table, position + 4, endianness) as usize;
        position += 8;
        let end = position as u64 + count as u64 * record as u64;
        if end > length {
            return Err(at(position).out_of_bounds("a section's CO-RE relocations", end, length));
        }
        for _ in 0..count {
            let offset = word(table, position, endianness);
            each(CorePlace { section, offset })?;
            position += record;
        }
    }
    Ok(())
}

/// Checks a `.BTF` or `.BTF.ext` header of at least `least` bytes and returns it whole.
fn header<'a>(
    bytes: &'a [u8],
    least: usize,
    name: &str,
) -> Result<(Endianness, &'a [u8]), MalformedObject> {
    if bytes.len() < least {
        let at = At::Section(name);
        return Err(at.out_of_bounds("its header", least as u64, bytes.len() as u64));
    }
    let endianness = match (bytes[0], bytes[1]) {
        (0x9f, 0xeb) => Endianness::Little,
        (0xeb, 0x9f) => Endianness::Big,
        _ => return Err(At::Byte(name, 0).invalid("no BTF magic number")),
    };
    let length = word(bytes, 4, endianness) as usize;
    if length < least {
        return Err(
            At::Byte(name, 4).invalid(format!("a header of {length} bytes, at least {least}"))
        );
    }
    match bytes.get(..length) {
        Some(header) => Ok((endianness, header)),
        None => {
            Err(At::Byte(name, 4).out_of_bounds("its header", length as u64, bytes.len() as u64))
        }
    }
}

/// The 32-bit word at `offset`; 0 beyond the end, which callers have excluded.
fn word(bytes: &[u8], offset: usize, endianness: Endianness) -> u32 {
    let bytes = bytes
        .get(offset..offset + 4)
        .and_then(|word| word.try_into().ok())
        .unwrap_or_default();
    match endianness {
        Endianness::Little => u32::from_le_bytes(bytes),
        Endianness::Big => u32::from_be_bytes(bytes),
    }
}

/// Section names, which errors give.
pub(crate) const BTF: &str = ".BTF";
pub(crate) const BTF_EXT: &str = ".BTF.ext";

const HEADER_SIZE: usize = 24;
const EXT_HEADER_SIZE: usize = 24;

/// Bytes of a BPF pointer.
const POINTER: u32 = 8;

/// Longest chain of types followed, as in the kernel and libbpf (`MAX_RESOLVE_DEPTH`).
const MAX_DEPTH: usize = 32;

/// Most types that a kernel takes (`BTF_MAX_TYPE`).
const MAX_TYPES: usize = 0x000f_ffff;
