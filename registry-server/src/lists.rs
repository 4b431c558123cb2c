//! Whole lists of tags and of referrers as they were sent last, until something in their
//! repository changes.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;

use crate::{cache::Cache, digest::Digest, name::Repository};

/// Repositories share a counter of changes with one in so many others: then a change in one
/// makes lists of both be made anew.
const COUNTERS: usize = 1024;

/// Documents by what they list.
pub struct Lists {
    documents: Cache<List, (u64, Bytes)>,
    changes: Vec<AtomicU64>,
    hasher: RandomState,
}

/// A list from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// All tags of a repository.
    Tags(Repository),
    /// All referrers of a subject.
    Referrers(Repository, Digest),
}

/// How often a repository had changed when the database was about to be asked.
#[derive(Clone, Copy)]
pub struct Seen(u64);

impl Lists {
    /// Holds about `bytes` bytes; none where another process may change what is listed.
    pub fn new(bytes: usize) -> Self {
        Self {
            documents: Cache::new(bytes),
            changes: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The list, if it is as it was.
    pub fn find(&self, list: &List) -> Option<Bytes> {
        let Seen(now) = self.seen(list.repository());
        let (made, document) = self.documents.find(list)?;
        (made == now).then_some(document)
    }

    /// To be asked before the database is.
    pub fn seen(&self, repository: &Repository) -> Seen {
        Seen(self.counter(repository).load(SeqCst))
    }

    /// Keeps what the database said after `seen`.
    pub fn keep(&self, list: List, document: Bytes, Seen(made): Seen) {
        let bytes = document.len();
        let ticket = self.documents.ticket(&list);
        self.documents.keep(list, (made, document), bytes, ticket);
    }

    /// A change in the repository was committed and is not acknowledged yet.
    pub fn changed(&self, repository: &Repository) {
        self.counter(repository).fetch_add(1, SeqCst);
    }

    fn counter(&self, repository: &Repository) -> &AtomicU64 {
        let hash = self.hasher.hash_one(repository) as usize;
        &self.changes[hash % COUNTERS]
    }
}

impl List {
    const fn repository(&self) -> &Repository {
        match self {
            Self::Tags(repository) | Self::Referrers(repository, _) => repository,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_asked_for_before_a_change_is_not_found_after_it() {
        let lists = Lists::new(1 << 20);
        let name: Repository = "team/app".parse().unwrap();
        let list = List::Tags(name.clone());
        let seen = lists.seen(&name);
        lists.keep(list.clone(), Bytes::from_static(b"old"), seen);
        assert_eq!(lists.find(&list), Some(Bytes::from_static(b"old")));
        let asked = lists.seen(&name);
        lists.changed(&name);
        assert_eq!(lists.find(&list), None);
        // The answer to a question from before the change comes late.
        lists.keep(list.clone(), Bytes::from_static(b"old"), asked);
        assert_eq!(lists.find(&list), None);
        let seen = lists.seen(&name);
        lists.keep(list.clone(), Bytes::from_static(b"new"), seen);
        assert_eq!(lists.find(&list), Some(Bytes::from_static(b"new")));
        // Where others write, nothing is kept.
        let none = Lists::new(0);
        none.keep(list.clone(), Bytes::from_static(b"x"), none.seen(&name));
        assert_eq!(none.find(&list), None);
    }
}
