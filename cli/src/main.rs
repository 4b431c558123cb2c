//! `bpfseal`: inspects, packs, signs, publishes and verifies BPF programs.

mod attested;
mod commands;
#[cfg(test)]
mod documentation;
mod epoch;
mod files;
mod foreign;
mod kernel_loader;
mod machine;
mod objects;
mod passphrase;
mod policy_file;
mod pow;
mod provenance;
mod quick;
mod reference;
mod registry;
mod signing;
mod source;
mod trust;

use clap::Parser;
use command::{Failure, Output, failure, output};

/// Sign, package and verify eBPF programs.
#[derive(Parser)]
#[command(
    name = "bpfseal",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    /// Print one JSON document on standard output instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> std::process::ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let quick = quick::parse(words.iter().map(AsRef::as_ref));
    let cli = quick.unwrap_or_else(Cli::parse);
    let output = Output::new(cli.json);
    match cli.command.run(&output) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}
