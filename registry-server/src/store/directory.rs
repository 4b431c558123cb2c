//! Blobs as files: `blobs/<algorithm>/<first two digits>/<digits>`, uploads beside them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Content, Object, Partial, Store, StoreId};
use crate::{digest::Algorithm, route::UploadId};

/// A folder on a local file system.
pub struct Directory {
    blobs: PathBuf,
    uploads: PathBuf,
    damaged: PathBuf,
    id: PathBuf,
    shared: bool,
}

impl Directory {
    /// Opens or creates the folders under `root`. Bytes of uploads that cannot be
    /// resumed are removed.
    pub fn open(root: &Path) -> io::Result<Self> {
        let directory = Self::create(root)?;
        directory.remove_lost_uploads()?;
        Ok(directory)
    }

    /// Opens or creates the folders under `root`, which other instances use too.
    pub fn share(root: &Path) -> io::Result<Self> {
        let mut directory = Self::create(root)?;
        directory.shared = true;
        Ok(directory)
    }

    fn create(root: &Path) -> io::Result<Self> {
        let directory = Self::inspect(root);
        fs::create_dir_all(&directory.uploads)?;
        for algorithm in Algorithm::ALL {
            fs::create_dir_all(directory.blobs.join(algorithm.name()))?;
        }
        sync(&directory.blobs)?;
        sync(root)?;
        Ok(directory)
    }

    /// Looks at folders that another process may be using, and changes nothing.
    pub fn inspect(root: &Path) -> Self {
        Self {
            blobs: root.join("blobs"),
            uploads: root.join("uploads"),
            damaged: root.join("damaged"),
            id: root.join(super::STORE_ID),
            shared: false,
        }
    }

    fn path(&self, object: &Object) -> PathBuf {
        let folder = self.blobs.join(object.digest.algorithm().name());
        let file = object.file_name();
        folder.join(&file[..2]).join(file)
    }

    /// Among instances only one writes to an upload at a time.
    fn hold(&self, file: &File) -> io::Result<()> {
        match self.shared.then(|| file.try_lock()) {
            Some(Err(fs::TryLockError::WouldBlock)) => Err(io::ErrorKind::ResourceBusy.into()),
            Some(Err(fs::TryLockError::Error(error))) => Err(error),
            None | Some(Ok(())) => Ok(()),
        }
    }

    fn remove_lost_uploads(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.uploads)? {
            let path = entry?.path();
            let noted = path.extension().is_some() || path.with_extension(NOTE).exists();
            if !noted {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Extension of the file that says what an upload is for.
const NOTE: &str = "note";

impl Store for Directory {
    fn begin(&self, id: UploadId) -> io::Result<Box<dyn Partial>> {
        let path = self.uploads.join(id.to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::ResourceBusy.into(),
            _ => error,
        })?;
        self.hold(&file)?;
        let blobs = self.blobs.clone();
        Ok(Box::new(FilePartial {
            file,
            path: Some(path),
            len: 0,
            noted: false,
            blobs,
        }))
    }

    fn resume(&self, id: UploadId) -> io::Result<Box<dyn Partial>> {
        let path = self.uploads.join(id.to_string());
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        self.hold(&file)?;
        let len = file.metadata()?.len();
        let blobs = self.blobs.clone();
        Ok(Box::new(FilePartial {
            file,
            path: Some(path),
            len,
            noted: true,
            blobs,
        }))
    }

    fn unfinished(&self) -> io::Result<Vec<(UploadId, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.uploads)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != NOTE) {
                continue;
            }
            let data = path.with_extension("");
            let name = data.file_name().and_then(|name| name.to_str());
            match name.and_then(UploadId::parse) {
                Some(id) if data.exists() => found.push((id, fs::read_to_string(&path)?)),
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(found)
    }

    fn stale_uploads(&self, age: Duration) -> io::Result<Vec<UploadId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.uploads)? {
            let entry = entry?;
            let id = UploadId::parse(&entry.file_name().to_string_lossy());
            // Finished since it was listed.
            let (Some(id), Ok(metadata)) = (id, entry.metadata()) else {
                continue;
            };
            if metadata.modified()?.elapsed().unwrap_or_default() >= age {
                found.push(id);
            }
        }
        Ok(found)
    }

    fn open(&self, object: &Object) -> io::Result<Option<Box<dyn Content>>> {
        let file = match File::open(self.path(object)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let size = file.metadata()?.len();
        Ok(Some(Box::new(FileContent { file, size })))
    }

    fn remove(&self, object: &Object) -> io::Result<()> {
        match fs::remove_file(self.path(object)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn set_aside(&self, object: &Object) -> io::Result<()> {
        fs::create_dir_all(&self.damaged)?;
        let name = object.to_string().replace(':', "-");
        match fs::rename(self.path(object), self.damaged.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn ping(&self) -> io::Result<()> {
        fs::metadata(&self.uploads).map(drop)
    }

    fn list(&self) -> io::Result<Vec<(Object, u64)>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            for folder in fs::read_dir(self.blobs.join(algorithm.name()))? {
                for entry in fs::read_dir(folder?.path())? {
                    let entry = entry?;
                    let name = entry.file_name();
                    let Some(object) = Object::parse(algorithm.name(), &name.to_string_lossy())
                    else {
                        continue;
                    };
                    // Collected since it was listed.
                    let Ok(metadata) = entry.metadata() else {
                        continue;
                    };
                    let age = metadata.modified()?.elapsed().unwrap_or_default();
                    found.push((object, age.as_secs()));
                }
            }
        }
        Ok(found)
    }

    fn claim(&self, id: &StoreId) -> io::Result<StoreId> {
        let temporary = self.uploads.join(id.as_str());
        fs::write(&temporary, id.as_str())?;
        File::open(&temporary)?.sync_all()?;
        // A link is made or refused as one, also on network file systems.
        let linked = fs::hard_link(&temporary, &self.id);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync(self.id.parent().unwrap_or(Path::new(".")))?,
        }
        Ok(StoreId::from(fs::read_to_string(&self.id)?))
    }
}

struct FilePartial {
    file: File,
    /// Taken once the file has been renamed or removed.
    path: Option<PathBuf>,
    len: u64,
    noted: bool,
    blobs: PathBuf,
}

impl FilePartial {
    fn remove_note(&self, path: &Path) -> io::Result<()> {
        match self
            .noted
            .then(|| fs::remove_file(path.with_extension(NOTE)))
        {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Partial for FilePartial {
    fn len(&self) -> u64 {
        self.len
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len).inspect_err(|_| {
            // What was written of it is overwritten by the next attempt; cutting it off
            // gives the room back when the disk is full.
            let _ = self.file.set_len(self.len);
        })?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn note(&mut self, note: &str) -> io::Result<()> {
        if let (Some(path), false) = (&self.path, self.noted) {
            fs::write(path.with_extension(NOTE), note)?;
            self.noted = true;
        }
        Ok(())
    }

    fn replay(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; self.len.min(1 << 18) as usize];
        let mut offset = 0;
        while offset < self.len {
            let want = (self.len - offset).min(buffer.len() as u64) as usize;
            self.file.read_exact_at(&mut buffer[..want], offset)?;
            take(&buffer[..want]);
            offset += want as u64;
        }
        Ok(())
    }

    fn keep(mut self: Box<Self>, object: &Object) -> io::Result<()> {
        let name = object.file_name();
        let folder = self.blobs.join(object.digest.algorithm().name());
        let folder = folder.join(&name[..2]);
        // A resumed upload may be shorter than its file after a failed append.
        self.file.set_len(self.len)?;
        self.file.sync_all()?;
        if let Some(path) = &self.path {
            let name = folder.join(name);
            match fs::rename(path, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create(&folder)?;
                    fs::rename(path, &name)?;
                }
                result => result?,
            }
        }
        sync(&folder)?;
        match self.path.take() {
            Some(path) => self.remove_note(&path),
            None => Ok(()),
        }
    }

    fn discard(mut self: Box<Self>) -> io::Result<()> {
        let Some(path) = self.path.take() else {
            return Ok(());
        };
        fs::remove_file(&path)?;
        self.remove_note(&path)
    }
}

impl Drop for FilePartial {
    fn drop(&mut self) {
        if let (Some(path), false) = (&self.path, self.noted) {
            // Left behind, it would be removed at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

struct FileContent {
    file: File,
    size: u64,
}

impl Content for FileContent {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Makes a folder whose own name is durable. Another thread may have made it.
fn create(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    folder.parent().map_or(Ok(()), sync)
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
