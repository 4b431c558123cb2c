//! Reading: a layout out of a tar or a folder, checked file by file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use super::{BLOBS, Layout, Limits, MalformedBundle, structure};
use crate::{Blob, Digest, manifest::Index};

impl Layout {
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
}

/// Assembles a layout from its files, in any order; for tars and for folders.
pub struct Builder {
    limits: Limits,
    entries: usize,
    bytes: u64,
    names: BTreeSet<String>,
    blobs: BTreeMap<Digest, Blob>,
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
                let blob = Blob::new(content);
                let got = blob.digest();
                if got != want {
                    return Err(MalformedBundle::Digest {
                        what: format!("blob {}", want.to_hex()),
                        want: want.to_string(),
                        got: got.to_string(),
                    });
                }
                self.blobs.insert(want, blob);
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
                structure("not an OCI layout: it is empty")
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
        let mut content = Vec::with_capacity(size.min(1 << 20) as usize);
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

/// As `PATH_MAX` in Linux; the longest path of a layout itself has 77 bytes.
const MAX_PATH: usize = 4096;
const LAYOUT_VERSION: &str = "1.0.0";
