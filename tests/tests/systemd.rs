//! The unit files that are shipped, as systemd reads them: Debian's own, not this machine's.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    process::{Command, Output},
};

use tests::lab;

const ENFORCER: &str = "lsm-enforcer/dist/bpfseal-enforcer.service";
const REGISTRY: &str = "docs/examples/registry/bpfseal-registry.service";

#[test]
fn systemd_understands_the_units() {
    for file in [ENFORCER, REGISTRY] {
        let text = unit(file);
        assert_eq!(complaints(file, &text), Vec::<String>::new(), "{file}");
        // A mistake is found: without this the line above would prove nothing.
        let wrong = text.replace("\nRestart=", "\nRestart=x");
        assert_eq!(complaints(file, &wrong).len(), 1, "{file}");
    }
}

#[test]
fn systemd_finds_the_registry_confined() {
    let text = unit(REGISTRY);
    // Its exposure, in tenths: 1.1 of 10. Without the filter of system calls it would be more.
    let exposed = |text: &str| {
        let security = ["security", "--offline=true", "--no-pager", "--threshold=12"];
        systemd_analyze(&security, REGISTRY, text).status.code()
    };
    assert_eq!(exposed(&text), Some(0));
    assert_eq!(exposed(&text.replace("SystemCallFilter", "#")), Some(1));
}

/// A unit's text, with a program that is installed here in the place of ours.
fn unit(file: &str) -> String {
    let text = fs::read_to_string(lab::workspace().join(file)).unwrap();
    text.lines()
        .map(|line| match line.split_once("=/usr/") {
            Some((key, _)) if key.starts_with("Exec") => format!("{key}=/bin/true\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

/// What systemd says about a unit, and not about this machine's.
fn complaints(file: &str, text: &str) -> Vec<String> {
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let said = String::from_utf8(systemd_analyze(&verify, file, text).stderr).unwrap();
    let name = file.rsplit('/').next().unwrap();
    let ours = said.lines().filter(|line| line.contains(name));
    ours.map(str::to_owned).collect()
}

fn systemd_analyze(arguments: &[&str], file: &str, text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file.rsplit('/').next().unwrap());
    fs::write(&path, text).unwrap();
    let root = lab::Cache::open().tool_root("systemd").unwrap();
    let root = root.join("usr");
    let libraries = root.join("lib/x86_64-linux-gnu");
    let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(format!(
        "{}:{}",
        libraries.display(),
        libraries.join("systemd").display()
    ));
    command.arg(root.join("bin/systemd-analyze"));
    command.args(arguments).arg(path).output().unwrap()
}
