//! `bpfseal man`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::{Cli, Failure, Output};

/// Write the manual pages into a folder.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal man /usr/local/share/man/man1")]
pub struct Args {
    /// An existing folder.
    folder: PathBuf,
}

pub fn run(args: &Args, _output: &Output) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .map_err(|error| Failure::io("cannot write the manual pages", &args.folder, error))
}
