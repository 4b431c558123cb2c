//! What `revoke` and `probes` share: a list in a file, signed for hosts.

use std::{fs, path::PathBuf};

use policy::{
    Refusal,
    key::PublicKey,
    signed_list::{List, Signed},
};
use ring::rand::SystemRandom;

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
    /// Signs the list; the text of the file for hosts, and by which key.
    pub fn seal<L: List>(&self, output: &Output) -> Result<(String, PublicKey), Failure> {
        let text = policy_file::read_text(&self.file)?;
        let signer = passphrase::signer(&self.key, output)?;
        let key = signer.public_key().clone();
        let sign = |message: &[u8]| signer.sign(message, &SystemRandom::new());
        match Signed::<L>::seal(&text, &key, sign) {
            Ok(sealed) => Ok((sealed, key)),
            Err(Ok(refusal)) => Err(refused(refusal)),
            Err(Err(error)) => Err(Failure::internal(format!("cannot sign: {error}"))),
        }
    }

    /// Writes the signed list, and says where.
    pub fn write(&self, sealed: &str) -> Result<String, Failure> {
        let path = match &self.output {
            Some(path) => path.clone(),
            None => self.file.with_extension("json"),
        };
        fs::write(&path, sealed)
            .map_err(|error| Failure::io("cannot write the signed list", &path, error))?;
        Ok(path.display().to_string())
    }
}

pub fn refused(refusal: Refusal) -> Failure {
    Failure::refused(refusal.reason, refusal.to_string())
}
