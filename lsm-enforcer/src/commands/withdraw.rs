//! `bpfseal-enforcer withdraw`.

use bundle::Digest;
use enforcer::{control::Request, failure::Failure, output::Output};

use super::Places;

/// Takes a bundle out of what may load. Programs that it already loaded stay loaded;
/// `inventory` lists them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer withdraw opensnoop
  bpfseal-enforcer withdraw sha256:9f2c41d07b53")]
pub struct Args {
    /// The bundle's digest, the first 8 or more digits of it, or its package name.
    #[arg(value_name = "BUNDLE")]
    what: String,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let gone: Vec<Digest> = places.perform(
        Request::Withdraw {
            what: args.what.clone(),
        },
        &[],
    )?;
    output.result(&serde_json::json!({ "withdrawn": gone }), || {
        gone.iter()
            .map(|digest| format!("withdrew {digest}\n"))
            .collect()
    });
    Ok(())
}
