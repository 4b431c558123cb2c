//! Bytes on their way: those that are checked, and those that are not yet.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bundle::Digest;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Error;

/// Bytes whose size and digest were checked.
pub enum Content {
    /// Small ones.
    Memory(Bytes),
    /// Large ones, in a file without a name, gone when dropped.
    File {
        /// The file.
        file: File,
        /// Its length.
        size: u64,
    },
}

impl Content {
    /// How many.
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    /// Up to `most` of them from `offset` on.
    pub fn read(&self, offset: u64, most: u64) -> Result<Bytes, Error> {
        let end = offset.saturating_add(most).min(self.size());
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(offset as usize..end as usize)),
            Self::File { file, .. } => {
                let mut file = file;
                let mut bytes = vec![0; (end - offset) as usize];
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(Error::local("cannot read a temporary file"))?;
                Ok(bytes.into())
            }
        }
    }

    /// All of them.
    pub fn into_bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            file => file.read(0, u64::MAX),
        }
    }
}

/// Bytes that are not checked yet. Nothing can be read from it but how many there are.
pub struct Partial {
    store: Store,
    hasher: Sha256,
    size: u64,
}

enum Store {
    Memory(Vec<u8>),
    Unnamed(File),
    Named(File, PathBuf),
}

impl Partial {
    /// None yet; in memory if `expected` is small, else in a file without a name.
    pub fn new(expected: u64) -> Result<Self, Error> {
        let store = if expected <= LARGEST_IN_MEMORY {
            Store::Memory(Vec::new())
        } else {
            let file =
                tempfile::tempfile().map_err(Error::local("cannot make a temporary file"))?;
            Store::Unnamed(file)
        };
        Ok(Self {
            store,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    /// Continues the file of an earlier process, if there is one.
    pub fn resume(path: &Path) -> Result<Self, Error> {
        let doing = format!("cannot continue {}", path.display());
        let failed = || Error::local(doing.clone());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed())?;
        file.try_lock().map_err(|error| Error::Local {
            doing: doing.clone(),
            cause: match error {
                TryLockError::WouldBlock => std::io::Error::other("another process writes to it"),
                TryLockError::Error(error) => error,
            },
        })?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut size = 0;
        loop {
            let count = file.read(&mut buffer).map_err(failed())?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
        Ok(Self {
            store: Store::Named(file, path.to_owned()),
            hasher,
            size,
        })
    }

    /// How many there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds some.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.store {
            Store::Memory(memory) => memory.extend_from_slice(bytes),
            Store::Unnamed(file) | Store::Named(file, _) => file
                .write_all(bytes)
                .map_err(Error::local("cannot write what arrives"))?,
        }
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Forgets them all.
    pub fn restart(&mut self) -> Result<(), Error> {
        match &mut self.store {
            Store::Memory(memory) => memory.clear(),
            Store::Unnamed(file) | Store::Named(file, _) => file
                .set_len(0)
                .and_then(|()| file.rewind())
                .map_err(Error::local("cannot write what arrives"))?,
        }
        self.hasher = Sha256::new();
        self.size = 0;
        Ok(())
    }

    /// Their digest so far.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Makes them visible, if they are `want`; else gives them back with what they are.
    pub fn check(self, want: &Digest) -> Result<Content, Box<(Self, Digest)>> {
        let got = self.digest();
        if got != *want {
            return Err(Box::new((self, got)));
        }
        let size = self.size;
        Ok(match self.store {
            Store::Memory(bytes) => Content::Memory(bytes.into()),
            Store::Unnamed(file) | Store::Named(file, _) => Content::File { file, size },
        })
    }

    /// Removes the file, if it has a name: what is in it is wrong.
    pub fn discard(self) {
        if let Store::Named(_, path) = self.store {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// BPF objects are smaller than this; container layers are not.
const LARGEST_IN_MEMORY: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_appear_only_under_their_digest() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("blob");
        std::fs::write(&named, b"hel").unwrap();
        let mut memory = Partial::new(5).unwrap();
        memory.append(b"hel").unwrap();
        let mut unnamed = Partial::new(LARGEST_IN_MEMORY + 1).unwrap();
        unnamed.append(b"wrong").unwrap();
        unnamed.restart().unwrap();
        unnamed.append(b"hel").unwrap();
        for mut partial in [memory, unnamed, Partial::resume(&named).unwrap()] {
            partial.append(b"l").unwrap();
            let Err(refused) = partial.check(&Digest::of(b"hello")) else {
                panic!("half a blob was visible");
            };
            let (mut partial, got) = *refused;
            assert_eq!(got, Digest::of(b"hell"));
            partial.append(b"o").unwrap();
            let Ok(content) = partial.check(&Digest::of(b"hello")) else {
                panic!("a whole blob was not visible");
            };
            assert_eq!(content.read(1, 3).unwrap(), "ell");
            assert_eq!(content.into_bytes().unwrap(), "hello");
        }
    }
}
