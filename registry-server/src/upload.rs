//! Upload sessions: the bytes of a blob before anybody can see it.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::OwnedMutexGuard, task::spawn_blocking, time::Instant};

use crate::{
    body::Intake,
    digest::{Algorithm, Digest, Hasher},
    error::{Code, OciError},
    metadata::{self, Metadata},
    name::Repository,
    route::UploadId,
    store::{self, Object, Partial, Store},
};

/// Bytes collected before they are written: few system calls, little memory.
const BUFFER: usize = 256 * 1024;

/// How long a session may at least wait for its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// Every session of this server.
pub struct Uploads {
    store: Arc<dyn Store>,
    sessions: Sessions,
    most: usize,
    idle: Duration,
}

/// Who knows of sessions.
enum Sessions {
    /// This process alone.
    Own(Mutex<HashMap<UploadId, Session>>),
    /// The database: any instance goes on with any upload.
    Shared(Metadata),
}

#[derive(Clone)]
struct Session {
    repository: Repository,
    touched: Instant,
    received: Arc<tokio::sync::Mutex<Received>>,
}

/// What came so far. Created when the first byte is.
struct Received {
    algorithm: Algorithm,
    partial: Option<Box<dyn Partial>>,
    /// Nothing after a restart: then the bytes are read again at the end.
    hasher: Option<Hasher>,
}

/// Exclusive use of one upload by one request.
pub struct Upload {
    id: UploadId,
    store: Arc<dyn Store>,
    received: OwnedMutexGuard<Received>,
    buffer: Vec<Bytes>,
    buffered: usize,
    /// Whether its bytes become a copy of their own.
    copies: bool,
}

impl Uploads {
    /// Takes up what an earlier process left in `store`. At most `most` sessions at a
    /// time; one that nobody touches for `idle` is given up.
    pub fn open(store: Arc<dyn Store>, most: usize, idle: Duration) -> io::Result<Self> {
        let mut sessions = HashMap::new();
        for (id, note) in store.unfinished()? {
            let parsed = note.split_once(' ').and_then(|(algorithm, repository)| {
                Some((algorithm.parse().ok()?, repository.parse().ok()?))
            });
            let Some((algorithm, repository)) = parsed else {
                store.resume(id)?.discard()?;
                continue;
            };
            let partial = Some(store.resume(id)?);
            let received = Received {
                algorithm,
                partial,
                hasher: None,
            };
            sessions.insert(id, Session::new(repository, received));
        }
        if !sessions.is_empty() {
            tracing::info!(
                uploads = sessions.len(),
                "unfinished uploads can be resumed"
            );
        }
        Ok(Self {
            store,
            sessions: Sessions::Own(Mutex::new(sessions)),
            most,
            idle,
        })
    }

    /// Sessions that other instances know of too.
    pub fn share(store: Arc<dyn Store>, metadata: Metadata, most: usize, idle: Duration) -> Self {
        Self {
            store,
            sessions: Sessions::Shared(metadata),
            most,
            idle,
        }
    }

    /// Begins a session in `repository`.
    pub async fn start(
        &self,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<UploadId, OciError> {
        let id = UploadId::from_random(store::random()?);
        match &self.sessions {
            Sessions::Own(sessions) => self.register(lock(sessions), id, repository, algorithm)?,
            Sessions::Shared(metadata) => {
                if metadata.count_uploads().await? >= self.most as u64 {
                    return Err(OciError::busy("too many uploads are under way"));
                }
                let session = metadata::Session::new(repository.clone(), algorithm);
                metadata.start_upload(id, session).await?;
            }
        }
        Ok(id)
    }

    fn register(
        &self,
        mut sessions: MutexGuard<'_, HashMap<UploadId, Session>>,
        id: UploadId,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<(), OciError> {
        if sessions.len() >= self.most {
            self.expire(&mut sessions);
            Self::drop_empty(&mut sessions);
            if sessions.len() >= self.most {
                return Err(OciError::busy("too many uploads are under way"));
            }
        }
        let received = Received {
            algorithm,
            partial: None,
            hasher: None,
        };
        sessions.insert(id, Session::new(repository.clone(), received));
        Ok(())
    }

    /// An upload for one request, which brings all the bytes.
    pub async fn whole(
        &self,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<(UploadId, Upload), OciError> {
        if let Sessions::Shared(_) = &self.sessions {
            let id = UploadId::from_random(store::random()?);
            return Ok((id, self.upload(id, algorithm, None)?));
        }
        let id = self.start(repository, algorithm).await?;
        Ok((id, self.take(repository, id).await?))
    }

    /// Takes a session for one request.
    pub async fn take(&self, repository: &Repository, id: UploadId) -> Result<Upload, OciError> {
        match &self.sessions {
            Sessions::Own(sessions) => self.take_own(lock(sessions), repository, id),
            Sessions::Shared(metadata) => self.take_shared(metadata, repository, id).await,
        }
    }

    fn take_own(
        &self,
        mut sessions: MutexGuard<'_, HashMap<UploadId, Session>>,
        repository: &Repository,
        id: UploadId,
    ) -> Result<Upload, OciError> {
        let session = sessions
            .get_mut(&id)
            .filter(|session| session.repository == *repository);
        let session = session.ok_or_else(unknown)?;
        session.touched = Instant::now();
        let received = Arc::clone(&session.received).try_lock_owned();
        let received =
            received.map_err(|_| OciError::busy("another request is writing to this upload"))?;
        let store = Arc::clone(&self.store);
        Ok(Upload {
            id,
            store,
            received,
            buffer: Vec::new(),
            buffered: 0,
            copies: false,
        })
    }

    async fn take_shared(
        &self,
        metadata: &Metadata,
        repository: &Repository,
        id: UploadId,
    ) -> Result<Upload, OciError> {
        let session = metadata.upload(id).await?;
        let session = session.filter(|session| session.repository == *repository);
        let session = session.ok_or_else(unknown)?;
        // Once in a quarter of the time is enough.
        if session.age() > self.idle / 4 && !metadata.touch_upload(id).await? {
            return Err(unknown());
        }
        let store = Arc::clone(&self.store);
        let resumed = spawn_blocking(move || match store.resume(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            partial => partial.map(Some),
        });
        let partial = resumed.await.map_err(OciError::internal)??;
        self.upload(id, session.algorithm, partial)
    }

    fn upload(
        &self,
        id: UploadId,
        algorithm: Algorithm,
        partial: Option<Box<dyn Partial>>,
    ) -> Result<Upload, OciError> {
        let received = Received {
            algorithm,
            partial,
            hasher: None,
        };
        let received = Arc::new(tokio::sync::Mutex::new(received));
        Ok(Upload {
            id,
            store: Arc::clone(&self.store),
            received: received.try_lock_owned().map_err(OciError::internal)?,
            buffer: Vec::new(),
            buffered: 0,
            copies: true,
        })
    }

    /// How many sessions there are.
    pub async fn count(&self) -> Result<u64, OciError> {
        match &self.sessions {
            Sessions::Own(sessions) => Ok(lock(sessions).len() as u64),
            Sessions::Shared(metadata) => metadata.count_uploads().await,
        }
    }

    /// Ends a session, whatever became of its bytes.
    pub async fn end(&self, id: UploadId) -> Result<(), OciError> {
        match &self.sessions {
            Sessions::Own(_) => self.forget(id),
            Sessions::Shared(metadata) => {
                metadata.end_upload(id).await?;
            }
        }
        Ok(())
    }

    /// Ends a session of which the database knows nothing, or that it ended itself.
    pub fn forget(&self, id: UploadId) {
        if let Sessions::Own(sessions) = &self.sessions {
            lock(sessions).remove(&id);
        }
    }

    /// Gives up sessions that nobody touched for long. Their bytes go with them.
    pub async fn expire_idle(self: &Arc<Self>) -> Result<(), OciError> {
        let metadata = match &self.sessions {
            Sessions::Shared(metadata) => metadata,
            Sessions::Own(_) => {
                let uploads = Arc::clone(self);
                // Dropping a session removes a file.
                let expired = spawn_blocking(move || match &uploads.sessions {
                    Sessions::Own(sessions) => uploads.expire(&mut lock(sessions)),
                    Sessions::Shared(_) => {}
                });
                return expired.await.map_err(OciError::internal);
            }
        };
        for id in metadata.idle_uploads(self.idle).await? {
            if metadata.end_upload(id).await? {
                discard(&self.store, id).await?;
            }
        }
        Ok(())
    }

    /// Removes bytes of uploads of which nobody knows any more: what a crash leaves.
    /// Returns how many there were.
    pub async fn remove_lost(&self) -> Result<u64, OciError> {
        let Sessions::Shared(metadata) = &self.sessions else {
            return Ok(0);
        };
        let (store, idle) = (Arc::clone(&self.store), self.idle);
        let stale = spawn_blocking(move || store.stale_uploads(idle));
        let mut removed = 0;
        for id in stale.await.map_err(OciError::internal)?? {
            if metadata.upload(id).await?.is_none() {
                discard(&self.store, id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn expire(&self, sessions: &mut HashMap<UploadId, Session>) {
        sessions.retain(|id, session| {
            let Ok(mut received) = session.received.try_lock() else {
                return true;
            };
            if session.touched.elapsed() < self.idle {
                return true;
            }
            if let Some(Err(error)) = received.partial.take().map(Partial::discard) {
                tracing::warn!(%id, %error, "an abandoned upload could not be removed");
            }
            false
        });
    }

    /// Makes a place by giving up the session that has waited longest for a first byte.
    /// Clients that start uploads and leave must not keep others from pushing.
    fn drop_empty(sessions: &mut HashMap<UploadId, Session>) {
        let empty = sessions.iter().filter(|(_, session)| {
            let received = session.received.try_lock();
            received.is_ok_and(|received| received.partial.is_none())
        });
        let oldest = empty.min_by_key(|(_, session)| session.touched);
        let oldest = oldest.filter(|(_, session)| session.touched.elapsed() > FIRST_BYTE);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            sessions.remove(&id);
        }
    }
}

fn lock(
    sessions: &Mutex<HashMap<UploadId, Session>>,
) -> MutexGuard<'_, HashMap<UploadId, Session>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Throws the bytes of an upload away, if there are any and nobody is writing to it.
async fn discard(store: &Arc<dyn Store>, id: UploadId) -> Result<(), OciError> {
    use io::ErrorKind::{NotFound, ResourceBusy};
    let store = Arc::clone(store);
    let discarded = spawn_blocking(move || match store.resume(id).and_then(Partial::discard) {
        Err(error) if matches!(error.kind(), NotFound | ResourceBusy) => Ok(()),
        result => result,
    });
    Ok(discarded.await.map_err(OciError::internal)??)
}

impl Session {
    fn new(repository: Repository, received: Received) -> Self {
        let received = Arc::new(tokio::sync::Mutex::new(received));
        Self {
            repository,
            touched: Instant::now(),
            received,
        }
    }
}

impl Received {
    fn len(&self) -> u64 {
        self.partial.as_ref().map_or(0, |partial| partial.len())
    }

    fn append(&mut self, store: &dyn Store, id: UploadId, buffer: &[Bytes]) -> io::Result<()> {
        if self.partial.is_none() {
            self.partial = Some(store.begin(id)?);
            self.hasher = Some(Hasher::new(self.algorithm));
        }
        let Some(partial) = &mut self.partial else {
            return Err(io::ErrorKind::NotFound.into());
        };
        for bytes in buffer {
            partial.append(bytes)?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
        }
        Ok(())
    }

    /// The digest of everything, in the algorithm of the one that is expected.
    fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        match self.hasher.take() {
            Some(hasher) if hasher.algorithm() == algorithm => Ok(hasher.finish()),
            _ => {
                let mut hasher = Hasher::new(algorithm);
                if let Some(partial) = &mut self.partial {
                    partial.replay(&mut |bytes| hasher.update(bytes))?;
                }
                Ok(hasher.finish())
            }
        }
    }
}

impl Upload {
    /// How many bytes arrived and were written.
    pub fn len(&self) -> u64 {
        self.received.len()
    }

    /// The algorithm that the bytes are hashed with while they arrive.
    pub fn expect(mut self, algorithm: Algorithm) -> Self {
        if self.received.partial.is_none() {
            self.received.algorithm = algorithm;
        }
        self
    }

    /// Takes a request's body. What came of a body that breaks off is kept, so that the
    /// client can go on from there. The last bytes stay in memory for [`Upload::finish`]
    /// or [`Upload::flush`].
    pub async fn receive(mut self, intake: &mut Intake) -> (Self, Result<(), OciError>) {
        loop {
            match intake.next().await {
                Ok(None) => return (self, Ok(())),
                Ok(Some(bytes)) => {
                    self.buffered += bytes.len();
                    self.buffer.push(bytes);
                }
                Err(error) => {
                    let (upload, written) = self.flush().await;
                    return (upload, written.and(Err(error)));
                }
            }
            if self.buffered >= BUFFER {
                let (upload, written) = self.flush().await;
                self = upload;
                if written.is_err() {
                    return (self, written);
                }
            }
        }
    }

    /// Writes what is still in memory.
    pub async fn flush(mut self) -> (Self, Result<(), OciError>) {
        let written = spawn_blocking(move || {
            let result = self.write();
            (self, result)
        });
        match written.await {
            Ok((upload, result)) => (upload, result.map_err(OciError::from)),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Lets the session outlive this process.
    pub async fn note(mut self, repository: &Repository) -> Result<(), OciError> {
        let note = format!("{} {repository}", self.received.algorithm.name());
        let noted = spawn_blocking(move || match &mut self.received.partial {
            Some(partial) => partial.note(&note),
            None => Ok(()),
        });
        noted.await.map_err(OciError::internal)??;
        Ok(())
    }

    /// Checks the digest of everything and makes it a durable blob. Returns it and its size.
    /// Wrong bytes are thrown away: they cannot become right.
    pub async fn finish(mut self, digest: Digest) -> Result<(Object, u64), OciError> {
        let finished = spawn_blocking(move || -> Result<(Object, u64), OciError> {
            self.write()?;
            let found = self.received.digest(digest.algorithm())?;
            let partial = match self.received.partial.take() {
                Some(partial) => partial,
                None => self.store.begin(self.id)?,
            };
            if found != digest {
                partial.discard()?;
                let message = format!("the bytes have the digest {found}");
                return Err(OciError::new(Code::DigestInvalid, message));
            }
            let size = partial.len();
            let mut object = Object::only(digest);
            if self.copies {
                object.copy = self.id.to_string();
            }
            partial.keep(&object)?;
            Ok((object, size))
        });
        finished.await.map_err(OciError::internal)?
    }

    /// Throws everything away.
    pub async fn cancel(mut self) -> Result<(), OciError> {
        let cancelled = spawn_blocking(move || match self.received.partial.take() {
            Some(partial) => partial.discard(),
            None => Ok(()),
        });
        Ok(cancelled.await.map_err(OciError::internal)??)
    }

    fn write(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.buffered = 0;
        self.received.append(&*self.store, self.id, &buffer)
    }
}

fn unknown() -> OciError {
    OciError::new(Code::BlobUploadUnknown, "no such upload")
}
