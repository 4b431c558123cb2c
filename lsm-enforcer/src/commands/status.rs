//! `bpfseal-enforcer status`.

use enforcer::{control::Request, failure::Failure, output::Output, status::Status};

use super::Places;

/// Says in one line whether unsigned programs are refused, then everything that line
/// rests on. It tries a refusal each time, so "Enforcing" is what was just seen.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer status
  bpfseal-enforcer status --json | jq .enforcing")]
pub struct Args {}

pub fn run(_: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let status: Status = places.perform(Request::Status, &[])?;
    output.result(&status, || {
        enforcer::output::printable_lines(&status.text())
    });
    Ok(())
}
