//! `bpfseal-enforcer inventory`.

use enforcer::{
    control::Request,
    failure::Failure,
    listing::{self, Listed},
    output::Output,
};

use super::Places;

/// Lists every BPF program in the kernel: by which bundle and signer it came, or that it
/// was present before arming, or that nobody knows.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer inventory
  bpfseal-enforcer inventory --json | jq '.[] | select(.class == \"unknown\")'")]
pub struct Args {}

pub fn run(_: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let programs: Vec<Listed> = places.perform(Request::Inventory, &[])?;
    output.result(&programs, || listing::text(&programs));
    Ok(())
}
