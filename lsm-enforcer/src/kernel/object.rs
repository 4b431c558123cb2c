//! Opening, loading and attaching the BPF object.

use std::{collections::BTreeMap, io};

use libbpf_rs::{Link, MapCore, MapHandle, ObjectBuilder, OpenObject};

use super::{
    ladder::{CAPABLE_PROGRAMS, LOAD_PROGRAMS, Ladder, Rung},
    shared::Reader,
};

/// The compiled `bpf/gate.bpf.c`, aligned as an ELF wants it.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static GATE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/gate.bpf.o")));

/// What the maps hold: another build with the same number continues with the maps that are pinned. FNV-1a
/// of the files that say it.
const LAYOUT: u64 = {
    let files: [&[u8]; 5] = [
        include_bytes!("../../bpf/shared.h"),
        include_bytes!("../../bpf/maps.h"),
        include_bytes!("../../bpf/reason.h"),
        include_bytes!("shared.rs"),
        include_bytes!("store/armed.rs"),
    ];
    let (mut sum, mut file) = (0xcbf2_9ce4_8422_2325u64, 0);
    while file < files.len() {
        let mut at = 0;
        while at < files[file].len() {
            sum = (sum ^ files[file][at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        file += 1;
    }
    sum
};

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

/// Which build's programs these are.
pub fn build() -> u64 {
    let digest = bundle::Digest::of(&GATE.0);
    Reader(digest.as_bytes()).u64()
}

/// Programs in the order in which they are attached. What forgets comes before what
/// remembers, gate 1 before gate 2: a program that gate 1 did not see must not reach gate 2
/// with a load time after the arming.
const ORDER: &[&str] = &[
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
    "gate_ioctl",
    "gate_ioctl_compat",
    "gate_netlink",
    "gate_option",
    "guard_map",
    "guard_unlink",
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
    object: libbpf_rs::Object,
}

fn other(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error)
}

/// Loads what this rung needs.
pub fn load(rung: Rung, ladder: &Ladder, max_programs: u32) -> io::Result<Loaded> {
    let mut object = open().map_err(other)?;
    let absent = match rung {
        Rung::Load => CAPABLE_PROGRAMS,
        Rung::Capable => LOAD_PROGRAMS,
    };
    for mut program in object.progs_mut() {
        let wanted = program
            .name()
            .to_str()
            .is_some_and(|name| !absent.contains(&name) && !ladder.lacks.contains(&name));
        program.set_autoload(wanted);
    }
    for mut map in object.maps_mut() {
        if map.name() == "records" {
            map.set_max_entries(max_programs).map_err(other)?;
        }
    }
    let object = object.load().map_err(other)?;
    Ok(Loaded { object })
}

/// Bytes of a key and of a value of each map, by the name of its pin.
pub fn map_sizes() -> io::Result<BTreeMap<String, (u32, u32)>> {
    let object = open().map_err(other)?;
    let sizes = object.maps().map(|map| {
        let name = map.name().to_string_lossy().replace('.', "_");
        (name, (map.key_size(), map.value_size()))
    });
    Ok(sizes.collect())
}

/// A hook has a fixed number of places, and whoever came first may have them all.
fn cannot_attach(name: &str, error: &libbpf_rs::Error) -> io::Error {
    let text = format!("{error:#}");
    if !text.contains(&format!("os error {}", libc::E2BIG)) {
        return io::Error::other(format!("{name}: {text}"));
    }
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

    /// Attaches every loaded program; `before_second` runs between gate 1 and gate 2.
    pub fn attach(
        &self,
        before_second: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Vec<(String, Link)>> {
        let mut links = Vec::new();
        for &name in ORDER {
            let Some(program) = self
                .object
                .progs_mut()
                .find(|program| program.name() == name && program.autoload())
            else {
                continue;
            };
            if name == "gate2_prog" {
                before_second()?;
            }
            let link = program
                .attach()
                .map_err(|error| cannot_attach(name, &error))?;
            links.push((name.to_owned(), link));
        }
        Ok(links)
    }

    /// Ids of the loaded programs.
    pub fn program_ids(&self) -> io::Result<Vec<u32>> {
        use std::os::fd::AsFd;
        self.object
            .progs()
            .filter(|program| program.autoload())
            .map(|program| libbpf_rs::Program::id_from_fd(program.as_fd()).map_err(other))
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
