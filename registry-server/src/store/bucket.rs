//! Blobs as objects in an S3-compatible store, for any number of instances.
//!
//! `blobs/<algorithm>/<first two digits>/<digits>[.<copy>]` are blobs,
//! `uploads/<id>/<offset>` the pieces of uploads under way. Every object is created once and
//! conditionally, and never written again: [`Bucket::open`] refuses a store that lets two
//! writers create the same object.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload,
    RetryConfig, WriteMultipart, aws::AmazonS3Builder, path::Path,
};
use tokio::runtime::Handle;

use super::{Content, Object, Partial, Store, StoreId};
use crate::route::UploadId;

/// Bytes of an upload that are collected before they become a piece. An upload under way
/// holds as much memory.
const PIECE: usize = 1 << 20;

/// A larger blob than one piece is written in parts of this many bytes, the least that S3 takes.
const PART: usize = 5 << 20;

/// Bytes that are read at a time.
const WINDOW: u64 = 2 << 20;

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `s3://BUCKET[/PREFIX]`
    pub url: String,
    /// Of a store that is not AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// How long one request to the store may take, and all tries of it together.
    pub patience: Duration,
}

/// Part of a bucket.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Handle,
}

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// It cannot be reached, or refuses.
    #[error("cannot use the store of blobs")]
    Unreachable(#[from] Error),
    /// The address is not one.
    #[error("{0:?} is not s3://BUCKET or s3://BUCKET/PREFIX")]
    Address(String),
    /// Two writers were told that they created the same object.
    #[error("the store let {winners} of {writers} writers create the same object")]
    NotAtomic {
        /// How many it told so.
        winners: usize,
        /// How many tried at the same time.
        writers: usize,
    },
    /// The object is not what its creator wrote.
    #[error("the store told one writer that it created an object and kept another's bytes")]
    Lies,
}

impl Bucket {
    /// Opens it. Credentials come from the variables that AWS' own tools read, and so do
    /// endpoint and region where the address does not say.
    pub fn new(address: &Address) -> Result<Self, BucketError> {
        let malformed = || BucketError::Address(address.url.clone());
        let rest = address.url.strip_prefix("s3://").ok_or_else(malformed)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(malformed());
        }
        let client = ClientOptions::new()
            .with_timeout(address.patience)
            .with_connect_timeout(Duration::from_secs(5));
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 3,
            retry_timeout: address.patience,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &address.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(region) = &address.region {
            builder = builder.with_region(region);
        }
        Ok(Self {
            objects: Arc::new(builder.build()?),
            prefix: Path::from(prefix),
            runtime: Handle::current(),
        })
    }

    /// Proves that the store's conditional writes are atomic, by races: of several writers who
    /// create the same object at the same time one must win, and its bytes must be there.
    pub async fn prove_atomic(&self) -> Result<(), BucketError> {
        const ROUNDS: usize = 8;
        const WRITERS: usize = 8;
        let probe = StoreId::random().map_err(|error| Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        for round in 0..ROUNDS {
            let path = self.path(&["probes", probe.as_str(), &round.to_string()]);
            let (ready, start) = tokio::sync::watch::channel(false);
            let race: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (bucket, path, mut start) = (self.clone(), path.clone(), start.clone());
                    tokio::spawn(async move {
                        let _ = start.wait_for(|ready| *ready).await;
                        bucket.create(&path, vec![writer as u8; 64].into()).await
                    })
                })
                .collect();
            let _ = ready.send(true);
            let mut winners = Vec::new();
            let mut failed = None;
            for (writer, runner) in race.into_iter().enumerate() {
                match runner.await {
                    Ok(Ok(true)) => winners.push(writer),
                    Ok(Ok(false)) => {}
                    Ok(Err(error)) => failed = Some(error),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
            let kept = self.objects.get(&path).await?.bytes().await?;
            // Left behind, it would only cost a few bytes.
            let _ = self.objects.delete(&path).await;
            match winners[..] {
                [winner] if kept[..] == [winner as u8; 64] => {}
                [_] => return Err(BucketError::Lies),
                _ => {
                    let winners = winners.len();
                    let writers = WRITERS;
                    return Err(BucketError::NotAtomic { winners, writers });
                }
            }
        }
        Ok(())
    }

    /// Creates an object. Says whether it was not there before.
    async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool, Error> {
        let payload = PutPayload::from(bytes);
        let created = self.objects.put_opts(path, payload, PutMode::Create.into());
        match created.await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path(&self, parts: &[&str]) -> Path {
        let mut path = self.prefix.clone();
        for part in parts {
            path = path.join(*part);
        }
        path
    }

    fn blob(&self, object: &Object) -> Path {
        let hex = object.digest.to_hex();
        let algorithm = object.digest.algorithm().name();
        self.path(&["blobs", algorithm, &hex[..2], &object.file_name()])
    }

    fn pieces_of(&self, id: UploadId) -> Path {
        self.path(&["uploads", &id.to_string()])
    }

    /// Waits on this thread for what the runtime's threads do.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = tell.send(work.await);
        });
        let result = told.recv().map_err(io::Error::other)?;
        result.map_err(failure)
    }

    fn pieces(&self, id: UploadId) -> io::Result<Vec<Piece>> {
        let (objects, prefix) = (Arc::clone(&self.objects), self.pieces_of(id));
        let found = self.wait(async move {
            let found: Vec<_> = objects.list(Some(&prefix)).try_collect().await?;
            Ok(found)
        })?;
        let mut pieces: Vec<Piece> = found
            .into_iter()
            .filter_map(|meta| {
                let start = meta.location.filename()?.parse().ok()?;
                Some(Piece {
                    start,
                    size: meta.size,
                    path: meta.location,
                })
            })
            .collect();
        pieces.sort_by_key(|piece| piece.start);
        // What a request wrote that never saw the pieces before it does not count.
        let mut end = 0;
        pieces.retain(|piece| {
            let follows = piece.start == end;
            end += if follows { piece.size } else { 0 };
            follows
        });
        Ok(pieces)
    }
}

impl Store for Bucket {
    fn begin(&self, id: UploadId) -> io::Result<Box<dyn Partial>> {
        Ok(Box::new(Pieces {
            bucket: self.clone(),
            id,
            pieces: Vec::new(),
            tail: Vec::new(),
            noted: false,
        }))
    }

    fn resume(&self, id: UploadId) -> io::Result<Box<dyn Partial>> {
        let pieces = self.pieces(id)?;
        if pieces.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(Pieces {
            bucket: self.clone(),
            id,
            pieces,
            tail: Vec::new(),
            noted: true,
        }))
    }

    fn unfinished(&self) -> io::Result<Vec<(UploadId, String)>> {
        Ok(Vec::new())
    }

    fn stale_uploads(&self, age: Duration) -> io::Result<Vec<UploadId>> {
        let (objects, prefix) = (Arc::clone(&self.objects), self.path(&["uploads"]));
        let found = self.wait(async move {
            let found: Vec<_> = objects.list(Some(&prefix)).try_collect().await?;
            Ok(found)
        })?;
        let mut newest = BTreeMap::new();
        for meta in found {
            let id = meta.location.as_ref().rsplit('/').nth(1);
            if let Some(id) = id.and_then(UploadId::parse) {
                let last = newest.entry(id.to_string()).or_insert((id, i64::MIN));
                last.1 = last.1.max(meta.last_modified.timestamp());
            }
        }
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let before = crate::metadata::now().saturating_sub(age);
        let stale = newest.into_values().filter(|(_, last)| *last <= before);
        Ok(stale.map(|(id, _)| id).collect())
    }

    fn open(&self, object: &Object) -> io::Result<Option<Box<dyn Content>>> {
        let (objects, path) = (Arc::clone(&self.objects), self.blob(object));
        let location = path.clone();
        let head = self.wait(async move {
            match objects.head(&path).await {
                Err(Error::NotFound { .. }) => Ok(None),
                head => head.map(Some),
            }
        })?;
        Ok(head.map(|head| {
            Box::new(BucketContent {
                bucket: self.clone(),
                path: location,
                size: head.size,
                window: Mutex::new((0, Bytes::new())),
            }) as Box<dyn Content>
        }))
    }

    fn remove(&self, object: &Object) -> io::Result<()> {
        let (objects, path) = (Arc::clone(&self.objects), self.blob(object));
        self.wait(async move {
            match objects.delete(&path).await {
                Err(Error::NotFound { .. }) => Ok(()),
                result => result,
            }
        })
    }

    fn set_aside(&self, object: &Object) -> io::Result<()> {
        let (objects, from) = (Arc::clone(&self.objects), self.blob(object));
        let to = self.path(&["damaged", &object.to_string().replace(':', "-")]);
        self.wait(async move {
            match objects.rename(&from, &to).await {
                Err(Error::NotFound { .. }) => Ok(()),
                result => result,
            }
        })
    }

    fn ping(&self) -> io::Result<()> {
        let (objects, path) = (Arc::clone(&self.objects), self.path(&[super::STORE_ID]));
        self.wait(async move {
            match objects.head(&path).await {
                Err(Error::NotFound { .. }) => Ok(()),
                head => head.map(drop),
            }
        })
    }

    fn list(&self) -> io::Result<Vec<(Object, u64)>> {
        let (objects, prefix) = (Arc::clone(&self.objects), self.path(&["blobs"]));
        let found = self.wait(async move {
            let found: Vec<_> = objects.list(Some(&prefix)).try_collect().await?;
            Ok(found)
        })?;
        let now = crate::metadata::now();
        let objects = found.into_iter().filter_map(|meta| {
            let names: Vec<&str> = meta.location.as_ref().rsplitn(4, '/').collect();
            let (file, algorithm) = (names.first()?, names.get(2)?);
            let age = now.saturating_sub(meta.last_modified.timestamp());
            Some((Object::parse(algorithm, file)?, age.max(0).unsigned_abs()))
        });
        Ok(objects.collect())
    }

    fn claim(&self, id: &StoreId) -> io::Result<StoreId> {
        let (bucket, path) = (self.clone(), self.path(&[super::STORE_ID]));
        let bytes = Bytes::from(id.as_str().to_owned());
        let found = self.wait(async move {
            bucket.create(&path, bytes).await?;
            bucket.objects.get(&path).await?.bytes().await
        })?;
        Ok(StoreId::from(String::from_utf8_lossy(&found).into_owned()))
    }
}

/// A piece of an upload.
#[derive(Clone)]
struct Piece {
    start: u64,
    size: u64,
    path: Path,
}

/// An upload under way: pieces in the store, the rest in memory.
struct Pieces {
    bucket: Bucket,
    id: UploadId,
    pieces: Vec<Piece>,
    tail: Vec<u8>,
    noted: bool,
}

impl Pieces {
    fn stored(&self) -> u64 {
        self.pieces
            .last()
            .map_or(0, |piece| piece.start + piece.size)
    }

    /// Makes a piece of what is in memory. Whoever creates the piece at an offset first has
    /// written to the upload; another request that did so at the same time is told.
    fn spill(&mut self) -> io::Result<()> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let start = self.stored();
        let path = self.bucket.pieces_of(self.id).join(format!("{start:020}"));
        let (bucket, place) = (self.bucket.clone(), path.clone());
        let bytes = Bytes::copy_from_slice(&self.tail);
        let size = bytes.len() as u64;
        let created = self
            .bucket
            .wait(async move { bucket.create(&place, bytes).await })?;
        if !created {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.pieces.push(Piece { start, size, path });
        self.tail.clear();
        Ok(())
    }

    fn read(&self, piece: &Piece) -> io::Result<Bytes> {
        let (objects, path) = (Arc::clone(&self.bucket.objects), piece.path.clone());
        let bytes = self
            .bucket
            .wait(async move { objects.get(&path).await?.bytes().await })?;
        match bytes.len() as u64 == piece.size {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Forgets the pieces. One that stays behind is found by garbage collection.
    fn remove_pieces(&mut self) {
        let pieces = std::mem::take(&mut self.pieces);
        let objects = Arc::clone(&self.bucket.objects);
        self.bucket.runtime.spawn(async move {
            for piece in pieces {
                if let Err(error) = objects.delete(&piece.path).await {
                    tracing::warn!(%error, "a piece of an upload stays behind");
                }
            }
        });
    }
}

impl Partial for Pieces {
    fn len(&self) -> u64 {
        self.stored() + self.tail.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.tail.len();
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= PIECE {
            self.spill().inspect_err(|_| self.tail.truncate(before))?;
        }
        Ok(())
    }

    fn note(&mut self, _: &str) -> io::Result<()> {
        self.spill()?;
        self.noted = true;
        Ok(())
    }

    fn replay(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        for piece in &self.pieces {
            take(&self.read(piece)?);
        }
        take(&self.tail);
        Ok(())
    }

    fn keep(mut self: Box<Self>, object: &Object) -> io::Result<()> {
        let bucket = self.bucket.clone();
        let path = bucket.blob(object);
        if self.pieces.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.tail));
            // There already: by a first try whose answer was lost, or with the same bytes.
            return self
                .bucket
                .wait(async move { bucket.create(&path, bytes).await.map(drop) });
        }
        let pieces = self.pieces.clone();
        let tail = std::mem::take(&mut self.tail);
        self.bucket.wait(async move {
            let parts = bucket.objects.put_multipart(&path).await?;
            let mut writer = WriteMultipart::new_with_chunk_size(parts, PART);
            let written = async {
                for piece in pieces {
                    writer.put(bucket.objects.get(&piece.path).await?.bytes().await?);
                    writer.wait_for_capacity(1).await?;
                }
                writer.write(&tail);
                Ok(())
            };
            match written.await {
                Ok(()) => writer.finish().await.map(drop),
                Err(error) => {
                    // The store keeps parts of what was not finished, and charges for them.
                    let _ = writer.abort().await;
                    Err(error)
                }
            }
        })?;
        self.remove_pieces();
        Ok(())
    }

    fn discard(mut self: Box<Self>) -> io::Result<()> {
        self.tail.clear();
        self.remove_pieces();
        Ok(())
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.noted {
            self.remove_pieces();
        }
    }
}

/// A blob in a bucket, read a window at a time.
struct BucketContent {
    bucket: Bucket,
    path: Path,
    size: u64,
    window: Mutex<(u64, Bytes)>,
}

impl Content for BucketContent {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let known = at.checked_sub(window.0).map(|skip| skip as usize);
            let known = known.and_then(|skip| window.1.get(skip..));
            match known.filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => {
                    let count = bytes.len().min(buffer.len() - done);
                    buffer[done..done + count].copy_from_slice(&bytes[..count]);
                    done += count;
                }
                None if at >= self.size => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {
                    let range = at..(at + WINDOW).min(self.size);
                    let (objects, path) = (Arc::clone(&self.bucket.objects), self.path.clone());
                    let bytes = self
                        .bucket
                        .wait(async move { objects.get_range(&path, range).await })?;
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *window = (at, bytes);
                }
            }
        }
        Ok(())
    }
}

/// A store that does not answer is no fault of this program: clients may try again.
fn failure(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        _ => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}
