//! `bpfseal verify-blob`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use bundle::Digest;
use policy::{
    Reason, Refusal,
    key::PublicKey,
    sigstore::{self, Identity, Proof, Subject, TrustRoot},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{Failure, Output, failure::Exit, files, foreign, trust};

/// Check the signature of any file, offline.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal verify-blob --bundle tool.sigstore.json --key release.pub tool
  bpfseal verify-blob --bundle tool.sigstore.json \\
      --certificate-identity https://github.com/acme/tool/.github/workflows/release.yml@refs/tags/v1 \\
      --certificate-oidc-issuer https://token.actions.githubusercontent.com tool
  bpfseal verify-blob --bundle b.json --key k.pub sha256:9f86d081884c7d659a2feaa0c55ad015…

Nothing is looked up anywhere. Without --trusted-root or --trust, the public-good instance's
root decides: the stored one, or that of this program if it is newer (`bpfseal trust show`).
If the bundle holds in-toto attestations, the file is one of their subjects.")]
#[command(group = clap::ArgGroup::new("who").required(true).multiple(true))]
pub struct Args {
    /// The signature: a Sigstore bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Who must have signed: the e-mail address or URI in the certificate.
    #[arg(
        long,
        value_name = "IDENTITY",
        group = "who",
        requires = "certificate_oidc_issuer"
    )]
    certificate_identity: Option<String>,
    /// Who must have vouched for that identity.
    #[arg(
        long,
        value_name = "URL",
        group = "who",
        requires = "certificate_identity"
    )]
    certificate_oidc_issuer: Option<String>,
    /// Which public key must have signed.
    #[arg(long, value_name = "PEM", group = "who", conflicts_with_all = ["certificate_identity", "certificate_oidc_issuer"])]
    key: Option<PathBuf>,
    #[command(flatten)]
    root: trust::RootArgs,
    /// The file, or its digest.
    #[arg(value_name = "FILE|sha256:HEX")]
    subject: String,
}

/// What was verified, as `--json` shows it.
#[derive(Serialize)]
struct Done {
    verified: bool,
    subject: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Digest>,
    #[serde(flatten)]
    proof: Proof,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let json = files::read_bundle(&args.bundle)?;
    foreign::refuse(&json, &args.bundle)?;
    let parsed = sigstore::parse(&json).map_err(|refusal| at(&args.bundle, &refusal))?;
    let expected = Expected::of(args)?;
    let blob = Blob::read(&args.subject)?;
    // The root has the largest part in the time that this takes, and a key needs none.
    let root = match sigstore::needs_root(&parsed) {
        true => Some(args.root.root()?),
        false => None,
    };
    let proof = match &expected {
        Expected::Key(key) => sigstore::prove_key(&parsed, blob.subject(), key, root.as_deref()),
        Expected::Identity(identity) => prove_identity(&parsed, &blob, identity, root.as_deref()),
    }
    .map_err(|refusal| Failure::refused(refusal.reason, refusal.to_string()))?;
    let done = Done {
        verified: true,
        subject: blob.digest(),
        key: match &expected {
            Expected::Key(key) => Some(key.id()),
            Expected::Identity(_) => None,
        },
        proof,
    };
    output.result(&done, || done.describe(&args.subject));
    Ok(())
}

fn prove_identity(
    parsed: &sigstore::Bundle,
    blob: &Blob,
    want: &Identity,
    root: Option<&TrustRoot>,
) -> Result<Proof, Refusal> {
    let Some(root) = root.filter(|_| sigstore::is_keyless(parsed)) else {
        return Err(Refusal::new(
            Reason::WrongIdentity,
            "a key signed it, and no certificate says whose",
        ));
    };
    let proof = sigstore::prove_identity(parsed, blob.subject(), root)?;
    match &proof.identity {
        Some(got) if got == want => Ok(proof),
        got => Err(Refusal::new(
            Reason::WrongIdentity,
            format!(
                "want {want}; got {}",
                got.as_ref()
                    .map_or_else(|| "none".to_owned(), ToString::to_string)
            ),
        )),
    }
}

/// Who must have signed.
enum Expected {
    Key(PublicKey),
    Identity(Identity),
}

impl Expected {
    fn of(args: &Args) -> Result<Self, Failure> {
        match (
            &args.key,
            &args.certificate_identity,
            &args.certificate_oidc_issuer,
        ) {
            // The key is input like the bundle: whatever is wrong with it, nothing is verified.
            (Some(path), ..) => match trust::public_key(path) {
                Ok(key) => Ok(Self::Key(key)),
                Err(failure) if failure.reason.is_some() => Err(Failure {
                    exit: Exit::Refused,
                    ..failure
                }),
                Err(failure) => Err(failure),
            },
            (None, Some(identity), Some(issuer)) => Ok(Self::Identity(Identity {
                identity: identity.clone(),
                issuer: issuer.clone(),
            })),
            _ => Err(Failure::usage(
                "give `--key`, or `--certificate-identity` and `--certificate-oidc-issuer`",
            )),
        }
    }
}

/// What the signature has to be about.
enum Blob {
    Bytes(Vec<u8>),
    Digest(Digest),
}

impl Blob {
    /// `sha256:` and 64 digits are a digest unless there is a file of that name.
    fn read(text: &str) -> Result<Self, Failure> {
        let path = Path::new(text);
        if let Ok(digest) = text.parse::<Digest>()
            && fs::symlink_metadata(path).is_err()
        {
            return Ok(Self::Digest(digest));
        }
        let failed = |error| Failure::io("cannot read", path, error);
        let file = fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::usage(format!("{text} is a folder")));
        }
        if metadata.len() > LARGEST_IN_MEMORY {
            return digest(file).map(Self::Digest).map_err(failed);
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.take(LARGEST_IN_MEMORY)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Self::Bytes(bytes))
    }

    fn subject(&self) -> Subject<'_> {
        match self {
            Self::Bytes(bytes) => Subject::Bytes(bytes),
            Self::Digest(digest) => Subject::Digest(*digest),
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => Digest::of(bytes),
            Self::Digest(digest) => *digest,
        }
    }
}

impl Done {
    fn describe(&self, subject: &str) -> String {
        let mut text = format!("verified {subject}\n  digest    {}\n", self.subject);
        if let Some(key) = self.key {
            text += &format!("  signed by {key}\n");
        }
        text += &trust::describe(&self.proof);
        crate::output::printable_lines(&text)
    }
}

fn digest(mut file: fs::File) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn at(path: &Path, refusal: &Refusal) -> Failure {
    Failure::refused(refusal.reason, format!("{}: {refusal}", path.display()))
}

/// Larger files are hashed as they are read, which suits every algorithm but Ed25519.
const LARGEST_IN_MEMORY: u64 = 256 << 20;
