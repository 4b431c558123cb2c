//! How `bpfseal` is linked: a command that verifies in a millisecond should not spend another
//! one on being loaded (docs/benchmarks.md).

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|got| got == value);
    if !(is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")) {
        return;
    }
    // The unwinder from libgcc's archive: its shared library asks the processor some thirty
    // times what it can do, before `main`, and each is an exit from a virtual machine.
    println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    // 23,000 relative relocations in 10 kB instead of 560 (glibc 2.36 and later).
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
