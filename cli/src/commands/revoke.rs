//! `bpfseal revoke`.

use policy::revocation::{Revocations, SignedRevocations};
use serde::Serialize;

use super::signed_list::{ListArgs, refused};
use crate::{Failure, Output};

/// Sign a revocation list with the authority's key, for hosts.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal revoke revoked.toml --key authority.key -o revoked.json

The list names bundles, objects, programs, keys, identities or packages with versions, and
replaces the one before it: raise `version`, keep what stays revoked. docs/operations.md has
an example. A host takes it by `bpfseal-enforcer revoke revoked.json`.")]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
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
    let (file, authority) = args.list.seal::<Revocations>(output)?;
    // What we hand out is what a host will accept.
    let verified = SignedRevocations::verify(&file, &authority).map_err(refused)?;
    let signed = Signed {
        file: args.list.write(&file)?,
        digest: verified.digest().to_string(),
        version: verified.list().version,
        entries: verified.list().entries.len(),
        authority: verified.signer().to_owned(),
    };
    output.result(&signed, || {
        format!(
            "{}: signed version {}, {} entries\nauthority {}",
            signed.file, signed.version, signed.entries, signed.authority
        )
    });
    Ok(())
}
