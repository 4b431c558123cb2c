//! The description of the interface that the registry serves is true: schemathesis thinks up
//! requests from it, right and wrong ones, and compares the answers with what it says.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tests::{e2e::Registry, lab};

#[test]
fn the_registry_keeps_to_its_description() {
    let script = lab::workspace().join("tests/lab/schemathesis.sh");
    let output = Command::new(script)
        .output()
        .expect("the script can be run");
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().last().unwrap_or("no reason given");
        return println!("SKIPPED the_registry_keeps_to_its_description: schemathesis: {why}");
    }
    let program = String::from_utf8(output.stdout).expect("a path is text");
    let registry = Registry::start();
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(Path::new(program.trim()))
        .arg("run")
        .arg(format!("http://{}/openapi.json", registry.address))
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "5",
        ])
        .args(["--seed", "7", "--generation-database", "none"])
        .args(["--continue-on-failure", "--no-color"])
        // That a digest is not that of the bytes cannot be described: right data is refused.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("schemathesis can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // That nothing was found means something only if everything was asked.
    let tested = |line: &str| line.trim().strip_prefix("Tested: ")?.parse::<u32>().ok();
    let tested = said.lines().find_map(tested);
    assert!(tested.is_some_and(|operations| operations >= 24), "{said}");
}
