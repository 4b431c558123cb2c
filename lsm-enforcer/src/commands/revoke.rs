//! `bpfseal-enforcer revoke`.

use enforcer::{control::Request, enforcer::Revoking, failure::Failure, output::Output};

use super::{ListArgs, Places};

/// Puts a revocation list in force that the authority signed (`bpfseal revoke`): what it
/// names loads no more, and is taken off its hooks where the kernel allows that. What cannot
/// be taken off is listed with the processes and pins that hold it. A file put into `revocations/` of
/// the state folder does the same.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer revoke revoked.json
  bpfseal-enforcer revoke revoked.json --json | jq '.reached[] | {id, holders, pins}'")]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let request = |list| Request::Revoke { list };
    let revoking: Revoking = args.list.perform(places, request)?;
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
