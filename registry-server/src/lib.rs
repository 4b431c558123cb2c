//! `bpfseal-registry`: an OCI distribution 1.1 registry on a local folder, or on PostgreSQL and S3.
//!
//! The program is [`run`]; [`strangers`] is what fuzzing looks at.
//!
//! A request becomes a [`route::Route`], which one handler in `api` answers from the
//! metadata (SQLite or PostgreSQL), the blobs (`store`) and the caches in front of both.

mod access;
mod admission;
mod api;
mod audit;
mod body;
mod cache;
mod check;
mod commands;
mod config;
mod digest;
mod error;
mod export;
mod gc;
mod import;
mod lists;
mod manifest;
mod metadata;
mod metrics;
mod name;
mod range;
mod registry;
mod revocation;
mod route;
mod server;
mod site;
mod storage;
mod store;
pub mod strangers;
mod tls;
mod upload;

use clap::Parser;
use command::{Output, failure};

/// An OCI distribution 1.1 registry: what it has acknowledged survives a power cut.
#[derive(Parser)]
#[command(
    name = "bpfseal-registry",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    /// Print JSON instead of text, on standard output and in the log.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: commands::Command,
}

/// Does what the command line says.
pub fn run() -> std::process::ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match cli.command.run(&output) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}
