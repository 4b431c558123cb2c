//! `bpfseal sign-blob`.

use std::path::PathBuf;

use bundle::Digest;
use policy::statement;
use ring::rand::SystemRandom;
use serde::Serialize;

use crate::{
    Failure, Output, files,
    passphrase::{self, KeyArgs},
};

/// Sign any file; the signature is a Sigstore bundle.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal sign-blob --key release.key --bundle tool.sigstore.json tool
  bpfseal verify-blob --key release.pub --bundle tool.sigstore.json tool

The bundle is of version 0.3: cosign, sigstore-python and sigstore-js read it too.")]
pub struct Args {
    #[command(flatten)]
    key: KeyArgs,
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
    /// SHA-256 of the key's SPKI.
    key: Digest,
    algorithm: &'static str,
    /// The file with the signature.
    bundle: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let signer = passphrase::signer(&args.key, output)?;
    let bytes =
        std::fs::read(&args.file).map_err(|error| Failure::io("cannot read", &args.file, error))?;
    let signature = signer
        .sign(&bytes, &SystemRandom::new())
        .map_err(|error| Failure::internal(error.to_string()))?;
    let digest = Digest::of(&bytes);
    let key = signer.public_key();
    let bundle = statement::blob_bundle(&key.hint(), digest, &signature);
    files::replace(&args.bundle, &bundle)?;
    let done = Done {
        digest,
        key: key.id(),
        algorithm: key.algorithm().name(),
        bundle: args.bundle.clone(),
    };
    output.result(&done, || {
        format!(
            "{}\n  signed    {}\n  by        {} ({})\n",
            done.bundle.display(),
            done.digest,
            done.key,
            done.algorithm
        )
    });
    Ok(())
}
