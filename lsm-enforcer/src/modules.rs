//! The types of loaded kernel modules: what a program's target may count in beside the kernel's own.
//!
//! Which module is meant is its name and the content of its types; what the gate compares is the
//! number that the kernel gave to these types when the module was loaded. The kernel counts on from
//! number to number, so another module, and the same one loaded anew, has another.
#![expect(unsafe_code, reason = "libbpf-rs reads no types that continue others")]

use std::ffi::CStr;

use bundle::{Digest, image::ModuleBtf};
use libbpf_rs::{
    AsRawLibbpf,
    btf::{Btf, BtfKind},
    libbpf_sys,
    query::BtfInfoIter,
};

/// The types of a module as the kernel has them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The kernel's number of them.
    pub id: u32,
    /// Whose, and which.
    pub types: ModuleBtf,
    data: Vec<u8>,
}

/// The types of each module that is loaded and has any, in the order of their numbers, in which
/// libbpf looks for targets. For root alone: others see none.
pub fn loaded() -> impl Iterator<Item = Loaded> {
    // Types that programs brought have no name.
    BtfInfoIter::default()
        .filter(|info| !info.name.is_empty() && info.name != "vmlinux")
        .map(|info| Loaded {
            id: info.id,
            types: ModuleBtf {
                name: info.name.to_string_lossy().into_owned(),
                content: Digest::of(&info.btf),
            },
            data: info.btf,
        })
}

/// The type that `prefix` and `target` name (`FUNCTION`, or `MODULE:FUNCTION`), in the first loaded
/// module that has it, as libbpf finds it.
///
/// # Errors
///
/// A clause, if no loaded module has it.
pub fn find(target: &str, prefix: &str, kind: BtfKind) -> Result<(u32, ModuleBtf), String> {
    let (module, function) = match target.split_once(':') {
        Some((module, function)) => (Some(module), function),
        None => (None, target),
    };
    let name = format!("{prefix}{function}");
    let kernel = Btf::from_vmlinux().map_err(|error| format!("this kernel's types: {error}"))?;
    loaded()
        .filter(|loaded| module.is_none_or(|module| module == loaded.types.name))
        .find_map(|loaded| Some((own_type(&kernel, &loaded.data, &name, kind)?, loaded.types)))
        .ok_or_else(|| match module {
            Some(module) => format!("no module {module} with {function} is loaded"),
            None => format!("neither this kernel nor a loaded module has {target} to attach to"),
        })
}

/// The id of a type that `data` adds to those of `base`.
fn own_type(base: &Btf<'_>, data: &[u8], name: &str, kind: BtfKind) -> Option<u32> {
    let base = base.as_libbpf_object().as_ptr();
    let size = u32::try_from(data.len()).ok()?;
    // SAFETY: libbpf copies `data`, which has `size` bytes; `base` outlives what continues it.
    let btf = unsafe { libbpf_sys::btf__new_split(data.as_ptr().cast(), size, base) };
    if btf.is_null() {
        return None;
    }
    // SAFETY: both are live.
    let (first, end) = unsafe {
        (
            libbpf_sys::btf__type_cnt(base),
            libbpf_sys::btf__type_cnt(btf),
        )
    };
    let found = (first..end).find(|&id| {
        // SAFETY: ids below the count have a type, and names of types are texts that end with NUL
        // in the same live object.
        unsafe {
            let found = &*libbpf_sys::btf__type_by_id(btf, id);
            let text = libbpf_sys::btf__name_by_offset(btf, found.name_off);
            found.info >> 24 & 0x1f == kind as u32
                && !text.is_null()
                && CStr::from_ptr(text).to_bytes() == name.as_bytes()
        }
    });
    // SAFETY: nothing of it is used any more.
    unsafe { libbpf_sys::btf__free(btf) };
    found
}
