//! `bpfseal push`.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    Failure, Output,
    reference::is_tag,
    registry::{Client, Connection, Pushed},
    source,
};

/// Send a bundle and its signatures to a registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal push xdp.tar registry.example.com/net/xdp:v1
  bpfseal push xdp.tar localhost:5000/net/xdp:v1.2.3 --tag v1.2 --tag latest

Tags move last: whoever sees a tag sees the signatures too. What is there already is
not sent again, and an interrupted push goes on where it stopped.")]
pub struct Args {
    /// A bundle file, or a folder with an OCI layout.
    #[arg(value_name = "FILE|DIR")]
    bundle: PathBuf,
    /// Where to: host[:port]/repository[:tag]; `latest` without a tag.
    reference: String,
    /// One more tag for the same bundle; can be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Done<'a> {
    repository: String,
    #[serde(flatten)]
    pushed: &'a Pushed,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let reference = source::reference(&args.reference)?;
    check_tags(&args.tags)?;
    let layout = source::open_layout(&args.bundle)?;
    let client = Client::new(&args.connection, source::progress(output, "push"))?;
    let pushed = client.push(&layout, &reference, &args.tags)?;
    let repository = reference.repository.to_string();
    output.result(
        &Done {
            repository: repository.clone(),
            pushed: &pushed,
        },
        || describe(&pushed, &repository),
    );
    Ok(())
}

/// Refuses tags that no registry takes, before anything is sent.
pub fn check_tags(tags: &[String]) -> Result<(), Failure> {
    match tags.iter().find(|tag| !is_tag(tag)) {
        Some(tag) => Err(Failure::usage(format!(
            "`{tag}` is not a tag: at most 128 letters, digits, . _ or -"
        ))),
        None => Ok(()),
    }
}

/// What arrived, for people.
pub fn describe(pushed: &Pushed, repository: &str) -> String {
    let mut text = format!("{repository}@{}\n", pushed.digest);
    for tag in &pushed.tags {
        text += &format!("  tag       {tag}\n");
    }
    for referrer in &pushed.referrers {
        text += &format!(
            "  referrer  {} {}\n",
            referrer.digest, referrer.artifact_type
        );
    }
    let blobs = pushed.blobs;
    text += &format!(
        "  blobs     {} sent ({} bytes), {} mounted, {} there before\n",
        blobs.sent, blobs.bytes, blobs.mounted, blobs.present
    );
    text
}
