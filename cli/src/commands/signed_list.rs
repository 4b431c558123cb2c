//! What `revoke` and `probes` share: a list in a file, signed for hosts.

use std::{fmt::Display, fs, path::PathBuf};

use policy::{Refusal, signer::Signer};

use crate::{
    Failure, Output,
    passphrase::{self, KeyArgs},
    policy_file,
};

/// The list, its signer, and where it goes.
#[derive(clap::Args)]
pub struct ListArgs {
    /// The list.
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Where to write the signed list; default: the list's name with `.json`.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ListArgs {
    /// The list's text, and who signs it.
    pub fn read(&self, output: &Output) -> Result<(String, Signer), Failure> {
        let text = policy_file::read_text(&self.file)?;
        Ok((text, passphrase::signer(&self.key, output)?))
    }

    /// Writes the signed list, and says where.
    pub fn write(&self, signed: &str) -> Result<String, Failure> {
        let path = match &self.output {
            Some(path) => path.clone(),
            None => self.file.with_extension("json"),
        };
        fs::write(&path, signed)
            .map_err(|error| Failure::io("cannot write the signed list", &path, error))?;
        Ok(path.display().to_string())
    }
}

pub fn refused(refusal: Refusal) -> Failure {
    Failure::refused(refusal.reason, refusal.to_string())
}

pub fn not_sealed<E: Display>(error: Result<Refusal, E>) -> Failure {
    match error {
        Ok(refusal) => refused(refusal),
        Err(error) => Failure::internal(format!("cannot sign: {error}")),
    }
}
