//! `bpfseal policy show`.

use std::{fmt::Write as _, path::PathBuf};

use policy::{Policy, effective};

use crate::{Failure, Output, output::printable, policy_file};

/// Print what a policy says, with its defaults if asked.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal policy show policy.toml --effective")]
pub struct Args {
    /// The policy file.
    file: PathBuf,
    /// Print the whole policy as TOML again, each default written out and marked.
    #[arg(long)]
    effective: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let policy = policy_file::read(&args.file)?;
    output.result(&effective::to_json(&policy), || {
        if args.effective {
            effective::to_toml(&policy)
        } else {
            overview(&policy)
        }
    });
    Ok(())
}

/// What a person wants to know first: who may sign what.
fn overview(policy: &Policy) -> String {
    let mut text = format!(
        "policy {}\nversion {}, mode {}\n",
        policy.digest(),
        policy.version(),
        policy.mode().as_str()
    );
    // Writing to a string cannot fail.
    for key in policy.keys().values() {
        let algorithm = key.key.algorithm();
        let _ = writeln!(
            text,
            "key {}: {algorithm} {}",
            printable(&key.name),
            key.key.id()
        );
    }
    for trusted in policy.keyless().values() {
        let _ = writeln!(
            text,
            "keyless {}: {} by {}",
            printable(&trusted.name),
            printable(trusted.identity.as_str()),
            printable(&trusted.issuer)
        );
    }
    for trusted in policy.x509().values() {
        let names: Vec<&str> = trusted
            .authority
            .names()
            .iter()
            .map(|n| n.as_str())
            .collect();
        let _ = writeln!(
            text,
            "x509 {}: {}",
            printable(&trusted.name),
            printable(&names.join(", "))
        );
    }
    for (index, rule) in policy.rules().iter().enumerate() {
        let _ = writeln!(
            text,
            "{}. {}: {} by {} of {}",
            index + 1,
            printable(&rule.name),
            rule.scope,
            rule.signed_by.at_least,
            printable(&rule.signed_by.of.join(", ")),
        );
    }
    for shape in policy.shapes() {
        let types: Vec<&str> = shape.program_types.iter().map(String::as_str).collect();
        let _ = writeln!(
            text,
            "anyone: {}: {} up to {} instructions",
            printable(&shape.name),
            types.join(", "),
            shape.max_insns
        );
    }
    text
}
