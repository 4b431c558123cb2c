//! `bpfseal completions`.

use clap::CommandFactory as _;

use crate::{Cli, Failure};

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal completions bash > /etc/bash_completion.d/bpfseal")]
pub struct Args {
    /// Which shell.
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "bpfseal",
        &mut std::io::stdout(),
    );
    Ok(())
}
