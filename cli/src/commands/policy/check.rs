//! `bpfseal policy check`.

use std::path::PathBuf;

use policy::{Policy, language::Note};
use serde::Serialize;

use crate::{
    Failure, Output,
    output::{counted, printable},
    policy_file,
};

/// Find every mistake in policy files.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal policy check policy.toml")]
pub struct Args {
    /// Policy files; each is checked by itself.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    version: u64,
    mode: policy::Mode,
    digest: String,
    keys: usize,
    rules: usize,
    shapes: usize,
    notes: &'a [Note],
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let mut policies = Vec::new();
    for file in &args.files {
        policies.push((file.display().to_string(), policy_file::read(file)?));
    }
    let checked: Vec<Checked<'_>> = policies
        .iter()
        .map(|(file, policy)| Checked {
            file: file.clone(),
            version: policy.version(),
            mode: policy.mode(),
            digest: policy.digest().to_string(),
            keys: policy.keys().len(),
            rules: policy.rules().len(),
            shapes: policy.shapes().len(),
            notes: policy.notes(),
        })
        .collect();
    for (file, policy) in &policies {
        for note in policy.notes() {
            output.note(&format!("{file}:{}: note: {}", note.line, note.message));
        }
    }
    output.result(&checked, || {
        let lines: Vec<String> = policies
            .iter()
            .map(|(file, policy)| printable(&format!("{file}: ok ({})", summary(policy))))
            .collect();
        lines.join("\n")
    });
    Ok(())
}

/// `version 42, enforce, 2 keys, 1 rule, 1 shape`.
fn summary(policy: &Policy) -> String {
    let mut parts = vec![
        format!("version {}", policy.version()),
        policy.mode().as_str().to_owned(),
        counted(policy.keys().len(), "key"),
        counted(policy.rules().len(), "rule"),
        counted(policy.shapes().len(), "shape"),
    ];
    if !policy.exceptions().is_empty() {
        parts.push(counted(policy.exceptions().len(), "exception"));
    }
    parts.join(", ")
}
