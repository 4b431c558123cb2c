//! What an object's programs look like to this kernel once libbpf has relocated them.
//!
//! libbpf does the work up to the point where it would load: it resolves externs and CO-RE,
//! creates the maps and writes their descriptors into the instructions. It runs here on
//! bytes that were verified before, in a process of its own: [`measure`] is for a child that
//! holds nothing worth stealing. libbpf asks the kernel by loading its probe programs, so
//! an armed gate must admit those ([`crate::probes`]).
#![expect(unsafe_code, reason = "libbpf-rs has no bpf_object__prepare")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
    ptr, slice,
};

use bundle::{
    dead,
    image::{
        Allowed, Contents, Identity, Image, InnerMap, MAX_MAPS, MapSpec, ModuleBtf, TunableRange,
        index_maps,
    },
    inventory::Object,
    light,
};
use libbpf_rs::{
    AsRawLibbpf, MapType, ObjectBuilder, OpenObject, ProgramType,
    btf::{Btf, BtfKind, types},
    libbpf_sys::{
        self, BPF_CGROUP_INET_SOCK_CREATE, BPF_F_MMAPABLE, BPF_F_SLEEPABLE, BPF_F_XDP_HAS_FRAGS,
        BPF_LSM_CGROUP, BPF_LSM_MAC, BPF_SK_REUSEPORT_SELECT, BPF_TRACE_ITER, BPF_TRACE_RAW_TP,
        BPF_TRACE_UPROBE_MULTI, bpf_map, bpf_map_info, bpf_prog_info, bpf_program,
    },
};
use serde::{Deserialize, Serialize};

mod calls;
mod many;
pub mod members;
pub mod named;
pub mod skeleton;
mod unset;

use members::{Member, Members};
use named::named;
use skeleton::Skeleton;

use crate::modules;

/// What was measured, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// One image per program, in the object's order.
    pub images: Vec<Image>,
    /// The same programs without maps that nothing refers to on this kernel; and as a light
    /// skeleton loads them, where that differs and this kernel tells what it made of them.
    #[serde(default)]
    pub others: Vec<Image>,
    /// Programs that this kernel, or this version of bpfseal, cannot have.
    pub unmeasured: Vec<Unmeasured>,
}

/// A program without an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmeasured {
    /// Its name.
    pub name: String,
    /// Why, a lower-case clause.
    pub why: String,
}

/// libbpf cannot read the object at all.
#[derive(Debug, thiserror::Error)]
#[error("libbpf cannot open {name}")]
pub struct MeasureError {
    /// The object.
    pub name: String,
    /// What libbpf said.
    #[source]
    pub source: io::Error,
}

/// `BPF_MAP_TYPE_INSN_ARRAY`, of 6.19: jump tables, which are code.
const JUMP_TABLES: u32 = 34;
/// `BPF_MAP_TYPE_RHASH`, of 7.2: a hash table that grows.
const LAST_MAP_TYPE: u32 = 35;

/// Measures every program of an object, also those that libbpf would not load by itself.
///
/// `inventory` is the verified inventory of exactly these bytes: it says which variables are
/// tunable; limits for them are the policy's, so they come out as [`Allowed::Any`].
pub fn measure(elf: &[u8], inventory: &Object) -> Result<Measurement, MeasureError> {
    measure_for(elf, inventory, None)
}

/// The same for the kernel whose BTF is in this file; `None`: for the running one. What
/// libbpf asks the kernel itself, it asks the running one.
pub fn measure_for(
    elf: &[u8],
    inventory: &Object,
    kernel: Option<&Path>,
) -> Result<Measurement, MeasureError> {
    let failed = |source| MeasureError {
        name: inventory.name.clone(),
        source,
    };
    let btf = kernel
        .map(|path| Btf::from_path(path).map_err(io::Error::other))
        .transpose()
        .map_err(failed)?;
    let members = members::resolve(inventory, btf.as_ref());
    let inner = inner_maps(&mut open(elf, kernel).map_err(failed)?);
    let what = What {
        inventory,
        members: &members,
        inner: &inner,
        kernel: btf.as_ref(),
    };
    let mut done = measure_as_libbpf_loads(elf, &what, kernel).map_err(failed)?;
    let tells = match &btf {
        Some(btf) => skeleton::tells_digest(btf),
        None => Btf::from_vmlinux().is_ok_and(|btf| skeleton::tells_digest(&btf)),
    };
    if let Some(data) = light::data_of(elf) {
        let images = std::mem::take(&mut done.images);
        for image in images {
            let name = image.name.clone();
            done.add(&name, skeleton::loader(image, data, tells));
        }
    } else if tells {
        // What has no light skeleton (struct_ops, too many maps) has no layout in one.
        let generated = open(elf, None).and_then(|mut object| {
            // libbpf's generator knows nothing of structs of functions.
            choose(
                &mut object,
                &|program| !members.contains_key(program),
                &|_| false,
            );
            skeleton::generate(&mut object)
        });
        let indexed = generated.map_or_else(
            |_| Vec::new(),
            |made| layouts(&made, &done.images, inventory),
        );
        done.others.extend(indexed);
    }
    Ok(done)
}

fn layouts(made: &Skeleton, images: &[Image], inventory: &Object) -> Vec<Image> {
    let relocations = |name: &str| {
        let mut programs = inventory.programs.iter();
        programs
            .find(|program| program.name == name)
            .map_or(u32::MAX, |program| program.core_relocations)
    };
    images
        .iter()
        .filter_map(|image| made.layout(image, relocations(&image.name)).ok().flatten())
        .collect()
}

/// What is known of an object beside its bytes.
struct What<'a> {
    inventory: &'a Object,
    members: &'a Members,
    /// Of each map of maps.
    inner: &'a BTreeMap<String, InnerMap>,
    /// `None`: the running one.
    kernel: Option<&'a Btf<'a>>,
}

fn measure_as_libbpf_loads(
    elf: &[u8],
    what: &What<'_>,
    kernel: Option<&Path>,
) -> io::Result<Measurement> {
    let opened = |elf| open(elf, kernel);
    let mut all = opened(elf)?;
    let names: Vec<String> = all
        .progs()
        .map(|program| program.name().to_string_lossy().into_owned())
        .collect();
    let mut done = Measurement::default();
    choose(&mut all, &|_| true, &|_| true);
    if prepare(&mut all).is_ok() {
        for name in &names {
            done.add(name, read(&all, name, what));
        }
        done.leave_maps_out(&all);
        return Ok(done);
    }
    // Something in the object does not fit this kernel: find out which programs it is.
    for name in &names {
        let structs: Vec<Option<String>> = if what.members.contains_key(name) {
            structs_of(&all).map(Some).collect()
        } else {
            vec![None]
        };
        let mut image = Err("no struct of functions has it".to_owned());
        for one in structs {
            let mut alone = opened(elf)?;
            choose(&mut alone, &|candidate| candidate == name, &|map| {
                one.as_deref() == Some(map)
            });
            image = match prepare(&mut alone) {
                Ok(()) => read(&alone, name, what),
                Err(error) => Err(format!("libbpf cannot prepare it for this kernel: {error}")),
            };
            if image.is_ok() {
                break;
            }
        }
        done.add(name, image);
    }
    let object = opened(elf)?;
    done.leave_maps_out(&object);
    Ok(done)
}

impl Measurement {
    fn add(&mut self, name: &str, image: Result<Image, String>) {
        match image {
            Ok(image) => self.images.push(image),
            Err(why) => self.unmeasured.push(Unmeasured {
                name: name.into(),
                why,
            }),
        }
    }

    /// Adds what loaders make that do without the maps that nothing refers to on this kernel: each
    /// of them alone, and all.
    fn leave_maps_out(&mut self, object: &OpenObject) {
        let names: Vec<String> = object
            .maps()
            .map(|map| map.name().to_string_lossy().into_owned())
            .collect();
        let position = |name: &str| {
            let found = names.iter().position(|other| other == name);
            found.unwrap_or_default() as u32
        };
        for image in &self.images {
            let unreached = dead::unreached_maps(image);
            let mut choices: Vec<BTreeSet<u32>> =
                unreached.iter().map(|&map| BTreeSet::from([map])).collect();
            if choices.len() > 1 {
                choices.push(unreached);
            }
            let less = |maps| dead::without(image, maps, &position);
            self.others.extend(choices.iter().map(less));
        }
    }
}

fn open(elf: &[u8], kernel: Option<&Path>) -> io::Result<OpenObject> {
    libbpf_rs::set_print(None);
    let mut builder = ObjectBuilder::default();
    if let Some(path) = kernel {
        builder.btf_custom_path(path).map_err(io::Error::other)?;
    }
    let mut object = builder.open_memory(elf).map_err(io::Error::other)?;
    for program in object.progs_mut() {
        many::complete(&program);
    }
    for map in object.maps_mut() {
        let raw = map.as_libbpf_object().as_ptr();
        // SAFETY: the map is the open object's; no path means that it is not pinned.
        let _cannot_fail = unsafe { libbpf_sys::bpf_map__set_pin_path(raw, ptr::null()) };
        unset::complete(raw);
    }
    Ok(object)
}

/// What the maps in maps are, which libbpf forgets when it has made the outer ones.
fn inner_maps(object: &mut OpenObject) -> BTreeMap<String, InnerMap> {
    let describe = |outer: *mut bpf_map| {
        // SAFETY: both maps are the open object's; there is an inner one where the pointer is not null.
        unsafe {
            let map = libbpf_sys::bpf_map__inner_map(outer);
            (!map.is_null()).then(|| InnerMap {
                map_type: libbpf_sys::bpf_map__type(map),
                key_size: libbpf_sys::bpf_map__key_size(map),
                value_size: libbpf_sys::bpf_map__value_size(map),
                max_entries: libbpf_sys::bpf_map__max_entries(map),
                flags: libbpf_sys::bpf_map__map_flags(map),
            })
        }
    };
    object
        .maps_mut()
        .filter_map(|map| {
            let inner = describe(map.as_libbpf_object().as_ptr())?;
            Some((map.name().to_string_lossy().into_owned(), inner))
        })
        .collect()
}

/// Which programs are prepared, and which structs of functions are made: libbpf leaves the programs
/// of the others out, whatever is wanted.
fn choose(object: &mut OpenObject, wanted: &dyn Fn(&str) -> bool, structs: &dyn Fn(&str) -> bool) {
    for mut program in object.progs_mut() {
        let load = program.name().to_str().is_some_and(wanted);
        program.set_autoload(load);
    }
    for mut map in object.maps_mut() {
        if map.map_type() == MapType::StructOps {
            let create = map.name().to_str().is_some_and(structs);
            let _stays_as_it_is = map.set_autocreate(create);
        }
    }
}

/// Names of the object's structs of functions.
fn structs_of(object: &OpenObject) -> impl Iterator<Item = String> {
    object
        .maps()
        .filter(|map| map.map_type() == MapType::StructOps)
        .map(|map| map.name().to_string_lossy().into_owned())
}

/// Everything that libbpf does before loading, and nothing that loads.
fn prepare(object: &mut OpenObject) -> io::Result<()> {
    // SAFETY: the object is open and not yet prepared; `&mut` keeps others out.
    let result = unsafe { libbpf_sys::bpf_object__prepare(object.as_libbpf_object().as_ptr()) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(())
}

fn read(object: &OpenObject, name: &str, what: &What<'_>) -> Result<Image, String> {
    let What { inventory, .. } = *what;
    let program = object
        .progs()
        .find(|program| program.name() == name)
        .ok_or("it is gone after preparing")?;
    if !program.autoload() {
        return Err("libbpf leaves it out on this kernel".into());
    }
    let section = program.section().to_string_lossy().into_owned();
    let (identity, module) = identify(
        program.as_libbpf_object().as_ptr(),
        program.prog_type(),
        &section,
        what.kernel,
        what.members.get(name),
    )?;
    let mut words: Vec<u64> = program.insns().iter().map(word).collect();
    let calls = match what.kernel {
        None => calls::modules(&words, &kernel_functions(inventory))?,
        Some(_) if calls::any(&words) => {
            return Err(
                "it calls functions of a module, and that kernel's modules are not known".into(),
            );
        }
        Some(_) => BTreeMap::new(),
    };
    let descriptors = index_maps(&mut words);
    if descriptors.len() > MAX_MAPS {
        return Err(format!("it uses {} maps", descriptors.len()));
    }
    let by_descriptor: BTreeMap<u32, *mut bpf_map> = object
        .maps()
        .map(|map| map.as_libbpf_object().as_ptr())
        .map(|map| {
            // SAFETY: the map is the prepared object's.
            (unsafe { libbpf_sys::bpf_map__fd(map) } as u32, map)
        })
        .collect();
    let maps = descriptors
        .into_iter()
        .map(|descriptor| {
            let map = by_descriptor
                .get(&descriptor)
                .ok_or("it uses a map that is not the object's")?;
            describe_map(*map, descriptor, inventory, what.inner)
        })
        .collect::<Result<_, String>>()?;
    Ok(Image {
        name: name.into(),
        identity,
        words,
        maps,
        places: Vec::new(),
        result: None,
        gpl: object_is_gpl(inventory),
        module,
        calls,
    })
}

fn object_is_gpl(inventory: &Object) -> Option<bool> {
    // Without the section loaders pass an empty text.
    let license = inventory.license.as_deref().unwrap_or_default();
    Some(bundle::image::is_gpl_compatible(license))
}

/// One instruction slot as memory has it on a little-endian machine.
fn word(instruction: &libbpf_sys::bpf_insn) -> u64 {
    u64::from(instruction.code)
        | u64::from(instruction.dst_reg()) << 8
        | u64::from(instruction.src_reg()) << 12
        | u64::from(instruction.off as u16) << 16
        | u64::from(instruction.imm as u32) << 32
}

/// All functions of the kernel and of modules that the object's programs call.
fn kernel_functions(inventory: &Object) -> BTreeSet<&str> {
    let programs = inventory.programs.iter();
    let names = programs.flat_map(|program| &program.kfuncs);
    names.map(String::as_str).collect()
}

/// What libbpf's `libbpf_prepare_prog_load` would put into the attributes.
fn identify(
    program: *mut bpf_program,
    prog_type: ProgramType,
    section: &str,
    kernel: Option<&Btf<'_>>,
    member: Option<&Result<Member, String>>,
) -> Result<(Identity, Option<ModuleBtf>), String> {
    let (base, target) = match section.trim_start_matches('?').split_once('/') {
        Some((base, target)) => (base, Some(target)),
        None => (section.trim_start_matches('?'), None),
    };
    if prog_type == ProgramType::Unspec {
        return Err("its section names no program type".into());
    }
    // SAFETY: the program is the prepared object's.
    let mut expected_attach_type =
        unsafe { libbpf_sys::bpf_program__expected_attach_type(program) };
    // SAFETY: as above.
    let mut flags = unsafe { libbpf_sys::bpf_program__flags(program) };
    if base.ends_with(".s") || base == "syscall" {
        flags |= BPF_F_SLEEPABLE;
    }
    if base.starts_with("xdp.frags") {
        flags |= BPF_F_XDP_HAS_FRAGS;
    }
    if base.starts_with("usdt") && has_uprobe_multi() {
        expected_attach_type = BPF_TRACE_UPROBE_MULTI;
    }
    if prog_type == ProgramType::StructOps {
        let member = member.ok_or("no struct of functions of its object has it")?;
        let Member { of, index } = member.clone()?;
        // Of the running kernel libbpf says so itself.
        if kernel.is_none() && expected_attach_type != index {
            return Err(format!(
                "libbpf makes it member {expected_attach_type}, not {index}"
            ));
        }
        let identity = Identity {
            prog_type: prog_type as u32,
            expected_attach_type: index,
            attach_btf_id: of,
            flags,
        };
        return Ok((identity, None));
    }
    // The kernel's bpf_prog_load_fixup_attach_type().
    if expected_attach_type == 0 {
        expected_attach_type = match prog_type {
            ProgramType::CgroupSock => BPF_CGROUP_INET_SOCK_CREATE,
            ProgramType::SkReuseport => BPF_SK_REUSEPORT_SELECT,
            _ => 0,
        };
    }
    // A replacement's target is in another program's BTF; the gate goes by names.
    let (attach_btf_id, module) = match (base.trim_end_matches(".s"), target) {
        (
            "fentry" | "fexit" | "fmod_ret" | "fsession" | "lsm" | "lsm_cgroup" | "tp_btf" | "iter",
            Some(target),
        ) => match kernel {
            Some(btf) => (find_target_in(btf, target, expected_attach_type)?, None),
            None => find_target(target, expected_attach_type)?,
        },
        ("fentry" | "fexit" | "fmod_ret" | "fsession" | "lsm" | "lsm_cgroup" | "tp_btf", None) => {
            return Err("its section names no target; the loader chooses it".into());
        }
        _ => (0, None),
    };
    let identity = Identity {
        prog_type: prog_type as u32,
        expected_attach_type,
        attach_btf_id,
        flags,
    };
    Ok((identity, module))
}

/// In the kernel itself or else in a loaded module: libbpf's `find_kernel_btf_id`.
fn find_target(target: &str, attach_type: u32) -> Result<(u32, Option<ModuleBtf>), String> {
    let name = CString::new(target).map_err(|_| "its target has a NUL")?;
    // SAFETY: the name ends with NUL and outlives the call.
    let id = unsafe { libbpf_sys::libbpf_find_vmlinux_btf_id(name.as_ptr(), attach_type) };
    if let Ok(id) = u32::try_from(id) {
        return Ok((id, None));
    }
    let (prefix, kind) = kernel_name(attach_type);
    let (id, module) = modules::find(target, prefix, kind)?;
    Ok((id, Some(module)))
}

/// What the name of a target begins with in the kernel's types, and of which kind it is.
const fn kernel_name(attach_type: u32) -> (&'static str, BtfKind) {
    match attach_type {
        BPF_TRACE_RAW_TP => ("btf_trace_", BtfKind::Typedef),
        BPF_LSM_MAC | BPF_LSM_CGROUP => ("bpf_lsm_", BtfKind::Func),
        BPF_TRACE_ITER => ("bpf_iter_", BtfKind::Func),
        _ => ("", BtfKind::Func),
    }
}

/// The same in another kernel's BTF, whose modules are not known.
fn find_target_in(btf: &Btf<'_>, target: &str, attach_type: u32) -> Result<u32, String> {
    let (prefix, kind) = kernel_name(attach_type);
    let name = format!("{prefix}{target}");
    let found = match kind {
        BtfKind::Typedef => {
            named::<types::Typedef<'_>>(btf, &name, kind).map(|found| found.type_id())
        }
        _ => named::<types::Func<'_>>(btf, &name, kind).map(|found| found.type_id()),
    };
    found
        .map(u32::from)
        .ok_or_else(|| format!("that kernel itself has no {target} to attach to"))
}

/// libbpf's FEAT_UPROBE_MULTI_LINK, asked of BTF: 6.6, kernel commit 89ae89f53d20.
fn has_uprobe_multi() -> bool {
    Btf::from_vmlinux().is_ok_and(|btf| {
        named::<types::Struct<'_>>(&btf, "bpf_uprobe_multi_link", BtfKind::Struct).is_some()
    })
}

fn describe_map(
    map: *mut bpf_map,
    descriptor: u32,
    inventory: &Object,
    inner: &BTreeMap<String, InnerMap>,
) -> Result<MapSpec, String> {
    // SAFETY: the map is the prepared object's, and its name lives as long.
    let name = unsafe { std::ffi::CStr::from_ptr(libbpf_sys::bpf_map__name(map)) };
    let name = name.to_string_lossy().into_owned();
    // SAFETY: libbpf keeps it open as long as the object.
    let made = unsafe { BorrowedFd::borrow_raw(descriptor as i32) };
    let info: bpf_map_info = object_info(made).map_err(|error| format!("map {name}: {error}"))?;
    if info.type_ == JUMP_TABLES || info.type_ > LAST_MAP_TYPE {
        return Err(format!(
            "map {name} is of type {}: jump tables and later types cannot be measured yet",
            info.type_
        ));
    }
    // SAFETY: as above.
    let internal = unsafe { libbpf_sys::bpf_map__is_internal(map) };
    let section = name.find('.').map(|dot| &name[dot..]).unwrap_or_default();
    let measured = internal && (section.starts_with(".rodata") || section == ".kconfig");
    Ok(MapSpec {
        map_type: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: (info.max_entries, info.max_entries),
        flags: info.map_flags,
        // libbpf 1.1 makes every data map mappable, later versions only some.
        flags_free: if internal { BPF_F_MMAPABLE } else { 0 },
        inner: inner.get(&name).copied(),
        contents: measured.then(|| Contents {
            bytes: initial_value(map, info.value_size as usize),
            tunables: tunables(inventory, section),
        }),
        name,
    })
}

/// What the kernel says of an object of BPF.
pub fn object_info<T: Info>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut size = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `size` bytes, all of which are plain integers; no pointer is set.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            object.as_raw_fd(),
            ptr::from_mut(&mut info).cast(),
            &raw mut size,
        )
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(info)
}

/// Structs of integers that the kernel fills in.
pub trait Info: Default {}
impl Info for bpf_map_info {}
impl Info for bpf_prog_info {}
impl Info for libbpf_sys::bpf_link_info {}

fn initial_value(map: *mut bpf_map, want: usize) -> Vec<u8> {
    let mut size = 0;
    // SAFETY: libbpf returns null or `size` bytes that live as long as the object; they are
    // copied before anything else happens to it.
    let bytes = unsafe {
        let start = libbpf_sys::bpf_map__initial_value(map, &raw mut size);
        if start.is_null() {
            &[]
        } else {
            slice::from_raw_parts(start.cast::<u8>().cast_const(), size as usize)
        }
    };
    let mut bytes = bytes.to_vec();
    bytes.resize(want, 0);
    bytes
}

fn tunables(inventory: &Object, section: &str) -> Vec<TunableRange> {
    inventory
        .data
        .iter()
        .filter(|data| data.section == section && data.readonly)
        .flat_map(|data| &data.variables)
        .filter(|variable| variable.tunable)
        .map(|variable| TunableRange {
            name: variable.name.clone(),
            offset: variable.offset,
            size: variable.size,
            signed: variable.signed,
            allowed: Allowed::Any,
        })
        .collect()
}
