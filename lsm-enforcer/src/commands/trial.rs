//! The hidden command of virtual machines that `bpfseal attest verifier` boots.

use enforcer::{failure::Failure, trial};

/// No options: a kernel's command line starts it.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<(), Failure> {
    trial::run()
}
