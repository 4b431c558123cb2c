//! `bpfseal-registry gc`.

use std::time::Duration;

use command::Output;

use super::{Frame, Root, failed, must_exist, with_registry};
use crate::{
    failure::Failure,
    gc::{self, Collected, Scope},
};

/// Remove blobs that no manifest uses. Over SQLite the registry must not be serving.
///
/// A running registry collects by itself with `serve --gc-interval`. Over PostgreSQL this may
/// run beside any number of instances, with a --root of its own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry gc --root /var/lib/bpfseal-registry
  bpfseal-registry gc --root /var/lib/bpfseal-registry --untagged --grace 0
  bpfseal-registry gc --root /var/lib/gc --config /etc/bpfseal-registry/registry.toml")]
pub struct Args {
    #[command(flatten)]
    root: Root,
    /// Leave alone what was pushed, mounted or asked for within so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 3600)]
    grace: u64,
    /// Also remove manifests that have no tag, are in no index and whose subject is gone.
    #[arg(long)]
    untagged: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let scope = Scope {
        grace: Duration::from_secs(args.grace),
        untagged: args.untagged,
    };
    let (_, storage) = args.root.open()?;
    must_exist(&storage)?;
    let frame = || Frame::bare(&storage.root);
    let collected = with_registry(&storage, Default::default(), frame, async |registry| {
        gc::collect(&registry, scope).await.map_err(failed)
    })?;
    output.result(&collected, || {
        let Collected {
            manifests,
            blobs,
            bytes,
            files,
        } = collected;
        format!(
            "removed {manifests} manifests, {blobs} blobs ({bytes} bytes), \
             {files} files without a record"
        )
    });
    Ok(())
}
