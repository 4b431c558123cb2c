//! What `BUNDLE|REFERENCE|OBJECT` on a command line means.
//!
//! The rule, in this order:
//! 1. What starts with `/`, `./` or `../` is a path.
//! 2. What has no registry look is a path. A registry look is: something before the first
//!    slash that has a dot or a colon, or is `localhost`.
//! 3. What has a registry look is a reference. If a file or folder of that name exists
//!    too, the path is meant where the text cannot be a reference; else it is refused as
//!    ambiguous.

use std::{
    fs::{self, File},
    io::{BufReader, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use bundle::{
    Digest,
    layout::{Builder, Layout, Limits, MalformedBundle},
};
use policy::Reason;

use crate::{
    Failure, Output, files,
    reference::{Host, Reference},
    registry::{Client, Connection, Progress, Pulled},
};

/// A path or a reference, not opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, or a folder with an OCI layout.
    Path(PathBuf),
    /// Something in a registry.
    Reference(Reference),
}

/// What a source holds.
pub enum Opened {
    /// A file that is no layout: an object or an executable.
    File {
        /// Where it is.
        path: PathBuf,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// A layout on disk.
    Layout {
        /// Where it is.
        path: PathBuf,
        /// What is in it.
        layout: Layout,
    },
    /// A layout from a registry.
    Remote(Box<Remote>),
}

/// An artifact from a registry, with the connection it came by.
pub struct Remote {
    /// For signatures that go back to the same place.
    pub client: Client,
    /// As it was asked for.
    pub reference: Reference,
    /// What it meant, resolved once.
    pub digest: Digest,
    /// The artifact and all that refers to it.
    pub layout: Layout,
}

impl Source {
    /// Decides by the rule of this module.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let path = PathBuf::from(text);
        if ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            return Ok(Self::Path(path));
        }
        let first = text.split('/').next().unwrap_or_default();
        if !text.contains('/') || !Host::looks_like(first) {
            return Ok(Self::Path(path));
        }
        let parsed = text.parse::<Reference>();
        let exists = fs::symlink_metadata(&path).is_ok();
        match parsed {
            Ok(_) if exists => Err(Failure::usage(format!(
                "`{text}` is both a file here and the name of an artifact on {first}"
            ))
            .with_remedy(format!(
                "Write `./{text}` for the file, or call from another folder for the registry."
            ))),
            Ok(reference) => Ok(Self::Reference(reference)),
            Err(_) if exists => Ok(Self::Path(path)),
            Err(error) => Err(not_a_reference(&error)),
        }
    }

    /// Reads it, over the network if need be.
    pub fn open(self, connection: &Connection, output: &Output) -> Result<Opened, Failure> {
        match self {
            Self::Path(path) => open_path(path),
            Self::Reference(reference) => {
                let client = Client::new(connection, progress(output, "pull"))?;
                let pulled = client.fetch(&reference)?;
                check_root(&pulled, &reference)?;
                Ok(Opened::Remote(Box::new(Remote {
                    client,
                    reference,
                    digest: pulled.digest,
                    layout: pulled.layout,
                })))
            }
        }
    }
}

/// What was asked for must be the bundle, not something that refers to it: anybody who may
/// push can attach a bundle, even a signed one, to another artifact.
fn check_root(pulled: &Pulled, reference: &Reference) -> Result<(), Failure> {
    match pulled.layout.bundle_descriptor() {
        Ok(bundle) if bundle.digest != pulled.digest => Err(Failure::refused(
            Reason::NotABundle,
            format!("{reference} is {}, which is no bundle", pulled.digest),
        )),
        // What else is wrong with it is said by those who look into it.
        _ => Ok(()),
    }
}

/// Parses an argument that can only be a reference.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|error| not_a_reference(&error))
}

/// A bar for people at terminals, nothing for machines.
pub fn progress(output: &Output, verb: &'static str) -> Progress {
    if output.is_json() {
        Progress::hidden()
    } else {
        Progress::shown(verb)
    }
}

/// Reads a layout from a tar file or a folder.
pub fn open_layout(path: &Path) -> Result<Layout, Failure> {
    match open_path(path.to_owned())? {
        Opened::Layout { layout, .. } => Ok(layout),
        _ => Err(Failure::refused(
            Reason::MalformedBundle,
            format!("{} is not an OCI layout", path.display()),
        )),
    }
}

fn open_path(path: PathBuf) -> Result<Opened, Failure> {
    let failed = |error| Failure::io("cannot read", &path, error);
    if fs::metadata(&path).map_err(failed)?.is_dir() {
        let layout = read_folder(&path).map_err(|error| malformed(&path, error))?;
        return Ok(Opened::Layout { path, layout });
    }
    let Some((mut file, length)) = files::open_regular(&path).map_err(failed)? else {
        return Err(Failure::usage(format!(
            "{} is neither a file nor a folder",
            path.display()
        )));
    };
    if is_tar(&mut file).map_err(failed)? {
        let input = BufReader::new(file);
        let layout =
            Layout::read(input, &Limits::default()).map_err(|error| malformed(&path, error))?;
        return Ok(Opened::Layout { path, layout });
    }
    files::check_length(&path, length)?;
    let bytes = files::read_large(file, length).map_err(failed)?;
    Ok(Opened::File { path, bytes })
}

/// Has the file a tar header? Leaves it at its start.
fn is_tar(file: &mut File) -> std::io::Result<bool> {
    use std::io::{Seek as _, SeekFrom};
    let mut header = Vec::new();
    file.take(512).read_to_end(&mut header)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(header.get(257..262) == Some(b"ustar"))
}

/// A folder with an OCI layout. Only what a layout has is read.
fn read_folder(folder: &Path) -> Result<Layout, MalformedBundle> {
    let mut builder = Builder::new(Limits::default());
    let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    if let Ok(blobs) = fs::read_dir(folder.join(BLOBS)) {
        for blob in blobs {
            let name = blob?.file_name();
            names.push(format!("{BLOBS}/{}", name.to_string_lossy()));
        }
    }
    names.sort();
    for name in names {
        match files::open_regular(&folder.join(&name)) {
            Ok(Some((file, length))) => builder.file(&name, length, file)?,
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    builder.finish()
}

fn malformed(path: &Path, error: MalformedBundle) -> Failure {
    let reason = match &error {
        MalformedBundle::Digest { .. } => Reason::DigestMismatch,
        MalformedBundle::Limit(_) => Reason::LimitExceeded,
        MalformedBundle::NotABundle(_) => Reason::NotABundle,
        MalformedBundle::Inventory(_) => Reason::InventoryMismatch,
        MalformedBundle::Object { .. } => Reason::MalformedObject,
        _ => Reason::MalformedBundle,
    };
    Failure::refused(reason, format!("{}: {error}", path.display()))
}

fn not_a_reference(error: &dyn std::error::Error) -> Failure {
    let mut message = error.to_string();
    if let Some(source) = error.source() {
        message = format!("{message}: {source}");
    }
    Failure::usage(message).with_remedy(
        "A reference is host[:port]/repository[:tag][@digest]; a path starts with ./ or /.",
    )
}

const BLOBS: &str = "blobs/sha256";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_paths_from_references() {
        for path in [
            "a.o",
            "a",
            "build/a.o",
            "./r.io/a",
            "../r.io/a",
            "/r.io/a",
            "..",
            "a:b",
            "missing/folder/a.tar",
        ] {
            assert_eq!(
                Source::parse(path).unwrap(),
                Source::Path(path.into()),
                "{path}"
            );
        }
        for text in ["r.io/a", "localhost/a:v1", "registry:5000/a", "[::1]/a"] {
            assert_eq!(
                Source::parse(text).unwrap(),
                Source::Reference(text.parse().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn says_how_to_write_it() {
        let failure = Source::parse("r.io/A").unwrap_err();
        assert_eq!(
            failure.message,
            "`A` is not a repository: lower-case letters and digits, separated by . _ __ - or /"
        );
        assert_eq!(failure.exit, crate::failure::Exit::Usage);
    }
}
