//! `bpfseal-enforcer reload`.

use enforcer::{
    control::Request,
    enforcer::Arming,
    failure::Failure,
    output::{Output, printable_lines},
};

use super::{Places, read_permit};

/// Verifies the policy in the state folder (`policy.toml` and `policy.toml.sig`), decides
/// about every stored bundle anew and swaps the result in as one. If the policy does not
/// verify, the one in force stays. The daemon does the same on SIGHUP.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer reload
  bpfseal-enforcer reload --permit downgrade.permit")]
pub struct Args {
    /// A permit, or a file with one: for a lower version, or audit after enforce.
    #[arg(long, value_name = "PERMIT")]
    permit: Option<String>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let request = Request::Reload {
        permit: read_permit(args.permit.as_deref())?,
    };
    let arming: Arming = places.perform(request, &[])?;
    output.result(&arming, || printable_lines(&arming.text()));
    Ok(())
}
