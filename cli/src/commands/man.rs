//! `bpfseal man`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::{Cli, Failure, Output};

/// Example: `bpfseal man /usr/local/share/man/man1`
#[derive(clap::Args)]
pub struct Args {
    /// An existing folder.
    folder: PathBuf,
}

pub fn run(args: &Args, _output: &Output) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .map_err(|error| Failure::io("cannot write the manual pages", &args.folder, error))
}
