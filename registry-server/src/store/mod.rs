//! Where blobs' bytes are. The metadata says which of them exist; a store only keeps
//! bytes and promises that what it [keeps](Partial::keep) survives a power cut.
//!
//! All calls block: the server makes them on threads for blocking work.

mod bucket;
mod directory;
#[cfg(test)]
mod memory;

use std::{fmt, io, time::Duration};

use crate::{
    digest::{Algorithm, Digest},
    route::UploadId,
};

pub use bucket::{Address, Bucket, BucketError};
pub use directory::Directory;

/// The bytes of a blob in a store.
///
/// Where several instances write, each push keeps its bytes under a name of its own, and one
/// row names the copy that counts. So whatever a collector removes is nothing that somebody
/// else has just pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What the bytes hash to.
    pub digest: Digest,
    /// Which copy of them; empty where there can be one only.
    pub copy: String,
}

impl Object {
    /// The only copy.
    pub fn only(digest: Digest) -> Self {
        let copy = String::new();
        Self { digest, copy }
    }

    /// Its last part in the store.
    fn file_name(&self) -> String {
        match self.copy.as_str() {
            "" => self.digest.to_hex(),
            copy => format!("{}.{copy}", self.digest.to_hex()),
        }
    }

    fn parse(algorithm: &str, file: &str) -> Option<Self> {
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|known| known.name() == algorithm)?;
        let (hex, copy) = file.split_once('.').unwrap_or((file, ""));
        Some(Self {
            digest: format!("{}:{hex}", algorithm.name()).parse().ok()?,
            copy: copy.to_owned(),
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.copy.as_str() {
            "" => self.digest.fmt(f),
            copy => write!(f, "{}.{copy}", self.digest),
        }
    }
}

/// Tells stores apart, so that a database is never used with the blobs of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreId(String);

/// Where a store keeps its id.
const STORE_ID: &str = "store-id";

impl StoreId {
    /// An id that no other store has.
    pub fn random() -> io::Result<Self> {
        Ok(Self(UploadId::from_random(random()?).to_string()))
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for StoreId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Sixteen bytes that nobody can guess.
pub fn random() -> io::Result<[u8; 16]> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes))?;
    Ok(bytes)
}

/// A place for blobs.
pub trait Store: Send + Sync + 'static {
    /// Begins the bytes of an upload.
    fn begin(&self, id: UploadId) -> io::Result<Box<dyn Partial>>;

    /// Takes up the bytes of an upload that an earlier process or another instance began,
    /// `NotFound` if there are none, `ResourceBusy` while somebody writes to it.
    fn resume(&self, id: UploadId) -> io::Result<Box<dyn Partial>>;

    /// The uploads that an earlier process left, with the note of each.
    fn unfinished(&self) -> io::Result<Vec<(UploadId, String)>>;

    /// Uploads to which nothing was written for `age`, where several instances write.
    fn stale_uploads(&self, age: Duration) -> io::Result<Vec<UploadId>>;

    /// A blob's bytes, or nothing.
    fn open(&self, object: &Object) -> io::Result<Option<Box<dyn Content>>>;

    /// Forgets a blob. One that does not exist is no error.
    fn remove(&self, object: &Object) -> io::Result<()>;

    /// Puts damaged bytes where they are no blob any more but can be looked at.
    fn set_aside(&self, object: &Object) -> io::Result<()>;

    /// Whether the store can be reached.
    fn ping(&self) -> io::Result<()>;

    /// Every stored blob with its age in seconds, in no order.
    fn list(&self) -> io::Result<Vec<(Object, u64)>>;

    /// Makes the store the one with this id, unless it has one. Says which it has.
    fn claim(&self, id: &StoreId) -> io::Result<StoreId>;
}

/// The bytes of an upload so far. Dropped without being kept, it stays for a later
/// [`Store::resume`] if it has a note, and goes away otherwise.
pub trait Partial: Send {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Adds bytes at the end, all of them or (on an error) none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Lets a later process find this upload by what the note says, and other instances go
    /// on with it.
    fn note(&mut self, note: &str) -> io::Result<()>;

    /// Passes everything so far to `take`, in order.
    fn replay(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<()>;

    /// Makes the bytes the blob `object`. They are durable when this returns.
    fn keep(self: Box<Self>, object: &Object) -> io::Result<()>;

    /// Throws the bytes away.
    fn discard(self: Box<Self>) -> io::Result<()>;
}

/// A blob that can be read. Stays readable while it is being removed.
pub trait Content: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset` on, or fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{memory::Memory, *};
    use crate::digest::Algorithm;

    /// The same table for every store.
    fn each(test: impl Fn(&dyn Fn() -> Box<dyn Store>)) {
        let memory = Memory::default();
        test(&|| Box::new(memory.clone()));
        let folder = tempfile::tempdir().unwrap();
        test(&|| Box::new(Directory::open(folder.path()).unwrap()));
    }

    fn id(n: u8) -> UploadId {
        UploadId::from_random([n; 16])
    }

    fn read(store: &dyn Store, digest: &Digest) -> Option<Vec<u8>> {
        let content = store.open(&Object::only(*digest)).unwrap()?;
        let mut bytes = vec![0; content.size() as usize];
        content.read_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn a_blob_is_invisible_until_it_is_kept() {
        each(|open| {
            let store = open();
            for (n, algorithm) in (1..).zip(Algorithm::ALL) {
                let digest = Digest::of(algorithm, b"hello");
                let mut partial = store.begin(id(n)).unwrap();
                partial.append(b"hel").unwrap();
                partial.append(b"lo").unwrap();
                assert_eq!(partial.len(), 5);
                assert_eq!(read(&*store, &digest), None);
                partial.keep(&Object::only(digest)).unwrap();
                assert_eq!(read(&*store, &digest), Some(b"hello".to_vec()));
                assert_eq!(read(&*open(), &digest), Some(b"hello".to_vec()));
                store.remove(&Object::only(digest)).unwrap();
                store.remove(&Object::only(digest)).unwrap();
                assert_eq!(read(&*store, &digest), None);
            }
            assert_eq!(store.list().unwrap(), []);
        });
    }

    #[test]
    fn only_an_upload_with_a_note_can_be_resumed() {
        each(|open| {
            let store = open();
            let mut noted = store.begin(id(1)).unwrap();
            noted.note("sha256 a/b").unwrap();
            noted.append(b"hel").unwrap();
            drop(noted);
            let mut plain = store.begin(id(2)).unwrap();
            plain.append(b"lost").unwrap();
            drop(plain);
            let store = open();
            assert_eq!(
                store.unfinished().unwrap(),
                [(id(1), "sha256 a/b".to_owned())]
            );
            assert!(
                store
                    .resume(id(2))
                    .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            );
            let mut resumed = store.resume(id(1)).unwrap();
            resumed.append(b"lo").unwrap();
            let mut all = Vec::new();
            resumed
                .replay(&mut |bytes| all.extend_from_slice(bytes))
                .unwrap();
            assert_eq!(all, b"hello");
            resumed.discard().unwrap();
            assert_eq!(store.unfinished().unwrap(), []);
        });
    }

    #[test]
    fn a_directory_names_files_after_digests() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::open(folder.path()).unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"{}");
        let mut partial = store.begin(id(1)).unwrap();
        partial.append(b"{}").unwrap();
        partial.keep(&Object::only(digest)).unwrap();
        let path = Path::new("blobs/sha256/44").join(digest.to_hex());
        assert_eq!(std::fs::read(folder.path().join(path)).unwrap(), b"{}");
    }
}
