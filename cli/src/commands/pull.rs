//! `bpfseal pull`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bundle::Digest;
use serde::Serialize;

use crate::{
    Failure, Output,
    failure::Exit,
    files,
    registry::{Client, Connection, Referrer},
    source,
};

/// Fetch a bundle and its signatures from a registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal pull registry.example.com/net/xdp:v1 -o xdp.tar
  bpfseal pull localhost:5000/net/xdp@sha256:… -o xdp.tar

An interrupted pull leaves FILE.partial; the same command goes on there. Nothing is
verified but digests: that is what `bpfseal verify` is for.")]
pub struct Args {
    /// From where: host[:port]/repository[:tag][@digest].
    reference: String,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Done<'a> {
    repository: String,
    digest: Digest,
    output: &'a Path,
    bytes: u64,
    referrers: &'a [Referrer],
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let reference = source::reference(&args.reference)?;
    if args.output.is_dir() {
        let folder = args.output.display();
        return Err(
            Failure::usage(format!("{folder} is a folder")).with_remedy(format!(
                "Give the file's name too: `-o {folder}/bundle.tar`."
            )),
        );
    }
    let folder = partial_folder(&args.output);
    let made = make_folder(&folder)?;
    let client = Client::new(&args.connection, source::progress(output, "pull"))?;
    let pulled = client
        .fetch_via(&reference, &folder)
        .map_err(Failure::from)
        .inspect_err(|failure| clean_up(&folder, made, failure))?;
    files::write_layout(&pulled.layout, &args.output)?;
    let _ = fs::remove_dir_all(&folder);
    let done = Done {
        repository: reference.repository.to_string(),
        digest: pulled.digest,
        output: &args.output,
        bytes: pulled.bytes,
        referrers: &pulled.referrers,
    };
    output.result(&done, || describe(&done));
    Ok(())
}

fn describe(done: &Done<'_>) -> String {
    let mut text = format!("{}@{}\n", done.repository, done.digest);
    for referrer in done.referrers {
        text += &format!(
            "  referrer  {} {}\n",
            referrer.digest, referrer.artifact_type
        );
    }
    text += &format!("  written   {}\n", done.output.display());
    text
}

fn partial_folder(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn make_folder(folder: &Path) -> Result<bool, Failure> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure::io("cannot make the folder", folder, error)),
    }
}

/// Leaves behind only what another try can use: after a broken connection, what arrived.
fn clean_up(folder: &Path, made: bool, failure: &Failure) {
    let useful = failure.exit == Exit::Network;
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !useful || file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            let _ = fs::remove_file(file.path());
        }
    }
    if made || !useful {
        // Refuses where something is in it.
        let _ = fs::remove_dir(folder);
    }
}
