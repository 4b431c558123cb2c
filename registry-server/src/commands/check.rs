//! `bpfseal-registry check`.

use std::fmt::Write as _;

use command::Output;

use super::{Frame, Root, failed, inspect, must_exist, with_registry};
use crate::{
    check::{self, Report},
    failure::{Exit, Failure},
    registry::Registry,
};

/// Verify every blob and manifest against its digest.
///
/// May run while the registry is serving. With --repair over SQLite it must not be: a damaged
/// blob is moved into the folder `damaged` and forgotten, so that clients can push it again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry check --root /var/lib/bpfseal-registry
  bpfseal-registry check --root /var/lib/bpfseal-registry --json | jq .damage
  bpfseal-registry check --root /var/lib/bpfseal-registry --repair

Exit codes: 0 all is as it was pushed, 1 something is damaged, 2 the folder cannot be used.")]
pub struct Args {
    #[command(flatten)]
    root: Root,
    /// Set damaged blobs aside and forget them.
    #[arg(long)]
    repair: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let (_, storage) = &args.root.open()?;
    let report = if args.repair {
        must_exist(storage)?;
        let frame = || Frame::bare(&storage.root);
        with_registry(storage, Default::default(), frame, async |registry| {
            repair(&registry).await
        })?
    } else {
        inspect(storage, async |metadata, store| {
            check::check(&metadata, &*store).await.map_err(failed)
        })?
    };
    output.result(&report, || describe(&report, args.repair));
    if report.damage.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Exit::Refused, format!("{} damaged", report.damage.len()));
    Err(failure.with_remedy(if args.repair {
        "Push what was damaged again; the old bytes are in the folder `damaged`."
    } else {
        "Stop the registry and run `bpfseal-registry check --repair`, then push them again."
    }))
}

async fn repair(registry: &Registry) -> Result<Report, Failure> {
    let store = &*registry.store;
    let report = check::check(&registry.metadata, store)
        .await
        .map_err(failed)?;
    for blob in report
        .damage
        .iter()
        .filter_map(|damage| damage.blob.as_ref())
    {
        registry
            .metadata
            .forget_damaged(blob)
            .await
            .map_err(failed)?;
        store
            .set_aside(blob)
            .map_err(|error| Failure::from_error(Exit::Internal, &error))?;
    }
    Ok(report)
}

fn describe(report: &Report, repaired: bool) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        let done = if repaired && damage.blob.is_some() {
            " (set aside)"
        } else {
            ""
        };
        let _ = writeln!(text, "{}: {}{done}", damage.what, damage.problem);
    }
    let _ = write!(
        text,
        "checked {} blobs ({} bytes) and {} manifests: {} damaged, {} manifests incomplete, \
         {} files without a record",
        report.blobs,
        report.bytes,
        report.manifests,
        report.damage.len(),
        report.incomplete,
        report.unrecorded,
    );
    text
}
