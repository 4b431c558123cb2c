//! `bpfseal-enforcer suggest`.

use enforcer::{control::Request, failure::Failure, output::Output, suggest::Suggestion};

use super::Places;

/// Turns what was tried and not admitted into rules to paste into the policy, with the
/// command that signs what each tool loads. Of what a tool makes as it goes, which nobody can
/// sign, it says so, and what a `[[generator]]` needs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer suggest >> policy.toml
  bpfseal-enforcer suggest --json | jq -r '.enroll[].exe'")]
pub struct Args {}

pub fn run(_: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let suggestion: Suggestion = places.perform(Request::Suggest, &[])?;
    output.result(&suggestion, || suggestion.text());
    Ok(())
}
