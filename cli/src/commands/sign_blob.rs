//! `bpfseal sign-blob`.

use std::path::PathBuf;

use bundle::Digest;
use serde::Serialize;

use crate::{
    Failure, Output, files,
    signing::{Seal, SignArgs, Who},
};

/// Sign any file; the signature is a Sigstore bundle.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal sign-blob --key release.key --bundle tool.sigstore.json tool
  bpfseal sign-blob --identity-token token.jwt --bundle tool.sigstore.json \\
      --signing-config signing_config.json --trusted-root trusted_root.json tool
  bpfseal sign-blob --bundle tool.sigstore.json tool      # in CI: keyless

The bundle is of version 0.3: cosign, sigstore-python and sigstore-js read it too.")]
pub struct Args {
    #[command(flatten)]
    by: SignArgs,
    /// Write the signature here.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// What to sign.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A signature just made, as `--json` shows it.
#[derive(Serialize)]
struct Done {
    /// What was signed.
    digest: Digest,
    #[serde(flatten)]
    by: Who,
    /// The file with the signature.
    bundle: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let bytes =
        std::fs::read(&args.file).map_err(|error| Failure::io("cannot read", &args.file, error))?;
    let sealed = Seal::ready(&args.by, output)?.blob(&bytes)?;
    files::replace(&args.bundle, &sealed.bundle)?;
    let done = Done {
        digest: Digest::of(&bytes),
        by: sealed.by,
        bundle: args.bundle.clone(),
    };
    output.result(&done, || {
        let text = format!(
            "{}\n  signed    {}\n  by        {}\n",
            done.bundle.display(),
            done.digest,
            done.by
        );
        crate::output::printable_lines(&text)
    });
    Ok(())
}
