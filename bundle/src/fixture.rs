//! Builds small BPF objects for the tests of this workspace, byte by byte.
#![doc(hidden)]

use crate::inventory::Endianness;

/// An ELF object under construction.
#[derive(Clone, Debug)]
pub struct Builder {
    endianness: Endianness,
    sections: Vec<Section>,
    symbols: Vec<Symbol>,
}

/// One section.
#[derive(Clone, Debug)]
pub struct Section {
    /// Name.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_info`.
    pub info: u32,
    /// Content.
    pub content: Vec<u8>,
    /// Size, where it has no content.
    pub size: u64,
}

/// One symbol.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// Binding and type.
    pub info: u8,
    /// Visibility.
    pub other: u8,
    /// Section index.
    pub section: u16,
    /// Value and size.
    pub value: (u64, u64),
}

/// `STB_GLOBAL`, `STT_FUNC`.
pub const GLOBAL_FUNC: u8 = 0x12;
/// `STB_LOCAL`, `STT_FUNC`.
pub const LOCAL_FUNC: u8 = 0x02;
/// `STB_WEAK`, `STT_FUNC`.
pub const WEAK_FUNC: u8 = 0x22;
/// `STB_GLOBAL`, `STT_OBJECT`.
pub const GLOBAL_OBJECT: u8 = 0x11;
/// `STB_GLOBAL`, `STT_NOTYPE`.
pub const GLOBAL_NOTYPE: u8 = 0x10;

/// `r0 = 0; exit`.
pub const RETURN_ZERO: [[u8; 8]; 2] = [insn(0xb7, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0)];

/// A little-endian instruction.
pub const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
    let [o0, o1] = off.to_le_bytes();
    let [i0, i1, i2, i3] = imm.to_le_bytes();
    [code, dst | src << 4, o0, o1, i0, i1, i2, i3]
}

/// An object with a licence and one program of two instructions.
pub fn object(section: &str, function: &str) -> Vec<u8> {
    let mut builder = Builder::new(Endianness::Little);
    builder.bytes("license", b"GPL\0");
    builder.program(section, function, &RETURN_ZERO);
    builder.build()
}

impl Builder {
    /// An empty object.
    pub const fn new(endianness: Endianness) -> Self {
        Self {
            endianness,
            sections: Vec::new(),
            symbols: Vec::new(),
        }
    }

    /// Adds a section and returns its index.
    pub fn section(&mut self, section: Section) -> u16 {
        self.sections.push(section);
        self.sections.len() as u16
    }

    /// Adds a `PROGBITS` section of data.
    pub fn bytes(&mut self, name: &str, content: &[u8]) -> u16 {
        self.section(Section {
            name: name.to_owned(),
            kind: 1,
            flags: 2,
            info: 0,
            content: content.to_vec(),
            size: 0,
        })
    }

    /// Adds a `NOBITS` section.
    pub fn zeros(&mut self, name: &str, size: u64) -> u16 {
        self.section(Section {
            name: name.to_owned(),
            kind: 8,
            flags: 3,
            info: 0,
            content: Vec::new(),
            size,
        })
    }

    /// Adds a section of code.
    pub fn code(&mut self, name: &str, insns: &[[u8; 8]]) -> u16 {
        self.section(Section {
            name: name.to_owned(),
            kind: 1,
            flags: 6,
            info: 0,
            content: insns.concat(),
            size: 0,
        })
    }

    /// Adds a section with one global function that fills it.
    pub fn program(&mut self, section: &str, function: &str, insns: &[[u8; 8]]) -> u16 {
        let index = self.code(section, insns);
        self.symbol(function, GLOBAL_FUNC, index, 0, insns.len() as u64 * 8);
        index
    }

    /// Adds a symbol and returns its index.
    pub fn symbol(&mut self, name: &str, info: u8, section: u16, value: u64, size: u64) -> u32 {
        self.symbols.push(Symbol {
            name: name.to_owned(),
            info,
            other: 0,
            section,
            value: (value, size),
        });
        self.symbols.len() as u32
    }

    /// Changes the last symbol's visibility.
    pub fn visibility(&mut self, other: u8) {
        if let Some(symbol) = self.symbols.last_mut() {
            symbol.other = other;
        }
    }

    /// Adds relocations, each a byte offset and a symbol, for section `target`.
    pub fn relocations(&mut self, target: u16, relocations: &[(u64, u32)]) {
        let mut content = Vec::new();
        for (offset, symbol) in relocations {
            content.extend(self.word8(*offset));
            content.extend(self.word8(u64::from(*symbol) << 32 | 1));
        }
        let name = format!(".rel{}", self.sections[usize::from(target) - 1].name);
        self.section(Section {
            name,
            kind: 9,
            flags: 0,
            info: u32::from(target),
            content,
            size: 0,
        });
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut names = vec![0];
        let mut sections = self.sections.clone();
        let mut symbols = vec![0; 24];
        for symbol in &self.symbols {
            symbols.extend(self.word4(add(&mut names, &symbol.name)));
            symbols.extend([symbol.info, symbol.other]);
            symbols.extend(self.word2(symbol.section));
            symbols.extend(self.word8(symbol.value.0));
            symbols.extend(self.word8(symbol.value.1));
        }
        let table = |name: &str, kind, content| Section {
            name: name.to_owned(),
            kind,
            flags: 0,
            info: 1,
            content,
            size: 0,
        };
        sections.push(table(".symtab", 2, symbols));
        let section_names: Vec<u32> = sections
            .iter()
            .map(|section| add(&mut names, &section.name))
            .collect();
        let strings = sections.len() as u16 + 1;
        let strings_name = add(&mut names, ".strtab");
        sections.push(table(".strtab", 3, names));

        let mut file = vec![0; 64];
        let mut headers = vec![0; 64];
        for (section, name) in sections
            .iter()
            .zip(section_names.iter().chain([&strings_name]))
        {
            while !file.len().is_multiple_of(8) {
                file.push(0);
            }
            let size = match section.kind {
                8 => section.size,
                _ => section.content.len() as u64,
            };
            let (link, entry) = match section.kind {
                2 => (u32::from(strings), 24),
                9 => (u32::from(strings) - 1, 16),
                _ => (0, 0),
            };
            headers.extend(self.word4(*name));
            headers.extend(self.word4(section.kind));
            headers.extend(self.word8(section.flags));
            headers.extend(self.word8(0));
            headers.extend(self.word8(file.len() as u64));
            headers.extend(self.word8(size));
            headers.extend(self.word4(link));
            headers.extend(self.word4(section.info));
            headers.extend(self.word8(8));
            headers.extend(self.word8(entry));
            file.extend(&section.content);
        }
        while !file.len().is_multiple_of(8) {
            file.push(0);
        }
        let mut header = b"\x7fELF\x02".to_vec();
        header.push(if self.endianness == Endianness::Little {
            1
        } else {
            2
        });
        header.push(1);
        header.resize(16, 0);
        header.extend(self.word2(1));
        header.extend(self.word2(247));
        header.extend(self.word4(1));
        header.extend([0; 16]);
        header.extend(self.word8(file.len() as u64));
        header.extend(self.word4(0));
        header.extend(self.word2(64));
        header.extend([0; 4]);
        header.extend(self.word2(64));
        header.extend(self.word2(strings + 1));
        header.extend(self.word2(strings));
        file[..64].copy_from_slice(&header);
        file.extend(headers);
        file
    }

    fn word2(&self, word: u16) -> [u8; 2] {
        match self.endianness {
            Endianness::Little => word.to_le_bytes(),
            Endianness::Big => word.to_be_bytes(),
        }
    }

    fn word4(&self, word: u32) -> [u8; 4] {
        match self.endianness {
            Endianness::Little => word.to_le_bytes(),
            Endianness::Big => word.to_be_bytes(),
        }
    }

    fn word8(&self, word: u64) -> [u8; 8] {
        match self.endianness {
            Endianness::Little => word.to_le_bytes(),
            Endianness::Big => word.to_be_bytes(),
        }
    }
}

fn add(names: &mut Vec<u8>, name: &str) -> u32 {
    let offset = names.len() as u32;
    names.extend(name.as_bytes());
    names.push(0);
    offset
}

/// BTF under construction.
#[derive(Clone, Debug)]
pub struct Types {
    endianness: Endianness,
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
}

impl Types {
    /// No types but `void`.
    pub fn new(endianness: Endianness) -> Self {
        Self {
            endianness,
            types: Vec::new(),
            strings: vec![0],
            count: 0,
        }
    }

    /// Adds a string and returns its offset.
    pub fn string(&mut self, text: &str) -> u32 {
        add(&mut self.strings, text)
    }

    /// Adds a type and returns its id. `info` is the kind and the number of parts, `tail`
    /// the size or type, `body` what follows.
    pub fn add(&mut self, name: &str, info: (u32, u32), tail: u32, body: &[u32]) -> u32 {
        let name = if name.is_empty() {
            0
        } else {
            self.string(name)
        };
        self.types.extend([name, info.0 << 24 | info.1, tail]);
        self.types.extend(body);
        self.count += 1;
        self.count
    }

    /// A 4-byte integer.
    pub fn int(&mut self, signed: bool) -> u32 {
        self.add("int", (1, 0), 4, &[u32::from(signed) << 24 | 32])
    }

    /// A pointer.
    pub fn pointer(&mut self, to: u32) -> u32 {
        self.add("", (2, 0), to, &[])
    }

    /// A number as map definitions write it: a pointer to an array of that many.
    pub fn number(&mut self, number: u32) -> u32 {
        let int = self.int(true);
        let array = self.add("", (3, 0), 0, &[int, int, number]);
        self.pointer(array)
    }

    /// A struct of pointers.
    pub fn structure(&mut self, members: &[(&str, u32)]) -> u32 {
        let mut body = Vec::new();
        for (index, (name, id)) in members.iter().enumerate() {
            body.extend([self.string(name), *id, index as u32 * 64]);
        }
        let count = members.len() as u32;
        self.add("", (4, count), count * 8, &body)
    }

    /// A variable: linkage 0 static, 1 global, 2 extern.
    pub fn variable(&mut self, name: &str, id: u32, linkage: u32) -> u32 {
        self.add(name, (14, 0), id, &[linkage])
    }

    /// A data section of variables: type, offset, size.
    pub fn section(&mut self, name: &str, size: u32, variables: &[[u32; 3]]) -> u32 {
        let count = variables.len() as u32;
        self.add(name, (15, count), size, &variables.concat())
    }

    /// The `.BTF` section.
    pub fn build(&self) -> Vec<u8> {
        let length = self.types.len() as u32 * 4;
        let mut words = vec![24, 0, length, length, self.strings.len() as u32];
        words.extend(&self.types);
        let mut bytes = match self.endianness {
            Endianness::Little => vec![0x9f, 0xeb, 1, 0],
            Endianness::Big => vec![0xeb, 0x9f, 1, 0],
        };
        for word in words {
            bytes.extend(match self.endianness {
                Endianness::Little => word.to_le_bytes(),
                Endianness::Big => word.to_be_bytes(),
            });
        }
        bytes.extend(&self.strings);
        bytes
    }
}
