//! The unit file that is shipped is one that systemd understands.

use std::{fs, io, process::Command};

use tests::lab;

#[test]
fn systemd_understands_the_unit() {
    let unit = lab::workspace().join("lsm-enforcer/dist/bpfseal-enforcer.service");
    // The program itself need not be installed here.
    let text = fs::read_to_string(unit).unwrap();
    let text = text.replace("/usr/sbin/bpfseal-enforcer", "/bin/true");
    assert_eq!(
        complaints(&text),
        Some(String::new()).filter(|_| has_systemd())
    );
    // A mistake is found: without this the line above would prove nothing.
    let wrong = text.replace("Restart=always", "Restart=allways");
    if let Some(said) = complaints(&wrong) {
        assert!(said.contains("allways"), "{said}");
    }
}

/// What systemd says about a unit; `None` where there is no systemd.
fn complaints(text: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bpfseal-enforcer.service");
    fs::write(&path, text).expect("it can be written");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&path)
        .output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            // Only what is about our file: the machine's own units are not ours to judge.
            let ours = said
                .lines()
                .filter(|line| line.contains("bpfseal-enforcer.service"));
            Some(ours.collect::<Vec<_>>().join("\n"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED systemd_understands_the_unit: there is no systemd-analyze");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

fn has_systemd() -> bool {
    Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok()
}
