//! `bpfseal logout`.

use serde::Serialize;

use super::login;
use crate::{
    Failure, Output,
    registry::{Client, Connection, Progress},
};

/// Forget the password of a registry.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal logout registry.example.com")]
pub struct Args {
    /// host[:port]
    registry: String,
}

#[derive(Serialize)]
struct Done {
    registry: String,
    removed: Option<String>,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let host = login::host(&args.registry)?;
    let client = Client::new(&Connection::default(), Progress::hidden())?;
    let done = Done {
        registry: host.to_string(),
        removed: client.logout(&host)?,
    };
    if done.removed.is_none() {
        return Err(Failure::not_found(format!("nobody is logged in to {host}")));
    }
    output.result(&done, || format!("forgot the password of {host}"));
    Ok(())
}
