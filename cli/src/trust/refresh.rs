//! Updates of a trusted root by The Update Framework: signed to a threshold by the keys of a
//! root that leads back to the one the user gave, never older than what was seen, never
//! stale. `sigstore-tuf` decides; this feeds it bytes and keeps what it found good.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use policy::{Reason, sigstore};
use reqwest::{Client, Url};
use sigstore_tuf::{
    Error, MetadataStore, Repository, Updater, UpdaterConfig, transport::FetchFuture,
};

use super::store::Instance;
use crate::{Failure, registry::causes, signing::http::Http};

/// `instance` with what its mirror offers now. Nothing is written.
///
/// # Errors
/// The mirror cannot be reached (the network's fault), or what it offers is refused.
pub fn refresh(
    name: &str,
    instance: &Instance,
    http: &Http,
    now: Timestamp,
) -> Result<Instance, Failure> {
    let (runtime, client) = http.parts()?;
    let mirror = Mirror::parse(&instance.mirror, client)?;
    let seen = Seen::of(instance);
    let failed = |error: Error| failure(name, instance, &error);
    let mut updater = Updater::new(mirror, instance.pinned.as_bytes())
        .map_err(failed)?
        .with_config(limits())
        .with_store(seen.clone());
    let mut new = instance.clone();
    runtime
        .block_on(async {
            updater.refresh(now).await?;
            let root = updater.get_target(TRUSTED_ROOT, now).await?;
            let config = match updater.get_target(SIGNING_CONFIG, now).await {
                Ok(config) => Some(config),
                Err(Error::TargetNotFound(_)) => None,
                Err(error) => return Err(error),
            };
            Ok((root, config))
        })
        .map_err(failed)
        .and_then(|(root, config)| {
            let text = |bytes: Vec<u8>| {
                String::from_utf8(bytes)
                    .map_err(|_| refused(instance, format!("{name}: the update is not UTF-8")))
            };
            new.trusted_root = text(root)?;
            new.signing_config = config.map(text).transpose()?;
            Ok(())
        })?;
    let unusable =
        |refusal: policy::Refusal| refused(instance, format!("{name}: the update: {refusal}"));
    sigstore::TrustRoot::from_json(new.trusted_root.as_bytes()).map_err(unusable)?;
    if let Some(config) = &new.signing_config {
        sigstore::SigningConfig::from_json(config.as_bytes()).map_err(unusable)?;
    }
    new.metadata = seen.metadata();
    new.fetched = now;
    describe(&updater, &mut new);
    Ok(new)
}

/// The versions, and until when all of it is fresh.
fn describe(updater: &Updater, instance: &mut Instance) {
    let trusted = updater.trusted();
    let root = trusted.root();
    let mut roles = vec![("root", root.version, root.expires)];
    roles.extend(
        trusted
            .timestamp()
            .map(|role| ("timestamp", role.version, role.expires)),
    );
    roles.extend(
        trusted
            .snapshot()
            .map(|role| ("snapshot", role.version, role.expires)),
    );
    let targets = trusted.targets_role("targets");
    roles.extend(targets.map(|role| ("targets", role.version, role.expires)));
    instance.versions = roles
        .iter()
        .map(|(role, version, _)| ((*role).to_owned(), *version))
        .collect();
    if let Some(first) = roles.iter().map(|(.., expires)| *expires).min() {
        instance.fresh_until = first;
    }
}

fn failure(name: &str, instance: &Instance, error: &Error) -> Failure {
    let mut message = format!("{name}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    match error {
        Error::Transport { .. } | Error::Io { .. } => {
            Failure::network(message).with_remedy(stays(instance))
        }
        _ => refused(instance, message),
    }
}

fn refused(instance: &Instance, message: String) -> Failure {
    Failure::refused(Reason::BadTrustRoot, message).with_remedy(format!(
        "{} If the mirror stays so, ask who runs it: it is stale, broken, or lies.",
        stays(instance)
    ))
}

/// What a failed update leaves.
fn stays(instance: &Instance) -> String {
    match instance.trusted_root.is_empty() {
        true => "Nothing was stored.".to_owned(),
        false => format!(
            "Nothing changed: verification goes on with what was fetched {}.",
            instance.fetched
        ),
    }
}

/// Where updates come from.
pub enum Mirror {
    Folder(PathBuf),
    Web(Client, Url),
}

impl Mirror {
    fn parse(text: &str, client: &Client) -> Result<Self, Failure> {
        if !is_web(text) {
            return Ok(Self::Folder(text.into()));
        }
        // Without the slash, the last part of the path would be replaced, not extended.
        let slashed = format!("{}/", text.trim_end_matches('/'));
        let url = Url::parse(&slashed)
            .map_err(|error| Failure::usage(format!("the mirror {text:?}: {error}")))?;
        Ok(Self::Web(client.clone(), url))
    }

    async fn fetch(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Folder(folder) => match fs::read(folder.join(name)) {
                Ok(bytes) if bytes.len() as u64 > most => Err(too_long(name, most)),
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                    Ok(None)
                }
                Err(error) => Err(Error::io(folder.join(name).display().to_string(), error)),
            },
            Self::Web(client, base) => {
                let url = base
                    .join(name)
                    .map_err(|error| Error::transport_with_source(name, error))?;
                download(client, url, most).await
            }
        }
    }
}

async fn download(client: &Client, url: Url, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |error: reqwest::Error| Error::transport(format!("{url}: {}", causes(&error)));
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    match response.status().as_u16() {
        200 => {}
        // Object stores answer 403 for what is not there, if listing is not allowed.
        403 | 404 => return Ok(None),
        status => return Err(Error::transport(format!("{url} answered {status}"))),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > most {
            return Err(too_long(url.as_str(), most));
        }
    }
    Ok(Some(bytes))
}

fn too_long(name: &str, most: u64) -> Error {
    Error::transport(format!("{name} has over {most} bytes"))
}

impl Repository for Mirror {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(self.fetch(name, max_length))
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move { self.fetch(&format!("targets/{path}"), max_length).await })
    }
}

/// Is it a URL, and not a folder?
pub fn is_web(mirror: &str) -> bool {
    mirror.starts_with("https://") || mirror.starts_with("http://")
}

/// The metadata that was verified: what was stored, and what this update adds. It reaches
/// the disk only if the whole update holds.
#[derive(Clone)]
struct Seen(Arc<Mutex<BTreeMap<String, String>>>);

impl Seen {
    fn of(instance: &Instance) -> Self {
        Self(Arc::new(Mutex::new(instance.metadata.clone())))
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl MetadataStore for Seen {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.get(name).map(|text| text.clone().into_bytes()))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        // Targets are kept beside it, and the numbered copies of a snapshot serve nobody.
        let numbered = name
            .split('.')
            .next()
            .is_some_and(|n| n.parse::<u64>().is_ok());
        if name.starts_with("targets/") || numbered {
            return Ok(());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::Malformed(format!("{name} is not UTF-8")))?;
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(name.to_owned(), text.to_owned());
        Ok(())
    }
}

/// `trusted_root.json` has some tens of kilobytes; a mirror may not make us read for ever.
fn limits() -> UpdaterConfig {
    let mut limits = UpdaterConfig::default();
    limits.target_max_length = 4 << 20;
    limits.max_root_rotations = 256;
    limits
}

const TRUSTED_ROOT: &str = "trusted_root.json";
/// The form that is read here; older clients read another.
const SIGNING_CONFIG: &str = "signing_config.v0.2.json";
