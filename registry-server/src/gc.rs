//! Garbage collection, while serving.
//!
//! Nothing that a push may still count on is taken: a blob is only hidden when no
//! manifest of its repository uses it and for the length of the grace nobody pushed,
//! mounted or asked for it. Its bytes go once no repository shows it, under a lock that
//! a push of the same bytes waits for.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::task::spawn_blocking;

use crate::{
    digest::Digest, error::OciError, metadata::Place, name::Repository, registry::Registry,
    route::Reference,
};

/// What to collect.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// What is younger stays.
    pub grace: Duration,
    /// Whether manifests without a tag, an index or a subject go too.
    pub untagged: bool,
}

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Manifests without a tag.
    pub manifests: u64,
    /// Blobs that no manifest used.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that no record mentions: what a crash leaves between file and record.
    pub files: u64,
}

/// Collects once.
pub async fn collect(registry: &Arc<Registry>, scope: Scope) -> Result<Collected, OciError> {
    let mut collected = Collected::default();
    if scope.untagged {
        collected.manifests = delete_untagged(registry, scope.grace).await?;
    }
    hide_unused(registry, scope.grace).await?;
    let mut after = String::new();
    loop {
        let unshown = registry.metadata.unshown(&after, scope.grace).await?;
        let Some(last) = unshown.last() else {
            break;
        };
        after = last.to_string();
        for digest in unshown {
            if let Some(size) = remove(registry, digest, scope.grace).await? {
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
    }
    let counted = &registry.metrics;
    counted.collected.fetch_add(collected.blobs, Relaxed);
    counted.collected_bytes.fetch_add(collected.bytes, Relaxed);
    collected.files = remove_unrecorded(registry, scope.grace).await?;
    Ok(collected)
}

/// A deleted index frees its members, a deleted subject its referrers: on until nothing
/// more is free.
async fn delete_untagged(registry: &Arc<Registry>, grace: Duration) -> Result<u64, OciError> {
    let mut total = 0;
    loop {
        let cache = Arc::clone(registry);
        let forget = move |deleted: &[(Repository, Digest)]| {
            for (name, digest) in deleted {
                cache.lists.changed(name);
                cache
                    .manifests
                    .forget(&(name.clone(), Reference::Digest(*digest)));
            }
        };
        match registry.metadata.delete_untagged(grace, forget).await? {
            0 => return Ok(total),
            deleted => total += deleted as u64,
        }
    }
}

async fn hide_unused(registry: &Arc<Registry>, grace: Duration) -> Result<(), OciError> {
    let mut place = Some(Place::default());
    while let Some(from) = place {
        let cache = Arc::clone(registry);
        let forget = move |hidden: &[(Repository, Digest)]| {
            hidden.iter().for_each(|key| cache.shown.forget(key));
        };
        place = registry.metadata.hide_unused(from, grace, forget).await?;
    }
    Ok(())
}

async fn remove(
    registry: &Arc<Registry>,
    digest: Digest,
    grace: Duration,
) -> Result<Option<u64>, OciError> {
    let _shelf = registry.clear_shelf(&digest).await;
    let forgotten = registry.metadata.forget_unshown(&digest, grace).await?;
    let Some((object, size)) = forgotten else {
        return Ok(None);
    };
    registry.blobs.forget(&digest);
    registry.remove(object).await?;
    Ok(Some(size))
}

async fn remove_unrecorded(registry: &Arc<Registry>, grace: Duration) -> Result<u64, OciError> {
    let store = Arc::clone(&registry.store);
    let listed = spawn_blocking(move || store.list())
        .await
        .map_err(OciError::internal)??;
    // Among instances a push writes its bytes some time before it records them.
    let young = if registry.has_copies() {
        grace.max(ARRIVAL)
    } else {
        grace
    };
    let mut removed = registry.uploads.remove_lost().await?;
    for (object, age) in listed {
        if age < young.as_secs() || registry.metadata.has_blob(&object).await? {
            continue;
        }
        let _shelf = registry.clear_shelf(&object.digest).await;
        // A push may have recorded it before the lock was taken.
        if !registry.metadata.has_blob(&object).await? {
            registry.remove(object).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Longest time between a blob's bytes and its record.
const ARRIVAL: Duration = Duration::from_secs(3600);
