//! A BPF object as an ELF file: sections, symbols, relocations.
//!
//! The structures are decoded by `goblin`; that everything lies inside the file, and that
//! nothing is absurdly large, is checked here, where the place can be named.

use goblin::{
    container::{Container, Ctx},
    elf::{
        Header, SectionHeader, Sym, Symtab,
        header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, ELFMAG, ET_REL},
        reloc::RelocSection,
        section_header::{SHN_XINDEX, SHT_NOBITS, SHT_SYMTAB},
    },
};

use crate::{
    inventory::Endianness,
    malformed::{At, MalformedObject},
};

/// Machine number of BPF.
pub const EM_BPF: u16 = 247;

/// Most bytes of one BPF object: the largest that distributions ship is 4 MiB with DWARF,
/// and a kernel takes at most a million instructions (8 MB) per program.
pub const MAX_SIZE: usize = 64 << 20;

/// A checked view of an ELF file.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    ctx: Ctx,
    /// Byte order of everything in the file.
    pub(crate) endianness: Endianness,
    /// All sections; index 0 is the null section.
    pub(crate) sections: Vec<Section<'a>>,
    symbols: Symtab<'a>,
    symbol_names: &'a [u8],
    symbol_table: &'a str,
}

/// One section.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its header.
    pub(crate) header: SectionHeader,
}

impl<'a> Elf<'a> {
    /// Reads the header, the section table and the symbol table.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, MalformedObject> {
        let header = header(bytes)?;
        let little = header.e_ident[EI_DATA] == ELFDATA2LSB;
        let order = if little {
            goblin::container::Endian::Little
        } else {
            goblin::container::Endian::Big
        };
        let ctx = Ctx::new(Container::Big, order);
        let sections = sections(bytes, &header, ctx)?;
        let table = symbol_table(&sections)?;
        let symbol_section = &sections[table];
        let content = content(bytes, symbol_section)?;
        let link = symbol_section.header.sh_link as usize;
        let names = sections
            .get(link)
            .filter(|_| link != 0)
            .ok_or_else(|| {
                At::Section(symbol_section.name).invalid(format!(
                    "names are in section #{link}, which does not exist"
                ))
            })
            .and_then(|names| self::content(bytes, names))?;
        let offset = symbol_section.header.sh_offset as usize;
        let symbols = if content.is_empty() {
            Symtab::default()
        } else {
            Symtab::parse(
                bytes,
                offset,
                content.len() / Sym::size(Container::Big),
                ctx,
            )
            .map_err(|error| At::Section(symbol_section.name).invalid(error.to_string()))?
        };
        Ok(Self {
            bytes,
            ctx,
            endianness: if little {
                Endianness::Little
            } else {
                Endianness::Big
            },
            symbol_table: symbol_section.name,
            sections,
            symbols,
            symbol_names: names,
        })
    }

    /// The bytes of section `index`; empty where it takes no room in the file.
    pub(crate) fn content(&self, index: usize) -> Result<&'a [u8], MalformedObject> {
        content(self.bytes, &self.sections[index])
    }

    /// All symbols with their index.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = (usize, Sym)> + '_ {
        self.symbols.iter().enumerate()
    }

    /// How many symbols there are.
    pub(crate) fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// Symbol `index`.
    pub(crate) fn symbol(&self, index: usize) -> Option<Sym> {
        self.symbols.get(index)
    }

    /// A symbol's name.
    pub(crate) fn symbol_name(&self, symbol: &Sym) -> Result<&'a str, MalformedObject> {
        string(
            self.symbol_names,
            symbol.st_name,
            At::Section(self.symbol_table),
        )
    }

    /// The relocations in section `index`, which is of type `SHT_REL`.
    pub(crate) fn relocations(&self, index: usize) -> Result<RelocSection<'a>, MalformedObject> {
        let section = &self.sections[index];
        let content = self.content(index)?;
        RelocSection::parse(
            self.bytes,
            section.header.sh_offset as usize,
            content.len(),
            false,
            self.ctx,
        )
        .map_err(|error| At::Section(section.name).invalid(error.to_string()))
    }
}

/// The string at `offset` of a string table.
pub(crate) fn string<'a>(
    table: &'a [u8],
    offset: usize,
    at: At<'_>,
) -> Result<&'a str, MalformedObject> {
    let rest = table.get(offset..).filter(|rest| !rest.is_empty());
    let Some(rest) = rest else {
        // An object without names has no table, and every name is at offset 0 of it.
        if offset == 0 {
            return Ok("");
        }
        return Err(at.out_of_bounds("a name", offset as u64 + 1, table.len() as u64));
    };
    let window = &rest[..rest.len().min(MAX_NAME + 1)];
    let Some(length) = memchr::memchr(0, window) else {
        if window.len() > MAX_NAME {
            return Err(at.limit(
                "a name's length in bytes",
                MAX_NAME as u64,
                window.len() as u64,
            ));
        }
        return Err(at.invalid(format!("the name at {offset:#x} has no end")));
    };
    std::str::from_utf8(&window[..length])
        .map_err(|_| at.invalid(format!("the name at {offset:#x} is not UTF-8")))
}

fn header(bytes: &[u8]) -> Result<Header, MalformedObject> {
    let length = bytes.len() as u64;
    if !bytes.starts_with(ELFMAG) {
        return Err(At::File(0).invalid("not an ELF file"));
    }
    if bytes.len() > MAX_SIZE {
        return Err(At::File(0).limit("the file's size in bytes", MAX_SIZE as u64, length));
    }
    if bytes.len() < HEADER_SIZE {
        return Err(At::File(0).out_of_bounds("the ELF header", HEADER_SIZE as u64, length));
    }
    if bytes[EI_CLASS] != ELFCLASS64 {
        return Err(At::File(EI_CLASS as u64).invalid("not a 64-bit ELF file"));
    }
    if !matches!(bytes[EI_DATA], ELFDATA2LSB | ELFDATA2MSB) {
        return Err(At::File(EI_DATA as u64).invalid("unknown byte order"));
    }
    let header = goblin::elf::Elf::parse_header(bytes)
        .map_err(|error| At::File(0).invalid(error.to_string()))?;
    // LLVM before 4.0 wrote machine number 0.
    if header.e_machine != EM_BPF && header.e_machine != 0 {
        let machine = header.e_machine;
        return Err(At::File(18).invalid(format!("machine {machine} is not BPF (247)")));
    }
    if header.e_type != ET_REL {
        let kind = header.e_type;
        return Err(
            At::File(16).invalid(format!("ELF type {kind} is not a relocatable object (1)"))
        );
    }
    Ok(header)
}

fn sections<'a>(
    bytes: &'a [u8],
    header: &Header,
    ctx: Ctx,
) -> Result<Vec<Section<'a>>, MalformedObject> {
    let length = bytes.len() as u64;
    let start = header.e_shoff;
    let at = At::File(start);
    if start == 0 {
        return Err(At::File(40).invalid("there is no section table"));
    }
    if usize::from(header.e_shentsize) != SECTION_HEADER_SIZE {
        let size = header.e_shentsize;
        return Err(At::File(58).invalid(format!("section headers of {size} bytes, not 64")));
    }
    let first = start
        .checked_add(SECTION_HEADER_SIZE as u64)
        .filter(|end| *end <= length)
        .ok_or_else(|| {
            At::File(40).out_of_bounds("the section table", start.saturating_add(64), length)
        })?;
    let null = SectionHeader::parse_from(bytes, start as usize, 1, ctx)
        .map_err(|error| at.invalid(error.to_string()))?;
    let null = &null[0];
    let count = match header.e_shnum {
        0 => null.sh_size,
        count => u64::from(count),
    };
    if count > MAX_SECTIONS {
        return Err(at.limit("the number of sections", MAX_SECTIONS, count));
    }
    let end = first + count.saturating_sub(1) * SECTION_HEADER_SIZE as u64;
    if end > length {
        return Err(at.out_of_bounds("the section table", end, length));
    }
    let names = match u32::from(header.e_shstrndx) {
        SHN_XINDEX => null.sh_link,
        index => index,
    };
    let headers = if count == 0 {
        Vec::new()
    } else {
        SectionHeader::parse_from(bytes, start as usize, count as usize, ctx)
            .map_err(|error| at.invalid(error.to_string()))?
    };
    let Some(table) = headers.get(names as usize).filter(|_| names != 0) else {
        return Err(At::File(62).invalid(format!(
            "section names are in section #{names}, which does not exist"
        )));
    };
    let at_names = format!("#{names}");
    let table = range(bytes, table, At::Section(&at_names))?;
    let mut sections = Vec::with_capacity(headers.len());
    for (index, header) in headers.into_iter().enumerate() {
        let at = At::File(start + (index * SECTION_HEADER_SIZE) as u64);
        let name = string(table, header.sh_name, at)?;
        sections.push(Section { name, header });
    }
    Ok(sections)
}

/// The one symbol table.
fn symbol_table(sections: &[Section<'_>]) -> Result<usize, MalformedObject> {
    let mut tables = sections
        .iter()
        .enumerate()
        .filter(|(_, section)| section.header.sh_type == SHT_SYMTAB);
    let Some((index, section)) = tables.next() else {
        return Err(At::File(40).invalid("there is no symbol table, so no function has a name"));
    };
    if let Some((_, second)) = tables.next() {
        return Err(At::Section(second.name).invalid("a second symbol table"));
    }
    if section.header.sh_entsize != SYMBOL_SIZE {
        let size = section.header.sh_entsize;
        return Err(At::Section(section.name).invalid(format!("symbols of {size} bytes, not 24")));
    }
    Ok(index)
}

fn content<'a>(bytes: &'a [u8], section: &Section<'_>) -> Result<&'a [u8], MalformedObject> {
    range(bytes, &section.header, At::Section(section.name))
}

fn range<'a>(
    bytes: &'a [u8],
    header: &SectionHeader,
    at: At<'_>,
) -> Result<&'a [u8], MalformedObject> {
    if header.sh_type == SHT_NOBITS || header.sh_size == 0 {
        return Ok(&[]);
    }
    let end = header.sh_offset.saturating_add(header.sh_size);
    if end > bytes.len() as u64 {
        return Err(at.out_of_bounds("its content", end, bytes.len() as u64));
    }
    Ok(&bytes[header.sh_offset as usize..end as usize])
}

const HEADER_SIZE: usize = 64;
const SECTION_HEADER_SIZE: usize = 64;
const SYMBOL_SIZE: u64 = 24;

/// Longest name: eight times what a kernel takes (`KSYM_NAME_LEN` is 512).
const MAX_NAME: usize = 4096;

/// Most sections: twice what the 16-bit field of the header can say.
const MAX_SECTIONS: u64 = 1 << 17;
