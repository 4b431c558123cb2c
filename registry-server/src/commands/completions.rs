//! `bpfseal-registry completions`.

use clap::CommandFactory as _;

use crate::{Cli, failure::Failure};

/// Example: `bpfseal-registry completions bash > /etc/bash_completion.d/bpfseal-registry`
#[derive(clap::Args)]
pub struct Args {
    /// Which shell.
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let name = "bpfseal-registry";
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        name,
        &mut std::io::stdout(),
    );
    Ok(())
}
