//! Who signs, and what a signature carries besides: a key in a file, in the environment or
//! in somebody else's hands; a certificate; or an identity for which Fulcio vouches.

use std::path::PathBuf;

use bundle::Digest;
use policy::{
    key::Algorithm,
    signer::{self, BadPrivateKey, Signer},
    sigstore::{self, Identity, SigningConfig, Subject},
    statement, x509,
};
use ring::rand::SystemRandom;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    Failure, Output, files,
    passphrase::{self, KeyArgs},
    trust,
};

mod ambient;
mod browser;
mod fulcio;
pub mod http;
pub mod pkcs11;
pub mod plugin;
mod rekor;
mod timestamp;
mod token;

use http::Http;

/// Who signs.
#[derive(clap::Args)]
#[command(next_help_heading = "Signing options")]
pub struct SignArgs {
    /// Private key: PKCS#8 as PEM, encrypted or not; cosign's encrypted key; env://NAME for a
    /// PEM text in the environment; plugin:PROGRAM#KEY for a key that a program signs with;
    /// pkcs11:URI for one in a token.
    #[arg(long, value_name = "KEY", conflicts_with = "identity_token")]
    key: Option<String>,
    /// Certificate of the key and those up to its root (PEM), the key's own first.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Have the signature time-stamped there (RFC 3161); can be repeated.
    #[arg(long, value_name = "URL", requires = "key")]
    timestamp_server: Vec<String>,
    /// Sign without a key, by this OIDC token (or the file that holds it). Without --key and
    /// this, the token of the CI system that runs here is asked for (GitHub, GitLab,
    /// Buildkite, Kubernetes), and at a terminal you log in with a browser.
    #[arg(long, value_name = "TOKEN")]
    identity_token: Option<String>,
    #[command(flatten)]
    login: browser::LoginArgs,
    #[command(flatten)]
    root: trust::RootArgs,
    /// Services that vouch for keyless signatures (`signing_config.json`), instead of the
    /// public-good instance's.
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
    /// Read the key's passphrase from the first line of FILE; else BPFSEAL_PASSPHRASE, else
    /// you are asked.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Say how the key is protected.
    #[arg(long, short)]
    verbose: bool,
}

/// A signer that is ready.
pub struct Seal {
    by: By,
    http: Http,
    stamps: Vec<String>,
    /// Against which root a keyless signature is checked before it is kept.
    check: Option<trust::RootArgs>,
}

enum By {
    Key(Signer),
    Identity(Box<fulcio::Certified>, SigningConfig),
}

/// A signature bundle, and who made it.
pub struct Sealed {
    /// The Sigstore bundle.
    pub bundle: Vec<u8>,
    /// Who signed.
    pub by: Who,
}

/// Who signed, as `--json` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Who {
    /// SHA-256 of the key's SPKI; a keyless signature's key is gone already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Whom the certificate names.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    /// By which kind of key.
    pub algorithm: &'static str,
}

/// For people: the key, or the identity.
impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.key, &self.identity) {
            (_, Some(identity)) => write!(f, "{identity}"),
            (Some(key), None) => write!(f, "{key} ({})", self.algorithm),
            (None, None) => f.write_str(self.algorithm),
        }
    }
}

impl Seal {
    /// Reads the key, or gets a certificate for the identity.
    pub fn ready(args: &SignArgs, output: &Output) -> Result<Self, Failure> {
        let http = Http::new();
        let Some(key) = &args.key else {
            return Self::keyless(args, http, output);
        };
        let key = KeyArgs {
            key: PathBuf::from(key),
            passphrase_file: args.passphrase_file.clone(),
            verbose: args.verbose,
        };
        let mut signer = passphrase::signer(&key, output)?;
        if let Some(path) = &args.certificate {
            signer = with_certificate(signer, path)?;
        }
        if signer.public_key().algorithm() == Algorithm::EcdsaP384 && args.certificate.is_none() {
            output.note(
                "note: cosign checks signatures by P-384 keys with SHA-256 and does not accept \
                 this one",
            );
        }
        Ok(Self {
            by: By::Key(signer),
            http,
            stamps: args.timestamp_server.clone(),
            check: None,
        })
    }

    fn keyless(args: &SignArgs, http: Http, output: &Output) -> Result<Self, Failure> {
        let config = match &args.signing_config {
            None => match args.root.signing_config()? {
                Some(config) => config,
                None if args.root.trusted_root.is_some() => trust::RootArgs::default()
                    .signing_config()?
                    .ok_or_else(no_config)?,
                None => return Err(no_config()),
            },
            Some(path) => {
                let json = files::read_bundle(path)?;
                SigningConfig::from_json(&json).map_err(|refusal| config_failure(path, &refusal))?
            }
        };
        let token = match &args.identity_token {
            Some(text) => token::given(text)?,
            None if args.login.is_wanted() => {
                browser::token(&http, &args.login, config.issuer(), output)?
            }
            None => match ambient::token(&http, output)? {
                Some(token) => token,
                None if browser::LoginArgs::is_possible() => {
                    browser::token(&http, &args.login, config.issuer(), output)?
                }
                None => return Err(ambient::nobody()),
            },
        };
        let fulcio = config.fulcio().ok_or_else(|| {
            Failure::usage("the signing config names no certificate authority that is in use")
        })?;
        let certified = fulcio::certify(&http, fulcio, &token)?;
        // The services are private if their config is: then only a given root knows them.
        let is_public = args.signing_config.is_none();
        Ok(Self {
            by: By::Identity(Box::new(certified), config),
            http,
            stamps: Vec::new(),
            check: (args.root.is_given() || is_public).then(|| args.root.clone()),
        })
    }

    /// Signs an in-toto statement about `subject`.
    pub fn statement(&self, payload: &[u8], subject: Digest) -> Result<Sealed, Failure> {
        let signed = statement::envelope(payload);
        let (signature, material) = self.sign(&signed, Some(payload))?;
        let bundle = match &self.by {
            // Written as cosign writes it, byte for byte.
            By::Key(signer) if signer.certificates().is_empty() && self.stamps.is_empty() => {
                statement::sigstore_bundle(&signer.public_key().hint(), payload, &signature)
            }
            _ => statement::dsse_bundle(&material, payload, &signature),
        };
        self.sealed(bundle, Subject::Digest(subject))
    }

    /// Signs a file's bytes.
    pub fn blob(&self, bytes: &[u8]) -> Result<Sealed, Failure> {
        let (signature, material) = self.sign(bytes, None)?;
        let bundle = statement::blob_bundle(&material, Digest::of(bytes), &signature);
        self.sealed(bundle, Subject::Bytes(bytes))
    }

    /// The signature over `message`, and all that is said about it.
    fn sign(&self, message: &[u8], payload: Option<&[u8]>) -> Result<(Vec<u8>, Value), Failure> {
        match &self.by {
            By::Key(signer) => {
                let signature = signer
                    .sign(message, &SystemRandom::new())
                    .map_err(|error| signing_failure(&error))?;
                let mut material = match signer.certificates() {
                    [] => statement::hint(&signer.public_key().hint()),
                    chain => statement::chain(chain),
                };
                timestamp::add(&self.http, &self.stamps, &signature, &mut material)?;
                Ok((signature, material))
            }
            By::Identity(certified, config) => {
                let signature = certified.sign(message)?;
                let mut material = statement::chain(std::slice::from_ref(&certified.certificate));
                let stamps = config.stamps();
                timestamp::add(&self.http, &stamps, &signature, &mut material)?;
                let entry = rekor::Entry {
                    message,
                    payload,
                    signature: &signature,
                    certificate: &certified.certificate,
                };
                rekor::add(&self.http, config, &entry, &mut material)?;
                Ok((signature, material))
            }
        }
    }

    /// What was made has to hold: a service may have answered with anything.
    fn sealed(&self, bundle: Vec<u8>, subject: Subject<'_>) -> Result<Sealed, Failure> {
        let by = match &self.by {
            By::Key(signer) => Who {
                key: Some(signer.public_key().id()),
                identity: None,
                algorithm: signer.public_key().algorithm().name(),
            },
            By::Identity(..) => Who {
                key: None,
                identity: None,
                algorithm: Algorithm::EcdsaP256.name(),
            },
        };
        let By::Identity(certified, _) = &self.by else {
            return Ok(Sealed { bundle, by });
        };
        let mut by = by;
        by.identity = certified.identity.clone();
        if let Some(root) = &self.check {
            let root = root.root()?;
            let proof = sigstore::parse(&bundle)
                .and_then(|parsed| sigstore::prove_identity(&parsed, subject, &root))
                .map_err(|refusal| {
                    Failure::refused(
                        refusal.reason,
                        format!("what the services vouched for does not hold: {refusal}"),
                    )
                })?;
            by.identity = proof.identity;
        }
        Ok(Sealed { bundle, by })
    }
}

/// The key with the certificates in a PEM file.
pub fn with_certificate(signer: Signer, path: &std::path::Path) -> Result<Signer, Failure> {
    let pem = files::read_bundle(path)?;
    let failed = |error: String| Failure::usage(format!("{}: {error}", path.display()));
    let chain = x509::certificates(&pem).map_err(failed)?;
    signer
        .with_certificates(chain)
        .map_err(|error| failed(error.to_string()))
}

fn config_failure(path: &std::path::Path, refusal: &policy::Refusal) -> Failure {
    Failure::usage(format!("the signing config {}: {refusal}", path.display()))
}

fn no_config() -> Failure {
    Failure::usage("the instance publishes no signing config")
        .with_remedy("Give `--signing-config FILE`, which names its services.")
}

/// What a person is told when a key does not sign.
pub fn signing_failure(error: &BadPrivateKey) -> Failure {
    match error {
        BadPrivateKey::External(_) => Failure::usage(format!("the key's holder: {error}"))
            .with_remedy("docs/signing.md says what a signer plugin answers."),
        BadPrivateKey::Malformed(_) => Failure::usage(format!("the key: {error}")),
        _ => Failure::internal(error.to_string()),
    }
}

/// The private key that `text` names where no file is meant: `env://NAME`, `plugin:…`.
pub enum Elsewhere {
    /// A PEM text from the environment.
    Pem(Zeroizing<Vec<u8>>),
    /// A program that signs.
    Plugin(Box<Signer>),
    /// A token that signs.
    Token(Box<pkcs11::Uri>),
}

impl Elsewhere {
    /// `None`: a file.
    pub fn of(text: &str) -> Result<Option<Self>, Failure> {
        if let Some(name) = text.strip_prefix("env://") {
            return match std::env::var(name) {
                Ok(pem) if !pem.trim().is_empty() => {
                    Ok(Some(Self::Pem(Zeroizing::new(pem.into_bytes()))))
                }
                _ => Err(Failure::not_found(format!(
                    "the environment variable {name} holds no key"
                ))),
            };
        }
        if let Some(spec) = text.strip_prefix("plugin:") {
            let plugin = plugin::Plugin::parse(spec)?;
            let public = plugin.public_key()?;
            let sign: Box<signer::Sign> = Box::new(move |message| plugin.sign(message));
            return Ok(Some(Self::Plugin(Box::new(Signer::external(public, sign)))));
        }
        if text.starts_with("pkcs11:") {
            return Ok(Some(Self::Token(Box::new(pkcs11::Uri::parse(text)?))));
        }
        for scheme in [
            "awskms://",
            "gcpkms://",
            "azurekms://",
            "hashivault://",
            "k8s://",
        ] {
            if text.starts_with(scheme) {
                return Err(
                    Failure::usage(format!("{scheme} is not read here")).with_remedy(
                        "Give `--key plugin:PROGRAM#KEY`: a program that signs a digest, see \
                     docs/signing.md.",
                    ),
                );
            }
        }
        Ok(None)
    }
}
