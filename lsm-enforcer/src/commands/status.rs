//! `bpfseal-enforcer status`.

use std::time::{Duration, Instant};

use enforcer::{
    control::{Reply, Request, Runtime, ask},
    failure::Failure,
    kernel,
    output::Output,
    status::Status,
};

use super::Places;

/// Says in one line whether unsigned programs are refused, then everything that line
/// rests on. It tries a refusal each time, so "Enforcing" is what was just seen.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer status
  bpfseal-enforcer status --json | jq .enforcing")]
pub struct Args {}

pub fn run(_: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    let status = measure(places)?;
    output.result(&status, || {
        enforcer::output::printable_lines(&status.text())
    });
    Ok(())
}

/// A daemon that verifies large bundles takes its time; one that somebody stopped never answers.
const PATIENCE: Duration = Duration::from_secs(10);

fn measure(places: &Places) -> Result<Status, Failure> {
    super::must_be_root()?;
    let Some(stream) = Runtime::open(&places.runtime)?.connect()? else {
        return places.perform(Request::Status, &[]);
    };
    if let Some(pid) = kernel::stranger(&stream)? {
        let mut status = Status::measure(&mut places.enforcer()?.observing(), false)?;
        status.warnings.insert(0, super::stranger(pid));
        return Ok(status);
    }
    let started = Instant::now();
    let limited = stream.set_read_timeout(Some(PATIENCE));
    limited.map_err(|error| Failure::internal(error.to_string()))?;
    let mut answer = None;
    let asked = ask(stream, &Request::Status, &[], |reply| {
        answer = Some(reply);
        false
    });
    match (asked, answer) {
        (Ok(()), Some(Reply::Done(value))) => {
            serde_json::from_value(value).map_err(|error| Failure::internal(error.to_string()))
        }
        (Ok(()), Some(Reply::Failed(failure))) => Err(failure),
        (Err(_), _) if started.elapsed() >= PATIENCE => without_daemon(places),
        (Err(failure), _) => Err(failure),
        (Ok(()), _) => Err(Failure::internal("the daemon said nothing")),
    }
}

/// As it looks from here, changing nothing: whoever is silent may hold the lock.
fn without_daemon(places: &Places) -> Result<Status, Failure> {
    let mut status = Status::measure(&mut places.enforcer()?.observing(), true)?;
    status.daemon_silent = true;
    Ok(status)
}
