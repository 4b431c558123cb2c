//! The first process of a virtual machine: loads every program of the objects that it finds,
//! attaches nothing, and says on the console what the kernel did with each.
//!
//! `bpfseal attest verifier` boots machines with this executable as `/init`.
#![expect(unsafe_code, reason = "libbpf-rs sets no log buffers of programs")]

use std::{
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use bundle::{
    Digest,
    verifier::{Kernel, Line, Program, Statistics, complaint},
};
use libbpf_rs::{
    AsRawLibbpf, MapType, ObjectBuilder, OpenObject, PrintLevel, ProgramType, libbpf_sys,
};
use rustix::mount::{MountFlags, mount};

use crate::failure::Failure;

/// Where the objects are, named `0`, `1`, …, and their names as a list in `names`.
const OBJECTS: &str = "/objects";

/// Runs as the first process, and switches the machine off.
///
/// # Errors
/// When it is not the first process, or something is not there; the machine then ends without
/// a last line, which nobody takes for evidence.
pub fn run() -> Result<(), Failure> {
    if std::process::id() != 1 {
        return Err(Failure::usage(
            "this command is the first process of a virtual machine",
        ));
    }
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys")] {
        mount(kind, place, kind, MountFlags::empty(), None)
            .map_err(|error| Failure::kernel(format!("cannot mount {place}: {error}")))?;
    }
    say(&Line::Kernel(kernel()));
    let count = try_all(Path::new(OBJECTS), |program| say(&Line::Program(program)))
        .map_err(|error| Failure::io("cannot read", Path::new(OBJECTS), error))?;
    say(&Line::End(count));
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)
        .map_err(|error| Failure::kernel(format!("cannot switch off: {error}")))
}

#[expect(clippy::print_stdout, reason = "the console is the machine's voice")]
fn say(line: &Line) {
    println!("{}", line.to_text());
}

/// What the kernel says of itself.
fn kernel() -> Kernel {
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let digest = |path: &str| fs::read(path).ok().map(|bytes| Digest::of(&bytes));
    Kernel {
        release: text(name.release()),
        version: text(name.version()),
        architecture: text(name.machine()),
        build_id: fs::read("/sys/kernel/notes")
            .ok()
            .and_then(|notes| build_id(&notes).map(hex::encode)),
        config: digest("/proc/config.gz"),
        btf: digest("/sys/kernel/btf/vmlinux"),
        image: None,
        programs: Vec::new(),
    }
}

/// The descriptor of the note `NT_GNU_BUILD_ID` (3) by `GNU` (elf(5), "Notes").
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|b| u32::from_le_bytes(*b) as usize);
    loop {
        let (name, size, kind) = (word(notes)?, word(notes.get(4..)?)?, word(notes.get(8..)?)?);
        let start = 12_usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = start.checked_add(size)?;
        if kind == 3 && notes.get(12..12 + name) == Some(b"GNU\0") {
            return notes.get(start..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

/// Tries every program of every object; how many there were.
fn try_all(folder: &Path, mut told: impl FnMut(Program)) -> io::Result<usize> {
    let names = fs::read(folder.join("names"))?;
    let names: Vec<String> = serde_json::from_slice(&names)?;
    let mut count = 0;
    for (index, object) in names.iter().enumerate() {
        let elf = fs::read(folder.join(index.to_string()))?;
        for name in programs(&elf)? {
            count += 1;
            told(try_one(&elf, object, &name));
        }
    }
    Ok(count)
}

fn programs(elf: &[u8]) -> io::Result<Vec<String>> {
    let object = open(elf)?;
    let names = object
        .progs()
        .map(|program| program.name().to_string_lossy().into_owned());
    Ok(names.collect())
}

fn try_one(elf: &[u8], object: &str, name: &str) -> Program {
    // The numbers alone; a whole log is only worth its size where something is wrong.
    let (mut result, mut log) = load(elf, name, BPF_LOG_STATS, SHORT);
    if result.is_err() {
        (result, log) = load(elf, name, BPF_LOG_LEVEL1 | BPF_LOG_STATS, LONG);
    }
    let error = result.err().map(|why| match complaint(&log) {
        Some(words) => format!("{why}: {}", shortened(words)),
        None => why,
    });
    Program {
        object: object.to_owned(),
        name: name.to_owned(),
        loaded: error.is_none(),
        error,
        verifier: Statistics::parse(&log),
    }
}

/// Loads one program alone; what it came to, and the verifier's log.
fn load(elf: &[u8], name: &str, level: u32, size: usize) -> (Result<(), String>, String) {
    let mut log = vec![0_u8; size];
    let result = load_into(elf, name, level, &mut log);
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(size);
    (result, String::from_utf8_lossy(&log[..end]).into_owned())
}

fn load_into(elf: &[u8], name: &str, level: u32, log: &mut [u8]) -> Result<(), String> {
    let mut object = open(elf).map_err(|error| error.to_string())?;
    choose(&mut object, name);
    for mut program in object.progs_mut() {
        if program.name() != name {
            continue;
        }
        program.set_log_level(level);
        let raw = program.as_libbpf_object().as_ptr();
        // SAFETY: the program is the open object's, which is dropped before the buffer is.
        let result = unsafe {
            libbpf_sys::bpf_program__set_log_buf(
                raw,
                log.as_mut_ptr().cast(),
                log.len() as libbpf_sys::size_t,
            )
        };
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result).to_string());
        }
    }
    words().clear();
    let loaded = object.load();
    loaded.map(drop).map_err(|error| {
        let why = error.to_string();
        match words().first() {
            Some(first) => format!("{why}: {}", shortened(first)),
            None => why,
        }
    })
}

fn open(elf: &[u8]) -> io::Result<OpenObject> {
    libbpf_rs::set_print(Some((PrintLevel::Warn, remember)));
    let mut object = ObjectBuilder::default()
        .open_memory(elf)
        .map_err(io::Error::other)?;
    for map in object.maps_mut() {
        let raw = map.as_libbpf_object().as_ptr();
        // SAFETY: the map is the open object's; no path means that it is not pinned.
        let _cannot_fail = unsafe { libbpf_sys::bpf_map__set_pin_path(raw, std::ptr::null()) };
    }
    Ok(object)
}

/// This program alone; members of struct_ops come with their map, and others without.
fn choose(object: &mut OpenObject, name: &str) {
    let mut is_member = false;
    for mut program in object.progs_mut() {
        let chosen = program.name() == name;
        is_member |= chosen && program.prog_type() == ProgramType::StructOps;
        program.set_autoload(chosen);
    }
    if !is_member {
        for mut map in object.maps_mut() {
            if map.map_type() == MapType::StructOps {
                let _stays_as_it_is = map.set_autocreate(false);
            }
        }
    }
}

/// What libbpf complained of since the last load.
static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn words() -> std::sync::MutexGuard<'static, Vec<String>> {
    WORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(_: PrintLevel, message: String) {
    let message = message.trim();
    let words_of_log = message.contains("BEGIN PROG LOAD LOG");
    if !words_of_log && !message.is_empty() {
        let message = message.strip_prefix("libbpf: ").unwrap_or(message);
        words().push(message.to_owned());
    }
}

/// A line's worth.
fn shortened(words: &str) -> String {
    words.chars().take(200).collect()
}

/// include/linux/bpf_verifier.h.
const BPF_LOG_LEVEL1: u32 = 1;
const BPF_LOG_STATS: u32 = 4;
/// For the numbers, and for all that is said about a program of a million instructions; what
/// does not fit is lost from its beginning (6.4 and later).
const SHORT: usize = 64 << 10;
const LONG: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_one_of_several_notes() {
        let note = |name: &[u8], kind: u32, content: &[u8]| {
            let mut note = Vec::new();
            for word in [name.len() as u32, content.len() as u32, kind] {
                note.extend(word.to_le_bytes());
            }
            for part in [name, content] {
                note.extend(part);
                note.resize(note.len().next_multiple_of(4), 0);
            }
            note
        };
        let linux = note(b"Linux\0", 0x101, &[1, 2, 3]);
        let id = note(b"GNU\0", 3, &[0xab; 20]);
        assert_eq!(
            build_id(&[linux.clone(), id.clone()].concat()),
            Some(&[0xab; 20][..])
        );
        for notes in [&linux[..], &id[..20], &[], &[0xff; 64]] {
            assert_eq!(build_id(notes), None, "{notes:?}");
        }
    }

    #[test]
    fn nobody_but_the_first_process_runs_it() {
        assert_eq!(
            run().unwrap_err().line(),
            "this command is the first process of a virtual machine"
        );
    }
}
