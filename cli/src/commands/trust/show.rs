//! `bpfseal trust show`.

use std::path::PathBuf;

use bundle::Digest;
use policy::sigstore::{Counts, EMBEDDED_SINCE};
use serde::Serialize;

use crate::{Failure, Output, trust};

/// Show a trusted root: the embedded one, or that of a file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal trust show
  bpfseal trust show --trusted-root trusted_root.json --json")]
pub struct Args {
    /// A `trusted_root.json`.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
}

/// A trusted root, as `--json` shows it.
#[derive(Serialize)]
struct Done {
    digest: Digest,
    /// The file; none: the root that this program carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// Day of the embedded root.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedded_since: Option<&'static str>,
    #[serde(flatten)]
    counts: Counts,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let root = trust::root(args.trusted_root.as_deref())?;
    let done = Done {
        digest: root.digest(),
        file: args.trusted_root.clone(),
        embedded_since: args.trusted_root.is_none().then_some(EMBEDDED_SINCE),
        counts: root.counts(),
    };
    output.result(&done, || done.describe());
    Ok(())
}

impl Done {
    fn describe(&self) -> String {
        let source = match (&self.file, self.embedded_since) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(day)) => format!("the public-good instance's, embedded {day}"),
            (None, None) => "embedded".to_owned(),
        };
        let counts = self.counts;
        format!(
            "trusted root {}\n  source                   {source}\n  \
             certificate authorities  {}\n  transparency logs        {}\n  \
             certificate logs         {}\n  time-stamp authorities   {}\n",
            self.digest,
            counts.certificate_authorities,
            counts.transparency_logs,
            counts.certificate_logs,
            counts.timestamp_authorities
        )
    }
}
