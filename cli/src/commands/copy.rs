//! `bpfseal copy`.

use serde::Serialize;

use super::push;
use crate::{
    Failure, Output,
    registry::{Client, Connection, Pushed},
    source,
};

/// Copy an artifact and everything that refers to it between registries.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal copy registry.example.com/net/xdp:v1 mirror.example.com/net/xdp:v1
  bpfseal copy localhost:5000/staging/xdp@sha256:… localhost:5000/prod/xdp:v1 --tag latest

Works for any OCI artifact, not only bundles. Within one registry blobs are mounted,
not sent.")]
pub struct Args {
    /// From where: host[:port]/repository[:tag][@digest].
    source: String,
    /// Where to: host[:port]/repository[:tag].
    destination: String,
    /// One more tag at the destination; can be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Done<'a> {
    source: String,
    repository: String,
    #[serde(flatten)]
    pushed: &'a Pushed,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let from = source::reference(&args.source)?;
    let to = source::reference(&args.destination)?;
    push::check_tags(&args.tags)?;
    let client = Client::new(&args.connection, source::progress(output, "copy"))?;
    let pushed = client.copy(&from, &to, &args.tags)?;
    let done = Done {
        source: from.to_string(),
        repository: to.repository.to_string(),
        pushed: &pushed,
    };
    output.result(&done, || push::describe(&pushed, &done.repository));
    Ok(())
}
