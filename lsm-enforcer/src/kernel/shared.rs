//! Keys and values of the gate's maps, byte for byte as in `bpf/shared.h`.
//!
//! They are written and read field by field, so that no value of the kernel's is ever taken
//! for a Rust value without a check. The sizes are asserted on both sides.

use bundle::Digest;

use crate::gate::Class;

/// `CHUNK_WORDS`: words of one stored chunk of an image.
pub const CHUNK_WORDS: usize = 64;
/// `DATA_BYTES`: bytes of frozen data compared at once.
pub const DATA_BYTES: usize = 256;
/// `EVENT_WORDS`: first words of a refused program that its event carries.
pub const EVENT_WORDS: usize = 64;
/// `MAX_CHUNKS`: chunks of the longest program that the kernel takes.
pub const MAX_CHUNKS: usize = 15_625;
/// `MAX_TUNABLES`: most tunables of one map.
pub const MAX_TUNABLES: usize = 64;
/// `PLACE_BYTES`: a pattern of a place, with the NUL.
pub const PLACE_BYTES: usize = 64;
/// `MAX_ALIKE`: most images that share a key.
pub const MAX_ALIKE: usize = 8;

/// `enum use`: what an entry of the set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    /// The whole identity.
    Image = 0,
    /// Fingerprint and length alone.
    Alike = 1,
    /// Name and type.
    Named = 2,
    /// A shape for a program type.
    Shape = 3,
    /// The mode.
    Settings = 4,
    /// A piece of what user space keeps with the set.
    Armed = 5,
    /// The next image that differs only in who shares a map.
    Other = 6,
    /// The next image that differs only in its maps.
    Sibling = 7,
    /// Like an image, whatever the BTF target.
    AnyTarget = 8,
    /// A generator, by its image.
    Generator = 9,
    /// Like an image, for loads with maps by index or kernel-side CO-RE.
    Indexed = 10,
    /// Keyrings by which the kernel may verify.
    Keyrings = 11,
    /// By image and number: the kernel's number of a module's types whose functions it calls.
    Calls = 12,
}

/// Writes fields in memory order.
#[derive(Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// Appends 32-bit fields.
    pub fn u32s(mut self, values: &[u32]) -> Self {
        values
            .iter()
            .for_each(|value| self.0.extend(value.to_ne_bytes()));
        self
    }

    /// Appends 64-bit fields.
    pub fn u64s(mut self, values: &[u64]) -> Self {
        values
            .iter()
            .for_each(|value| self.0.extend(value.to_ne_bytes()));
        self
    }

    /// Appends bytes, cut or padded with zeros to `size`.
    pub fn bytes(mut self, bytes: &[u8], size: usize) -> Self {
        let end = self.0.len() + size;
        self.0.extend(&bytes[..bytes.len().min(size)]);
        self.0.resize(end, 0);
        self
    }

    /// The struct, which must have the size that the kernel side has.
    pub fn done(self, size: usize) -> Vec<u8> {
        assert_eq!(self.0.len(), size, "layout of bpf/shared.h");
        self.0
    }
}

/// Reads fields in memory order; what is missing is zero.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let n = N.min(self.0.len());
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        out
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// A 32-bit field.
    pub fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    /// A 64-bit field.
    pub fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.take()
    }

    /// Text up to its first NUL in a field of `N` bytes.
    pub fn text<const N: usize>(&mut self) -> String {
        let bytes: [u8; N] = self.take();
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(N);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

/// `struct key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub fingerprint: u64,
    pub len: u32,
    pub prog_type: u32,
    pub attach_type: u32,
    pub btf_id: u32,
    pub flags: u32,
    pub usage: u32,
    /// In whose types `btf_id` counts: a module's, by the kernel's id of them; 0: the kernel's own.
    pub btf: u32,
}

impl Key {
    pub const SIZE: usize = 32;
    /// Where `usage` stands among the bytes.
    pub const USAGE: std::ops::Range<usize> = 14..16;

    pub fn of(usage: Use) -> Self {
        Self {
            fingerprint: 0,
            len: 0,
            prog_type: 0,
            attach_type: 0,
            btf_id: 0,
            flags: 0,
            usage: usage as u32,
            btf: 0,
        }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        Fields::default()
            .u64s(&[self.fingerprint])
            .u32s(&[
                self.len,
                // Two halves: the kernel knows no type over 63.
                self.prog_type | self.usage << 16,
                self.attach_type,
                self.btf_id,
                self.flags,
                self.btf,
            ])
            .done(Self::SIZE)
    }
}

/// `struct header`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub image: u32,
    pub class: u32,
    pub maps: u32,
    pub max_insns: u32,
    pub mode: u32,
    pub places: u32,
    pub helpers: [u64; 4],
    pub prog_type: u32,
    pub refs: u32,
}

impl Header {
    pub const SIZE: usize = 64;

    pub fn to_bytes(self) -> Vec<u8> {
        Fields::default()
            .u32s(&[
                self.image,
                self.class,
                self.maps,
                self.max_insns,
                self.mode,
                self.places,
            ])
            .u64s(&self.helpers)
            .u32s(&[self.prog_type, self.refs])
            .done(Self::SIZE)
    }
}

/// `struct origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Digest of all that was written for the image; equal content is written once.
    pub content: Digest,
    pub bundle: Option<Digest>,
    pub name: String,
    pub class: Class,
    pub maps: u32,
    pub insns: u32,
    /// No further program of this image gets a descriptor.
    pub revoked: bool,
}

/// `ORIGIN_REVOKED`.
const REVOKED: u32 = 0x8000_0000;

impl Origin {
    pub const SIZE: usize = 144;

    pub fn to_bytes(&self) -> Vec<u8> {
        let bundle = self.bundle.map_or([0; 32], |digest| *digest.as_bytes());
        Fields::default()
            .bytes(self.content.as_bytes(), 32)
            .bytes(&bundle, 32)
            .bytes(self.name.as_bytes(), 64)
            .u32s(&[
                class_number(self.class) | if self.revoked { REVOKED } else { 0 },
                self.bundle.is_some().into(),
                self.maps,
                self.insns,
            ])
            .done(Self::SIZE)
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let content = Digest::from_bytes(reader.bytes());
        let bundle = Digest::from_bytes(reader.bytes());
        let name = reader.text::<64>();
        let class = reader.u32();
        Some(Self {
            content,
            bundle: (reader.u32() != 0).then_some(bundle),
            name,
            class: class_of(class & !REVOKED)?,
            revoked: class & REVOKED != 0,
            maps: reader.u32(),
            insns: reader.u32(),
        })
    }
}

/// `struct guard`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pub armed_at: u64,
    pub locked: bool,
    pub mount_ns: u32,
    pub pins: u64,
    pub pins_dev: u32,
    pub exe_dev: u32,
    pub exe: u64,
    /// Learnt by the kernel side when arming.
    pub mount: u64,
    pub next_image: u32,
    pub static_exe: bool,
    pub first_map: u32,
    pub last_map: u32,
    pub kprobes: u32,
    pub tracepoints: u32,
    pub uprobes: u32,
    pub renewing: u32,
    pub revoked: bool,
    pub placed: bool,
    pub next_exe: u64,
    pub build: u64,
    pub layout: u64,
    pub renewer: u64,
    pub last_exe: u64,
    pub next_dev: u32,
    pub last_dev: u32,
    pub last_prog: u32,
    pub shown: u32,
    pub users: u64,
    pub references: u64,
    pub complete: bool,
    pub last_word: u32,
}

impl Guard {
    pub const SIZE: usize = 168;

    /// The daemon's files: two in the middle of an upgrade.
    pub fn files(&self) -> Vec<(u64, u32)> {
        let next = (self.next_exe, self.next_dev);
        let now = (self.exe, self.exe_dev);
        [now, next].into_iter().filter(|file| file.0 != 0).collect()
    }

    pub fn to_bytes(self) -> Vec<u8> {
        Fields::default()
            .u64s(&[self.armed_at])
            .u32s(&[self.locked.into(), self.mount_ns])
            .u64s(&[self.pins])
            .u32s(&[self.pins_dev, self.exe_dev])
            .u64s(&[self.exe, self.mount])
            .u32s(&[
                self.next_image,
                self.static_exe.into(),
                self.first_map,
                self.last_map,
                self.kprobes,
                self.tracepoints,
                self.uprobes,
                self.renewing,
                self.revoked.into(),
                self.placed.into(),
            ])
            .u64s(&[
                self.next_exe,
                self.build,
                self.layout,
                self.renewer,
                self.last_exe,
            ])
            .u32s(&[self.next_dev, self.last_dev, self.last_prog, self.shown])
            .u64s(&[self.users, self.references])
            .u32s(&[self.complete.into(), self.last_word])
            .done(Self::SIZE)
    }

    pub fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        Self {
            armed_at: reader.u64(),
            locked: reader.u32() != 0,
            mount_ns: reader.u32(),
            pins: reader.u64(),
            pins_dev: reader.u32(),
            exe_dev: reader.u32(),
            exe: reader.u64(),
            mount: reader.u64(),
            next_image: reader.u32(),
            static_exe: reader.u32() != 0,
            first_map: reader.u32(),
            last_map: reader.u32(),
            kprobes: reader.u32(),
            tracepoints: reader.u32(),
            uprobes: reader.u32(),
            renewing: reader.u32(),
            revoked: reader.u32() != 0,
            placed: reader.u32() != 0,
            next_exe: reader.u64(),
            build: reader.u64(),
            layout: reader.u64(),
            renewer: reader.u64(),
            last_exe: reader.u64(),
            next_dev: reader.u32(),
            last_dev: reader.u32(),
            last_prog: reader.u32(),
            shown: reader.u32(),
            users: reader.u64(),
            references: reader.u64(),
            complete: reader.u32() != 0,
            last_word: reader.u32(),
        }
    }
}

/// `struct record`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub image: u32,
    pub class: Option<Class>,
    pub pid: u32,
    pub id: u32,
    /// How many patterns its image has.
    pub places: u32,
    pub comm: String,
}

impl Record {
    pub fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        let image = reader.u32();
        let class = class_of(reader.u8().into());
        let _state_flags: [u8; 3] = reader.bytes();
        let _reason_maps_detail: [u8; 16] = reader.bytes();
        let pid = reader.u32();
        let _uid = reader.u32();
        let id = reader.u32();
        let _refs = reader.u32();
        let places = reader.u32();
        let _indexed_licence_module = reader.u32();
        Self {
            image,
            class,
            pid,
            id,
            places,
            comm: reader.text::<16>(),
        }
    }
}

/// `enum class` for a class.
pub const fn class_number(class: Class) -> u32 {
    match class {
        Class::Signed => 1,
        Class::Probe => 2,
        Class::Shape => 3,
        Class::Before => 4,
        Class::Audited => 5,
        Class::Generated => 6,
        Class::Native => 7,
        Class::Known => 8,
    }
}

/// The class with this number.
pub const fn class_of(number: u32) -> Option<Class> {
    match number {
        1 => Some(Class::Signed),
        2 => Some(Class::Probe),
        3 => Some(Class::Shape),
        4 => Some(Class::Before),
        5 => Some(Class::Audited),
        6 => Some(Class::Generated),
        7 => Some(Class::Native),
        8 => Some(Class::Known),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use policy::Reason;

    use super::*;

    const SHARED: &str = include_str!("../../bpf/shared.h");

    #[test]
    fn sizes_and_limits_are_those_of_the_kernel_side() {
        for (want, size) in [
            ("SAME_SIZE(struct key, ", Key::SIZE),
            ("SAME_SIZE(struct header, ", Header::SIZE),
            ("SAME_SIZE(struct origin, ", Origin::SIZE),
            ("SAME_SIZE(struct guard, ", Guard::SIZE),
            ("SAME_SIZE(struct record, ", 64),
        ] {
            assert!(SHARED.contains(&format!("{want}{size});")), "{want}");
        }
        for (name, value) in [
            ("CHUNK_WORDS", CHUNK_WORDS),
            ("DATA_BYTES", DATA_BYTES),
            ("EVENT_WORDS", EVENT_WORDS),
            ("MAX_CHUNKS", MAX_CHUNKS),
            ("MAX_TUNABLES", MAX_TUNABLES),
            ("MAX_ALIKE", MAX_ALIKE),
        ] {
            assert!(
                SHARED.contains(&format!("#define {name} {value}\n")),
                "{name}"
            );
        }
    }

    #[test]
    fn reasons_are_those_of_the_kernel_side() {
        let want: Vec<String> = Reason::ALL
            .iter()
            .filter(|reason| (400..700).contains(&reason.number()))
            .map(|reason| {
                let name = reason.code().to_uppercase().replace('-', "_");
                format!("REASON_{name} = {}", reason.number())
            })
            .collect();
        let have: Vec<String> = include_str!("../../bpf/reason.h")
            .lines()
            .map(|line| line.trim().trim_end_matches(','))
            .filter(|line| line.starts_with("REASON_") && !line.starts_with("REASON_NONE"))
            .map(String::from)
            .collect();
        assert_eq!(have, want);
    }

    #[test]
    fn what_is_written_reads_back() {
        let guard = Guard {
            armed_at: 5,
            locked: true,
            mount_ns: 6,
            pins: 7,
            pins_dev: 8,
            exe_dev: 9,
            exe: 10,
            mount: 17,
            next_image: 11,
            static_exe: true,
            first_map: 13,
            last_map: 14,
            kprobes: 15,
            tracepoints: 16,
            uprobes: 24,
            revoked: true,
            placed: true,
            next_exe: 18,
            build: 19,
            next_dev: 20,
            layout: 21,
            renewing: 22,
            renewer: 23,
            last_exe: 25,
            last_dev: 26,
            last_prog: 27,
            shown: 28,
            users: 29,
            references: 30,
            complete: true,
            last_word: 31,
        };
        assert_eq!(Guard::read(&guard.to_bytes()), guard);
        let origin = Origin {
            content: Digest::of(b"a"),
            bundle: Some(Digest::of(b"b")),
            name: "handle_exec".into(),
            class: Class::Signed,
            maps: 3,
            insns: 17,
            revoked: false,
        };
        assert_eq!(Origin::read(&origin.to_bytes()), Some(origin.clone()));
        let revoked = Origin {
            revoked: true,
            ..origin
        };
        assert_eq!(Origin::read(&revoked.to_bytes()), Some(revoked));
        assert!(SHARED.contains(&format!("#define ORIGIN_REVOKED {REVOKED:#x}u\n")));
    }
}
