//! `bpfseal-enforcer disarm`.

use std::path::PathBuf;

use enforcer::{control::Request, failure::Failure, output::Output};

use super::{Places, read_permit, read_text};

/// Takes the gate away: unsigned programs load again. Needs a permit for this host
/// (`bpfseal permit --action disarm`), because root may be who the gate is there for.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer disarm --permit disarm.permit
  bpfseal-enforcer disarm --permit bpfseal-permit-v1.… --authority authority.pub")]
pub struct Args {
    /// The permit, or a file with it.
    #[arg(long, value_name = "PERMIT")]
    permit: Option<String>,
    /// The authority's public key, if the state folder lost it.
    #[arg(long, value_name = "PUB")]
    authority: Option<PathBuf>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let request = Request::Disarm {
        permit: read_permit(args.permit.as_deref())?,
        authority: args.authority.as_deref().map(read_text).transpose()?,
    };
    let () = places.perform(request, &[])?;
    output.result(&serde_json::json!({ "disarmed": true }), || {
        "Disarmed: every BPF program loads.".to_owned()
    });
    Ok(())
}
