//! A type of a kernel by name and kind. libbpf-rs looks at the first of a name only, and kernels have
//! several: `bpf_iter_task` is a struct and a function.
#![expect(unsafe_code, reason = "libbpf-rs has no look-up by name and kind")]

use std::ffi::CString;

use libbpf_rs::{
    AsRawLibbpf,
    btf::{Btf, BtfKind, BtfType, TypeId},
    libbpf_sys,
};

/// The first type of that name and kind.
pub fn named<'b, K>(btf: &'b Btf<'_>, name: &str, kind: BtfKind) -> Option<K>
where
    K: TryFrom<BtfType<'b>>,
{
    let name = CString::new(name).ok()?;
    let raw = btf.as_libbpf_object().as_ptr();
    // SAFETY: the BTF lives, and the name ends with NUL and outlives the call.
    let id = unsafe { libbpf_sys::btf__find_by_name_kind(raw, name.as_ptr(), kind as u32) };
    btf.type_by_id(TypeId::from(u32::try_from(id).ok()?))
}

#[cfg(test)]
mod tests {
    use bundle::{fixture::Types, inventory::Endianness};
    use libbpf_rs::btf::types::{Func, Struct};

    use super::*;

    #[test]
    fn a_function_is_found_behind_a_struct_of_its_name() {
        let mut types = Types::new(Endianness::Little);
        let of_struct = types.add("bpf_iter_task", (4, 0), 0, &[]);
        let prototype = types.add("", (13, 0), 0, &[]);
        let function = types.add("bpf_iter_task", (12, 0), prototype, &[]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("btf");
        std::fs::write(&file, types.build()).unwrap();
        let btf = Btf::from_path(&file).unwrap();
        let found = named::<Func<'_>>(&btf, "bpf_iter_task", BtfKind::Func).unwrap();
        assert_eq!(u32::from(found.type_id()), function);
        let found = named::<Struct<'_>>(&btf, "bpf_iter_task", BtfKind::Struct).unwrap();
        assert_eq!(u32::from(found.type_id()), of_struct);
        assert!(named::<Func<'_>>(&btf, "bpf_iter_map", BtfKind::Func).is_none());
    }
}
