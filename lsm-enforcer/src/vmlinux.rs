//! The kernel's own types, from the kernel.
//!
//! libbpf reads them from `/sys/kernel/btf/vmlinux`, where whoever is root can mount a file of his own; then a
//! program signed for one function would be measured for another, and the gate's own programs would read other
//! fields. So libbpf is linked with `--wrap` (build.rs), and gets them by their number from the kernel instead.

#![expect(unsafe_code, reason = "takes the place of a function of libbpf")]

use std::ptr;

use libbpf_rs::query::BtfInfoIter;
use libbpf_sys::btf;
use rustix::thread::CapabilitySet;

/// Called for each `btf__load_vmlinux_btf()` of libbpf and of ours. NULL with `errno`: there are none, or this
/// process may not have them.
#[unsafe(no_mangle)]
extern "C" fn __wrap_btf__load_vmlinux_btf() -> *mut btf {
    // Types that programs brought have no name.
    if let Some(found) = BtfInfoIter::default().find(|info| info.name == "vmlinux") {
        // SAFETY: libbpf copies as many bytes as it is told, and gives a new object or NULL with `errno`.
        return unsafe { libbpf_sys::btf__new(found.btf.as_ptr().cast(), found.btf.len() as u32) };
    }
    if !may_load() {
        // Whoever may not load programs decides nothing for the gate, which takes him for nobody.
        // SAFETY: takes a path, and gives a new object or NULL with `errno`.
        return unsafe {
            libbpf_sys::btf__parse(c"/sys/kernel/btf/vmlinux".as_ptr(), ptr::null_mut())
        };
    }
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() = libc::ENOENT };
    ptr::null_mut()
}

/// As far as the gate asks (`may_load` in bpf/guard.h).
pub fn may_load() -> bool {
    let any = CapabilitySet::SYS_ADMIN | CapabilitySet::BPF;
    rustix::thread::capabilities(None).map_or(true, |sets| sets.permitted.intersects(any))
}
