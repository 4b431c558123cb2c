//! What is left of the gate when its programs are gone.
//!
//! Pins keep the gate's programs on their hooks, and somebody may find a way to take the mount of the pins away. A few
//! programs stay without a pin: they are on the root of the control groups, which nobody can remove, attached by a
//! command and not by a link. Three let a call of bpf(), and the descriptor of a program or map, pass if the gate was
//! asked before and has lost no pin, and refuse it otherwise: loads, maps, and their own detachment. The others refuse
//! what could end these: the switch of ftrace, and the ways into kernel memory that the policy closes.

#![expect(
    unsafe_code,
    reason = "libbpf-rs attaches to control groups by links alone"
)]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
    ptr,
};

use libbpf_rs::{
    MapCore as _, MapFlags, MapHandle, ProgramHandle,
    libbpf_sys::{
        self, BPF_CGROUP_SYSCTL, BPF_F_ALLOW_MULTI, BPF_F_QUERY_EFFECTIVE, BPF_F_REPLACE,
        BPF_LSM_CGROUP, bpf_prog_attach_opts,
    },
};
use rustix::{
    fs::{Mode, OFlags, fstatfs, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::{BpfGate, OWN_PROG, object, other};
use crate::{
    kernel::{
        ladder::{LAST, LAST_WORD},
        shared::Fields,
    },
    links::mounts,
};

/// `enum last_word`.
pub(super) const NONE: u32 = 0;
const WATCHES: u32 = 1;
const REFUSES: u32 = 2;

/// Of statfs(2).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// Inode of the root of the control groups: kernfs counts from it.
const ROOT: u64 = 1;
/// `BPF_CGROUP_MAX_PROGS`, for each hook of which there may be ten.
const MOST: usize = 640;

/// Those that refuse what the gate was not asked about.
const ASK: [&str; 3] = [LAST_WORD, "last_prog", "last_map"];

/// Is that one of these programs?
pub(super) fn is_last(name: &str) -> bool {
    LAST.iter().any(|(last, _, _)| *last == name)
}

impl BpfGate {
    /// To be called before the gate's programs are attached: those that come later are asked earlier. It lets
    /// every call pass until [`Self::take_the_last_word`].
    pub(super) fn attach_last(&self, loaded: &object::Loaded) -> io::Result<()> {
        let root = root_group()?;
        let old = self.last()?;
        for (name, kind, _) in LAST {
            if let Some(program) = loaded.program(name)? {
                let old = old.iter().find(|program| program.name() == name);
                attach(&root, kind, &program, old).map_err(|error| cannot_attach(name, &error))?;
            }
        }
        Ok(())
    }

    /// From here on a call of bpf() that the gate was not asked about is refused. Looks before whether the gate
    /// is asked first: otherwise nobody could take that back.
    pub(super) fn take_the_last_word(&self, loaded: &object::Loaded) -> io::Result<()> {
        if loaded.program(LAST_WORD)?.is_none() {
            return Ok(());
        }
        self.say(WATCHES)?;
        // Each hook is asked once, that on bpf() by each of these.
        drop(MapHandle::from_map_id(object::map_id(self.map("own")?)?).map_err(other)?);
        drop(self.last()?);
        if self.guard()?.last_word != WATCHES {
            return Err(io::Error::other(
                "programs of this kernel's hooks do not run in the order that the gate needs",
            ));
        }
        self.say(REFUSES)
    }

    /// Must it be taken once the programs are exchanged: because nobody has it, or because one of those that ask has nothing
    /// to take the place of, and would be asked before the gate that is in force?
    pub(super) fn asks_anew(&self, loaded: &object::Loaded) -> io::Result<bool> {
        if loaded.program(LAST_WORD)?.is_none() {
            return Ok(false);
        }
        let old = self.last()?;
        let is_old = |name: &str| old.iter().any(|program| program.name() == name);
        Ok(!self.has_the_last_word()? || !ASK.into_iter().all(is_old))
    }

    /// Until it is taken again.
    pub(super) fn give_up_the_last_word(&self) -> io::Result<()> {
        self.say(NONE)
    }

    fn say(&self, last_word: u32) -> io::Result<()> {
        let mut guard = self.guard()?;
        guard.last_word = last_word;
        self.write_guard(&guard)
    }

    /// Does it refuse?
    pub(super) fn has_the_last_word(&self) -> io::Result<bool> {
        Ok(self.guard()?.last_word == REFUSES)
    }

    /// The gate's own on the root of the control groups.
    pub(super) fn last(&self) -> io::Result<Vec<ProgramHandle>> {
        let own = self.map("own")?;
        let mut found = Vec::new();
        for (program, _) in attached(&root_group()?)? {
            let key = Fields::default().u32s(&[OWN_PROG, program.id()]).done(8);
            if own.lookup(&key, MapFlags::ANY).map_err(other)?.is_some() {
                found.push(program);
            }
        }
        Ok(found)
    }
}

/// Takes them away, also those of somebody who died while arming, before there were pins. No gate is in force.
pub(super) fn forget_left() -> io::Result<()> {
    let root = root_group()?;
    for (program, kind) in attached(&root)? {
        if program.name().to_str().is_some_and(is_last) {
            detach(&root, kind, &program)?;
        }
    }
    Ok(())
}

/// Programs of these kinds on that group, and of which kind each is.
fn attached(group: &File) -> io::Result<Vec<(ProgramHandle, u32)>> {
    let mut found = Vec::new();
    for kind in [BPF_LSM_CGROUP, BPF_CGROUP_SYSCTL] {
        for id in ids(group, kind)? {
            match ProgramHandle::from_prog_id(id) {
                Ok(program) => found.push((program, kind)),
                Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => {}
                Err(error) => return Err(other(error)),
            }
        }
    }
    Ok(found)
}

fn ids(group: &File, kind: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0; MOST];
    let mut count = MOST as u32;
    // SAFETY: the kernel writes at most `count` numbers, and the count.
    let result = unsafe {
        libbpf_sys::bpf_prog_query(
            group.as_raw_fd(),
            kind,
            BPF_F_QUERY_EFFECTIVE,
            ptr::null_mut(),
            ids.as_mut_ptr(),
            &raw mut count,
        )
    };
    match done(result) {
        Ok(()) => {
            ids.truncate(count as usize);
            Ok(ids)
        }
        // This kernel knows none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn cannot_attach(name: &str, error: &io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::E2BIG) {
        return object::taken(name);
    }
    let what = format!("{name} cannot be put on the root of the control groups: {error}");
    io::Error::new(error.kind(), what)
}

/// Puts a program there, in the place of an old one if there is one.
fn attach(
    group: &File,
    kind: u32,
    program: &ProgramHandle,
    old: Option<&ProgramHandle>,
) -> io::Result<()> {
    // SAFETY: plain numbers, of which zero is none.
    let mut options: bpf_prog_attach_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of::<bpf_prog_attach_opts>() as libbpf_sys::size_t;
    options.flags = BPF_F_ALLOW_MULTI;
    if let Some(old) = old {
        options.flags |= BPF_F_REPLACE;
        options.__bindgen_anon_1.replace_prog_fd = old.as_fd().as_raw_fd();
    }
    // SAFETY: the descriptors are open and `options` is whole for the length of the call.
    done(unsafe {
        bpf_prog_attach_opts(
            program.as_fd().as_raw_fd(),
            group.as_raw_fd(),
            kind,
            &raw const options,
        )
    })
}

fn detach(group: &File, kind: u32, program: &ProgramHandle) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call.
    done(unsafe {
        libbpf_sys::bpf_prog_detach2(program.as_fd().as_raw_fd(), group.as_raw_fd(), kind)
    })
}

/// As libbpf returns it.
fn done(result: i32) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The root of the control groups, wherever it is mounted. Mounting it would set its options anew for everybody
/// (kernel/cgroup/cgroup.c, `apply_cgroup_root_flags()`), so that is done only where nobody has.
fn root_group() -> io::Result<File> {
    let points = mounts::of_type("cgroup2")
        .into_iter()
        .map(|mount| mount.point);
    if let Some(root) = points.filter_map(is_root).next() {
        return Ok(root);
    }
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let root = openat(
        &mount,
        ".",
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(File::from(root))
}

fn is_root(point: PathBuf) -> Option<File> {
    let group = File::open(point).ok()?;
    let is_group = fstatfs(&group).ok()?.f_type as u64 == CGROUP2_SUPER_MAGIC;
    (is_group && group.metadata().ok()?.ino() == ROOT).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel_side() {
        let shared = include_str!("../../../bpf/shared.h");
        for (name, number) in [("NONE", NONE), ("WATCHES", WATCHES), ("REFUSES", REFUSES)] {
            let line = format!("\tLAST_WORD_{name} = {number},");
            assert!(shared.contains(&line), "{line}");
        }
    }
}
