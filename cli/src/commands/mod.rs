//! One file per subcommand; each has an `Args` and a `run`.

use clap::Subcommand;

use crate::{Failure, Output};

mod completions;
mod man;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Write the manual pages into a folder.
    Man(man::Args),
}

impl Command {
    /// Runs the command; the text or JSON it prints goes through `output`.
    pub fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Completions(args) => completions::run(&args),
            Self::Man(args) => man::run(&args, output),
        }
    }
}
