//! `bpfseal keygen`.

use std::path::{Path, PathBuf};

use policy::{
    key::Algorithm,
    signer::{self, Derivation},
};
use ring::rand::SystemRandom;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{Failure, Output, files, passphrase};

/// Make a key pair: NAME.key, encrypted and for your eyes only, and NAME.pub.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal keygen -o release
  BPFSEAL_PASSPHRASE=… bpfseal keygen -o ci --algorithm ed25519

The private key is PKCS#8 (openssl and cosign import-key-pair read it). With Ed25519
the same bundle gets the same signature each time.")]
pub struct Args {
    /// Name of the files, without `.key` and `.pub`.
    #[arg(short, long, value_name = "NAME", default_value = "bpfseal")]
    output: PathBuf,
    /// Kind of key.
    #[arg(long, value_enum, default_value = "ecdsa-p256")]
    algorithm: Choice,
    /// Leave the private key unencrypted: whoever reads the file can sign.
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    /// Read the passphrase from the first line of FILE; else BPFSEAL_PASSPHRASE, else you
    /// are asked.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    /// ECDSA on NIST P-256: every tool reads it.
    EcdsaP256,
    /// Ed25519: reproducible signatures.
    Ed25519,
}

#[derive(Serialize)]
struct Done<'a> {
    private: &'a Path,
    public: &'a Path,
    algorithm: &'static str,
    /// SHA-256 of the SPKI.
    id: String,
    /// How a passphrase becomes the key that encrypts it.
    derivation: Option<String>,
    public_pem: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let name = stem(&args.output);
    let (private, public) = (with_suffix(&name, ".key"), with_suffix(&name, ".pub"));
    for path in [&private, &public] {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(files::already_there(path));
        }
    }
    let algorithm = match args.algorithm {
        Choice::EcdsaP256 => Algorithm::EcdsaP256,
        Choice::Ed25519 => Algorithm::Ed25519,
    };
    let passphrase = new_passphrase(args)?;
    let made = signer::generate(
        algorithm,
        passphrase.as_ref().map(|passphrase| passphrase.as_str()),
        &SystemRandom::new(),
    )
    .map_err(|error| Failure::internal(error.to_string()))?;
    files::create_new(&private, 0o600, made.private.as_bytes())?;
    files::create_new(&public, 0o644, made.public.to_pem().as_bytes())?;
    let done = Done {
        private: &private,
        public: &public,
        algorithm: algorithm.name(),
        id: made.public.id().to_string(),
        derivation: passphrase.map(|_| Derivation::DEFAULT.to_string()),
        public_pem: made.public.to_pem(),
    };
    output.result(&done, || describe(&done));
    Ok(())
}

fn describe(done: &Done<'_>) -> String {
    let protection = match &done.derivation {
        Some(derivation) => format!("encrypted: PBES2, {derivation}, AES-256-CBC"),
        None => "NOT encrypted: whoever reads it can sign".to_owned(),
    };
    format!(
        "{}\n  private   {} ({protection})\n  public    {} (give it to those who verify)\n  id        {}\n",
        done.algorithm,
        done.private.display(),
        done.public.display(),
        done.id,
    )
}

fn new_passphrase(args: &Args) -> Result<Option<Zeroizing<String>>, Failure> {
    if args.no_passphrase {
        return Ok(None);
    }
    if let Some(passphrase) = passphrase::given(args.passphrase_file.as_deref())? {
        return Ok(Some(passphrase));
    }
    let first = passphrase::asked("New passphrase: ")?;
    if first.is_empty() {
        return Err(Failure::usage("the passphrase is empty")
            .with_remedy("Give one, or say `--no-passphrase`."));
    }
    if *passphrase::asked("The same again: ")? != *first {
        return Err(Failure::usage("the two passphrases differ"));
    }
    Ok(Some(first))
}

/// `release.key` and `release` both mean `release`.
fn stem(path: &Path) -> PathBuf {
    match path.extension() {
        Some(extension) if extension == "key" || extension == "pub" => path.with_extension(""),
        _ => path.to_owned(),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
