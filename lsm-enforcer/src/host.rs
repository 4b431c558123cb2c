//! Facts about this machine that the gate itself does not know.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use bundle::image::ModuleBtf;
use jiff::Timestamp;
use policy::protect::Switch;
use serde::Serialize;

use crate::{
    clock,
    links::{self, Attachment, Holder, Pin, Spot},
    modules,
    sample::{self, Sample},
};

/// The machine, or a pretended one in tests.
pub trait Host {
    /// Time since boot.
    fn since_boot(&self) -> Duration;
    /// The calendar.
    fn now(&self) -> Timestamp;
    /// What a permit must name: `/etc/machine-id`, else the board's identifier.
    fn id(&self) -> String;
    /// What stands in the way of enforcing; empty: nothing.
    fn obstacles(&self) -> Vec<Obstacle>;
    /// Does the kernel's command line say `bpfseal=audit`?
    fn audit_at_boot(&self) -> bool;
    /// Loads a program as anyone may.
    fn load(&self, sample: &Sample) -> io::Result<()>;
    /// Tries a way into kernel memory; `None` where no attempt is harmless.
    fn try_way(&self, way: Switch) -> Option<io::Result<()>>;
    /// Who the daemon is, for `status`.
    fn executable(&self) -> Executable;
    /// Takes programs off their hooks where the kernel allows it.
    fn detach(&self, programs: &[u32]) -> Vec<Attachment>;
    /// Where these programs are attached, as far as the kernel says.
    fn spots(&self, programs: &[u32]) -> Vec<Spot>;
    /// Which processes hold these programs, by program id.
    fn holders(&self, programs: &[u32]) -> BTreeMap<u32, Vec<Holder>>;
    /// Where these programs and links to them are pinned, by program id.
    fn pins(&self, programs: &[u32]) -> BTreeMap<u32, Vec<Pin>>;
    /// The kernel's numbers of the types of loaded modules.
    fn modules(&self) -> BTreeMap<ModuleBtf, u32>;
}

/// One condition that must change before the gate can enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// A clause: what is so.
    pub what: String,
    /// A sentence: what to do.
    pub remedy: String,
}

/// The running executable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Executable {
    /// Its path.
    pub path: String,
    /// Another file has its path since it was started.
    pub is_replaced: bool,
    /// Linked statically: nobody can slip a library under it.
    pub is_static: bool,
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Host for Machine {
    fn since_boot(&self) -> Duration {
        clock::since_boot()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn modules(&self) -> BTreeMap<ModuleBtf, u32> {
        modules::loaded()
            .map(|loaded| (loaded.types, loaded.id))
            .collect()
    }

    fn id(&self) -> String {
        host_id(Path::new("/"))
    }

    fn obstacles(&self) -> Vec<Obstacle> {
        obstacles(Path::new("/"))
    }

    fn audit_at_boot(&self) -> bool {
        fs::read_to_string("/proc/cmdline").is_ok_and(|line| asks_for_audit(&line))
    }

    fn load(&self, sample: &Sample) -> io::Result<()> {
        sample::load(sample)
    }

    fn try_way(&self, way: Switch) -> Option<io::Result<()>> {
        crate::kernel::ways::attempt(way)
    }

    fn executable(&self) -> Executable {
        let path = fs::read_link("/proc/self/exe").unwrap_or_default();
        let path = path.display().to_string();
        // So the kernel shows the file of a daemon that was upgraded and not restarted.
        let now = path.strip_suffix(" (deleted)");
        Executable {
            is_replaced: now.is_some(),
            path: now.unwrap_or(&path).to_owned(),
            is_static: !has_interpreter(),
        }
    }

    fn detach(&self, programs: &[u32]) -> Vec<Attachment> {
        links::detach(programs)
    }

    fn spots(&self, programs: &[u32]) -> Vec<Spot> {
        links::spots(programs)
    }

    fn holders(&self, programs: &[u32]) -> BTreeMap<u32, Vec<Holder>> {
        links::holders(programs)
    }

    fn pins(&self, programs: &[u32]) -> BTreeMap<u32, Vec<Pin>> {
        links::pins(programs)
    }
}

fn host_id(root: &Path) -> String {
    let candidates = ["etc/machine-id", "sys/class/dmi/id/product_uuid"];
    candidates
        .iter()
        .filter_map(|name| fs::read_to_string(root.join(name)).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty() && text != "uninitialized")
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Splits off what each file says, so that a test can write the files.
fn obstacles(root: &Path) -> Vec<Obstacle> {
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    let mut found = Vec::new();
    let mut add = |what: &str, remedy: &str| {
        found.push(Obstacle {
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        });
    };
    match read("sys/kernel/security/lsm") {
        None => add(
            "the list of active security modules cannot be read from /sys/kernel/security/lsm",
            "Mount it: `mount -t securityfs securityfs /sys/kernel/security`.",
        ),
        Some(list) if !list.trim().split(',').any(|name| name == "bpf") => add(
            &format!(
                "\"bpf\" is missing from the active security modules ({})",
                list.trim()
            ),
            &format!(
                "Boot with `lsm={},bpf` on the kernel's command line.",
                list.trim()
                    .trim_start_matches("capability,")
                    .replace(",capability", "")
            ),
        ),
        Some(_) => {}
    }
    if read("sys/kernel/security/lockdown").is_some_and(|text| text.contains("[confidentiality]")) {
        add(
            "lockdown=confidentiality keeps BPF programs from reading kernel memory, so the gate cannot see what is loaded",
            "Boot with `lockdown=integrity` or without `lockdown=`.",
        );
    }
    if read("proc/sys/kernel/ftrace_enabled").is_some_and(|text| text.trim() == "0") {
        add(
            "kernel.ftrace_enabled is 0, which switches every BPF LSM program off",
            "Set it: `sysctl kernel.ftrace_enabled=1`.",
        );
    }
    if !root.join("sys/kernel/btf/vmlinux").exists() {
        add(
            "the kernel has no BTF at /sys/kernel/btf/vmlinux",
            "Use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or mount /sys.",
        );
    }
    found
}

fn asks_for_audit(command_line: &str) -> bool {
    command_line
        .split_whitespace()
        .any(|word| word == "bpfseal=audit")
}

/// Does the executable ask for a dynamic loader (`PT_INTERP`)?
fn has_interpreter() -> bool {
    // A dynamic loader maps itself; a static executable has only its own file and the
    // kernel's pages.
    fs::read_to_string("/proc/self/maps").is_ok_and(|maps| {
        maps.lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .any(|path| {
                Path::new(path)
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with("ld-") || name.contains(".so"))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const GOOD: &[(&str, &str)] = &[
        ("sys/kernel/security/lsm", "lockdown,capability,yama,bpf"),
        (
            "sys/kernel/security/lockdown",
            "[none] integrity confidentiality\n",
        ),
        ("proc/sys/kernel/ftrace_enabled", "1\n"),
        ("sys/kernel/btf/vmlinux", ""),
    ];

    #[test]
    fn a_good_machine_has_no_obstacle() {
        assert_eq!(obstacles(tree(GOOD).path()), []);
    }

    #[test]
    fn each_missing_condition_is_named() {
        for (name, text, want) in [
            (
                "sys/kernel/security/lsm",
                "lockdown,capability,yama",
                "\"bpf\" is missing from the active security modules (lockdown,capability,yama)",
            ),
            (
                "sys/kernel/security/lockdown",
                "none integrity [confidentiality]\n",
                "lockdown=confidentiality keeps BPF programs from reading kernel memory, so the gate cannot see what is loaded",
            ),
            (
                "proc/sys/kernel/ftrace_enabled",
                "0\n",
                "kernel.ftrace_enabled is 0, which switches every BPF LSM program off",
            ),
        ] {
            let root = tree(GOOD);
            fs::write(root.path().join(name), text).unwrap();
            let found: Vec<_> = obstacles(root.path()).into_iter().map(|o| o.what).collect();
            assert_eq!(found, [want]);
        }
    }

    #[test]
    fn the_missing_module_comes_with_the_exact_boot_parameter() {
        let root = tree(GOOD);
        fs::write(
            root.path().join("sys/kernel/security/lsm"),
            "capability,yama,apparmor",
        )
        .unwrap();
        assert_eq!(
            obstacles(root.path())[0].remedy,
            "Boot with `lsm=yama,apparmor,bpf` on the kernel's command line."
        );
    }

    #[test]
    fn only_the_whole_word_asks_for_audit() {
        assert!(asks_for_audit("quiet bpfseal=audit panic=-1\n"));
        assert!(!asks_for_audit("quiet xbpfseal=audit bpfseal=auditx\n"));
    }

    #[test]
    fn the_machine_id_comes_first() {
        let root = tree(&[
            ("etc/machine-id", "abc\n"),
            ("sys/class/dmi/id/product_uuid", "def\n"),
        ]);
        assert_eq!(host_id(root.path()), "abc");
        assert_eq!(host_id(tree(&[("etc/machine-id", "\n")]).path()), "unknown");
    }
}
