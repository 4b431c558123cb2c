//! What is believed: trusted roots and public keys that are named on a command line.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use policy::{
    Refusal,
    key::{BadKey, PublicKey},
    sigstore::{EMBEDDED_SINCE, Proof, SigningConfig, TrustRoot},
};

use crate::{Failure, failure::Exit, files};

pub mod refresh;
pub mod store;

use store::{Instance, PUBLIC_GOOD, Store};

/// Which trusted root decides about keyless signatures.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct RootArgs {
    /// Believe this `trusted_root.json` instead of the public-good instance's.
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// Believe the instance that is stored under this name, see `bpfseal trust`.
    #[arg(long = "trust", value_name = "NAME", conflicts_with = "trusted_root")]
    pub trust_name: Option<String>,
}

impl RootArgs {
    /// Is one given?
    pub const fn is_given(&self) -> bool {
        self.trusted_root.is_some() || self.trust_name.is_some()
    }

    /// The root itself. What is stored is used as it is: nothing is fetched.
    pub fn root(&self) -> Result<Arc<TrustRoot>, Failure> {
        let place = self.place()?;
        let failed =
            |refusal: Refusal| Failure::refused(refusal.reason, format!("{place}: {refusal}"));
        match &place {
            Place::Embedded => TrustRoot::embedded().map_err(failed),
            _ => TrustRoot::from_json(place.json()?.as_bytes())
                .map(Arc::new)
                .map_err(failed),
        }
    }

    /// The services that sign for it; `None`: only a trusted root is given.
    pub fn signing_config(&self) -> Result<Option<SigningConfig>, Failure> {
        let place = self.place()?;
        let failed =
            |refusal: Refusal| Failure::usage(format!("{place}: the signing config: {refusal}"));
        match &place {
            Place::Embedded => SigningConfig::embedded().map(Some).map_err(failed),
            Place::File(_) => Ok(None),
            Place::Stored(_, instance) => match &instance.signing_config {
                Some(json) => SigningConfig::from_json(json.as_bytes())
                    .map(Some)
                    .map_err(failed),
                None => Ok(None),
            },
        }
    }

    /// Where the root is.
    pub fn place(&self) -> Result<Place, Failure> {
        match (&self.trusted_root, &self.trust_name) {
            (Some(path), _) => Ok(Place::File(path.clone())),
            (None, Some(name)) => Place::named(name),
            (None, None) => Place::named(PUBLIC_GOOD),
        }
    }
}

/// Where a trusted root is.
pub enum Place {
    /// In this program.
    Embedded,
    /// In a file.
    File(PathBuf),
    /// In the user's store.
    Stored(String, Box<Instance>),
}

impl Place {
    /// The instance of that name; the public-good one may be stored or not, and what is
    /// stored counts only if it is newer than this program.
    fn named(name: &str) -> Result<Self, Failure> {
        let stored = match Store::of_user() {
            Some(store) => store.find(name)?,
            None => None,
        };
        let is_public = name == PUBLIC_GOOD;
        match stored {
            Some(stored) if !is_public || is_newer(&stored) => {
                Ok(Self::Stored(name.to_owned(), Box::new(stored)))
            }
            _ if is_public => Ok(Self::Embedded),
            _ => Err(store::unknown(name)),
        }
    }

    /// The `trusted_root.json`.
    pub fn json(&self) -> Result<String, Failure> {
        match self {
            Self::Embedded => Ok(TrustRoot::embedded_json().to_owned()),
            Self::Stored(_, instance) => Ok(instance.trusted_root.clone()),
            Self::File(path) => String::from_utf8(files::read_bundle(path)?).map_err(|_| {
                Failure::refused(
                    policy::Reason::BadTrustRoot,
                    format!("{}: it is not UTF-8", path.display()),
                )
            }),
        }
    }
}

/// For messages.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded => f.write_str("the embedded root"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stored(name, _) => write!(f, "the stored root {name:?}"),
        }
    }
}

fn is_newer(stored: &Instance) -> bool {
    stored.fetched.to_string().as_str() >= EMBEDDED_SINCE
}

/// A public key file. A weak key is refused as a check would refuse it; any other fault is
/// a wrong argument.
pub fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let pem = files::read_small(path, "cannot read the key")?;
    PublicKey::from_pem(&pem).map_err(|error| unusable(path, &error))
}

/// What a person is told about a public key that cannot be used.
pub fn unusable(path: &Path, error: &BadKey) -> Failure {
    let failure = Failure::refused(error.reason(), format!("{}: {error}", path.display()));
    match error {
        BadKey::Weak(_) => failure,
        BadKey::Malformed(_) | BadKey::Unsupported(_) => Failure {
            exit: Exit::Usage,
            ..failure
        },
    }
}

/// What a proof says, in lines for people.
pub fn describe(proof: &Proof) -> String {
    let mut text = String::new();
    if let Some(identity) = &proof.identity {
        text += &format!("  signed by {}\n", identity.identity);
        text += &format!("  issuer    {}\n", identity.issuer);
    }
    for time in &proof.times {
        text += &format!("  time      {time}\n");
    }
    if proof.logged {
        text += "  log       inclusion proved\n";
    }
    if let Some(root) = &proof.trusted_root {
        text += &format!("  root      {root}\n");
    }
    text
}
