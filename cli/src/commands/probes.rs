//! `bpfseal probes`.

use policy::{
    language::TrustedKey,
    probes::{Probes, SignedProbes},
};
use serde::Serialize;

use super::signed_list::{ListArgs, refused};
use crate::{Failure, Output};

/// Sign a list of probe programs, by which loaders ask a kernel what it can do, for hosts.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal probes probes.toml --key tools.key -o probes.json

The list holds the programs' instructions, as events of their refusal show them, and replaces the
one before it: raise `version`. docs/operations.md has an example. A host whose policy names the
key in `[probes]` takes it by `bpfseal-enforcer probes probes.json`.")]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Serialize)]
struct Signed {
    file: String,
    digest: String,
    version: u64,
    probes: usize,
    key: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let (file, key) = args.list.seal::<Probes>(output)?;
    // What we hand out is what a host will accept.
    let trusted = TrustedKey {
        name: key.id().to_string(),
        line: 0,
        file: None,
        key,
    };
    let verified = SignedProbes::verify(&file, [&trusted]).map_err(refused)?;
    let signed = Signed {
        file: args.list.write(&file)?,
        digest: verified.digest().to_string(),
        version: verified.list().version,
        probes: verified.list().probes.len(),
        key: verified.signer().to_owned(),
    };
    output.result(&signed, || {
        format!(
            "{}: signed version {}, {} probe programs\nkey {}",
            signed.file, signed.version, signed.probes, signed.key
        )
    });
    Ok(())
}
