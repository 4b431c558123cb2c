//! Loads by a loader that the kernel checks itself: `bpf_load_and_run()` of libbpf's
//! `skel_internal.h`, for the two forms whose signature covers the loader's map.
#![expect(unsafe_code, reason = "libbpf-rs passes no signatures to the kernel")]

use std::{
    ffi::{CString, c_char, c_int, c_void},
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use bundle::{
    light,
    loader::{Form, KernelLoader},
};
use libbpf_rs::{
    btf::{Btf, BtfKind, types::Struct},
    libbpf_sys::{
        self, BPF_F_SLEEPABLE, BPF_MAP_TYPE_ARRAY, BPF_PROG_LOAD, BPF_PROG_TYPE_SYSCALL, bpf_attr,
        bpf_map_create_opts, bpf_map_info, bpf_test_run_opts,
    },
};

use crate::measure::named::named;

/// A keyring, as `keyring_id` in the attributes of a load names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyring(pub i32);

impl Keyring {
    /// `builtin`, `secondary`, `platform` (`include/linux/verification.h`), or a serial number.
    ///
    /// # Errors
    /// A clause that says what is taken.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "builtin" => Ok(Self(0)),
            "secondary" => Ok(Self(1)),
            "platform" => Ok(Self(2)),
            _ => match text.parse() {
                Ok(serial @ 3..) => Ok(Self(serial)),
                _ => Err(format!(
                    "want builtin, secondary, platform or a keyring's serial number; got {text:?}"
                )),
            },
        }
    }
}

/// The form that the kernel with this BTF checks; `None`: it checks neither.
///
/// Before 7.3 the loader looks at `excl` in `struct bpf_map`, which is there from 6.18.44, 7.1.13
/// and 7.2 on and gone again in 7.3 (libbpf commits 7e3bab2a, debb5e82). A kernel that has
/// exclusive maps and neither `excl` nor `sig` in `struct bpf_prog_aux` (7.2) knows the first
/// form alone.
pub fn form_of(btf: &Btf<'_>) -> Option<Form> {
    let has = |name: &str, member: &str| {
        named::<Struct<'_>>(btf, name, BtfKind::Struct)
            .is_some_and(|found| found.iter().any(|m| m.name.is_some_and(|n| n == member)))
    };
    match (has("bpf_map", "excl_prog_sha"), has("bpf_map", "excl")) {
        (false, _) => None,
        (true, true) => Some(Form::MapChecked),
        (true, false) => has("bpf_prog_aux", "sig").then_some(Form::MapSigned),
    }
}

/// What was loaded. It goes with this value unless it is pinned or attached.
#[derive(Debug)]
pub struct Loaded {
    /// Programs by name.
    pub programs: Vec<(String, OwnedFd)>,
    /// Maps by name.
    pub maps: Vec<(String, OwnedFd)>,
}

/// At which step the kernel said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The loader's map.
    Map,
    /// The loader itself: here the kernel checks the signature.
    Loader,
    /// What the loader does: here it checks its map, and its programs are judged.
    Run,
}

/// The kernel said no.
#[derive(Debug, thiserror::Error)]
#[error("{}", match .step {
    Step::Map => "the kernel does not make the loader's map",
    Step::Loader => "the kernel does not load the loader",
    Step::Run => "the loader did not load its programs",
})]
pub struct LoadError {
    /// Where.
    pub step: Step,
    /// Its answer.
    #[source]
    pub source: io::Error,
}

/// Loads. With a keyring the kernel checks the loader's signature against it; without one the
/// loader is loaded unsigned.
///
/// # Errors
/// The kernel's answer, and at which step it came. Nothing stays loaded then.
pub fn load(loader: &KernelLoader, keyring: Option<Keyring>) -> Result<Loaded, LoadError> {
    let map = make_map(loader).map_err(at(Step::Map))?;
    load_with(loader, &map, keyring)
}

/// The same with a map that the caller made, as it may be.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    loader: &KernelLoader,
    map: &OwnedFd,
    keyring: Option<Keyring>,
) -> Result<Loaded, LoadError> {
    if loader.about.form == Form::MapChecked {
        tell_digest(map).map_err(at(Step::Map))?;
    }
    let program = load_program(loader, map, keyring).map_err(at(Step::Loader))?;
    run(loader, &program).map_err(at(Step::Run))
}

fn at(step: Step) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError { step, source }
}

/// `__loader.map`: one element, exclusive to the loader, frozen.
fn make_map(loader: &KernelLoader) -> io::Result<OwnedFd> {
    let hash = loader.exclusive_to();
    let data = &loader.loader.data;
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as _,
        excl_prog_hash: hash.as_bytes().as_ptr().cast(),
        excl_prog_hash_size: hash.as_bytes().len() as u32,
        ..bpf_map_create_opts::default()
    };
    let name = text(light::MAP)?;
    // SAFETY: name, options and the hash that they point to outlive the call.
    let map = unsafe {
        let fd = libbpf_sys::bpf_map_create(
            BPF_MAP_TYPE_ARRAY,
            name.as_ptr(),
            4,
            data.len() as u32,
            1,
            &raw const options,
        );
        owned(fd)?
    };
    let key = 0_u32;
    let fd = map.as_raw_fd();
    // SAFETY: the kernel reads a key of 4 bytes and a value of `data`'s length.
    checked(unsafe {
        libbpf_sys::bpf_map_update_elem(
            fd,
            (&raw const key).cast(),
            data.as_ptr().cast::<c_void>(),
            0,
        )
    })?;
    // SAFETY: no memory is involved.
    checked(unsafe { libbpf_sys::bpf_map_freeze(fd) })?;
    Ok(map)
}

/// Has the kernel compute the digest of a frozen map, which the loader then compares.
fn tell_digest(map: &OwnedFd) -> io::Result<()> {
    let mut sha = [0_u8; 32];
    let mut info = bpf_map_info {
        hash: sha.as_mut_ptr() as u64,
        hash_size: sha.len() as u32,
        ..bpf_map_info::default()
    };
    let mut size = size_of::<bpf_map_info>() as u32;
    // SAFETY: the kernel writes 32 bytes into `sha` and at most `size` into `info`.
    checked(unsafe {
        libbpf_sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &raw mut info, &raw mut size)
    })
}

fn load_program(
    loader: &KernelLoader,
    map: &OwnedFd,
    keyring: Option<Keyring>,
) -> io::Result<OwnedFd> {
    let insns = &loader.loader.insns;
    let maps: [c_int; 1] = [map.as_raw_fd()];
    let license = text("Dual BSD/GPL")?;
    let mut attr = bpf_attr::default();
    // SAFETY: this member of the union is the one for BPF_PROG_LOAD, and all zero before.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_SYSCALL;
    load.insns = insns.as_ptr() as u64;
    load.insn_cnt = (insns.len() / 8) as u32;
    load.license = license.as_ptr() as u64;
    load.prog_flags = BPF_F_SLEEPABLE;
    load.fd_array = maps.as_ptr() as u64;
    for (to, from) in load.prog_name.iter_mut().zip(light::PROGRAM.bytes()) {
        *to = from as c_char;
    }
    if let (Some(keyring), Some(signature)) = (keyring, &loader.signature) {
        load.signature = signature.as_ptr() as u64;
        load.signature_size = signature.len() as u32;
        load.keyring_id = keyring.0;
        if loader.about.form == Form::MapSigned {
            load.fd_array_cnt = maps.len() as u32;
        }
    }
    // SAFETY: the kernel reads the attributes, which are as large as it is told, and what they
    // point to; all of it outlives the call.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(BPF_PROG_LOAD),
            &raw mut attr,
            size_of::<bpf_attr>(),
        );
        match fd {
            0.. => Ok(OwnedFd::from_raw_fd(fd as c_int)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Runs the loader; its context is `struct bpf_loader_ctx` and room for what it reports.
fn run(loader: &KernelLoader, program: &OwnedFd) -> io::Result<Loaded> {
    let (maps, programs) = (&loader.about.maps, &loader.about.programs);
    let mut context = vec![0_u32; loader.context_size() / 4];
    context[0] = loader.context_size() as u32;
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        ctx_in: context.as_mut_ptr().cast(),
        ctx_size_in: loader.context_size() as u32,
        ..bpf_test_run_opts::default()
    };
    // SAFETY: the kernel reads and writes the context, which is as large as it is told.
    checked(unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) })?;
    let result = options.retval as i32;
    if result < 0 {
        // It has closed what it had opened.
        return Err(io::Error::from_raw_os_error(-result));
    }
    let mut descriptors = context[6..]
        .chunks_exact(4)
        .take(maps.len())
        .map(|map| map[0])
        .chain(context[6 + 4 * maps.len()..].iter().copied());
    let mut take = |names: &[String]| -> Vec<(String, OwnedFd)> {
        names
            .iter()
            .zip(descriptors.by_ref().take(names.len()))
            .filter(|&(_, fd)| fd as c_int > 2)
            // SAFETY: the loader has put new descriptors here, which nobody else knows of.
            .map(|(name, fd)| (name.clone(), unsafe { OwnedFd::from_raw_fd(fd as c_int) }))
            .collect()
    };
    let loaded = Loaded {
        maps: take(maps),
        programs: take(programs),
    };
    if (loaded.maps.len(), loaded.programs.len()) != (maps.len(), programs.len()) {
        return Err(io::Error::other("it reports less than it names"));
    }
    Ok(loaded)
}

impl Loaded {
    /// Pins programs in `folder` and maps in `folder/maps`, which are made if they are not there.
    /// bpffs has no dots in names; they become `_`.
    ///
    /// # Errors
    /// What could not be done; what was pinned is gone again then.
    pub fn pin(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut pinned = Vec::new();
        let done = self.pin_all(folder, &mut pinned);
        if done.is_err() {
            for path in &pinned {
                // It was made a moment ago; whoever took it away did what is done here.
                let _ = fs::remove_file(path);
            }
        }
        done.map(|()| pinned)
    }

    fn pin_all(&self, folder: &Path, pinned: &mut Vec<PathBuf>) -> io::Result<()> {
        for (folder, what) in [
            (folder.to_owned(), &self.programs),
            (folder.join("maps"), &self.maps),
        ] {
            if what.is_empty() {
                continue;
            }
            fs::create_dir_all(&folder)?;
            for (name, fd) in what {
                let path = folder.join(name.replace('.', "_"));
                let name = CString::new(path.as_os_str().as_encoded_bytes())?;
                // SAFETY: the path ends with NUL and outlives the call.
                checked(unsafe { libbpf_sys::bpf_obj_pin(fd.as_raw_fd(), name.as_ptr()) })?;
                pinned.push(path);
            }
        }
        Ok(())
    }
}

fn text(text: &str) -> io::Result<CString> {
    Ok(CString::new(text)?)
}

fn checked(result: c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::from_raw_os_error(-result)),
    }
}

/// # Safety
/// A descriptor that is not negative is nobody else's.
unsafe fn owned(fd: c_int) -> io::Result<OwnedFd> {
    checked(fd)?;
    // SAFETY: the caller says so.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyrings_are_named_or_numbered() {
        for (text, want) in [
            ("builtin", Ok(Keyring(0))),
            ("secondary", Ok(Keyring(1))),
            ("platform", Ok(Keyring(2))),
            ("812", Ok(Keyring(812))),
        ] {
            assert_eq!(Keyring::parse(text), want);
        }
        // The caller's own keyrings have negative numbers: whoever loads could fill them.
        for text in ["-3", "0", "2", "session", ""] {
            assert_eq!(
                Keyring::parse(text),
                Err(format!(
                    "want builtin, secondary, platform or a keyring's serial number; got {text:?}"
                ))
            );
        }
    }
}
