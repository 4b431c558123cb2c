//! `bpfseal-enforcer upgrade`.

use std::{fs, path::PathBuf};

use enforcer::{control::Request, enforcer::Upgraded, failure::Failure, output::Output};

use super::{Places, must_be_root};

/// Puts the next build of the enforcer in the place of its file, which nobody else can while the gate
/// is armed. The policy names it (`[daemon]`). The gate stays: restart the daemon afterwards.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer upgrade ./bpfseal-enforcer && systemctl restart bpfseal-enforcer
  bpfseal-enforcer upgrade --at-boot ./bpfseal-enforcer")]
pub struct Args {
    /// The next build.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also a build whose gate keeps other things: it begins with the next boot.
    #[arg(long)]
    at_boot: bool,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    // The daemon has another working folder.
    let file = fs::canonicalize(&args.file)
        .map_err(|error| Failure::io("cannot read", &args.file, error))?;
    let request = Request::Upgrade {
        file,
        at_boot: args.at_boot,
    };
    let upgraded: Upgraded = places.perform(request, &[])?;
    output.result(&upgraded, || {
        let next = match upgraded.at_boot {
            true => "it begins with the next boot; until then leave the daemon running",
            false => "restart the daemon: `systemctl restart bpfseal-enforcer`",
        };
        let path = upgraded.path.display();
        format!("{path} is {} now; {next}", upgraded.digest)
    });
    Ok(())
}
