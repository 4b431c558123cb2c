//! Links to many functions at once: by names, by addresses, by BTF ids.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use goblin::elf::{Elf, program_header::PT_LOAD};

use super::{Attr, LINK_CREATE, ways::function_id};

// enum bpf_attach_type
pub const KPROBES: u32 = 42;
pub const UPROBES: u32 = 48;
pub const KPROBE_SESSION: u32 = 56;
pub const UPROBE_SESSION: u32 = 57;
pub const ENTRIES: u32 = 59;
pub const EXITS: u32 = 60;
pub const SESSION: u32 = 61;

const BUSYBOX: &str = "/usr/bin/busybox";
const FUNCTIONS: [&str; 2] = ["vfs_unlink", "vfs_mkdir"];

fn link(program: &OwnedFd, attach_type: u32) -> Attr {
    Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(8, attach_type)
}

pub fn by_names(program: &OwnedFd, attach_type: u32) -> io::Result<()> {
    let names = FUNCTIONS.map(|name| CString::new(name).expect("names have no NUL"));
    let pointers = names.each_ref().map(|name| name.as_ptr() as u64);
    link(program, attach_type)
        .u32(20, pointers.len() as u32)
        .u64(24, pointers.as_ptr() as u64)
        .open(LINK_CREATE)
        .map(drop)
}

pub fn by_addresses(program: &OwnedFd) -> io::Result<()> {
    let mut addresses = Vec::new();
    for name in FUNCTIONS {
        addresses.push(address(name)?);
    }
    link(program, KPROBES)
        .u32(20, addresses.len() as u32)
        .u64(32, addresses.as_ptr() as u64)
        .open(LINK_CREATE)
        .map(drop)
}

fn address(function: &str) -> io::Result<u64> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let found = symbols.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?;
        (words.nth(1)? == function).then_some(address)
    });
    let digits = found.ok_or_else(|| io::Error::other(format!("no {function}")))?;
    u64::from_str_radix(digits, 16).map_err(io::Error::other)
}

/// `later`: what no kernel reads yet, and a later one may take for other programs' descriptors.
pub fn by_ids(program: &OwnedFd, attach_type: u32, later: u64) -> io::Result<()> {
    let ids = FUNCTIONS.map(|name| function_id(name).unwrap_or_default());
    link(program, attach_type)
        .u64(16, ids.as_ptr() as u64)
        .u32(32, ids.len() as u32)
        .u64(40, later)
        .open(LINK_CREATE)
        .map(drop)
}

pub fn busybox(program: &OwnedFd, attach_type: u32) -> io::Result<()> {
    let path = CString::new(BUSYBOX)?;
    let offsets = [first_instruction()?];
    link(program, attach_type)
        .u64(16, path.as_ptr() as u64)
        .u64(24, offsets.as_ptr() as u64)
        .u32(48, offsets.len() as u32)
        .open(LINK_CREATE)
        .map(drop)
}

/// Where the first instruction of Busybox is in its file.
fn first_instruction() -> io::Result<u64> {
    let bytes = fs::read(Path::new(BUSYBOX))?;
    let elf = Elf::parse(&bytes).map_err(io::Error::other)?;
    elf.program_headers
        .iter()
        .find(|header| {
            header.p_type == PT_LOAD && header.vm_range().contains(&(elf.entry as usize))
        })
        .map(|header| elf.entry - header.p_vaddr + header.p_offset)
        .ok_or_else(|| io::Error::other("its entry is nowhere"))
}
