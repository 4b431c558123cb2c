//! `bpfseal-enforcer revoke`.

use std::path::PathBuf;

use enforcer::{control::Request, enforcer::Revoking, failure::Failure, output::Output};

use super::{Places, must_be_root, read_text};

/// Puts a revocation list in force that the authority signed (`bpfseal revoke`): what it
/// names loads no more, and is taken off its hooks where the kernel allows that. What cannot
/// be taken off is listed with the processes that hold it. A file put into `revocations/` of
/// the state folder does the same.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer revoke revoked.json
  bpfseal-enforcer revoke revoked.json --json | jq '.reached[] | {id, holders}'")]
pub struct Args {
    /// The signed list.
    #[arg(value_name = "LIST")]
    list: PathBuf,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let list = read_text(&args.list)?;
    let revoking: Revoking = places.perform(Request::Revoke { list }, &[])?;
    output.result(&revoking, || {
        enforcer::output::printable_lines(&text(&revoking))
    });
    Ok(())
}

fn text(revoking: &Revoking) -> String {
    let mut text = format!(
        "Revocation list version {} is in force, {} entries.",
        revoking.version, revoking.entries
    );
    for (bundle, why) in &revoking.bundles {
        text += &format!("\n  loads no more  {bundle}: {why}");
    }
    for (program, why) in &revoking.programs {
        text += &format!("\n  loads no more  program {program}: {why}");
    }
    for program in &revoking.reached {
        text += &format!("\n  loaded         {}", program.line());
    }
    text
}
