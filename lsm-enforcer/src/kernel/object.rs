//! Opening, loading and attaching the BPF object.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
};

use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, ProgramHandle,
};

use super::{ladder::Ladder, shared::Reader};

/// A compiled object, aligned as an ELF wants it.
#[repr(C, align(8))]
pub struct Aligned<T: ?Sized>(pub T);

static GATE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/gate.bpf.o")));

/// What the maps hold: another build with the same number continues with the maps that are pinned.
const LAYOUT: u64 = sum_of(&[
    include_bytes!("../../bpf/shared.h"),
    include_bytes!("../../bpf/maps.h"),
    include_bytes!("../../bpf/reason.h"),
    include_bytes!("shared.rs"),
    include_bytes!("store/armed.rs"),
]);

/// FNV-1a of sources, of C and Rust, without white space and comments.
const fn sum_of(files: &[&[u8]]) -> u64 {
    let (mut sum, mut file) = (0xcbf2_9ce4_8422_2325u64, 0);
    while file < files.len() {
        let (text, mut at) = (files[file], 0);
        while at < text.len() {
            let next = if at + 1 < text.len() { text[at + 1] } else { 0 };
            match (text[at], next) {
                (b'/', b'/') => {
                    while at < text.len() && text[at] != b'\n' {
                        at += 1;
                    }
                }
                (b'/', b'*') => {
                    at += 2;
                    while at + 1 < text.len() && !(text[at] == b'*' && text[at + 1] == b'/') {
                        at += 1;
                    }
                    at += 2;
                }
                (b' ' | b'\t' | b'\n', _) => at += 1,
                (byte, _) => {
                    sum = (sum ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
                    at += 1;
                }
            }
        }
        file += 1;
    }
    sum
}

const MARK: &[u8] = b"bpfseal-gate-layout:";

/// [`LAYOUT`] as text in the executable, for the build before to find.
#[used]
static MARKED: [u8; MARK.len() + 16] = {
    let mut text = [0; MARK.len() + 16];
    let mut at = 0;
    while at < MARK.len() {
        text[at] = MARK[at];
        at += 1;
    }
    let mut digit = 0;
    while digit < 16 {
        text[at + digit] = b"0123456789abcdef"[(LAYOUT >> (60 - 4 * digit)) as usize & 15];
        digit += 1;
    }
    text
};

/// Does an executable continue with the maps of this build's gate?
pub fn has_this_layout(executable: &[u8]) -> bool {
    executable
        .windows(MARKED.len())
        .any(|found| found == MARKED)
}

/// [`LAYOUT`], as the executable says it.
pub fn layout() -> u64 {
    let text = std::hint::black_box(&MARKED);
    let digits = text[MARK.len()..].iter();
    digits.fold(0, |sum, &digit| {
        sum << 4 | u64::from((digit as char).to_digit(16).unwrap_or(0))
    })
}

/// Which build's programs these are.
pub fn build() -> u64 {
    let digest = bundle::Digest::of(&GATE.0);
    Reader(digest.as_bytes()).u64()
}

/// Programs in the order in which they are attached. What forgets comes before what
/// remembers, gate 1 before gate 2. Those of control groups are no links.
pub const ORDER: &[&str] = &[
    "forget_prog",
    "forget_aux",
    "gate_bpf",
    "gate_bpf_pending",
    "gate1_alloc",
    "gate1_capable",
    "gate1_load",
    "see_references_1",
    "see_references_2",
    "see_references_3",
    "see_references_4",
    "gate2_prog",
    "mark_daemon",
    "unmark_daemon",
    "note_trap_1",
    "note_trap_2",
    "note_trap_3",
    "note_call_1",
    "note_call_2",
    "note_call_3",
    "gate_ioctl",
    "gate_ioctl_compat",
    "gate_netlink",
    "gate_option",
    "guard_map",
    "note_lost",
    "guard_unlink",
    "guard_link",
    "guard_rmdir",
    "guard_rename",
    "guard_umount",
    "guard_mount",
    "guard_move",
    "guard_pivot",
    "guard_open",
    "guard_truncate",
    "guard_truncate_file",
    "guard_use",
    "guard_lockdown",
    "guard_load_data",
    "guard_read_file",
    "guard_trace",
    "note_traceme",
    "note_mmap",
    "note_mprotect",
    "note_volume",
];

/// Loaded, not attached.
pub struct Loaded {
    object: Object,
}

fn other(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error)
}

/// Whose maps the programs use.
pub enum Maps<'a> {
    /// New ones, with room for so many records.
    New(u32),
    /// Those that are pinned, by the name of their pin.
    Pinned(&'a BTreeMap<String, MapHandle>),
}

/// Name of a map's pin: the BPF file system takes no dots. `None`: it is not for others; constants are
/// of one build alone.
pub fn pin_name(map: &str) -> Option<String> {
    (!map.contains(".rodata")).then(|| map.replace('.', "_"))
}

/// Is a program of that name in the object called so in the kernel, which keeps 15 bytes of names?
pub fn is_name(kernels: &OsStr, name: &str) -> bool {
    const KEPT: usize = 15;
    kernels.as_bytes() == &name.as_bytes()[..name.len().min(KEPT)]
}

/// Loads what this rung needs.
pub fn load(ladder: &Ladder, maps: &Maps<'_>) -> io::Result<Loaded> {
    let mut object = open().map_err(other)?;
    for mut program in object.progs_mut() {
        let wanted = program.name().to_str().is_some_and(|name| ladder.has(name));
        program.set_autoload(wanted);
    }
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        match maps {
            Maps::New(max_programs) if name == "records" => {
                map.set_max_entries(*max_programs).map_err(other)?;
            }
            // Whoever calls through an array is a program.
            Maps::New(max_programs) if name == "arrays" => {
                let most = map.max_entries().min(*max_programs);
                map.set_max_entries(most).map_err(other)?;
            }
            Maps::New(_) => {}
            Maps::Pinned(pinned) => {
                let known = pin_name(&name).and_then(|name| pinned.get(&name));
                if let Some(known) = known {
                    map.reuse_fd(known.as_fd()).map_err(other)?;
                }
            }
        }
    }
    let constants: BTreeMap<OsString, Vec<u8>> = object
        .maps()
        .filter(|map| map.name().to_string_lossy().contains(".rodata"))
        .filter_map(|map| Some((map.name().to_owned(), map.initial_value()?.to_vec())))
        .collect();
    let object = object.load().map_err(other)?;
    must_have(&object, &constants)?;
    Ok(Loaded { object })
}

/// Until libbpf froze its constants anybody could write them, by the ids of their maps.
fn must_have(object: &Object, constants: &BTreeMap<OsString, Vec<u8>>) -> io::Result<()> {
    for map in object.maps() {
        let Some(want) = constants.get(map.name()) else {
            continue;
        };
        let got = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        if got.map_err(other)?.as_ref() != Some(want) {
            let name = map.name().to_string_lossy();
            let what = format!("somebody has changed {name} while it was loaded");
            return Err(io::Error::other(what));
        }
    }
    Ok(())
}

/// Bytes of a key and of a value of each map, by the name of its pin.
pub fn map_sizes() -> io::Result<BTreeMap<String, (u32, u32)>> {
    let object = open().map_err(other)?;
    let sizes = object.maps().filter_map(|map| {
        let name = pin_name(&map.name().to_string_lossy())?;
        Some((name, (map.key_size(), map.value_size())))
    });
    Ok(sizes.collect())
}

fn cannot_attach(name: &str, error: &libbpf_rs::Error) -> io::Error {
    let text = format!("{error:#}");
    if !text.contains(&format!("os error {}", libc::E2BIG)) {
        return io::Error::other(format!("{name}: {text}"));
    }
    taken(name)
}

/// The hook of this program has a fixed number of places, and whoever came first may have them all (`E2BIG`).
pub fn taken(name: &str) -> io::Error {
    let object = open().ok();
    let hook = object
        .iter()
        .flat_map(OpenObject::progs)
        .find(|program| program.name() == name)
        .and_then(|program| Some(program.section().to_str()?.rsplit('/').next()?.to_owned()))
        .unwrap_or_else(|| name.to_owned());
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!(
            "all places of the hook {hook} are taken by programs that were attached to it before"
        ),
    )
}

fn open() -> libbpf_rs::Result<OpenObject> {
    ObjectBuilder::default()
        .name("bpfseal_gate")?
        .open_memory(&GATE.0)
}

impl Loaded {
    /// Own handles to the maps, by name.
    pub fn maps(&self) -> io::Result<BTreeMap<String, MapHandle>> {
        self.object
            .maps()
            .map(|map| {
                let name = map.name().to_string_lossy().into_owned();
                Ok((name, MapHandle::try_from(&map).map_err(other)?))
            })
            .collect()
    }

    /// Attaches every loaded program.
    pub fn attach(&self) -> io::Result<Vec<(String, Link)>> {
        let mut links = Vec::new();
        for &name in ORDER {
            let Some(program) = self
                .object
                .progs_mut()
                .find(|program| program.name() == name && program.autoload())
            else {
                continue;
            };
            let link = program
                .attach()
                .map_err(|error| cannot_attach(name, &error))?;
            links.push((name.to_owned(), link));
        }
        Ok(links)
    }

    /// Names of the loaded programs.
    pub fn names(&self) -> Vec<String> {
        self.object
            .progs()
            .filter(|program| program.autoload())
            .map(|program| program.name().to_string_lossy().into_owned())
            .collect()
    }

    /// An own handle to the loaded program of that name; `None`: it was not wanted.
    pub fn program(&self, name: &str) -> io::Result<Option<ProgramHandle>> {
        let found = self
            .object
            .progs()
            .find(|program| program.autoload() && program.name() == name);
        found
            .map(|program| {
                let id = libbpf_rs::Program::id_from_fd(program.as_fd())?;
                ProgramHandle::from_prog_id(id)
            })
            .transpose()
            .map_err(other)
    }

    /// Own handles to the loaded programs.
    pub fn programs(&self) -> io::Result<Vec<ProgramHandle>> {
        self.object
            .progs()
            .filter(|program| program.autoload())
            .map(|program| {
                let id = libbpf_rs::Program::id_from_fd(program.as_fd())?;
                ProgramHandle::from_prog_id(id)
            })
            .map(|program| program.map_err(other))
            .collect()
    }
}

/// Kernel id of a map.
pub fn map_id(map: &impl MapCore) -> io::Result<u32> {
    Ok(map.info().map_err(other)?.info.id)
}

/// Kernel id of a link.
pub fn link_id(link: &Link) -> io::Result<u32> {
    Ok(link.info().map_err(other)?.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_what_the_sources_say_without_comments() {
        let plain = sum_of(&[b"u32 one;u64 two;", b"x"]);
        let other = b"u32 one; /* the first; u32 none; */\n\tu64 two; // the second";
        assert_eq!(sum_of(&[other, b"x /*"]), plain);
        assert_ne!(sum_of(&[b"u64 two;u32 one;", b"x"]), plain);
        assert_eq!(sum_of(&[b"a / b"]), sum_of(&[b"a/b"]));
    }

    #[test]
    fn an_executable_says_its_layout_once() {
        assert_eq!(layout(), LAYOUT);
        let executable = std::fs::read("/proc/self/exe").unwrap();
        assert!(has_this_layout(&executable));
        assert!(!has_this_layout(&executable[..1000]));
    }
}
