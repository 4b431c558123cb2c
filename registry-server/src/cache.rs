//! Bounded caches in front of the metadata and the blobs.
//!
//! Only this process writes the metadata, so a cache is right as long as every commit
//! makes it forget. A reader that asked the database before a commit and would store
//! its answer after it is told apart by the [`Ticket`] it took first.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Independent parts, so that cores rarely wait for each other.
const SHARDS: usize = 16;

/// Bytes that one entry costs beside what it says of itself.
const OVERHEAD: usize = 200;

/// A map that forgets what was not asked for lately when it grows over its bytes.
pub struct Cache<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: RandomState,
    shard_bytes: usize,
}

/// Proof of when a lookup began.
#[derive(Clone, Copy)]
pub struct Ticket(u64);

struct Shard<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Second-chance order: the front goes unless it was used since it was put there.
    order: VecDeque<K>,
    bytes: usize,
    forgotten: u64,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: bool,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// Holds about `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let shards = (0..SHARDS).map(|_| {
            Mutex::new(Shard {
                entries: HashMap::new(),
                order: VecDeque::new(),
                bytes: 0,
                forgotten: 0,
            })
        });
        Self {
            shards: shards.collect(),
            hasher: RandomState::new(),
            shard_bytes: bytes / SHARDS,
        }
    }

    /// What is known of `key`.
    pub fn find(&self, key: &K) -> Option<V> {
        let mut shard = self.shard(key);
        let entry = shard.entries.get_mut(key)?;
        entry.used = true;
        Some(entry.value.clone())
    }

    /// To be taken before the database is asked.
    pub fn ticket(&self, key: &K) -> Ticket {
        Ticket(self.shard(key).forgotten)
    }

    /// Keeps an answer of `bytes` bytes, unless something was forgotten since `ticket`
    /// or it is too large a part of the cache.
    pub fn keep(&self, key: K, value: V, bytes: usize, ticket: Ticket) {
        let bytes = bytes + OVERHEAD;
        let mut shard = self.shard(&key);
        if shard.forgotten != ticket.0 || bytes > self.shard_bytes / 2 {
            return;
        }
        shard.remove(&key);
        shard.bytes += bytes;
        shard.order.push_back(key.clone());
        shard.entries.insert(
            key,
            Entry {
                value,
                bytes,
                used: false,
            },
        );
        while shard.bytes > self.shard_bytes {
            shard.drop_one();
        }
    }

    /// Forgets `key`: it changed.
    pub fn forget(&self, key: &K) {
        let mut shard = self.shard(key);
        shard.forgotten += 1;
        shard.remove(key);
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, V> Shard<K, V> {
    /// Takes an entry away. Its key may stay in the order, where it is skipped later;
    /// the order is bounded because every pass over it drops such keys.
    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key));
        }
    }

    fn drop_one(&mut self) {
        let Some(key) = self.order.pop_front() else {
            return;
        };
        match self.entries.get_mut(&key) {
            Some(entry) if entry.used => {
                entry.used = false;
                self.order.push_back(key);
            }
            Some(_) => self.remove(&key),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let cache = Cache::new(1 << 20);
        let ticket = cache.ticket(&"tag");
        cache.forget(&"tag");
        cache.keep("tag", "old", 3, ticket);
        assert_eq!(cache.find(&"tag"), None);
        cache.keep("tag", "new", 3, cache.ticket(&"tag"));
        assert_eq!(cache.find(&"tag"), Some("new"));
    }

    #[test]
    fn it_stays_within_its_bytes_and_keeps_what_is_used() {
        let cache = Cache::new(SHARDS * 10_000);
        let keep = |key: u32| cache.keep(key, key, 800, cache.ticket(&key));
        keep(0);
        for key in 1..5_000 {
            assert_eq!(cache.find(&0), Some(0), "after {key}");
            keep(key);
        }
        let held: usize = cache
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().bytes)
            .sum();
        assert!(held <= SHARDS * 10_000, "{held}");
        assert_eq!(
            (0..5_000).filter(|key| cache.find(key).is_some()).count() * 1_000,
            held
        );
    }

    #[test]
    fn what_is_larger_than_half_a_shard_is_not_kept() {
        let cache = Cache::new(SHARDS * 10_000);
        cache.keep(1, (), 5_000, cache.ticket(&1));
        assert_eq!(cache.find(&1), None);
    }
}
