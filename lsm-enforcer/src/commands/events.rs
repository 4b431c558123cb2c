//! `bpfseal-enforcer events`.

use std::{io::Write as _, thread, time::Duration};

use enforcer::{
    control::{Reply, Request, ask},
    failure::Failure,
    output::{Output, printable},
    record::Record,
};
use jiff::{SignedDuration, Timestamp};

use super::{Places, duration, must_be_root};

/// Prints each attempt that the gate judged: what, why, by whom, what to do. With --json
/// one JSON document a line.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer events --since 10m
  bpfseal-enforcer events --follow --json
  bpfseal-enforcer events --since 2026-11-22T03:00:00Z")]
pub struct Args {
    /// Go on printing as they come, until interrupted.
    #[arg(long)]
    follow: bool,
    /// From this time on: an instant, or so long ago (90s, 10m, 2h).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let request = Request::Events {
        follow: args.follow,
        since: args.since,
    };
    if !args.follow {
        let records: Vec<Record> = places.perform(request, &[])?;
        print(&records, output);
        return Ok(());
    }
    if let Some(stream) = places.daemon()? {
        let mut failed = None;
        ask(stream, &request, &[], |reply| match reply {
            Reply::Done(value) => match serde_json::from_value::<Vec<Record>>(value) {
                Ok(records) => print(&records, output),
                Err(error) => {
                    failed = Some(Failure::internal(error.to_string()));
                    false
                }
            },
            Reply::Record(record) => print(&[record], output),
            Reply::Failed(failure) => {
                failed = Some(failure);
                false
            }
        })?;
        return failed.map_or(Ok(()), Err);
    }
    follow_alone(places, output, args.since)
}

/// Without a daemon nobody empties the ring buffer; so this does, a moment at a time, and
/// lets other commands have the lock in between.
fn follow_alone(
    places: &Places,
    output: &Output,
    mut since: Option<Timestamp>,
) -> Result<(), Failure> {
    let mut seen: Vec<Record> = Vec::new();
    loop {
        let records: Vec<Record> = places.perform(
            Request::Events {
                follow: false,
                since,
            },
            &[],
        )?;
        let fresh: Vec<Record> = records
            .iter()
            .filter(|record| !seen.contains(record))
            .cloned()
            .collect();
        if !print(&fresh, output) {
            return Ok(());
        }
        // Events of one instant may come in two readings; a second covers that.
        since = records
            .last()
            .map(|record| record.time() - SignedDuration::from_secs(1))
            .or(since);
        seen = records;
        thread::sleep(Duration::from_millis(500));
    }
}

/// Prints records; false when nobody reads any more.
fn print(records: &[Record], output: &Output) -> bool {
    let mut stdout = anstream::stdout().lock();
    for record in records {
        let line = if output.is_json() {
            serde_json::to_string(record).unwrap_or_default()
        } else {
            printable(&record.line())
        };
        if writeln!(stdout, "{line}").is_err() {
            return false;
        }
    }
    stdout.flush().is_ok()
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        return Timestamp::now()
            .checked_sub(ago)
            .map_err(|error| error.to_string());
    }
    text.parse().map_err(|_| {
        format!("want an instant as in 2026-11-22T03:00:00Z, or a time as in 10m; got {text:?}")
    })
}
