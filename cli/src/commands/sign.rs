//! `bpfseal sign`.

use std::path::{Path, PathBuf};

use bundle::{Layout, UnverifiedBundle, manifest::Descriptor};
use policy::{
    key::Algorithm,
    signature::{self, Attached},
    signer::Signer,
    verify::reason_of,
};
use ring::rand::SystemRandom;
use serde::Serialize;

use crate::{
    Failure, Output, epoch, files,
    passphrase::{self, KeyArgs},
    registry::Connection,
    source::{Opened, Source},
};

/// Sign a bundle, in a file or in a registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal sign xdp.tar --key release.key
  bpfseal sign registry.example.com/net/xdp:v1 --key release.key

The signature is a Sigstore bundle, attached as cosign 3 does it: `cosign verify --key`
accepts it. The bundle's digest stays as it is; a tag is resolved once.")]
pub struct Args {
    /// A bundle file, or a reference: host[:port]/repository[:tag][@digest].
    #[arg(value_name = "BUNDLE|REFERENCE")]
    bundle: String,
    #[command(flatten)]
    key: KeyArgs,
    /// Write the signed bundle here instead of into the same file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// A signature just made, as `--json` shows it.
#[derive(Serialize)]
pub struct Done {
    /// What was signed.
    digest: String,
    /// The signature's manifest.
    signature: String,
    /// SHA-256 of the key's SPKI.
    key: String,
    algorithm: &'static str,
    /// File or repository that holds it now.
    stored: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let opened = Source::parse(&args.bundle)?.open(&args.connection, output)?;
    let done = match opened {
        Opened::File { path, .. } => return Err(no_bundle(&path)),
        Opened::Layout { path, mut layout } => {
            let bundle = checked(&layout)?;
            let signer = passphrase::signer(&args.key, output)?;
            let attached = attach(&mut layout, bundle.descriptor(), &signer)?;
            let to = destination(args.output.as_deref(), &path)?;
            files::write_layout(&layout, &to)?;
            Done::of(&bundle, &attached, &signer, to.display().to_string())
        }
        Opened::Remote(remote) => {
            if args.output.is_some() {
                return Err(Failure::usage(
                    "`-o` is for files; a reference is signed where it is",
                ));
            }
            let bundle = checked(&remote.layout)?;
            let signer = passphrase::signer(&args.key, output)?;
            let attached = sign(bundle.descriptor(), &signer)?;
            let repository = &remote.reference.repository;
            let blobs: Vec<&[u8]> = attached.blobs.iter().map(Vec::as_slice).collect();
            remote
                .client
                .attach(repository, &attached.manifest, &blobs)?;
            Done::of(&bundle, &attached, &signer, repository.to_string())
        }
    };
    if done.algorithm == Algorithm::EcdsaP384.name() {
        output.note(
            "note: cosign checks signatures by P-384 keys with SHA-256 and does not accept this one",
        );
    }
    output.result(&done, || done.describe());
    Ok(())
}

/// The layout's bundle, if its inventory is what its objects say: nobody should vouch for
/// a description that is not true.
fn checked(layout: &Layout) -> Result<UnverifiedBundle, Failure> {
    let bundle = layout
        .bundle()
        .and_then(|mut bundle| bundle.check_inventory().map(|()| bundle));
    bundle.map_err(|error| Failure::refused(reason_of(&error), error.to_string()))
}

/// Signs `subject` and puts the signature beside it.
pub fn attach(
    layout: &mut Layout,
    subject: &Descriptor,
    signer: &Signer,
) -> Result<Attached, Failure> {
    let attached = sign(subject, signer)?;
    for blob in &attached.blobs {
        layout.add_blob(blob.clone());
    }
    layout
        .add_manifest(attached.manifest.clone(), None)
        .map_err(|error| Failure::internal(error.to_string()))?;
    Ok(attached)
}

fn sign(subject: &Descriptor, signer: &Signer) -> Result<Attached, Failure> {
    signature::sign(
        subject,
        signer,
        epoch::created()?.as_deref(),
        &SystemRandom::new(),
    )
    .map_err(|error| Failure::internal(error.to_string()))
}

fn destination(given: Option<&Path>, opened: &Path) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None if opened.is_dir() => Err(Failure::usage(format!("{} is a folder", opened.display()))
            .with_remedy("Give `-o FILE` for the signed bundle.")),
        None => Ok(opened.to_owned()),
    }
}

fn no_bundle(path: &Path) -> Failure {
    Failure::refused(
        policy::Reason::NotABundle,
        format!("{} is no bundle", path.display()),
    )
    .with_remedy("Pack it first: `bpfseal pack`; `bpfseal enroll` packs and signs in one step.")
}

impl Done {
    /// Says what was signed by whom.
    pub fn of(
        bundle: &UnverifiedBundle,
        attached: &Attached,
        signer: &Signer,
        stored: String,
    ) -> Self {
        Self {
            digest: bundle.digest().to_string(),
            signature: bundle::Digest::of(&attached.manifest).to_string(),
            key: signer.public_key().id().to_string(),
            algorithm: signer.public_key().algorithm().name(),
            stored,
        }
    }

    /// The same for people.
    pub fn describe(&self) -> String {
        format!(
            "{}\n  signed    {}\n  by        {} ({})\n  signature {}\n",
            self.stored, self.digest, self.key, self.algorithm, self.signature
        )
    }
}
