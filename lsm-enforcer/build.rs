//! Compiles the BPF side with clang and hands its path to the crate.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    // src/vmlinux.rs
    println!("cargo::rustc-link-arg=-Wl,--wrap=btf__load_vmlinux_btf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let headers = env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys tells where its headers are");
    for name in ["gate", "shield"] {
        compile(name, &headers, &out);
    }
}

fn compile(name: &str, headers: &OsStr, out: &Path) {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let source = format!("bpf/{name}.bpf.c");
    let status = Command::new(&clang)
        .args([
            "-g",
            "-O2",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-D__TARGET_ARCH_x86",
        ])
        .args(["-Wall", "-Werror", "-Wno-unused-function"])
        .arg("-I")
        .arg(headers)
        .args(["-c", &source, "-o"])
        .arg(out.join(format!("{name}.bpf.o")))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} failed on {source}: {status}", clang.display()),
        Err(error) => panic!(
            "cannot run {}: {error}; the kernel side is BPF and needs clang 14 or later \
             (Debian: apt install clang), or set CLANG to one",
            clang.display()
        ),
    }
}
