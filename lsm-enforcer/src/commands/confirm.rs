//! The deadline of a provisional arming, where no daemon runs to keep it.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use enforcer::{control::Runtime, failure::Failure, gate::Role, ourselves, perform::PATIENCE};

use super::Places;

/// Seconds to wait.
#[derive(clap::Args)]
pub struct Args {
    seconds: u64,
}

/// Starts a process that outlives this one and the terminal.
pub fn start(places: &Places, seconds: u64) -> Result<(), Failure> {
    let start = || -> io::Result<Child> {
        let seconds = seconds.to_string();
        ourselves::again::<&OsStr>(&[
            "--state".as_ref(),
            places.state.as_ref(),
            "--runtime".as_ref(),
            places.runtime.as_ref(),
            "await-confirmation".as_ref(),
            seconds.as_ref(),
        ])?
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
    };
    start()
        .map(drop)
        .map_err(|error| Failure::internal(format!("cannot wait for the confirmation: {error}")))
}

/// Waits, then does what any command does first: falls back if it is time. The deadline
/// itself is pinned in the kernel, so a lost process only makes the fall-back later.
pub fn run(args: &Args, places: &Places) -> Result<(), Failure> {
    super::must_be_root()?;
    // One second more: the deadline has sub-seconds that the argument has not.
    thread::sleep(Duration::from_secs(args.seconds.saturating_add(1)));
    // Somebody else in the daemon's place does not keep the deadline.
    if let Ok(Some(_)) = places.daemon() {
        return Ok(());
    }
    let _lock = Runtime::open(&places.runtime)?.lock(PATIENCE)?;
    let mut enforcer = places.enforcer()?;
    enforcer.hold(Role::Command, PATIENCE)?;
    enforcer.settle().map(drop)
}
