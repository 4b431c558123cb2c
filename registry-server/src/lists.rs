//! Lists of tags and of referrers, whole or a page of them, as they were sent last, until
//! something in their repository changes.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;

use crate::{
    cache::Cache,
    digest::Digest,
    name::Repository,
    route::{Page, ReferrerQuery},
};

/// Repositories share a counter of changes with one in so many others: then a change in one
/// makes lists of both be made anew.
const COUNTERS: usize = 1024;

/// Documents by what they list.
pub struct Lists {
    documents: Cache<List, (u64, Document)>,
    changes: Vec<AtomicU64>,
    hasher: RandomState,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// Tags of a repository.
    Tags(Repository, Page),
    /// Referrers of a subject.
    Referrers(Repository, Digest, ReferrerQuery),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// JSON.
    pub json: Bytes,
    /// The `Link` header that names the next page, unless this is the last one.
    pub link: Option<String>,
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
    pub fn find(&self, list: &List) -> Option<Document> {
        let Seen(now) = self.seen(list.repository());
        let (made, document) = self.documents.find(list)?;
        (made == now).then_some(document)
    }

    /// To be asked before the database is.
    pub fn seen(&self, repository: &Repository) -> Seen {
        Seen(self.counter(repository).load(SeqCst))
    }

    /// Keeps what the database said after `seen`.
    pub fn keep(&self, list: List, document: Document, Seen(made): Seen) {
        let link = document.link.as_ref().map_or(0, String::len);
        let bytes = document.json.len() + link + list.asked();
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
            Self::Tags(repository, _) | Self::Referrers(repository, ..) => repository,
        }
    }

    /// How many bytes the question has of the asker's making.
    fn asked(&self) -> usize {
        match self {
            Self::Tags(_, page) => page.after.as_ref().map_or(0, String::len),
            Self::Referrers(_, _, query) => query.artifact_type.as_ref().map_or(0, String::len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(after: Option<&str>) -> List {
        let page = Page {
            limit: 2,
            after: after.map(str::to_owned),
        };
        List::Tags("team/app".parse().unwrap(), page)
    }

    fn document(json: &'static str) -> Document {
        Document {
            json: Bytes::from_static(json.as_bytes()),
            link: Some("next".to_owned()),
        }
    }

    #[test]
    fn a_list_that_was_asked_for_before_a_change_is_not_found_after_it() {
        let lists = Lists::new(1 << 20);
        let list = tags(None);
        let name = list.repository().clone();
        let seen = lists.seen(&name);
        lists.keep(list.clone(), document("old"), seen);
        assert_eq!(lists.find(&list), Some(document("old")));
        assert_eq!(lists.find(&tags(Some("a"))), None, "another page");
        let asked = lists.seen(&name);
        lists.changed(&name);
        assert_eq!(lists.find(&list), None);
        // The answer to a question from before the change comes late.
        lists.keep(list.clone(), document("old"), asked);
        assert_eq!(lists.find(&list), None);
        let seen = lists.seen(&name);
        lists.keep(list.clone(), document("new"), seen);
        assert_eq!(lists.find(&list), Some(document("new")));
        // Where others write, nothing is kept.
        let none = Lists::new(0);
        none.keep(list.clone(), document("x"), none.seen(&name));
        assert_eq!(none.find(&list), None);
    }
}
