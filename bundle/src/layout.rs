//! OCI image layouts (image-spec 1.1, `image-layout.md`): a bundle on disk.
//!
//! A layout is `oci-layout`, `index.json` and `blobs/sha256/*`, in a tar or a folder.
//! The reader takes what skopeo, oras, crane and buildkit write. A blob is visible only
//! after its size and digest were checked; links, devices, duplicate names and paths
//! that leave the layout are refused, so nobody can put two readings into one file.
//! The writer sorts and fixes everything that is not content: equal layouts are equal bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
};

use crate::{
    Digest,
    manifest::{Descriptor, Index, Manifest},
    media,
    unverified::{Referrer, UnverifiedBundle},
};

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
    blobs: BTreeMap<Digest, Vec<u8>>,
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

    /// Reads a layout from a tar stream.
    ///
    /// # Errors
    /// The first thing in the stream that is not as this module says.
    pub fn read(input: impl Read, limits: &Limits) -> Result<Self, MalformedBundle> {
        let mut archive = tar::Archive::new(input.take(limits.total));
        let mut builder = Builder::new(*limits);
        for entry in archive.entries()? {
            let mut entry =
                entry.map_err(|error| structure(format!("not a tar archive: {error}")))?;
            let kind = entry.header().entry_type();
            let path = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|_| structure("a file name in the tar is not UTF-8"))?;
            match kind {
                tar::EntryType::Directory => builder.folder(&path)?,
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let size = entry.size();
                    builder.file(&path, size, &mut entry)?;
                }
                // Comments of git and GNU tar, about no file.
                tar::EntryType::XGlobalHeader => {}
                other => {
                    let name = inside(&path)?;
                    return Err(structure(format!(
                        "{name:?} is a {}, not a file",
                        kind_name(other)
                    )));
                }
            }
        }
        builder.finish()
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
            .map(|(digest, bytes)| (format!("{BLOBS}{}", digest.to_hex()), bytes.into()))
            .collect();
        let mut index = self.index.clone();
        index.media_type = Some(media::INDEX.to_owned());
        files.push(("index.json".to_owned(), index.to_bytes().into()));
        files.push(("oci-layout".to_owned(), VERSION_FILE.into()));
        files
    }

    /// Adds bytes and says their digest.
    pub fn add_blob(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
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

    /// The bytes of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<&[u8]> {
        self.blobs.get(digest).map(Vec::as_slice)
    }

    /// The bytes that a descriptor names, if their size is as it says.
    ///
    /// # Errors
    /// When they are missing or of another size.
    pub fn described(&self, descriptor: &Descriptor) -> Result<&[u8], MalformedBundle> {
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
        self.blobs
            .iter()
            .map(|(digest, bytes)| (digest, bytes.as_slice()))
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
        let tag = format!("sha256-{}.sig", subject.to_hex());
        let tagged: BTreeSet<Digest> = self
            .index
            .manifests
            .iter()
            .filter(|d| d.annotations.get(media::REF_NAME) == Some(&tag))
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

/// Assembles a layout from its files, in any order; for tars and for folders.
pub struct Builder {
    limits: Limits,
    entries: usize,
    bytes: u64,
    names: BTreeSet<String>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    index: Option<Vec<u8>>,
    version: Option<Vec<u8>>,
}

impl Builder {
    /// Nothing yet.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: 0,
            bytes: 0,
            names: BTreeSet::new(),
            blobs: BTreeMap::new(),
            index: None,
            version: None,
        }
    }

    /// Takes note of a folder.
    ///
    /// # Errors
    /// When its path leaves the layout, or there are too many entries.
    pub fn folder(&mut self, path: &str) -> Result<(), MalformedBundle> {
        self.count()?;
        inside(path).map(drop)
    }

    /// Takes a file of `size` bytes: the layout's own are read and checked, others skipped.
    ///
    /// # Errors
    /// When its path leaves the layout or was there before, when it is too large, or when
    /// a blob's bytes are not what its name says.
    pub fn file(
        &mut self,
        path: &str,
        size: u64,
        mut bytes: impl Read,
    ) -> Result<(), MalformedBundle> {
        self.count()?;
        let name = inside(path)?;
        if !self.names.insert(name.clone()) {
            return Err(structure(format!("{name:?} is in it twice")));
        }
        let digest = match name.as_str() {
            "index.json" | "oci-layout" => None,
            blob => match blob.strip_prefix(BLOBS) {
                Some(hex) => Some(blob_digest(hex)?),
                None => return Ok(()),
            },
        };
        let content = self.take(&name, size, &mut bytes)?;
        match digest {
            Some(want) => {
                let got = Digest::of(&content);
                if got != want {
                    return Err(MalformedBundle::Digest {
                        what: format!("blob {}", want.to_hex()),
                        want: want.to_string(),
                        got: got.to_string(),
                    });
                }
                self.blobs.insert(want, content);
            }
            None if name == "index.json" => self.index = Some(content),
            None => self.version = Some(content),
        }
        Ok(())
    }

    /// The layout.
    ///
    /// # Errors
    /// When `oci-layout` or `index.json` is missing or of another version.
    pub fn finish(self) -> Result<Layout, MalformedBundle> {
        let version = self.version.ok_or_else(|| {
            if self.entries == 0 {
                structure("not a tar archive of an OCI layout: it is empty")
            } else {
                structure("not an OCI layout: there is no `oci-layout` file")
            }
        })?;
        let version: VersionFile = serde_json::from_slice(&version)
            .map_err(|error| structure(format!("oci-layout: {error}")))?;
        if version.image_layout_version != LAYOUT_VERSION {
            return Err(structure(format!(
                "oci-layout: version {:?}, not {LAYOUT_VERSION:?}",
                version.image_layout_version
            )));
        }
        let index = self
            .index
            .ok_or_else(|| structure("not an OCI layout: there is no `index.json` file"))?;
        if index.len() > self.limits.manifest {
            return Err(MalformedBundle::Limit(format!(
                "index.json has {} bytes, over {}",
                index.len(),
                self.limits.manifest
            )));
        }
        let mut index =
            Index::parse(&index).map_err(|error| structure(format!("index.json: {error}")))?;
        index.media_type = None;
        Ok(Layout {
            blobs: self.blobs,
            index,
        })
    }

    fn count(&mut self) -> Result<(), MalformedBundle> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(MalformedBundle::Limit(format!(
                "it has more than {} files",
                self.limits.entries
            )));
        }
        Ok(())
    }

    fn take(
        &mut self,
        name: &str,
        size: u64,
        bytes: &mut impl Read,
    ) -> Result<Vec<u8>, MalformedBundle> {
        if size > self.limits.blob {
            return Err(MalformedBundle::Limit(format!(
                "{name:?} has {size} bytes, over {}",
                self.limits.blob
            )));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.total {
            return Err(MalformedBundle::Limit(format!(
                "it has more than {} bytes",
                self.limits.total
            )));
        }
        // Memory grows with what is really there, never with what a header claims.
        let mut content = Vec::with_capacity(size.min(64 << 10) as usize);
        bytes
            .take(size.saturating_add(1))
            .read_to_end(&mut content)?;
        if content.len() as u64 != size {
            return Err(structure(format!(
                "{name:?} is cut off or grew: {} of {size} bytes, or the layout is over {} bytes",
                content.len(),
                self.limits.total
            )));
        }
        Ok(content)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionFile {
    image_layout_version: String,
}

/// The path without leading `./`, if it stays inside.
fn inside(path: &str) -> Result<String, MalformedBundle> {
    if path.len() > MAX_PATH {
        return Err(structure(format!(
            "a path has {} bytes, over {MAX_PATH}",
            path.len()
        )));
    }
    let refuse = |why: &str| Err(structure(format!("path {path:?} {why}")));
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.contains(['\0', '\\']) {
        return refuse("has a character that no layout uses");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse("leaves the layout"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn blob_digest(hex: &str) -> Result<Digest, MalformedBundle> {
    format!("sha256:{hex}")
        .parse()
        .map_err(|_| structure(format!("blob name {hex:?} is not a SHA-256 digest")))
}

fn kind_name(kind: tar::EntryType) -> &'static str {
    match kind {
        tar::EntryType::Link => "hard link",
        tar::EntryType::Symlink => "symbolic link",
        tar::EntryType::Char | tar::EntryType::Block => "device",
        tar::EntryType::Fifo => "FIFO",
        tar::EntryType::GNUSparse => "sparse file",
        _ => "special entry",
    }
}

fn structure(what: impl Into<String>) -> MalformedBundle {
    MalformedBundle::Structure(what.into())
}

/// Most bytes of all that refers to a bundle: thousands of signatures. One blob may be the
/// layer of many manifests, so the layout's own limit is none for copies.
const MAX_REFERRERS: u64 = 16 << 20;
const BLOBS: &str = "blobs/sha256/";
/// As `PATH_MAX` in Linux; the longest path of a layout itself has 77 bytes.
const MAX_PATH: usize = 4096;
const LAYOUT_VERSION: &str = "1.0.0";
const VERSION_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Layout {
        let mut layout = Layout::new();
        let config = layout.add_blob(media::EMPTY_JSON.to_vec());
        let manifest = Manifest::artifact(
            "application/x",
            Descriptor {
                digest: config,
                ..Descriptor::of(media::EMPTY, media::EMPTY_JSON)
            },
            vec![],
        );
        layout
            .add_manifest(manifest.to_bytes(), Some("1.0"))
            .unwrap();
        layout
    }

    fn tar_of(layout: &Layout) -> Vec<u8> {
        let mut bytes = Vec::new();
        layout.write(&mut bytes, 0).unwrap();
        bytes
    }

    /// A tar of `(path, kind, bytes)`, with headers as hostile as the test wants them.
    fn raw_tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            if *kind == tar::EntryType::Symlink || *kind == tar::EntryType::Link {
                header.set_link_name("index.json").unwrap();
            }
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        Layout::read(bytes, &Limits::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn reads_what_it_writes_and_writes_the_same_bytes() {
        let layout = sample();
        let first = tar_of(&layout);
        let again = Layout::read(first.as_slice(), &Limits::default()).unwrap();
        assert_eq!(again, layout);
        assert_eq!(tar_of(&again), first);
    }

    #[test]
    fn a_name_is_one_manifests_alone_and_a_manifest_is_listed_once() {
        let mut layout = sample();
        let mut other =
            Manifest::parse(layout.blob(&layout.index.manifests[0].digest).unwrap()).unwrap();
        layout.add_manifest(other.to_bytes(), None).unwrap();
        assert_eq!(layout.index.manifests.len(), 1);
        other.annotations.insert("a".to_owned(), "b".to_owned());
        layout.add_manifest(other.to_bytes(), Some("1.0")).unwrap();
        let names: Vec<_> = layout
            .index
            .manifests
            .iter()
            .map(|d| d.annotations.get(media::REF_NAME).map(String::as_str))
            .collect();
        assert_eq!(names, [None, Some("1.0")]);
    }

    #[test]
    fn refuses_paths_links_and_duplicates() {
        use tar::EntryType::{Fifo, Link, Regular, Symlink};
        let version: (&str, _, &[u8]) = ("oci-layout", Regular, VERSION_FILE);
        for (entries, want) in [
            (
                vec![("../x", Regular, &b""[..])],
                r#"path "../x" leaves the layout"#,
            ),
            (
                vec![("/oci-layout", Regular, &b""[..])],
                r#"path "/oci-layout" is absolute"#,
            ),
            (
                vec![("a\\b", Regular, &b""[..])],
                r#"path "a\\b" has a character that no layout uses"#,
            ),
            (
                vec![("blobs", Symlink, &b""[..])],
                r#""blobs" is a symbolic link, not a file"#,
            ),
            (
                vec![("blobs", Link, &b""[..])],
                r#""blobs" is a hard link, not a file"#,
            ),
            (
                vec![("blobs", Fifo, &b""[..])],
                r#""blobs" is a FIFO, not a file"#,
            ),
            (
                vec![version, ("./oci-layout", Regular, VERSION_FILE)],
                r#""oci-layout" is in it twice"#,
            ),
            (
                vec![("blobs/sha256/AB", Regular, &b""[..])],
                r#"blob name "AB" is not a SHA-256 digest"#,
            ),
            (
                vec![version],
                "not an OCI layout: there is no `index.json` file",
            ),
            (
                vec![("x", Regular, &b""[..])],
                "not an OCI layout: there is no `oci-layout` file",
            ),
            (vec![], "not a tar archive of an OCI layout: it is empty"),
        ] {
            assert_eq!(refusal(&raw_tar(&entries)), want);
        }
    }

    #[test]
    fn refuses_a_blob_that_is_not_what_its_name_says() {
        let digest = Digest::of(b"a");
        let path = format!("{BLOBS}{}", digest.to_hex());
        let bytes = raw_tar(&[(&path, tar::EntryType::Regular, b"b")]);
        assert_eq!(
            refusal(&bytes),
            format!(
                "blob {} has digest {}, not {digest}",
                digest.to_hex(),
                Digest::of(b"b")
            )
        );
    }

    #[test]
    fn refuses_what_is_over_its_limits() {
        let bytes = tar_of(&sample());
        let read = |limits| {
            Layout::read(bytes.as_slice(), &limits)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        let limits = Limits::default();
        assert_eq!(read(limits), Ok(()));
        assert_eq!(
            read(Limits {
                entries: 2,
                ..limits
            }),
            Err("it has more than 2 files".to_owned())
        );
        assert_eq!(
            read(Limits { blob: 1, ..limits }),
            Err(format!(
                "\"{BLOBS}44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\" has 2 bytes, over 1"
            ))
        );
        assert_eq!(
            read(Limits {
                manifest: 10,
                ..limits
            })
            .map_err(|e| e.ends_with("bytes, over 10")),
            Err(true)
        );
    }

    #[test]
    fn a_cut_off_tar_is_refused_at_every_length() {
        let bytes = tar_of(&sample());
        let content = bytes.len() - 1024;
        for end in 0..content - 511 {
            assert!(
                Layout::read(&bytes[..end], &Limits::default()).is_err(),
                "accepted the first {end} bytes"
            );
        }
    }

    #[test]
    fn files_that_no_layout_needs_are_skipped() {
        let layout = sample();
        let mut bytes = tar_of(&layout);
        bytes.truncate(bytes.len() - 1024);
        bytes.extend(raw_tar(&[
            ("manifest.json", tar::EntryType::Regular, b"[]"),
            ("ingest", tar::EntryType::Directory, b""),
        ]));
        assert_eq!(
            Layout::read(bytes.as_slice(), &Limits::default()).unwrap(),
            layout
        );
    }

    #[test]
    fn one_blob_in_many_places_is_not_copied_without_end() {
        let mut layout = sample();
        let subject = layout.index.manifests[0].clone();
        let blob = vec![0; 1 << 20];
        let layer = Descriptor::of("application/x", &blob);
        layout.add_blob(blob);
        let config = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
        let mut manifest = Manifest::artifact("application/x", config, vec![layer; 20]);
        manifest.subject = Some(subject.clone());
        let listed = layout.add_manifest(manifest.to_bytes(), None).unwrap();
        layout.index.manifests.extend(vec![listed; 1000]);
        let referrers = layout.referrers(&subject.digest);
        assert_eq!(referrers.len(), 1);
        let copied = referrers[0]
            .layers
            .iter()
            .filter(|layer| layer.is_ok())
            .count();
        assert_eq!(copied, 15);
        assert_eq!(
            referrers[0].layers[19],
            Err("there is more attached than is read".to_owned())
        );
    }

    #[test]
    fn a_layout_of_something_else_is_no_bundle() {
        assert_eq!(
            sample().bundle().unwrap_err().to_string(),
            "the layout holds no bundle, but application/x"
        );
        assert_eq!(
            Layout::new().bundle().unwrap_err().to_string(),
            "the layout is empty"
        );
    }
}
