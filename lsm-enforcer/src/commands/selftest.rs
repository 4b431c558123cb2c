//! `bpfseal-enforcer selftest`.

use enforcer::{control::Request, enforcer::SelfTest, failure::Failure, output::Output};

use super::Places;

/// Loads an unsigned program, which must be refused, and the device filters of systemd,
/// runc and crun, which must load, and tries the ways into kernel memory that the policy closes
/// in `[protect]`, where an attempt does no harm. Exits 5 if anything of that fails.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  bpfseal-enforcer selftest")]
pub struct Args {}

pub fn run(_: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let test: SelfTest = places.perform(Request::Selftest, &[])?;
    output.result(&test, || {
        test.checks
            .iter()
            .map(|check| format!("{}\n", check.line()))
            .collect()
    });
    test.failure().map_or(Ok(()), Err)
}
