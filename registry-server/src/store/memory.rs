//! Blobs in memory, for tests.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Content, Object, Partial, Store, StoreId};
use crate::route::UploadId;

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    blobs: HashMap<String, Arc<Vec<u8>>>,
    uploads: HashMap<UploadId, (String, Vec<u8>)>,
    id: Option<StoreId>,
}

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Memory {
    fn begin(&self, id: UploadId) -> io::Result<Box<dyn Partial>> {
        let bytes = Vec::new();
        Ok(Box::new(MemoryPartial {
            store: self.clone(),
            id,
            note: None,
            bytes,
        }))
    }

    fn resume(&self, id: UploadId) -> io::Result<Box<dyn Partial>> {
        let found = self.with(|state| state.uploads.remove(&id));
        let (note, bytes) = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryPartial {
            store: self.clone(),
            id,
            note: Some(note),
            bytes,
        }))
    }

    fn unfinished(&self) -> io::Result<Vec<(UploadId, String)>> {
        Ok(self.with(|state| {
            let uploads = state.uploads.iter();
            uploads.map(|(id, (note, _))| (*id, note.clone())).collect()
        }))
    }

    fn stale_uploads(&self, _: Duration) -> io::Result<Vec<UploadId>> {
        Ok(Vec::new())
    }

    fn open(&self, object: &Object) -> io::Result<Option<Box<dyn Content>>> {
        let found = self.with(|state| state.blobs.get(&object.to_string()).cloned());
        Ok(found.map(|bytes| Box::new(MemoryContent(bytes)) as Box<dyn Content>))
    }

    fn remove(&self, object: &Object) -> io::Result<()> {
        self.with(|state| state.blobs.remove(&object.to_string()));
        Ok(())
    }

    fn set_aside(&self, object: &Object) -> io::Result<()> {
        self.remove(object)
    }

    fn ping(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(Object, u64)>> {
        let parse = |name: &String| {
            let (algorithm, file) = name.split_once(':')?;
            Some((Object::parse(algorithm, file)?, 0))
        };
        Ok(self.with(|state| state.blobs.keys().filter_map(parse).collect()))
    }

    fn claim(&self, id: &StoreId) -> io::Result<StoreId> {
        Ok(self.with(|state| state.id.get_or_insert_with(|| id.clone()).clone()))
    }
}

struct MemoryPartial {
    store: Memory,
    id: UploadId,
    note: Option<String>,
    bytes: Vec<u8>,
}

impl Partial for MemoryPartial {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn note(&mut self, note: &str) -> io::Result<()> {
        self.note.get_or_insert_with(|| note.to_owned());
        Ok(())
    }

    fn replay(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        take(&self.bytes);
        Ok(())
    }

    fn keep(mut self: Box<Self>, object: &Object) -> io::Result<()> {
        self.note = None;
        let bytes = Arc::new(std::mem::take(&mut self.bytes));
        let name = object.to_string();
        self.store.with(|state| state.blobs.insert(name, bytes));
        Ok(())
    }

    fn discard(mut self: Box<Self>) -> io::Result<()> {
        self.note = None;
        Ok(())
    }
}

impl Drop for MemoryPartial {
    fn drop(&mut self) {
        if let Some(note) = self.note.take() {
            let left = (note, std::mem::take(&mut self.bytes));
            self.store.with(|state| state.uploads.insert(self.id, left));
        }
    }
}

struct MemoryContent(Arc<Vec<u8>>);

impl Content for MemoryContent {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = self.0.get(start..start + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
