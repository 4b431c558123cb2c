//! BPF objects inside executables: libbpf skeletons, `include_bytes!`, Go's `embed`.
//!
//! All of these put the object's bytes into the executable as they are. An object is found
//! by its ELF header and measured by what its headers refer to; nothing is guessed.

use std::ops::Range;

use goblin::{
    container::{Container, Ctx, Endian},
    elf::{
        Elf, SectionHeader, Sym, Symtab,
        header::{ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, ET_REL},
        section_header::{SHT_NOBITS, SHT_SYMTAB},
        sym::STT_FILE,
    },
};
use memchr::memmem;

use crate::elf::EM_BPF;

/// One BPF object inside other bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// A file name for it, unique among those found together.
    pub name: String,
    /// Where its bytes are.
    pub range: Range<usize>,
}

/// Finds every BPF object in `bytes`, in order, none inside another.
///
/// Each is named after the source file that its own symbol table tells
/// (`opensnoop.bpf.c` gives `opensnoop.bpf.o`), else `embedded-N.bpf.o`, N from 1.
pub fn find(bytes: &[u8]) -> Vec<Embedded> {
    find_in("embedded", bytes)
}

/// Like [`find`], with `executable`, a file's name, in the place of `embedded`.
pub fn find_in(executable: &str, bytes: &[u8]) -> Vec<Embedded> {
    let mut found: Vec<Embedded> = Vec::new();
    let finder = memmem::Finder::new(MAGIC);
    let mut from = 0;
    let mut headers = MAX_HEADERS;
    while let Some(distance) = finder.find(&bytes[from..]) {
        let start = from + distance;
        let length = object_length(&bytes[start..], &mut headers);
        if let Some(length) = length {
            let range = start..start + length;
            let name = name(&bytes[range.clone()], executable, &found);
            found.push(Embedded { name, range });
            if found.len() == MAX_FOUND {
                break;
            }
        }
        from = start + length.unwrap_or(MAGIC.len());
    }
    found
}

/// Is this one BPF object and nothing else, by its header?
pub fn is_object(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) && order(bytes).is_some()
}

/// Length of the BPF object that `bytes` starts with. Every section header read is taken
/// off `headers`; when none is left nothing more is found.
fn object_length(bytes: &[u8], headers: &mut usize) -> Option<usize> {
    let order = order(bytes)?;
    let header = Elf::parse_header(bytes).ok()?;
    let table = usize::try_from(header.e_shoff).ok()?;
    let count = usize::from(header.e_shnum);
    let plausible = usize::from(header.e_ehsize) == HEADER_SIZE
        && usize::from(header.e_shentsize) == SECTION_HEADER_SIZE
        && table >= HEADER_SIZE
        && count > 0
        && header.e_shstrndx < header.e_shnum;
    let mut end = table.checked_add(count * SECTION_HEADER_SIZE)?;
    if !plausible || end > bytes.len() {
        return None;
    }
    *headers = headers.checked_sub(count)?;
    for section in sections(bytes, table, count, order)? {
        if section.sh_type != SHT_NOBITS {
            let last = section.sh_offset.checked_add(section.sh_size)?;
            end = end.max(usize::try_from(last).ok()?);
        }
    }
    (end <= bytes.len()).then_some(end)
}

/// Byte order, if the identification and the fixed fields are those of a BPF object.
fn order(bytes: &[u8]) -> Option<Endian> {
    let header = bytes.get(..HEADER_SIZE)?;
    let order = match (header[4], header[5], header[6]) {
        (ELFCLASS64, ELFDATA2LSB, 1) => Endian::Little,
        (ELFCLASS64, ELFDATA2MSB, 1) => Endian::Big,
        _ => return None,
    };
    let half = |at: usize| match order {
        Endian::Little => u16::from_le_bytes([header[at], header[at + 1]]),
        Endian::Big => u16::from_be_bytes([header[at], header[at + 1]]),
    };
    (half(16) == ET_REL && half(18) == EM_BPF).then_some(order)
}

fn sections(bytes: &[u8], table: usize, count: usize, order: Endian) -> Option<Vec<SectionHeader>> {
    SectionHeader::parse_from(bytes, table, count, Ctx::new(Container::Big, order)).ok()
}

/// A name for `object` that none of `taken` has.
fn name(object: &[u8], executable: &str, taken: &[Embedded]) -> String {
    let number = taken.len() + 1;
    let fallback = || format!("{}-{number}.bpf.o", clean(executable));
    let name = match source_file(object) {
        Some(source) => format!("{}.o", clean(source.strip_suffix(".c").unwrap_or(source))),
        None => fallback(),
    };
    if taken.iter().any(|other| other.name == name) {
        fallback()
    } else {
        name
    }
}

/// The source file that the object's symbol table names.
fn source_file(object: &[u8]) -> Option<&str> {
    let order = order(object)?;
    let header = Elf::parse_header(object).ok()?;
    let headers = sections(
        object,
        header.e_shoff as usize,
        usize::from(header.e_shnum),
        order,
    )?;
    let table = headers.iter().find(|header| header.sh_type == SHT_SYMTAB)?;
    let strings = headers.get(table.sh_link as usize)?.file_range()?;
    let strings = object.get(strings)?;
    let content = object.get(table.file_range()?)?;
    let ctx = Ctx::new(Container::Big, order);
    let count = content.len() / Sym::size(Container::Big);
    let symbols = Symtab::parse(content, 0, count, ctx).ok()?;
    // LLVM writes it first.
    let symbol = symbols
        .iter()
        .take(8)
        .find(|symbol| symbol.st_type() == STT_FILE)?;
    let rest = strings.get(symbol.st_name..)?;
    let rest = &rest[..rest.len().min(MAX_NAME)];
    let text = std::str::from_utf8(&rest[..memchr::memchr(0, rest)?]).ok()?;
    let text = text.rsplit('/').next()?;
    (!text.is_empty() && !text.starts_with('.')).then_some(text)
}

/// Only what is safe in a file's name and on a terminal.
fn clean(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '+' => c,
            _ => '_',
        })
        .collect()
}

const MAGIC: &[u8] = b"\x7fELF";
const HEADER_SIZE: usize = 64;
const SECTION_HEADER_SIZE: usize = 64;

/// Longest source name read; file systems allow 255 bytes.
const MAX_NAME: usize = 200;

/// Most section headers read in one file: many false headers may point to one long table.
const MAX_HEADERS: usize = 1 << 22;

/// Most objects in one executable: bpftool, the fullest known, has 9.
const MAX_FOUND: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{Builder, RETURN_ZERO, object},
        inventory::Endianness,
    };

    /// A big-endian object whose symbol table names its source.
    fn named(source: &str) -> Vec<u8> {
        let mut builder = Builder::new(Endianness::Big);
        builder.symbol(source, 4, 0xfff1, 0, 0);
        builder.program("xdp", "main", &RETURN_ZERO);
        builder.build()
    }

    #[test]
    fn finds_each_object_and_nothing_else() {
        let first = object("xdp", "main");
        let second = named("src/watch.bpf.c");
        let third = named("watch.bpf.c");
        let mut file = b"\x7fELF\x02\x01\x01 an executable with \x7fELF in its text".to_vec();
        let mut want = Vec::new();
        for (name, object) in [
            ("my_tool-1.bpf.o", &first),
            ("watch.bpf.o", &second),
            ("my_tool-3.bpf.o", &third),
        ] {
            file.extend(b"padding");
            want.push(Embedded {
                name: name.to_owned(),
                range: file.len()..file.len() + object.len(),
            });
            file.extend(object);
        }
        // Its section table is cut off.
        file.extend(&first[..first.len() - 1]);
        assert_eq!(find_in("my tool", &file), want);
        assert_eq!(find(&second)[0].range, 0..second.len());
        assert!(is_object(&second) && !is_object(&file));
    }

    #[test]
    fn other_elf_files_are_not_objects() {
        for (offset, byte) in [(4, 1), (5, 3), (6, 0), (16, 2), (18, 62)] {
            let mut file = object("xdp", "main");
            file[offset] = byte;
            assert_eq!(find(&file), [], "{offset}");
        }
    }

    #[test]
    fn a_hundred_megabytes_of_magic_numbers_take_no_time() {
        let file = MAGIC.repeat(8 << 20);
        let start = std::time::Instant::now();
        assert_eq!(find(&file), []);
        assert!(start.elapsed() < std::time::Duration::from_secs(2));
    }
}
