//! The guest's root file system: what is put in, with the libraries that programs need.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use goblin::elf::Elf;

use super::archive::{Archive, DIRECTORY, LINK, REGULAR};

/// A root file system in the making.
#[derive(Debug, Default)]
pub struct Initramfs {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
enum Node {
    Directory,
    File { mode: u32, content: Content },
    Link(String),
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

/// A file system could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A file of this machine.
    #[error("{path}")]
    Host {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program is not an ELF file.
    #[error("{path} is not an ELF program")]
    NotAProgram {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: goblin::error::Error,
    },
    /// A library that no root has.
    #[error("{program} needs {library}, which is in none of its roots")]
    NoLibrary {
        /// Who needs it.
        program: PathBuf,
        /// What is missing.
        library: String,
    },
}

/// Where Debian keeps libraries for x86-64, and where its dynamic loader looks for them; systemd
/// names a folder of its own.
const LIBRARIES: [&str; 5] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/systemd",
    "lib/x86_64-linux-gnu",
    "usr/lib64",
    "lib64",
];

impl Initramfs {
    /// A merged-/usr tree with Busybox from `busybox` (a static build) and its applets.
    pub fn new(busybox: &Path) -> Self {
        let mut root = Self::default();
        for folder in [
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "root",
            "etc",
            "usr/bin",
            "usr/sbin",
            "usr/lib64",
            "usr/lib/x86_64-linux-gnu",
            "var/tmp",
        ] {
            root.directory(folder);
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            root.link(name, &format!("usr/{name}"));
        }
        root.host_file("usr/bin/busybox", busybox, 0o755);
        root.link("usr/bin/sh", "busybox");
        root
    }

    /// A folder, and the folders above it.
    pub fn directory(&mut self, path: &str) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), Node::Directory);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.nodes
            .insert(path.to_owned(), Node::Link(to.to_owned()));
    }

    /// A file with the given content.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.parents(path);
        let content = Content::Bytes(content.into());
        self.nodes
            .insert(path.to_owned(), Node::File { mode, content });
    }

    /// A copy of a file of this machine, read when the archive is written.
    pub fn host_file(&mut self, path: &str, host: &Path, mode: u32) {
        self.parents(path);
        let content = Content::Host(host.to_owned());
        self.nodes
            .insert(path.to_owned(), Node::File { mode, content });
    }

    /// A copy of a folder of this machine with everything below it.
    pub fn host_folder(&mut self, path: &str, host: &Path) -> Result<(), InitramfsError> {
        let failed = |source| InitramfsError::Host {
            path: host.to_owned(),
            source,
        };
        self.directory(path);
        for entry in fs::read_dir(host).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{path}/{}", entry.file_name().to_string_lossy());
            let metadata = entry.metadata().map_err(failed)?;
            if metadata.is_dir() {
                self.host_folder(&name, &entry.path())?;
            } else if metadata.is_symlink() {
                let to = fs::read_link(entry.path()).map_err(failed)?;
                self.link(&name, &to.to_string_lossy());
            } else {
                self.host_file(&name, &entry.path(), metadata.permissions().mode() & 0o777);
            }
        }
        Ok(())
    }

    /// A program with its dynamic loader and libraries, each from the first of `roots` that
    /// has it. All programs of a guest share one set of libraries: the first one's wins, so
    /// programs of the newest release come first.
    pub fn program(
        &mut self,
        path: &str,
        host: &Path,
        roots: &[PathBuf],
    ) -> Result<(), InitramfsError> {
        self.host_file(path, host, 0o755);
        let mut unread = vec![host.to_owned()];
        while let Some(file) = unread.pop() {
            for library in needed(&file)? {
                let name = library.rsplit('/').next().unwrap_or(&library).to_owned();
                let loader = library.starts_with('/');
                let folder = if loader { "usr/lib64" } else { LIBRARIES[0] };
                let guest = format!("{folder}/{name}");
                if self.nodes.contains_key(&guest) {
                    continue;
                }
                let found = find(&name, roots).ok_or_else(|| InitramfsError::NoLibrary {
                    program: file.clone(),
                    library: library.clone(),
                })?;
                self.host_file(&guest, &found, 0o755);
                unread.push(found);
            }
        }
        Ok(())
    }

    /// A program of another release, with a loader and libraries of its own below
    /// `/opt/FOLDER`, started by a script in `path`.
    pub fn program_apart(
        &mut self,
        path: &str,
        folder: &str,
        host: &Path,
        root: &Path,
    ) -> Result<(), InitramfsError> {
        let roots = [root.to_owned()];
        let file = host.file_name().unwrap_or_default().to_string_lossy();
        self.host_file(&format!("opt/{folder}/{file}"), host, 0o755);
        let mut unread = vec![host.to_owned()];
        while let Some(from) = unread.pop() {
            for library in needed(&from)? {
                let name = library.rsplit('/').next().unwrap_or(&library).to_owned();
                let guest = format!("opt/{folder}/lib/{name}");
                if self.nodes.contains_key(&guest) {
                    continue;
                }
                let found = find(&name, &roots).ok_or_else(|| InitramfsError::NoLibrary {
                    program: from.clone(),
                    library: library.clone(),
                })?;
                self.host_file(&guest, &found, 0o755);
                unread.push(found);
            }
        }
        let start = format!(
            "#!/bin/sh\nexec /opt/{folder}/lib/ld-linux-x86-64.so.2 --argv0 {file} \
             --library-path /opt/{folder}/lib /opt/{folder}/{file} \"$@\"\n"
        );
        self.file(path, start, 0o755);
        Ok(())
    }

    /// Writes the archive that the kernel unpacks.
    pub fn write(&self, path: &Path) -> Result<(), InitramfsError> {
        let failed = |source| InitramfsError::Host {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::create(path).map_err(failed)?;
        let mut archive = Archive::new(io::BufWriter::with_capacity(1 << 20, file));
        for (name, node) in &self.nodes {
            match node {
                Node::Directory => archive.entry(name, DIRECTORY | 0o755, &[]),
                Node::Link(to) => archive.entry(name, LINK | 0o777, to.as_bytes()),
                Node::File {
                    mode,
                    content: Content::Bytes(bytes),
                } => archive.entry(name, REGULAR | mode, bytes),
                Node::File {
                    mode,
                    content: Content::Host(host),
                } => archive.entry(name, REGULAR | mode, &read(host)?),
            }
            .map_err(failed)?;
        }
        archive.finish().map(drop).map_err(failed)
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.nodes
                .entry(path[..at].to_owned())
                .or_insert(Node::Directory);
        }
    }
}

// The interpreter (an absolute path) and the libraries that an ELF file names itself.
fn needed(path: &Path) -> Result<Vec<String>, InitramfsError> {
    let bytes = read(path)?;
    let elf = Elf::parse(&bytes).map_err(|source| InitramfsError::NotAProgram {
        path: path.to_owned(),
        source,
    })?;
    let names = elf.interpreter.iter().chain(&elf.libraries);
    Ok(names.map(|name| (*name).to_owned()).collect())
}

fn find(name: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let folders = roots
        .iter()
        .flat_map(|root| LIBRARIES.map(|folder| root.join(folder)));
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

fn read(path: &Path) -> Result<Vec<u8>, InitramfsError> {
    fs::read(path).map_err(|source| InitramfsError::Host {
        path: path.to_owned(),
        source,
    })
}
