//! `bpfseal sign-blob`.

use std::path::PathBuf;

use bundle::Digest;
use policy::statement::Statement;
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
  bpfseal sign-blob --in-toto --bundle tool.sigstore.json statement.json

The bundle is of version 0.3: cosign, sigstore-python and sigstore-js read it too.")]
pub struct Args {
    #[command(flatten)]
    by: SignArgs,
    /// Write the signature here.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// FILE is an in-toto statement: sign it as it is, in an envelope. It verifies for what it is
    /// about.
    #[arg(long)]
    in_toto: bool,
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
    let about = args.in_toto.then(|| subject_of(args, &bytes)).transpose()?;
    let seal = Seal::ready(&args.by, output)?;
    let sealed = match about {
        Some(subject) => seal.statement(&bytes, subject)?,
        None => seal.blob(&bytes)?,
    };
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

/// What a statement is about; of several, the first.
fn subject_of(args: &Args, statement: &[u8]) -> Result<Digest, Failure> {
    let failed = |why: &str| Failure::usage(format!("{}: {why}", args.file.display()));
    let statement = Statement::parse(statement).map_err(|error| failed(&error))?;
    let subject = statement.subjects.first();
    let subject = subject.and_then(|hex| format!("sha256:{hex}").parse().ok());
    subject.ok_or_else(|| failed("the statement names no subject by its SHA-256"))
}
