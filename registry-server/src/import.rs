//! Repositories out of OCI image layouts: everything is verified as a push would be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{
    digest::{Algorithm, Digest, Hasher},
    error::OciError,
    export::{REF_NAME, TransferError, Transferred, path_of},
    manifest::{MAX_BYTES, Manifest},
    metadata::{Condition, NewManifest, Quota},
    name::{Repository, Tag},
    registry::Registry,
    route::UploadId,
    store::{self, Object},
};

/// What to take.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// This repository: the layout at the top becomes it, else only the folder of that name
    /// is read.
    pub repository: Option<Repository>,
    /// Whether manifests may refer to what the layout does not have.
    pub sparse: bool,
}

/// Reads every layout under the folder `from`.
pub async fn import(
    registry: &Arc<Registry>,
    from: &Path,
    wanted: &Wanted,
) -> Result<Transferred, TransferError> {
    let mut done = Transferred::default();
    for (repository, folder) in layouts(from, wanted)? {
        read(registry, &repository, &folder, wanted.sparse, &mut done).await?;
        done.repositories += 1;
    }
    Ok(done)
}

/// Unpacks a tar file of layouts into the empty folder `to`.
pub fn unpack(file: &Path, to: &Path) -> Result<(), TransferError> {
    let bytes = File::open(file).map_err(TransferError::file(file))?;
    unpack_from(bytes, file, to)
}

/// The same from `input`, which errors call `file`.
pub fn unpack_from(input: impl Read, file: &Path, to: &Path) -> Result<(), TransferError> {
    let failed = || TransferError::file(file);
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().map_err(failed())? {
        let mut entry = entry.map_err(failed())?;
        let path = entry.path().map_err(failed())?.into_owned();
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.components().all(plain) {
            return Err(TransferError::Layout {
                path: file.display().to_string(),
                problem: format!("{} leaves the archive", path.display()),
            });
        }
        let path = to.join(path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&path).map_err(failed())?,
            tar::EntryType::Regular => {
                fs::create_dir_all(path.parent().unwrap_or(to)).map_err(failed())?;
                let mut out = File::create(&path).map_err(failed())?;
                io::copy(&mut entry, &mut out).map_err(failed())?;
            }
            // Links and devices have no place in a layout.
            _ => {}
        }
    }
    Ok(())
}

/// Each repository and the manifests of its layout, members before indexes.
pub fn plan(from: &Path, wanted: &Wanted) -> Result<Vec<(Repository, Vec<Digest>)>, TransferError> {
    let layouts = layouts(from, wanted)?.into_iter();
    let plans = layouts.map(|(repository, folder)| {
        let mut entries = index(&folder)?;
        Ok((repository, order(&folder, &mut entries)?))
    });
    plans.collect()
}

/// Repositories and the folders of their layouts.
fn layouts(from: &Path, wanted: &Wanted) -> Result<Vec<(Repository, PathBuf)>, TransferError> {
    let malformed = |problem: &str| TransferError::Layout {
        path: from.display().to_string(),
        problem: problem.to_owned(),
    };
    if from.join("oci-layout").is_file() {
        let name = wanted.repository.clone();
        let name = name.ok_or_else(|| malformed("name the repository that it becomes"))?;
        return Ok(vec![(name, from.to_owned())]);
    }
    let mut found = Vec::new();
    let mut folders = vec![from.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = || TransferError::file(&folder);
        for entry in fs::read_dir(&folder).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            // A repository `a/blobs/sha256` is thinkable, but none inside of a layout's blobs.
            let inside = folder.join("oci-layout").is_file() && path.ends_with("blobs");
            if path.is_dir() && !inside {
                folders.push(path);
            }
        }
        if folder.join("oci-layout").is_file() {
            let name = folder.strip_prefix(from).unwrap_or(&folder);
            let name = name.to_string_lossy();
            let name = name.parse().map_err(OciError::from);
            found.push((
                name.map_err(TransferError::registry(folder.display()))?,
                folder,
            ));
        }
    }
    if let Some(name) = &wanted.repository {
        found.retain(|(found, _)| found == name);
    }
    match found.is_empty() {
        true => Err(malformed("there is no OCI image layout")),
        false => Ok(found),
    }
}

/// A manifest that an index names.
struct Entry {
    media_type: String,
    tags: Vec<Tag>,
}

async fn read(
    registry: &Arc<Registry>,
    repository: &Repository,
    folder: &Path,
    sparse: bool,
    done: &mut Transferred,
) -> Result<(), TransferError> {
    let mut entries: BTreeMap<String, Entry> = index(folder)?;
    let order = order(folder, &mut entries)?;
    let manifests: BTreeSet<String> = order.iter().map(Digest::to_string).collect();
    for algorithm in Algorithm::ALL {
        let blobs = folder.join("blobs").join(algorithm.name());
        let listed = match fs::read_dir(&blobs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed.map_err(TransferError::file(&blobs))?,
        };
        for file in listed {
            let path = file.map_err(TransferError::file(&blobs))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digest = format!("{}:{name}", algorithm.name()).parse::<Digest>();
            let digest = digest.map_err(OciError::from);
            let digest = digest.map_err(TransferError::registry(path.display()))?;
            if !manifests.contains(&digest.to_string()) {
                done.bytes += blob(registry, repository, digest, path).await?;
                done.blobs += 1;
            }
        }
    }
    for digest in order {
        let content = content(folder, &digest)?;
        let what = format!("the manifest {repository}@{digest}");
        let Some(entry) = entries.remove(&digest.to_string()) else {
            continue;
        };
        let manifest = Manifest::read(Some(&entry.media_type), &content).map_err(OciError::from);
        done.manifests += 1;
        done.tags += entry.tags.len() as u64;
        let new = NewManifest {
            repository: repository.clone(),
            digest,
            manifest: manifest.map_err(TransferError::registry(&what))?,
            content: content.into(),
            tags: entry.tags,
            condition: Condition::Always,
            fixed: Vec::new(),
            sparse,
            quota: Quota::default(),
        };
        let put = registry.metadata.put_manifest(new, || ()).await;
        put.map_err(TransferError::registry(&what))?;
    }
    Ok(())
}

fn index(folder: &Path) -> Result<BTreeMap<String, Entry>, TransferError> {
    let path = folder.join("index.json");
    let bytes = fs::read(&path).map_err(TransferError::file(&path))?;
    let malformed = |problem: String| TransferError::Layout {
        path: path.display().to_string(),
        problem,
    };
    let index: Value =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let mut entries = BTreeMap::new();
    for descriptor in index["manifests"].as_array().into_iter().flatten() {
        let text = |field: &str| descriptor[field].as_str().unwrap_or_default().to_owned();
        let entry = entries.entry(text("digest")).or_insert_with(|| Entry {
            media_type: text("mediaType"),
            tags: Vec::new(),
        });
        if let Some(name) = descriptor["annotations"][REF_NAME].as_str() {
            let tag = name
                .parse()
                .map_err(|error| malformed(format!("{error}: {name:?}")));
            entry.tags.push(tag?);
        }
    }
    Ok(entries)
}

/// Everything that the index names and what that names in turn, members before indexes.
fn order(
    folder: &Path,
    entries: &mut BTreeMap<String, Entry>,
) -> Result<Vec<Digest>, TransferError> {
    let parse = |text: &str| {
        let digest = text.parse::<Digest>().map_err(OciError::from);
        digest.map_err(TransferError::registry(folder.display()))
    };
    let mut left: Vec<(Digest, bool)> = Vec::new();
    for name in entries.keys() {
        left.push((parse(name)?, false));
    }
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some((digest, expanded)) = left.pop() {
        if expanded {
            order.push(digest);
            continue;
        }
        if !seen.insert(digest.to_string()) {
            continue;
        }
        left.push((digest, true));
        let content = content(folder, &digest)?;
        let members: Value = serde_json::from_slice(&content).unwrap_or_default();
        for member in members["manifests"].as_array().into_iter().flatten() {
            let Some(name) = member["digest"].as_str() else {
                continue;
            };
            let digest = parse(name)?;
            // A member that the layout does not have is the registry's to refuse.
            if folder.join(path_of(&digest)).is_file() {
                entries.entry(name.to_owned()).or_insert_with(|| Entry {
                    media_type: member["mediaType"].as_str().unwrap_or_default().to_owned(),
                    tags: Vec::new(),
                });
                left.push((digest, false));
            }
        }
    }
    Ok(order)
}

/// A manifest's bytes, which are what their digest says.
fn content(folder: &Path, digest: &Digest) -> Result<Vec<u8>, TransferError> {
    let path = folder.join(path_of(digest));
    let read = File::open(&path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = read.map_err(TransferError::file(&path))?;
    if bytes.len() > MAX_BYTES {
        return Err(TransferError::Layout {
            path: path.display().to_string(),
            problem: format!("a manifest has at most {MAX_BYTES} bytes"),
        });
    }
    let got = Digest::of(digest.algorithm(), &bytes);
    match got == *digest {
        true => Ok(bytes),
        false => Err(TransferError::Damaged {
            what: format!("the manifest {digest}"),
            got,
        }),
    }
}

/// Stores a file as a blob that the repository shows. Returns its size.
async fn blob(
    registry: &Arc<Registry>,
    repository: &Repository,
    digest: Digest,
    path: PathBuf,
) -> Result<u64, TransferError> {
    let what = format!("the blob {digest}");
    let (store, copies) = (Arc::clone(&registry.store), registry.has_copies());
    let shelf = registry.shelve(&digest).await;
    let name = what.clone();
    let kept = spawn_blocking(move || {
        let failed = || TransferError::file(&path);
        let id = UploadId::from_random(store::random().map_err(failed())?);
        let mut file = File::open(&path).map_err(failed())?;
        let mut hasher = Hasher::new(digest.algorithm());
        let stored = |error: io::Error| TransferError::registry(&name)(error.into());
        let mut partial = store.begin(id).map_err(stored)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = file.read(&mut buffer).map_err(failed())?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            partial.append(&buffer[..count]).map_err(stored)?;
        }
        let got = hasher.finish();
        if got != digest {
            partial.discard().map_err(stored)?;
            return Err(TransferError::Damaged { what: name, got });
        }
        let mut object = Object::only(digest);
        if copies {
            object.copy = id.to_string();
        }
        let size = partial.len();
        partial.keep(&object).map_err(stored)?;
        Ok((object, size))
    });
    let kept = kept.await.map_err(OciError::internal);
    let (object, size) = kept.map_err(TransferError::registry(&what))??;
    let linked = registry
        .metadata
        .link_blob(repository, &object, size, Quota::default(), None, || ())
        .await
        .map_err(TransferError::registry(&what))?;
    if !linked {
        let removed = registry.remove(object).await;
        removed.map_err(TransferError::registry(&what))?;
    }
    drop(shelf);
    Ok(size)
}
