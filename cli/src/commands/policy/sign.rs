//! `bpfseal policy sign`.

use std::path::{Path, PathBuf};

use policy::document::{Statement, VerifiedPolicy};
use ring::rand::SystemRandom;
use serde::Serialize;

use crate::{
    Failure, Output,
    passphrase::{self, KeyArgs},
    policy_file,
};

/// Sign a policy with the authority's key, for hosts.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bpfseal policy sign policy.toml --key authority.key

The signature covers the file's exact bytes and the contents of every key file that it
names, so a host needs only the policy and its signature.")]
pub struct Args {
    /// The policy file; it must say its version.
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Where to write the signature; default: the policy's name with `.sig`.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Signed {
    file: String,
    signature: String,
    digest: String,
    version: u64,
    authority: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let text = policy_file::read_text(&args.file)?;
    policy_file::parse(&text, &args.file)
        .map_err(|error| policy_file::failure(&args.file, &error))?;
    let load_key = |name: &str| policy_file::load_key(&args.file, name);
    let refused = |refusal: policy::Refusal| Failure::refused(refusal.reason, refusal.to_string());
    let statement = Statement::about(&text, &load_key).map_err(refused)?;
    let signer = passphrase::signer(&args.key, output)?;
    let authority = signer.public_key();
    let signature = statement
        .seal(authority, |message| {
            signer.sign(message, &SystemRandom::new())
        })
        .map_err(|error| Failure::internal(format!("cannot sign: {error}")))?;
    // What we hand out is what a host will accept.
    let verified = VerifiedPolicy::verify(&text, &signature, authority).map_err(refused)?;
    let path = args.output.clone().unwrap_or_else(|| beside(&args.file));
    std::fs::write(&path, &signature)
        .map_err(|error| Failure::io("cannot write the signature", &path, error))?;
    let signed = Signed {
        file: args.file.display().to_string(),
        signature: path.display().to_string(),
        digest: verified.digest().to_string(),
        version: verified.version(),
        authority: verified.authority().to_string(),
    };
    output.result(&signed, || {
        format!(
            "{}: signed version {} ({})\nauthority {}",
            signed.signature, signed.version, signed.digest, signed.authority
        )
    });
    Ok(())
}

/// `policy.toml.sig` for `policy.toml`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}
