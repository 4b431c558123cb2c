//! This process's variables are its own, and no longer its file's.
//!
//! Whoever puts a breakpoint into a process may name a number in its data that the kernel counts up meanwhile
//! (`ref_ctr_offset` of a uprobe), also for a breakpoint that it then fails to set, of which nothing else is seen.
//! The kernel does so only in memory that is a writable mapping of the breakpoint's file (kernel/events/uprobes.c,
//! `valid_ref_ctr_vma()`). So these pages are exchanged for others with the same contents.
#![expect(
    unsafe_code,
    reason = "the memory that a program's own variables are in"
)]

use std::{io, ptr, slice};

const PAGE: usize = 4096;

/// Exchanges them. Nothing else may run in this process yet.
///
/// # Errors
///
/// Those of `mmap`, `mprotect` and `mremap`; the process is as it was.
pub fn take() -> io::Result<()> {
    for (start, length) in from_the_file()? {
        exchange(start, length)?;
    }
    Ok(())
}

/// Whole pages of the executable that stay writable: their address and bytes.
fn from_the_file() -> io::Result<Vec<(usize, usize)>> {
    // SAFETY: the kernel puts these values next to the environment of every process.
    let (headers, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR),
            libc::getauxval(libc::AT_PHNUM),
        )
    };
    // SAFETY: that is where the program headers of this executable are, and how many.
    let headers =
        unsafe { slice::from_raw_parts(headers as *const libc::Elf64_Phdr, count as usize) };
    let find = |kind: u32| headers.iter().find(|header| header.p_type == kind);
    let Some(own) = find(libc::PT_PHDR) else {
        let what = "the program headers do not say where they are (PT_PHDR)";
        return Err(io::Error::other(what));
    };
    let base = headers.as_ptr().addr() - own.p_vaddr as usize;
    // What a loader has made read-only when it had written it.
    let read_only = find(libc::PT_GNU_RELRO).map_or(0..0, |header| {
        let start = base + header.p_vaddr as usize;
        start / PAGE * PAGE..(start + header.p_memsz as usize) / PAGE * PAGE
    });
    let writable = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0
    };
    let pages = headers.iter().filter(writable).filter_map(|header| {
        let start = base + header.p_vaddr as usize;
        let end = (start + header.p_filesz as usize).next_multiple_of(PAGE);
        let start = start / PAGE * PAGE;
        let start = if read_only.contains(&start) {
            read_only.end
        } else {
            start
        };
        (start < end).then(|| (start, end - start))
    });
    Ok(pages.collect())
}

fn exchange(start: usize, length: usize) -> io::Result<()> {
    let old: *mut libc::c_void = ptr::with_exposed_provenance_mut(start);
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new memory, which nobody knows yet.
    let new = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            both,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if new == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: these pages are this program's variables, of which none is written until they can be again: there is
    // one thread, and the calls below write their errors into memory of that thread's. Read-only they are none that
    // the kernel counts in, and what it had under way is done, as it holds the same lock for that.
    let done = unsafe {
        libc::mprotect(old, length, libc::PROT_READ) == 0 && {
            ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), length);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(new, length, length, flags, old) == old
        }
    };
    if done {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // SAFETY: as they were; nobody knows the new memory.
    unsafe {
        libc::mprotect(old, length, both);
        libc::munmap(new, length);
    }
    Err(error)
}
