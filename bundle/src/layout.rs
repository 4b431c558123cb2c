//! OCI image layouts (image-spec 1.1, `image-layout.md`): a bundle on disk.
//!
//! A layout is `oci-layout`, `index.json` and `blobs/sha256/*`, in a tar or a folder.
//! The reader takes what skopeo, oras, crane and buildkit write. A blob is visible only
//! after its size and digest were checked; links, devices, duplicate names and paths
//! that leave the layout are refused, so nobody can put two readings into one file.
//! The writer sorts and fixes everything that is not content: equal layouts are equal bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use crate::{
    Blob, Digest, foreign,
    manifest::{Descriptor, Index, Manifest},
    media,
    unverified::{Referrer, UnverifiedBundle},
};

mod reader;

pub use reader::Builder;

/// How much a layout may hold. The defaults fit ten times the largest bundle seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most files and folders in a tar.
    pub entries: usize,
    /// Most bytes of one blob: the kernel takes a million instructions, 8 MB, a program.
    pub blob: u64,
    /// Most bytes of the whole tar: it is held in memory, objects twice.
    pub total: u64,
    /// Most bytes of one manifest or index: registries take 4 MiB.
    pub manifest: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            blob: 32 << 20,
            total: 64 << 20,
            manifest: 4 << 20,
        }
    }
}

/// Why a layout, or the bundle in it, is not one.
#[derive(Debug, thiserror::Error)]
pub enum MalformedBundle {
    /// The tar or folder is not an OCI layout, or a document in it cannot be parsed.
    #[error("{0}")]
    Structure(String),
    /// Bytes differ from the digest or size that names them.
    #[error("{what} has digest {got}, not {want}")]
    Digest {
        /// Which bytes.
        what: String,
        /// What names them.
        want: String,
        /// What they are.
        got: String,
    },
    /// The config differs from the inventory derived from the objects.
    #[error("{0}")]
    Inventory(String),
    /// An object cannot be parsed.
    #[error("object {name}: {detail}")]
    Object {
        /// The layer's title.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Larger or more than the limits allow.
    #[error("{0}")]
    Limit(String),
    /// A layout, but of something else.
    #[error("{0}")]
    NotABundle(String),
    /// The input cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

/// An OCI layout in memory. Every blob has the digest that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    blobs: BTreeMap<Digest, Blob>,
    index: Index,
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

impl Layout {
    /// An empty layout.
    pub const fn new() -> Self {
        Self {
            blobs: BTreeMap::new(),
            index: Index {
                schema_version: 2,
                media_type: None,
                manifests: Vec::new(),
                annotations: BTreeMap::new(),
            },
        }
    }

    /// Writes the layout as a tar with sorted names, no owner, and `mtime` for every file
    /// (seconds since 1970; 0 unless `SOURCE_DATE_EPOCH` says otherwise).
    ///
    /// # Errors
    /// Those of `output`.
    pub fn write(&self, output: impl Write, mtime: u64) -> io::Result<()> {
        let mut tar = tar::Builder::new(output);
        for (name, bytes) in self.files() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(mtime);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes.as_ref())?;
        }
        tar.into_inner()?.flush()
    }

    /// Path and bytes of every file of the layout, sorted by path.
    pub fn files(&self) -> Vec<(String, std::borrow::Cow<'_, [u8]>)> {
        let mut files: Vec<_> = self
            .blobs
            .iter()
            .map(|(digest, bytes)| (format!("{BLOBS}{}", digest.to_hex()), bytes[..].into()))
            .collect();
        let mut index = self.index.clone();
        index.media_type = Some(media::INDEX.to_owned());
        files.push(("index.json".to_owned(), index.to_bytes().into()));
        files.push(("oci-layout".to_owned(), VERSION_FILE.into()));
        files
    }

    /// Adds bytes and says their digest.
    pub fn add_blob(&mut self, bytes: Vec<u8>) -> Digest {
        let blob = Blob::new(bytes);
        let digest = blob.digest();
        self.blobs.insert(digest, blob);
        digest
    }

    /// Adds a manifest and lists it in the index under an optional name or tag; the name
    /// moves here if another manifest had it. A manifest that is listed already is not
    /// listed twice.
    ///
    /// # Errors
    /// When the bytes are no manifest.
    pub fn add_manifest(
        &mut self,
        bytes: Vec<u8>,
        name: Option<&str>,
    ) -> Result<Descriptor, MalformedBundle> {
        let manifest =
            Manifest::parse(&bytes).map_err(|error| structure(format!("manifest: {error}")))?;
        let mut descriptor = Descriptor::of(media::MANIFEST, &bytes);
        descriptor.artifact_type = Some(manifest.kind().to_owned());
        self.add_blob(bytes);
        if let Some(name) = name {
            for other in &mut self.index.manifests {
                if other.digest != descriptor.digest
                    && other
                        .annotations
                        .get(media::REF_NAME)
                        .is_some_and(|n| n == name)
                {
                    other.annotations.remove(media::REF_NAME);
                }
            }
            descriptor = descriptor.annotated(media::REF_NAME, name);
        }
        match self
            .index
            .manifests
            .iter_mut()
            .find(|d| d.digest == descriptor.digest)
        {
            Some(listed) => listed.annotations.extend(descriptor.annotations.clone()),
            None => self.index.manifests.push(descriptor.clone()),
        }
        Ok(descriptor)
    }

    /// Adds an index of other people's, whose manifests are blobs of the layout, and lists
    /// it under an optional name.
    ///
    /// # Errors
    /// When the bytes are no index.
    pub fn add_index(
        &mut self,
        bytes: Vec<u8>,
        name: Option<&str>,
    ) -> Result<Descriptor, MalformedBundle> {
        Index::parse(&bytes).map_err(|error| structure(format!("index: {error}")))?;
        let mut descriptor = Descriptor::of(media::INDEX, &bytes);
        self.add_blob(bytes);
        if let Some(name) = name {
            descriptor = descriptor.annotated(media::REF_NAME, name);
        }
        self.index
            .manifests
            .retain(|listed| listed.digest != descriptor.digest);
        self.index.manifests.push(descriptor.clone());
        Ok(descriptor)
    }

    /// The bytes of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<&Blob> {
        self.blobs.get(digest)
    }

    /// The bytes that a descriptor names, if their size is as it says.
    ///
    /// # Errors
    /// When they are missing or of another size.
    pub fn described(&self, descriptor: &Descriptor) -> Result<&Blob, MalformedBundle> {
        let bytes = self
            .blob(&descriptor.digest)
            .ok_or_else(|| structure(format!("blob {} is missing", descriptor.digest)))?;
        if bytes.len() as u64 != descriptor.size {
            return Err(MalformedBundle::Digest {
                what: format!("blob {}", descriptor.digest),
                want: format!("{} bytes", descriptor.size),
                got: format!("{} bytes", bytes.len()),
            });
        }
        Ok(bytes)
    }

    /// Digest and bytes of every blob, sorted by digest.
    pub fn blobs(&self) -> impl Iterator<Item = (&Digest, &[u8])> {
        self.blobs.iter().map(|(digest, blob)| (digest, &blob[..]))
    }

    /// What `index.json` lists.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The bundle's descriptor: the one manifest whose type is a bundle's.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn bundle_descriptor(&self) -> Result<&Descriptor, MalformedBundle> {
        let mut found: Vec<&Descriptor> = Vec::new();
        let mut others = BTreeSet::new();
        let mut broken = None;
        // Each is parsed once, however often the index lists it.
        let mut seen = BTreeSet::new();
        for descriptor in &self.index.manifests {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            if descriptor.media_type != media::MANIFEST {
                others.insert(descriptor.media_type.clone());
                continue;
            }
            // The descriptor's own artifactType is a hint that tools drop or get wrong.
            match self.manifest(descriptor) {
                Ok(manifest) if manifest.kind() != media::BUNDLE => {
                    others.insert(manifest.kind().to_owned());
                }
                Ok(_) if found.iter().all(|d| d.digest != descriptor.digest) => {
                    found.push(descriptor)
                }
                Ok(_) => {}
                // Anybody may attach a broken signature; only without a bundle does it matter.
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        if found.is_empty() {
            let mut seen = BTreeSet::new();
            let foreign = self.index.manifests.iter().filter(|descriptor| {
                seen.insert(descriptor.digest) && foreign::maker(self, descriptor).is_some()
            });
            found.extend(self.outermost(foreign.collect()));
        }
        if let (Some(error), true) = (broken, found.is_empty()) {
            return Err(error);
        }
        match found.as_slice() {
            [one] => Ok(one),
            [] if others.is_empty() => Err(MalformedBundle::NotABundle(
                "the layout is empty".to_owned(),
            )),
            [] => Err(MalformedBundle::NotABundle(format!(
                "the layout holds no bundle, but {}",
                others.into_iter().collect::<Vec<_>>().join(", ")
            ))),
            several => Err(MalformedBundle::NotABundle(format!(
                "the layout holds {} bundles; a bundle file holds one",
                several.len()
            ))),
        }
    }

    /// Those that are not parts of another: a pulled image lists its index and its manifests.
    fn outermost<'a>(&self, found: Vec<&'a Descriptor>) -> Vec<&'a Descriptor> {
        let parts: BTreeSet<Digest> = found
            .iter()
            .filter(|descriptor| descriptor.media_type == media::INDEX)
            .filter_map(|descriptor| Index::parse(self.described(descriptor).ok()?).ok())
            .flat_map(|index| index.manifests)
            .map(|part| part.digest)
            .collect();
        let is_whole = |descriptor: &&Descriptor| !parts.contains(&descriptor.digest);
        found.into_iter().filter(is_whole).collect()
    }

    /// The bundle with everything that claims to be about it.
    ///
    /// # Errors
    /// When the layout holds no bundle, or one whose parts are missing or of other types
    /// and sizes than its manifest says.
    pub fn bundle(&self) -> Result<UnverifiedBundle, MalformedBundle> {
        let descriptor = self.bundle_descriptor()?.clone();
        UnverifiedBundle::read(self, &descriptor)
    }

    /// Every manifest of the layout about `subject`: by its `subject` field, or by cosign's
    /// older naming scheme. In the order of `index.json`, each once; one that cannot be
    /// parsed says about nothing.
    pub fn referrers(&self, subject: &Digest) -> Vec<Referrer> {
        let tags = [".sig", ".att"].map(|suffix| format!("sha256-{}{suffix}", subject.to_hex()));
        let tagged: BTreeSet<Digest> = self
            .index
            .manifests
            .iter()
            .filter(|d| {
                let name = d.annotations.get(media::REF_NAME);
                name.is_some_and(|name| tags.contains(name))
            })
            .map(|d| d.digest)
            .collect();
        let mut seen = BTreeSet::new();
        let mut room = MAX_REFERRERS;
        let mut referrers = Vec::new();
        for descriptor in &self.index.manifests {
            if descriptor.media_type != media::MANIFEST || !seen.insert(descriptor.digest) {
                continue;
            }
            let Ok(manifest) = self.manifest(descriptor) else {
                continue;
            };
            let by_subject = manifest
                .subject
                .as_ref()
                .is_some_and(|s| s.digest == *subject);
            if by_subject || tagged.contains(&descriptor.digest) {
                referrers.push(Referrer::read(self, descriptor.digest, manifest, &mut room));
            }
        }
        referrers
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, MalformedBundle> {
        let bytes = self.described(descriptor)?;
        if bytes.len() > Limits::default().manifest {
            return Err(MalformedBundle::Limit(format!(
                "manifest {} has {} bytes, over {}",
                descriptor.digest,
                bytes.len(),
                Limits::default().manifest
            )));
        }
        Manifest::parse(bytes)
            .map_err(|error| structure(format!("manifest {}: {error}", descriptor.digest)))
    }
}

fn structure(what: impl Into<String>) -> MalformedBundle {
    MalformedBundle::Structure(what.into())
}

/// Most bytes of all that refers to a bundle: thousands of signatures. One blob may be the
/// layer of many manifests, so the layout's own limit is none for copies.
const MAX_REFERRERS: u64 = 16 << 20;
const BLOBS: &str = "blobs/sha256/";
const VERSION_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[cfg(test)]
mod tests;
