//! The client of OCI registries (distribution-spec 1.1), and the only network client of
//! bpfseal. To its callers it is an ordinary object with ordinary functions: the async
//! runtime inside starts when a [`Client`] is made, so local commands never pay for it.
//!
//! A tag is resolved to a digest once; after that only digests are asked for. Bytes are
//! handed out after their size, digest and end were checked.

mod challenge;
mod connection;
mod content;
mod credential;
mod download;
mod error;
mod exchange;
mod graph;
mod login;
mod node;
mod progress;
mod referrers;
mod session;
mod token;
mod transfer;
mod upload;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, collections::BTreeMap, path::Path, rc::Rc};

use bundle::{Digest, layout::Layout};

pub use self::{
    connection::Connection,
    credential::Secret,
    error::Error,
    exchange::causes,
    progress::Progress,
    transfer::{Pulled, Pushed, Referrer},
};
use self::{connection::Pace, credential::Store, exchange::Registry, session::Sessions};
use crate::reference::{Host, Reference, Repository};

/// Speaks to any number of registries.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    registries: RefCell<BTreeMap<Host, Rc<Registry>>>,
    connection: Connection,
    store: Store,
    sessions: Sessions,
    pace: Pace,
    progress: Progress,
}

impl Client {
    /// Starts the runtime; connects to nothing yet.
    pub fn new(connection: &Connection, progress: Progress) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::local("cannot start the network runtime"))?;
        Ok(Self {
            runtime,
            registries: RefCell::default(),
            connection: connection.clone(),
            store: Store::from_environment(),
            sessions: Sessions::from_environment(),
            pace: Pace::default(),
            progress,
        })
    }

    /// The artifact and all that refers to it, as a layout in memory.
    pub fn fetch(&self, reference: &Reference) -> Result<Pulled, Error> {
        self.run(self.pull(reference, None))
    }

    /// The same, keeping what has arrived in a folder until it is complete, so that the
    /// next process goes on there.
    pub fn fetch_via(&self, reference: &Reference, folder: &Path) -> Result<Pulled, Error> {
        self.run(self.pull(reference, Some(folder)))
    }

    /// Sends the layout's artifact and all that refers to it, and moves the tags last, so
    /// that whoever sees a tag sees the signatures too.
    pub fn push(
        &self,
        layout: &Layout,
        reference: &Reference,
        more_tags: &[String],
    ) -> Result<Pushed, Error> {
        self.run(self.push_layout(layout, reference, more_tags))
    }

    /// Sends one more referrer (a signature) of something that is there already.
    pub fn attach(
        &self,
        repository: &Repository,
        manifest: &[u8],
        blobs: &[&[u8]],
    ) -> Result<Digest, Error> {
        self.run(self.push_referrer(repository, manifest, blobs))
    }

    /// From registry to registry, with everything that refers to it.
    pub fn copy(
        &self,
        source: &Reference,
        destination: &Reference,
        more_tags: &[String],
    ) -> Result<Pushed, Error> {
        self.run(self.copy_graph(source, destination, more_tags))
    }

    /// Checks a password with the registry and remembers it; says where.
    pub fn login(&self, host: &Host, user: &str, password: &Secret) -> Result<String, Error> {
        self.run(login::login(self, host, user, password))
    }

    /// Forgets a password; says where it was.
    pub fn logout(&self, host: &Host) -> Result<Option<String>, Error> {
        self.store.forget(host)
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let done = self.runtime.block_on(work);
        self.progress.finish();
        done
    }

    fn registry(&self, host: &Host) -> Result<Rc<Registry>, Error> {
        let mut registries = self.registries.borrow_mut();
        if let Some(known) = registries.get(host) {
            return Ok(Rc::clone(known));
        }
        let store = self.store.clone();
        let registry = Registry::new(host.clone(), &self.connection, store, self.pace)?;
        let registry = Rc::new(registry);
        registries.insert(host.clone(), Rc::clone(&registry));
        Ok(registry)
    }

    async fn resolved(&self, registry: &Registry, reference: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = reference.digest {
            return Ok(digest);
        }
        let wanted = reference.wanted();
        let found = registry
            .resolve(&reference.repository, &wanted, &self.progress)
            .await?;
        found.ok_or_else(|| Error::NotFound {
            what: format!("tag {wanted}"),
            place: reference.repository.to_string(),
        })
    }
}
