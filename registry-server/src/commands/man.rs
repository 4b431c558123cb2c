//! `bpfseal-registry man`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::{
    Cli,
    failure::{Exit, Failure},
};

/// Example: `bpfseal-registry man /usr/local/share/man/man1`
#[derive(clap::Args)]
pub struct Args {
    /// An existing folder.
    folder: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(|error| {
        let folder = args.folder.display();
        Failure::new(
            Exit::Usage,
            format!("cannot write the manual pages to {folder}: {error}"),
        )
    })
}
