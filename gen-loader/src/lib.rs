//! libbpf's generator of light skeletons, which libbpf-rs does not have.
//!
//! Generating asks nothing of this machine's kernel and loads nothing.

#![expect(unsafe_code, reason = "libbpf-rs has no bpf_object__gen_loader")]

use std::{ffi::c_char, io, slice};

use bundle::light::Loader;
use libbpf_rs::{
    AsRawLibbpf as _, OpenObject,
    libbpf_sys::{self, gen_loader_opts},
};

/// The loader of an open object, with the programs to load chosen, as libbpf makes it
/// (`bpf_object__gen_loader`, tools/lib/bpf/gen_loader.c).
///
/// # Errors
/// What libbpf gives back for an object that can have none.
pub fn generate(object: &mut OpenObject) -> io::Result<Loader> {
    let mut options = gen_loader_opts {
        sz: size_of::<gen_loader_opts>() as _,
        ..gen_loader_opts::default()
    };
    let raw = object.as_libbpf_object().as_ptr();
    let check = |result: i32| match result {
        0.. => Ok(()),
        _ => Err(io::Error::from_raw_os_error(-result)),
    };
    // SAFETY: the object is open, `&mut` keeps others out, and `options` outlives both calls,
    // after which libbpf does not write to it. With a generator set, loading writes the loader
    // into memory of the object and calls no kernel.
    unsafe {
        check(libbpf_sys::bpf_object__gen_loader(raw, &raw mut options))?;
        check(libbpf_sys::bpf_object__load(raw))?;
    }
    // SAFETY: libbpf has set both to memory of the object, which lives; the bytes are copied.
    unsafe {
        Ok(Loader {
            insns: copy(options.insns, options.insns_sz as usize),
            data: copy(options.data, options.data_sz as usize),
        })
    }
}

/// # Safety
/// `start` is null or points to `size` bytes.
unsafe fn copy(start: *const c_char, size: usize) -> Vec<u8> {
    if start.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller says so.
    unsafe { slice::from_raw_parts(start.cast::<u8>(), size) }.to_vec()
}

#[cfg(test)]
mod tests {
    use libbpf_rs::ObjectBuilder;

    use super::*;

    #[test]
    fn an_object_has_a_loader_that_ends() {
        let elf = bundle::fixture::object("socket", "probe");
        let mut object = ObjectBuilder::default().open_memory(&elf).unwrap();
        let loader = generate(&mut object).unwrap();
        let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(loader.insns.last_chunk(), Some(&exit));
        assert!(!loader.data.is_empty());
    }
}
