//! `bpfseal trust`.

use clap::Subcommand;

use crate::{Failure, Output};

mod show;

/// Show what keyless signatures are checked against.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a trusted root: the embedded one, or that of a file.
    Show(show::Args),
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.command {
        Command::Show(args) => show::run(args, output),
    }
}
