//! `bpfseal policy`.

use clap::Subcommand;

use crate::{Failure, Output};

mod check;
mod diff;
mod schema;
mod show;
mod sign;

/// Check, show, compare and sign policy files.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find every mistake in policy files.
    Check(check::Args),
    /// Say what another policy changes.
    Diff(diff::Args),
    /// Print the JSON Schema of policy files, for editors.
    #[command(after_help = "Example:\n  bpfseal policy schema > policy.schema.json")]
    Schema,
    /// Print what a policy says, with its defaults if asked.
    Show(show::Args),
    /// Sign a policy with the authority's key, for hosts.
    Sign(sign::Args),
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.command {
        Command::Check(args) => check::run(args, output),
        Command::Diff(args) => diff::run(args, output),
        Command::Schema => schema::run(),
        Command::Show(args) => show::run(args, output),
        Command::Sign(args) => sign::run(args, output),
    }
}
