//! The kernel's own types, from the kernel.
//!
//! libbpf reads them from `/sys/kernel/btf/vmlinux`, where whoever is root can mount a file of his own; then a
//! program signed for one function would be measured for another, and the gate's own programs would read other
//! fields. So libbpf is linked with `--wrap` (build.rs), and gets them by their number from the kernel instead.

#![expect(unsafe_code, reason = "takes the place of a function of libbpf")]

use std::{ffi::c_int, mem, os::fd::FromRawFd as _, ptr};

use libbpf_sys::btf;
use rustix::thread::CapabilitySet;

/// Called for each `btf__load_vmlinux_btf()` of libbpf and of ours. NULL with `errno`: there are none, or this
/// process may not have them.
#[unsafe(no_mangle)]
extern "C" fn __wrap_btf__load_vmlinux_btf() -> *mut btf {
    match find() {
        // SAFETY: takes a number, and gives a new object or NULL with `errno`.
        Ok(id) => unsafe { libbpf_sys::btf__load_from_kernel_by_id(id) },
        // Whoever may not load programs decides nothing for the gate: it believes no mark of such a process.
        // SAFETY: takes a path, and gives a new object or NULL with `errno`.
        Err(libc::EPERM) if !may_load() => unsafe {
            libbpf_sys::btf__parse(c"/sys/kernel/btf/vmlinux".as_ptr(), ptr::null_mut())
        },
        Err(error) => {
            // SAFETY: the thread's own.
            unsafe { *libc::__errno_location() = error };
            ptr::null_mut()
        }
    }
}

fn may_load() -> bool {
    let any = CapabilitySet::SYS_ADMIN | CapabilitySet::BPF;
    rustix::thread::capabilities(None).map_or(true, |sets| sets.permitted.intersects(any))
}

/// The kernel's number for its own types, or `errno`.
fn find() -> Result<u32, c_int> {
    let mut id = 0;
    loop {
        // SAFETY: the kernel writes a number.
        if unsafe { libbpf_sys::bpf_btf_get_next_id(id, &mut id) } < 0 {
            return Err(last_error());
        }
        // SAFETY: takes a number, and gives a new descriptor or less than zero.
        let descriptor = unsafe { libbpf_sys::bpf_btf_get_fd_by_id(id) };
        if descriptor < 0 {
            match last_error() {
                // It went away since.
                libc::ENOENT => continue,
                error => return Err(error),
            }
        }
        // SAFETY: it is open, and nobody else's.
        let _closed_at_the_end = unsafe { std::os::fd::OwnedFd::from_raw_fd(descriptor) };
        let mut name = [0u8; 16];
        // SAFETY: all zeros are valid.
        let mut info: libbpf_sys::bpf_btf_info = unsafe { mem::zeroed() };
        (info.name, info.name_len) = (name.as_mut_ptr() as u64, name.len() as u32);
        let mut size = size_of_val(&info) as u32;
        // SAFETY: the kernel writes as much as `size` and `name_len` say.
        let done = unsafe {
            libbpf_sys::bpf_obj_get_info_by_fd(
                descriptor,
                ptr::from_mut(&mut info).cast(),
                &mut size,
            )
        };
        if done == 0 && info.kernel_btf != 0 && name.starts_with(b"vmlinux\0") {
            return Ok(id);
        }
    }
}

fn last_error() -> c_int {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}
