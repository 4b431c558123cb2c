//! `bpfseal policy diff`.

use std::path::PathBuf;

use policy::effective::{self, Change};

use crate::{Failure, Output, output::printable, policy_file};

/// Say what another policy changes.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal policy diff old.toml new.toml

Compares what the policies mean, defaults included, not how they are written.")]
pub struct Args {
    /// The policy now.
    old: PathBuf,
    /// The policy to come.
    new: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let old = policy_file::read(&args.old)?;
    let new = policy_file::read(&args.new)?;
    let changes = effective::changes(&old, &new);
    output.result(&changes, || {
        if changes.is_empty() {
            return "no difference".to_owned();
        }
        let lines: Vec<String> = changes.iter().map(say).collect();
        lines.join("\n")
    });
    Ok(())
}

fn say(change: &Change) -> String {
    let line = match (&change.old, &change.new) {
        (None, Some(new)) => format!("+ {}: {new}", change.what),
        (Some(old), None) => format!("- {}: {old}", change.what),
        (Some(old), Some(new)) => format!("~ {}: {old} -> {new}", change.what),
        (None, None) => change.what.clone(),
    };
    printable(&line)
}
