//! Where passphrases come from: a file, the environment, a terminal; never an argument,
//! which every process could read.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use policy::signer::{BadPrivateKey, Protection, Signer};
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use crate::{Failure, Output, files, foreign, signing::Elsewhere};

/// The key that signs.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// Private key: PKCS#8 as PEM, encrypted or not; cosign's encrypted key; env://NAME;
    /// plugin:PROGRAM#KEY; pkcs11:URI.
    #[arg(long, value_name = "KEY")]
    pub key: PathBuf,
    /// Read the key's passphrase from the first line of FILE; else BPFSEAL_PASSPHRASE, else
    /// you are asked.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Say how the key is protected.
    #[arg(long, short)]
    pub verbose: bool,
}

/// A passphrase from a file or the environment.
pub fn given(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, Failure> {
    let passphrase = match file {
        Some(path) => {
            let bytes = Zeroizing::new(files::read_small(path, "cannot read the passphrase from")?);
            let text = std::str::from_utf8(&bytes).map_err(|_| {
                Failure::usage(format!("the passphrase in {} is not UTF-8", path.display()))
            })?;
            let line = text.lines().next().unwrap_or_default();
            Some(Zeroizing::new(line.to_owned()))
        }
        None => std::env::var(VARIABLE).ok().map(Zeroizing::new),
    };
    match passphrase {
        Some(passphrase) if passphrase.is_empty() => Err(Failure::usage("the passphrase is empty")
            .with_remedy("Give one, or make a key without: `bpfseal keygen --no-passphrase`.")),
        other => Ok(other),
    }
}

/// Asks at the terminal.
pub fn asked(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() && std::fs::File::open("/dev/tty").is_err() {
        return Err(
            Failure::usage("a passphrase is needed, and there is no terminal to ask at")
                .with_remedy(format!("Set {VARIABLE}, or give --passphrase-file.")),
        );
    }
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::usage(format!("cannot ask for the passphrase: {error}")))
}

/// Reads the private key.
pub fn signer(args: &KeyArgs, output: &Output) -> Result<Signer, Failure> {
    let path = &args.key;
    let file = match Elsewhere::of(&path.to_string_lossy())? {
        Some(Elsewhere::Plugin(signer)) => return Ok(*signer),
        Some(Elsewhere::Token(token)) => {
            let file = args.passphrase_file.as_deref();
            return token.signer(|| match given(file)? {
                Some(pin) => Ok(pin),
                None => asked("PIN of the token: "),
            });
        }
        Some(Elsewhere::Pem(pem)) => pem,
        None => Zeroizing::new(files::read_small(path, "cannot read the key")?),
    };
    if let Some(tool) = foreign::key_of(&file) {
        return Err(bad_key(
            path,
            &BadPrivateKey::Malformed(format!("it is a key of {tool}")),
        ));
    }
    let mut failure = None;
    let mut passphrase = || {
        let answer = match given(args.passphrase_file.as_deref()) {
            Ok(Some(passphrase)) => Ok(passphrase),
            Ok(None) => asked(&format!("Passphrase for {}: ", path.display())),
            Err(error) => Err(error),
        };
        answer.map_err(|error| {
            failure = Some(error);
            BadPrivateKey::NoPassphrase(String::new())
        })
    };
    let read = Signer::from_pem(&file, &mut passphrase, &SystemRandom::new());
    let (signer, protection) = read.map_err(|error| match failure {
        Some(failure) => failure,
        None => bad_key(path, &error),
    })?;
    if args.verbose {
        output.note(&format!("{}: {}", path.display(), describe(&protection)));
    }
    Ok(signer)
}

/// How a key file is protected, in words.
pub fn describe(protection: &Protection) -> String {
    match protection {
        Protection::None => "not encrypted".to_owned(),
        Protection::Passphrase(derivation) => {
            format!("encrypted with a passphrase, derived by {derivation}")
        }
    }
}

fn bad_key(path: &Path, error: &BadPrivateKey) -> Failure {
    let message = format!("{}: {error}", path.display());
    Failure {
        exit: crate::failure::Exit::Usage,
        ..Failure::refused(policy::Reason::BadKey, message)
    }
    .with_remedy(match error {
        BadPrivateKey::WrongPassphrase => "Check the passphrase.",
        _ => "`bpfseal keygen` makes a key.",
    })
}

/// Holds the passphrase in pipelines.
pub const VARIABLE: &str = "BPFSEAL_PASSPHRASE";
