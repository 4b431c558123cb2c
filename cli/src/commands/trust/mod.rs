//! `bpfseal trust`.

use clap::Subcommand;

use crate::{Failure, Output};

mod init;
mod show;
mod update;

/// Show, add and update what keyless signatures are checked against.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Store a Sigstore instance's trusted root under a name.
    Init(init::Args),
    /// Show a trusted root: the one in use, a stored one, or that of a file.
    Show(show::Args),
    /// Fetch what changed since; what cannot be proved to be newer changes nothing.
    Update(update::Args),
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.command {
        Command::Init(args) => init::run(args, output),
        Command::Show(args) => show::run(args, output),
        Command::Update(args) => update::run(args, output),
    }
}
