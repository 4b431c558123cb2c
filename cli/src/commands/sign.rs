//! `bpfseal sign`.

use std::path::{Path, PathBuf};

use bundle::{Layout, UnverifiedBundle, manifest::Descriptor};
use policy::{
    signature::{self, Attached},
    signer::Signer,
    statement,
    verify::reason_of,
};
use ring::rand::SystemRandom;
use serde::Serialize;

use crate::{
    Failure, Output, epoch, files,
    registry::Connection,
    signing::{self, Seal, SignArgs, Who},
    source::{Opened, Source},
};

/// Sign a bundle, in a file or in a registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal sign xdp.tar --key release.key
  bpfseal sign registry.example.com/net/xdp:v1 --key release.key
  bpfseal sign registry.example.com/net/xdp:v1 --key hsm.pem --certificate chain.pem
  bpfseal sign registry.example.com/net/xdp:v1            # in CI: keyless

The signature is a Sigstore bundle, attached as cosign 3 does it: `cosign verify --key`
accepts it. The bundle's digest stays as it is; a tag is resolved once.")]
pub struct Args {
    /// A bundle file, or a reference: host[:port]/repository[:tag][@digest].
    #[arg(value_name = "BUNDLE|REFERENCE")]
    bundle: String,
    #[command(flatten)]
    by: SignArgs,
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
    /// What an attestation says; none: a signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicate_type: Option<String>,
    /// Who signed.
    #[serde(flatten)]
    by: Who,
    /// File or repository that holds it now.
    stored: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let opened = Source::parse(&args.bundle)?.open(&args.connection, output)?;
    let done = store(opened, args.output.as_deref(), |bundle| {
        let seal = Seal::ready(&args.by, output)?;
        let subject = bundle.descriptor();
        let sealed = seal.statement(&statement::signed(subject.digest), subject.digest)?;
        let created = epoch::created()?;
        let attached = signature::attached(
            subject,
            sealed.bundle,
            bundle::media::SIGN_PREDICATE,
            created.as_deref(),
        );
        Ok((attached, sealed.by, None))
    })?;
    output.result(&done, || done.describe());
    Ok(())
}

/// What `make` returns: what to attach, who made it, the type of its predicate.
pub type Made = (Attached, Who, Option<String>);

/// Opens a bundle, has something made about it, and stores that beside it.
pub fn store(
    opened: Opened,
    to: Option<&Path>,
    make: impl FnOnce(&UnverifiedBundle) -> Result<Made, Failure>,
) -> Result<Done, Failure> {
    match opened {
        Opened::File { path, .. } => Err(no_bundle(&path)),
        Opened::Layout { path, mut layout } => {
            let bundle = checked(&layout)?;
            let (attached, by, predicate) = make(&bundle)?;
            put(&mut layout, &attached)?;
            let to = destination(to, &path)?;
            files::write_layout(&layout, &to)?;
            let stored = to.display().to_string();
            Ok(Done::of(&bundle, &attached, by, predicate, stored))
        }
        Opened::Remote(remote) => {
            if to.is_some() {
                return Err(Failure::usage(
                    "`-o` is for files; a reference is signed where it is",
                ));
            }
            let bundle = checked(&remote.layout)?;
            let (attached, by, predicate) = make(&bundle)?;
            let repository = &remote.reference.repository;
            let blobs: Vec<&[u8]> = attached.blobs.iter().map(Vec::as_slice).collect();
            remote
                .client
                .attach(repository, &attached.manifest, &blobs)?;
            let stored = repository.to_string();
            Ok(Done::of(&bundle, &attached, by, predicate, stored))
        }
    }
}

/// The layout's bundle, if its inventory is what its objects say: nobody should vouch for
/// a description that is not true.
fn checked(layout: &Layout) -> Result<UnverifiedBundle, Failure> {
    let bundle = layout
        .bundle()
        .and_then(|mut bundle| bundle.check_inventory().map(|()| bundle));
    bundle.map_err(|error| Failure::refused(reason_of(&error), error.to_string()))
}

/// Signs `subject` with a key and puts the signature beside it.
pub fn attach(
    layout: &mut Layout,
    subject: &Descriptor,
    signer: &Signer,
) -> Result<Attached, Failure> {
    let created = epoch::created()?;
    let attached = signature::sign(subject, signer, created.as_deref(), &SystemRandom::new())
        .map_err(|error| signing::signing_failure(&error))?;
    put(layout, &attached)?;
    Ok(attached)
}

fn put(layout: &mut Layout, attached: &Attached) -> Result<(), Failure> {
    for blob in &attached.blobs {
        layout.add_blob(blob.clone());
    }
    layout
        .add_manifest(attached.manifest.clone(), None)
        .map(drop)
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
        by: Who,
        predicate_type: Option<String>,
        stored: String,
    ) -> Self {
        Self {
            digest: bundle.digest().to_string(),
            signature: bundle::Digest::of(&attached.manifest).to_string(),
            predicate_type,
            by,
            stored,
        }
    }

    /// The same for people.
    pub fn describe(&self) -> String {
        let said = match &self.predicate_type {
            None => format!("  signed    {}\n", self.digest),
            Some(predicate) => format!("  about     {}\n  says      {predicate}\n", self.digest),
        };
        let text = format!(
            "{}\n{said}  by        {}\n  signature {}\n",
            self.stored, self.by, self.signature
        );
        crate::output::printable_lines(&text)
    }
}

/// The key that signed.
pub fn by_key(signer: &Signer) -> Who {
    Who {
        key: Some(signer.public_key().id()),
        identity: None,
        algorithm: signer.public_key().algorithm().name(),
    }
}
