//! `bpfseal-enforcer man`.

use std::path::PathBuf;

use clap::CommandFactory as _;
use enforcer::failure::Failure;

use crate::Cli;

/// Writes one manual page a command.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  bpfseal-enforcer man /usr/local/share/man/man1")]
pub struct Args {
    /// An existing folder.
    folder: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .map_err(|error| Failure::io("cannot write the manual pages", &args.folder, error))
}
