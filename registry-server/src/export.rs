//! Repositories as OCI image layouts (image-spec 1.1): one folder for each repository, named
//! as it is, or one tar file of these folders.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use bundle::media;
use serde::Serialize;
use serde_json::json;

use crate::{
    digest::{Digest, Hasher},
    error::OciError,
    metadata::Metadata,
    name::Repository,
    route::Page,
    store::{Content, Object, Store},
};

/// What was written or read.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transferred {
    /// Repositories.
    pub repositories: u64,
    /// Their manifests.
    pub manifests: u64,
    /// Tags on them.
    pub tags: u64,
    /// Blobs, each once for each repository.
    pub blobs: u64,
    /// Bytes of the blobs.
    pub bytes: u64,
}

/// Why repositories cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The registry refuses or does not answer.
    #[error("{what}")]
    Registry {
        /// Which repository, manifest or blob.
        what: String,
        /// Why.
        #[source]
        error: OciError,
    },
    /// Bytes are not what their digest says.
    #[error("{what} is damaged: its bytes have the digest {got}")]
    Damaged {
        /// Which blob or manifest.
        what: String,
        /// What they hash to.
        got: Digest,
    },
    /// It is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// What is read is no layout, or one that does not fit.
    #[error("{path}: {problem}")]
    Layout {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl TransferError {
    /// For `map_err`.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::File { path, error }
    }

    /// For `map_err`.
    pub fn registry(what: impl ToString) -> impl FnOnce(OciError) -> Self {
        let what = what.to_string();
        move |error| Self::Registry { what, error }
    }
}

/// Writes one repository, at the top of `to`, or all of them.
pub async fn export(
    metadata: &Metadata,
    store: &dyn Store,
    only: Option<&Repository>,
    to: &Path,
) -> Result<Transferred, TransferError> {
    let mut target = Target::create(to)?;
    let mut done = Transferred::default();
    if let Some(repository) = only {
        let known = metadata.has_repository(repository).await;
        if !known.map_err(TransferError::registry(repository))? {
            return Err(TransferError::Missing(format!(
                "the repository {repository}"
            )));
        }
        let place = Path::new("");
        write(metadata, store, repository, place, &mut target, &mut done).await?;
    } else {
        for repository in repositories(metadata).await? {
            let place = Path::new(repository.as_str());
            write(metadata, store, &repository, place, &mut target, &mut done).await?;
        }
    }
    target.finish()?;
    Ok(done)
}

async fn repositories(metadata: &Metadata) -> Result<Vec<Repository>, TransferError> {
    let failed = || TransferError::registry("the list of repositories");
    let mut all = Vec::new();
    let mut page = Page {
        limit: 1000,
        after: None,
    };
    loop {
        let names = metadata.repositories(&page).await.map_err(failed())?;
        let list: Vec<String> = serde_json::from_str(&names.json)
            .map_err(OciError::internal)
            .map_err(failed())?;
        for name in list {
            all.push(name.parse().map_err(OciError::from).map_err(failed())?);
        }
        match names.next {
            Some(last) => page.after = Some(last),
            None => return Ok(all),
        }
    }
}

async fn write(
    metadata: &Metadata,
    store: &dyn Store,
    repository: &Repository,
    place: &Path,
    target: &mut Target,
    done: &mut Transferred,
) -> Result<(), TransferError> {
    let failed = || TransferError::registry(repository);
    let layout = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
    target.bytes(&place.join("oci-layout"), layout.as_bytes())?;
    // Tags first: what they name is still there when it is read, unless somebody deletes it.
    let tagged = metadata
        .tagged(repository, u32::MAX)
        .await
        .map_err(failed())?;
    let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tag, digest, _) in tagged {
        tags.entry(digest).or_default().push(tag);
    }
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let manifests = metadata.manifests_of(repository, after).await;
        let manifests = manifests.map_err(failed())?;
        let Some((last, _)) = manifests.last() else {
            break;
        };
        after = *last;
        for (_, manifest) in manifests {
            let what = format!("the manifest {repository}@{}", manifest.digest);
            let got = Digest::of(manifest.digest.algorithm(), &manifest.content);
            if got != manifest.digest {
                return Err(TransferError::Damaged { what, got });
            }
            target.bytes(&place.join(path_of(&manifest.digest)), &manifest.content)?;
            let entry = json!({ "mediaType": manifest.media_type, "size": manifest.content.len(),
                "digest": manifest.digest.to_string() });
            let names = tags
                .remove(&manifest.digest.to_string())
                .unwrap_or_default();
            done.manifests += 1;
            done.tags += names.len() as u64;
            if names.is_empty() {
                entries.push(entry);
                continue;
            }
            for name in names {
                let mut entry = entry.clone();
                entry["annotations"] = json!({ REF_NAME: name });
                entries.push(entry);
            }
        }
    }
    write_blobs(metadata, store, repository, place, target, done).await?;
    let index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries });
    target.bytes(&place.join("index.json"), index.to_string().as_bytes())?;
    done.repositories += 1;
    Ok(())
}

async fn write_blobs(
    metadata: &Metadata,
    store: &dyn Store,
    repository: &Repository,
    place: &Path,
    target: &mut Target,
    done: &mut Transferred,
) -> Result<(), TransferError> {
    let mut after = String::new();
    loop {
        let blobs = metadata.blobs_of(repository, &after).await;
        let blobs = blobs.map_err(TransferError::registry(repository))?;
        let Some((last, _)) = blobs.last() else {
            return Ok(());
        };
        after = last.digest.to_string();
        for (object, size) in blobs {
            let path = place.join(path_of(&object.digest));
            write_blob(store, &object, &path, target)?;
            done.blobs += 1;
            done.bytes += size;
        }
    }
}

fn write_blob(
    store: &dyn Store,
    object: &Object,
    path: &Path,
    target: &mut Target,
) -> Result<(), TransferError> {
    let what = format!("the blob {}", object.digest);
    let opened = store.open(object).map_err(OciError::from);
    let content = opened.map_err(TransferError::registry(&what))?;
    let Some(content) = content else {
        return Err(TransferError::Missing(what));
    };
    let mut reader = ContentReader {
        hasher: Hasher::new(object.digest.algorithm()),
        content: &*content,
        offset: 0,
    };
    target.stream(path, content.size(), &mut reader)?;
    let got = reader.hasher.finish();
    match got == object.digest {
        true => Ok(()),
        false => Err(TransferError::Damaged { what, got }),
    }
}

/// Where a layout keeps the bytes with this digest.
pub fn path_of(digest: &Digest) -> PathBuf {
    let folder = Path::new("blobs").join(digest.algorithm().name());
    folder.join(digest.to_hex())
}

/// The annotation that holds a tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Reads a blob from its beginning and hashes it.
struct ContentReader<'a> {
    content: &'a dyn Content,
    offset: u64,
    hasher: Hasher,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.content.size() - self.offset;
        let count = left.min(buffer.len() as u64) as usize;
        self.content.read_at(&mut buffer[..count], self.offset)?;
        self.hasher.update(&buffer[..count]);
        self.offset += count as u64;
        Ok(count)
    }
}

/// A folder or a tar file.
enum Target {
    Folder(PathBuf),
    Tar(PathBuf, tar::Builder<File>),
}

impl Target {
    /// A name that ends in `.tar` is a file. Neither may hold anything yet.
    fn create(path: &Path) -> Result<Self, TransferError> {
        let failed = || TransferError::file(path);
        if path.extension().is_some_and(|extension| extension == "tar") {
            let file = File::create_new(path).map_err(failed())?;
            return Ok(Self::Tar(path.to_owned(), tar::Builder::new(file)));
        }
        fs::create_dir_all(path).map_err(failed())?;
        if fs::read_dir(path).map_err(failed())?.next().is_some() {
            return Err(failed()(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        Ok(Self::Folder(path.to_owned()))
    }

    fn bytes(&mut self, path: &Path, bytes: &[u8]) -> Result<(), TransferError> {
        self.stream(path, bytes.len() as u64, &mut &*bytes)
    }

    fn stream(
        &mut self,
        path: &Path,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<(), TransferError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(path);
                let mut written = || {
                    fs::create_dir_all(path.parent().unwrap_or(folder))?;
                    let mut file = File::create(&path)?;
                    io::copy(reader, &mut file)?;
                    file.sync_all()
                };
                written().map_err(TransferError::file(&path))
            }
            Self::Tar(file, builder) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(size);
                header.set_mode(0o644);
                let written = builder.append_data(&mut header, path, reader);
                written.map_err(TransferError::file(file))
            }
        }
    }

    fn finish(self) -> Result<(), TransferError> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Tar(path, builder) => {
                let flushed = builder.into_inner().and_then(|file| file.sync_all());
                flushed.map_err(TransferError::file(&path))
            }
        }
    }
}
