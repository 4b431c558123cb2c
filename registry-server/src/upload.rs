//! Upload sessions: the bytes of a blob before anybody can see it.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::OwnedMutexGuard, task::spawn_blocking, time::Instant};

use crate::{
    body::Intake,
    digest::{Algorithm, Digest, Hasher},
    error::{Code, OciError},
    name::Repository,
    route::UploadId,
    store::{Partial, Store},
};

/// Bytes collected before they are written: few system calls, little memory.
const BUFFER: usize = 256 * 1024;

/// How long a session may at least wait for its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// Every session of this server.
pub struct Uploads {
    store: Arc<dyn Store>,
    sessions: Mutex<HashMap<UploadId, Session>>,
    most: usize,
    idle: Duration,
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
            sessions: Mutex::new(sessions),
            most,
            idle,
        })
    }

    /// Begins a session in `repository`.
    pub fn start(
        &self,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<UploadId, OciError> {
        let id = UploadId::from_random(random()?);
        let received = Received {
            algorithm,
            partial: None,
            hasher: None,
        };
        let mut sessions = self.sessions();
        if sessions.len() >= self.most {
            self.expire(&mut sessions);
            Self::drop_empty(&mut sessions);
            if sessions.len() >= self.most {
                return Err(OciError::busy("too many uploads are under way"));
            }
        }
        sessions.insert(id, Session::new(repository.clone(), received));
        Ok(id)
    }

    /// Takes a session for one request.
    pub fn take(&self, repository: &Repository, id: UploadId) -> Result<Upload, OciError> {
        let mut sessions = self.sessions();
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
        })
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.sessions().len()
    }

    /// Ends a session, whatever became of its bytes.
    pub fn end(&self, id: UploadId) {
        self.sessions().remove(&id);
    }

    /// Gives up sessions that nobody touched for long. Their bytes go with them.
    pub async fn expire_idle(self: &Arc<Self>) {
        let uploads = Arc::clone(self);
        // Dropping a session removes a file.
        let _ = spawn_blocking(move || uploads.expire(&mut uploads.sessions())).await;
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

    fn sessions(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// Checks the digest of everything and makes it a durable blob. Returns its size.
    /// Wrong bytes are thrown away: they cannot become right.
    pub async fn finish(mut self, digest: Digest) -> Result<u64, OciError> {
        let finished = spawn_blocking(move || -> Result<u64, OciError> {
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
            partial.keep(&digest)?;
            Ok(size)
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

/// An id must not be guessable: whoever knows it can write to the upload.
fn random() -> Result<[u8; 16], OciError> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes))?;
    Ok(bytes)
}
