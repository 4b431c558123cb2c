//! `bpfseal-enforcer run`.

use std::time::Duration;

use enforcer::{
    control::Runtime,
    daemon::{self, Options},
    failure::Failure,
    kernel,
};

use super::{Places, duration, must_be_root};

/// Takes over the gate that is pinned in the kernel, or arms it as the state folder says,
/// then serves commands, writes the event log and proves again and again that the gate
/// bites. SIGHUP reloads the policy. SIGTERM ends the daemon; the gate stays.
///
/// Example: `bpfseal-enforcer run`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  bpfseal-enforcer run\n  bpfseal-enforcer run --watch-every 10s"
)]
pub struct Args {
    /// How often to prove that the gate bites.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    watch_every: Duration,
}

pub fn run(args: &Args, places: &Places) -> Result<(), Failure> {
    must_be_root()?;
    kernel::shield::begin();
    let runtime = Runtime::open(&places.runtime)?;
    daemon::run(
        &runtime,
        Options {
            watch: args.watch_every,
        },
        || places.enforcer_that_arms(),
    )
}
