//! `bpfseal-enforcer completions`.

use clap::CommandFactory as _;
use enforcer::failure::Failure;

use crate::Cli;

/// Prints a completion script.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer completions bash > /etc/bash_completion.d/bpfseal-enforcer")]
pub struct Args {
    /// Which shell.
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut command = Cli::command();
    clap_complete::generate(
        args.shell,
        &mut command,
        "bpfseal-enforcer",
        &mut std::io::stdout(),
    );
    Ok(())
}
