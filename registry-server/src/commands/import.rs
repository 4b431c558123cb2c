//! `bpfseal-registry import`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use command::Output;

use super::{Frame, Root, export::report, transfer_failed, with_registry};
use crate::{
    export::TransferError,
    failure::Failure,
    import::{self, Wanted},
    name::Repository,
    store::StoreId,
};

/// Take repositories out of OCI image layouts.
///
/// Every digest is verified. Tags are set as they were, also where they are elsewhere now.
/// With SQLite the registry must not be serving.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry import --root /var/lib/bpfseal-registry backup.tar
  bpfseal-registry import --root /var/lib/bpfseal-registry --repository tools/top layout
  bpfseal-registry import --database postgres://registry@db/registry --blobs s3://registry backup.tar")]
pub struct Args {
    #[command(flatten)]
    root: Root,
    /// The repository that a layout at the top becomes; else take only this one.
    #[arg(long, value_name = "NAME")]
    repository: Option<Repository>,
    /// Accept manifests that refer to what the layout does not have.
    #[arg(long)]
    allow_sparse: bool,
    /// A folder or a tar file, as `export` writes it or one layout of other tools.
    #[arg(value_name = "FILE|DIR")]
    from: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let (_, storage) = args.root.open()?;
    let wanted = Wanted {
        repository: args.repository.clone(),
        sparse: args.allow_sparse,
    };
    let frame = || Frame::bare(&storage.root);
    let done = with_registry(&storage, Default::default(), frame, async |registry| {
        let unpacked = unpack(&args.from, &storage.root);
        let folder = unpacked.map_err(|error| transfer_failed(&error))?;
        let from = folder.as_ref().map_or(&*args.from, |folder| &*folder.0);
        let done = import::import(&registry, from, &wanted).await;
        done.map_err(|error| transfer_failed(&error))
    })?;
    report("read", &done, output);
    Ok(())
}

/// A tar file's content, in a folder that goes away.
fn unpack(from: &Path, root: &Path) -> Result<Option<Unpacked>, TransferError> {
    if from.is_dir() {
        return Ok(None);
    }
    let name = StoreId::random().map_err(TransferError::file(root))?;
    let folder = Unpacked(root.join(format!("import-{}", name.as_str())));
    fs::create_dir(&folder.0).map_err(TransferError::file(&folder.0))?;
    import::unpack(from, &folder.0)?;
    Ok(Some(folder))
}

struct Unpacked(PathBuf);

impl Drop for Unpacked {
    fn drop(&mut self) {
        // Left behind, it only takes room.
        let _ = fs::remove_dir_all(&self.0);
    }
}
