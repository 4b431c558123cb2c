//! Compiles the BPF fixtures with the headers of the libbpf that the workspace builds.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Object name, source name, extra flags.
const OBJECTS: &[(&str, &str, &[&str])] = &[
    ("allow_device", "allow_device", &[]),
    ("call_module", "call_module", &[]),
    ("classify", "classify", &[]),
    ("compare_cost", "../../benches/bpf/compare_cost", &[]),
    ("congest", "congest", &[]),
    ("count_exec", "count_exec", &[]),
    ("dispatch", "dispatch", &[]),
    ("divert", "divert", &[]),
    ("drop_port", "drop_port", &[]),
    ("hide_itself", "hide_itself", &[]),
    ("hold_back", "hold_back", &[]),
    ("keep_out", "keep_out", &[]),
    ("nested", "nested", &[]),
    ("order", "order", &[]),
    ("pass_all", "pass_all", &[]),
    ("refuse_ptrace", "refuse_ptrace", &[]),
    ("replace_slot", "replace_slot", &[]),
    ("tamper_exec", "count_exec", &["-DTAMPERED"]),
    ("tamper_nested", "nested", &["-DTAMPERED"]),
    ("throw_error", "throw_error", &[]),
    ("trace_many", "trace_many", &[]),
    ("trace_module", "trace_module", &[]),
    ("trace_unlink", "trace_unlink", &[]),
    ("universal_loader", "universal_loader", &[]),
    ("watch_open", "watch_open", &[]),
];

fn main() {
    let sources = PathBuf::from("fixtures/bpf");
    let out = PathBuf::from(variable("OUT_DIR"));
    let headers = variable("DEP_BPF_INCLUDE");
    println!("cargo:rerun-if-changed={}", sources.display());
    println!("cargo:rerun-if-changed=benches/bpf");
    println!("cargo:rerun-if-changed=../lsm-enforcer/bpf");
    println!("cargo:rustc-env=BPFSEAL_FIXTURES={}", out.display());
    build_maker(&out);
    for (object, source, flags) in OBJECTS {
        let source = sources.join(format!("{source}.bpf.c"));
        let object = out.join(format!("{object}.bpf.o"));
        let mut clang = Command::new("clang");
        clang.args([
            "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-c",
        ]);
        // Debian keeps asm/ apart by architecture, and -target bpf knows none. Folders of
        // this machine do not belong into debug information: same sources, same objects.
        clang.args([
            "-idirafter",
            "/usr/include/x86_64-linux-gnu",
            "-fdebug-compilation-dir=.",
        ]);
        clang
            .arg("-D__TARGET_ARCH_x86")
            .arg("-I")
            .arg(&headers)
            .args(*flags);
        clang.arg(&source).arg("-o").arg(&object);
        let status = clang
            .status()
            .expect("clang is needed to compile BPF: run `make deps`");
        assert!(status.success(), "clang failed on {}", source.display());
    }
}

/// A generator: a static program without a libc, whose file is all the code that it runs.
fn build_maker(out: &Path) {
    println!("cargo:rerun-if-changed=fixtures/maker");
    let status = Command::new("clang")
        .args([
            "-O2",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
            "-mno-sse",
            "-Wall",
            "-Werror",
            "fixtures/maker/maker.c",
            "-o",
        ])
        .arg(out.join("maker"))
        .status()
        .expect("clang is needed: run `make deps`");
    assert!(status.success(), "clang failed on fixtures/maker/maker.c");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
