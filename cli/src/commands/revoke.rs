//! `bpfseal revoke`.

use std::{fs, path::PathBuf};

use policy::revocation::SignedRevocations;
use ring::rand::SystemRandom;
use serde::Serialize;

use crate::{
    Failure, Output,
    passphrase::{self, KeyArgs},
    policy_file,
};

/// Sign a revocation list with the authority's key, for hosts.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal revoke revoked.toml --key authority.key -o revoked.json

The list names bundles, objects, programs, keys, identities or packages with versions, and
replaces the one before it: raise `version`, keep what stays revoked. docs/operations.md has
an example. A host takes it by `bpfseal-enforcer revoke revoked.json`.")]
pub struct Args {
    /// The list.
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Where to write the signed list; default: the list's name with `.json`.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Signed {
    file: String,
    digest: String,
    version: u64,
    entries: usize,
    authority: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let text = policy_file::read_text(&args.file)?;
    let refused = |refusal: policy::Refusal| Failure::refused(refusal.reason, refusal.to_string());
    let signer = passphrase::signer(&args.key, output)?;
    let authority = signer.public_key();
    let file = SignedRevocations::seal(&text, authority, |message| {
        signer.sign(message, &SystemRandom::new())
    })
    .map_err(|error| match error {
        Ok(refusal) => refused(refusal),
        Err(error) => Failure::internal(format!("cannot sign: {error}")),
    })?;
    // What we hand out is what a host will accept.
    let verified = SignedRevocations::verify(&file, authority).map_err(refused)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => args.file.with_extension("json"),
    };
    fs::write(&path, &file)
        .map_err(|error| Failure::io("cannot write the signed list", &path, error))?;
    let signed = Signed {
        file: path.display().to_string(),
        digest: verified.digest().to_string(),
        version: verified.list().version,
        entries: verified.list().entries.len(),
        authority: authority.id().to_string(),
    };
    output.result(&signed, || {
        format!(
            "{}: signed version {}, {} entries\nauthority {}",
            signed.file, signed.version, signed.entries, signed.authority
        )
    });
    Ok(())
}
