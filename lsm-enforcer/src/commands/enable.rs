//! `bpfseal-enforcer enable`.

use enforcer::{control::Request, failure::Failure, gate::GeneratorState, output::Output};

use super::{Places, read_permit};

/// Lets a generator of the policy (`permit = true`) load programs until the permit ends
/// (`bpfseal permit --action generator --generator NAME`). What it loads is not attested, and
/// stays loaded after the end for as long as it is held.
#[derive(clap::Args)]
#[command(after_help = "Example:
  bpfseal-enforcer enable bpftrace --permit bpftrace.permit")]
pub struct Args {
    /// The generator's name in the policy.
    #[arg(value_name = "NAME")]
    name: String,
    /// The permit, or a file with it.
    #[arg(long, value_name = "PERMIT")]
    permit: Option<String>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let request = Request::Enable {
        name: args.name.clone(),
        permit: read_permit(args.permit.as_deref())?,
    };
    let state: GeneratorState = places.perform(request, &[])?;
    output.result(&state, || match (&state.why_not, state.until) {
        (Some(why), _) => format!("{} is permitted, but not let in: {why}", state.name),
        (None, Some(until)) => format!(
            "{} may load programs until {} s after boot; they are not attested",
            state.name,
            until.as_secs()
        ),
        (None, None) => format!("{} may load programs", state.name),
    });
    Ok(())
}
