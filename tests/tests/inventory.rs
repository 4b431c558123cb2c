//! Compares our reading of BPF objects with libbpf's, field by field.
//!
//! The objects are our fixtures, those inside Debian's libbpf-tools, bpftool and xdp-tools
//! where `tests/lab/fetch.sh` has fetched them, and all in the folders that
//! `BPFSEAL_OBJECTS=DIR:DIR` names.
#![expect(unsafe_code, reason = "asks libbpf's C interface, nothing else can")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    ffi::{CStr, CString, c_char},
    fs,
    path::{Path, PathBuf},
    ptr,
};

use bundle::{
    embedded,
    inventory::{self, Map, Object},
    kernel,
};
use libbpf_sys as sys;

#[test]
fn libbpf_reads_the_same() {
    // SAFETY: no other thread of this process prints through libbpf.
    unsafe { sys::libbpf_set_print(None) };
    let mut count = Count::default();
    let mut different = Vec::new();
    for folder in folders() {
        for file in files(&folder) {
            let Ok(bytes) = fs::read(&file) else { continue };
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            for found in embedded::find_in(&name, &bytes) {
                let label = format!("{} {}", file.display(), found.name);
                different.extend(
                    compare(&bytes[found.range.clone()], &mut count)
                        .into_iter()
                        .map(|line| format!("{label}: {line}")),
                );
            }
        }
    }
    println!("{count:?}");
    assert!(count.both >= tests::fixtures::NAMES.len(), "{count:?}");
    assert_eq!(different, Vec::<String>::new(), "{count:#?}");
}

#[derive(Debug, Default)]
struct Count {
    /// Objects that libbpf and we read.
    both: usize,
    /// Objects whose programs libbpf also relocated, so that whole lengths were compared.
    relocated: usize,
    /// Objects that only we read: libbpf 1.x takes no legacy maps, for example.
    only_ours: usize,
    /// Objects that nobody reads.
    neither: usize,
    programs: usize,
    maps: usize,
}

fn folders() -> Vec<PathBuf> {
    let mut folders = vec![tests::fixtures::object("x").parent().unwrap().to_path_buf()];
    let tools = tests::lab::Cache::open().root().join("tools");
    for name in [
        "libbpf-tools",
        "libbpf-tools-sid",
        "bpftool",
        "bpftool-sid",
        "xdp-tools",
    ] {
        if tools.join(name).exists() {
            folders.push(tools.join(name).join("root"));
        } else {
            println!("SKIPPED {name}: tests/lab/fetch.sh has not fetched it");
        }
    }
    let given = std::env::var("BPFSEAL_OBJECTS").unwrap_or_default();
    folders.extend(std::env::split_paths(&given).filter(|path| !path.as_os_str().is_empty()));
    folders
}

/// Regular files below a folder, sorted, links not followed.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.canonicalize().unwrap()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Where our reading of an object differs from libbpf's.
fn compare(bytes: &[u8], count: &mut Count) -> Vec<String> {
    let ours = inventory::read("x", bytes);
    let theirs = Theirs::open(bytes);
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => {
            count.both += 1;
            count.programs += ours.programs.len();
            count.maps += ours.maps.len() + ours.data.len();
            let mut different = differences("programs", &programs(&ours), &theirs.programs());
            different.extend(differences("maps", &maps(&ours), &theirs.maps()));
            // The generator of libbpf 1.7 crashes on `struct_ops`.
            let generates = ours.maps.iter().all(|map| map.kind != "struct_ops");
            let theirs = generates.then(|| theirs.relocated_lengths()).flatten();
            if let Some(theirs) = theirs {
                count.relocated += 1;
                different.extend(differences("lengths", &lengths(&ours), &theirs));
            }
            different
        }
        (Ok(_), None) => {
            count.only_ours += 1;
            Vec::new()
        }
        (Err(_), None) => {
            count.neither += 1;
            Vec::new()
        }
        (Err(error), Some(_)) => vec![format!("only libbpf reads it: {error}")],
    }
}

fn differences(what: &str, ours: &[String], theirs: &[String]) -> Vec<String> {
    let (mut ours, mut theirs) = (ours.to_vec(), theirs.to_vec());
    ours.sort();
    theirs.sort();
    let missing = theirs.iter().filter(|line| !ours.contains(line));
    let extra = ours.iter().filter(|line| !theirs.contains(line));
    missing
        .map(|line| format!("{what}: only libbpf has {line}"))
        .chain(extra.map(|line| format!("{what}: only we have {line}")))
        .collect()
}

fn programs(object: &Object) -> Vec<String> {
    object
        .programs
        .iter()
        .map(|program| {
            let attach_type = program.attach_type.as_deref();
            // Sections of libbpf 1.8, which the one in here takes for nobody's convention.
            let (kind, attach_type) = match (program.kind.as_str(), attach_type) {
                ("tracing", Some(attach_type)) if attach_type.ends_with("_multi") => {
                    ("unspec", None)
                }
                known => known,
            };
            format!(
                "{} section {} type {} attach {} optional {} insns {}",
                program.name,
                program
                    .section
                    .strip_prefix('?')
                    .unwrap_or(&program.section),
                kind,
                attach_type.unwrap_or("cgroup_inet_ingress"),
                program.optional,
                program.insns,
            )
        })
        .collect()
}

fn lengths(object: &Object) -> Vec<String> {
    object
        .programs
        .iter()
        .map(|program| format!("{} total {}", program.name, program.total_insns))
        .collect()
}

fn maps(object: &Object) -> Vec<String> {
    let data = object
        .data
        .iter()
        .filter(|section| section.section != ".addr_space.1")
        .map(|section| {
            format!(
                "data of {} bytes, readonly {}",
                section.size, section.readonly
            )
        });
    object.maps.iter().map(map).chain(data).collect()
}

fn map(map: &Map) -> String {
    format!(
        "{} type {} key {} value {} entries {} flags {:#x} extra {:#x} pinned {} optional {} inner [{}]",
        map.name,
        map.kind,
        map.key_size,
        map.value_size,
        map.max_entries,
        map.flags,
        map.map_extra,
        map.pinning == "by_name",
        map.optional,
        map.inner.as_deref().map(self::map).unwrap_or_default(),
    )
}

/// An object that libbpf has opened.
struct Theirs(ptr::NonNull<sys::bpf_object>);

impl Theirs {
    fn open(bytes: &[u8]) -> Option<Self> {
        let name = CString::new("x").unwrap();
        let options = sys::bpf_object_open_opts {
            sz: size_of::<sys::bpf_object_open_opts>() as u64,
            object_name: name.as_ptr(),
            ..Default::default()
        };
        // SAFETY: the bytes and the options outlive the call, which copies what it keeps.
        let object = unsafe {
            sys::bpf_object__open_mem(
                bytes.as_ptr().cast(),
                bytes.len() as u64,
                &raw const options,
            )
        };
        ptr::NonNull::new(object).map(Self)
    }

    fn all_programs(&self) -> impl Iterator<Item = *mut sys::bpf_program> + '_ {
        // SAFETY: the object is open; null starts the walk and ends it.
        let next = |program| unsafe { sys::bpf_object__next_program(self.0.as_ptr(), program) };
        std::iter::successors(Some(next(ptr::null_mut())), move |program| {
            Some(next(*program))
        })
        .take_while(|program| !program.is_null())
    }

    fn programs(&self) -> Vec<String> {
        self.all_programs()
            .map(|program| {
                // SAFETY: the program belongs to an open object.
                unsafe {
                    format!(
                        "{} section {} type {} attach {} optional {} insns {}",
                        text(sys::bpf_program__name(program)),
                        text(sys::bpf_program__section_name(program)),
                        kernel::program_type_name(sys::bpf_program__type(program)).unwrap(),
                        kernel::attach_type_name(sys::bpf_program__expected_attach_type(program))
                            .unwrap(),
                        !sys::bpf_program__autoload(program),
                        sys::bpf_program__insn_cnt(program),
                    )
                }
            })
            .collect()
    }

    fn maps(&self) -> Vec<String> {
        // SAFETY: the object is open; null starts the walk and ends it.
        let next = |map| unsafe { sys::bpf_object__next_map(self.0.as_ptr(), map) };
        std::iter::successors(Some(next(ptr::null_mut())), |map| Some(next(*map)))
            .take_while(|map| !map.is_null())
            .map(|map| their_map(map, true))
            .collect()
    }

    /// Lengths of programs after libbpf has appended what they call, without a kernel: into
    /// a loader program that is thrown away.
    fn relocated_lengths(&self) -> Option<Vec<String>> {
        for program in self.all_programs() {
            // SAFETY: the program belongs to an open object that is not loaded.
            unsafe { sys::bpf_program__set_autoload(program, true) };
        }
        let mut options = sys::gen_loader_opts {
            sz: size_of::<sys::gen_loader_opts>() as u64,
            ..Default::default()
        };
        // SAFETY: the options outlive the load; with a generator nothing reaches the kernel.
        let loaded = unsafe {
            sys::bpf_object__gen_loader(self.0.as_ptr(), &raw mut options) == 0
                && sys::bpf_object__load(self.0.as_ptr()) == 0
        };
        loaded.then(|| {
            self.all_programs()
                .map(|program| {
                    // SAFETY: the program belongs to an open object.
                    unsafe {
                        format!(
                            "{} total {}",
                            text(sys::bpf_program__name(program)),
                            sys::bpf_program__insn_cnt(program)
                        )
                    }
                })
                .collect()
        })
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once.
        unsafe { sys::bpf_object__close(self.0.as_ptr()) };
    }
}

fn their_map(map: *mut sys::bpf_map, outer: bool) -> String {
    // SAFETY: the map belongs to an open object.
    unsafe {
        if sys::bpf_map__is_internal(map) {
            let readonly = sys::bpf_map__map_flags(map) & sys::BPF_F_RDONLY_PROG != 0;
            let size = sys::bpf_map__value_size(map);
            return format!("data of {size} bytes, readonly {readonly}");
        }
        let inner = sys::bpf_map__inner_map(map);
        format!(
            "{} type {} key {} value {} entries {} flags {:#x} extra {:#x} pinned {} optional {} inner [{}]",
            text(sys::bpf_map__name(map)),
            kernel::map_type_name(sys::bpf_map__type(map)).unwrap(),
            sys::bpf_map__key_size(map),
            sys::bpf_map__value_size(map),
            sys::bpf_map__max_entries(map),
            sys::bpf_map__map_flags(map),
            sys::bpf_map__map_extra(map),
            !sys::bpf_map__pin_path(map).is_null(),
            // Inner maps are never created by themselves.
            outer && !sys::bpf_map__autocreate(map),
            if inner.is_null() {
                String::new()
            } else {
                their_map(inner, false)
            },
        )
    }
}

/// # Safety
/// `text` is null or a C string that lives as long as the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
