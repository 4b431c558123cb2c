//! `bpfseal-enforcer probes`.

use enforcer::{control::Request, enforcer::Probing, failure::Failure, output::Output};

use super::{ListArgs, Places};

/// Puts a list of probe programs in force that a key of the policy's `[probes]` signed
/// (`bpfseal probes`): loaders' questions that are newer than this program. What it names loads,
/// exactly, and is never attached. It replaces the list before it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer probes probes.json
  bpfseal-enforcer events --json | jq 'select(.number == 401) | {name, program_type, attach_type, words}'")]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let request = |list| Request::Probes { list };
    let probing: Probing = args.list.perform(places, request)?;
    output.result(&probing, || {
        enforcer::output::printable_lines(&text(&probing))
    });
    Ok(())
}

fn text(probing: &Probing) -> String {
    let mut text = format!(
        "List of probe programs version {} by {:?} is in force, {} programs.",
        probing.version,
        probing.signer,
        probing.probes.len()
    );
    for name in &probing.probes {
        text += &format!("\n  loads, never attached  {name}");
    }
    text
}
