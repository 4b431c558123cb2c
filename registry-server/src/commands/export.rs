//! `bpfseal-registry export`.

use std::path::PathBuf;

use command::Output;

use super::{Root, inspect, transfer_failed};
use crate::{
    export::{self, Transferred},
    failure::Failure,
    name::Repository,
};

/// Write repositories as OCI image layouts, to a folder or a tar file.
///
/// Everything is there: manifests with and without tags, referrers, blobs. It may run while
/// the registry serves; keep garbage collection off meanwhile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry export --root /var/lib/bpfseal-registry backup.tar
  bpfseal-registry export --root /var/lib/bpfseal-registry --repository tools/top layout
  skopeo inspect oci:layout:v1")]
pub struct Args {
    #[command(flatten)]
    root: Root,
    /// Only this repository, at the top of the folder or the tar file. By default all, each
    /// in a folder of its name.
    #[arg(long, value_name = "NAME")]
    repository: Option<Repository>,
    /// A folder, or a file whose name ends in .tar; neither may hold anything yet.
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let (_, storage) = &args.root.open()?;
    let done = inspect(storage, async |metadata, store| {
        let only = args.repository.as_ref();
        let done = export::export(&metadata, &*store, only, &args.to).await;
        done.map_err(|error| transfer_failed(&error))
    })?;
    report("wrote", &done, output);
    Ok(())
}

/// Says what was done.
pub fn report(verb: &str, done: &Transferred, output: &Output) {
    let Transferred {
        repositories,
        manifests,
        tags,
        blobs,
        bytes,
    } = done;
    output.result(done, || {
        format!(
            "{verb} {repositories} repositories: {manifests} manifests with {tags} tags, \
             {blobs} blobs ({bytes} bytes)"
        )
    });
}
