//! Admission: what a repository's policy says about an artifact, and who sees it.
//!
//! Nothing of a verdict is stored. It is a function of the artifact, of what is attached to
//! it, of the policy and of the revocation list, so that a signature that arrives, one that is
//! deleted, a policy and a list that change all decide anew by themselves, and so does time.

mod judge;

use std::sync::{Arc, atomic::Ordering};

use bundle::Layout;
use serde_json::Value;

pub use judge::{Law, State, Verdict};

use judge::{is_bundle, judge};

use crate::{
    access::{Action, Caller},
    digest::{Algorithm, Digest},
    error::OciError,
    metadata::StoredManifest,
    name::{Repository, Tag},
    registry::Registry,
    route::{Reference, ReferrerQuery},
    site::Site,
};

/// Most bytes of blobs that are read to decide about one artifact.
const MOST_BYTES: u64 = 64 << 20;

/// Largest blob of a signature.
const LARGEST_SIGNATURE: u64 = 1 << 20;

/// Most referrers that are looked at, and most indexes above a manifest.
const MOST_REFERRERS: u32 = 1000;
const MOST_PARENTS: u32 = 16;

/// How far subjects and indexes are followed.
const DEPTH: u32 = 4;

/// Whether `caller` may see what is in quarantine: who pushes and who signs.
pub fn sees_all(caller: &Caller, name: &Repository) -> bool {
    let rights = [Action::Sign, Action::Create];
    let allows = |right| {
        let access = &caller.access;
        access.allows(&caller.principal, name.as_str(), right)
    };
    rights.into_iter().any(allows)
}

/// Refuses what no signature can mend. To be asked before a manifest is stored. `tags` are
/// those that it gets.
pub async fn check_push(
    registry: &Registry,
    site: &Site,
    name: &Repository,
    content: &[u8],
    tags: &[Tag],
) -> Result<(), OciError> {
    let Some(law) = site.law(name) else {
        return Ok(());
    };
    let document: Value = serde_json::from_slice(content).unwrap_or_default();
    let mut abouts = tags.iter().map(|tag| about(tag.as_str()));
    let attached = !document["subject"].is_null() || abouts.any(|about| about.is_some());
    // A bundle is never a mere attachment: what it is about does not say what it does.
    if attached && !is_bundle(&document) {
        return Ok(());
    }
    let Some(layout) = gather(registry, name, content, &document, false).await? else {
        return Ok(());
    };
    let digest = bundle::Digest::of(content);
    let verdict = judge(Some(layout), digest, is_bundle(&document), law).await?;
    match (verdict.state, verdict.refusal) {
        (State::Refused, Some(refusal)) => {
            registry.metrics.refused.fetch_add(1, Ordering::Relaxed);
            Err(OciError::refused(&refusal))
        }
        (State::Quarantined, _) => {
            registry.metrics.quarantined.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What the repository's policy says of a manifest; nothing where there is no policy.
pub async fn verdict(
    registry: &Registry,
    site: &Site,
    name: &Repository,
    found: &StoredManifest,
) -> Result<Option<Arc<Verdict>>, OciError> {
    let Some(law) = site.law(name) else {
        return Ok(None);
    };
    let epoch = registry.epoch.load(Ordering::SeqCst);
    let key = (name.clone(), found.digest);
    if let Some(known) = registry.verdicts.find(&key)
        && known.epoch == epoch
        && known.policy == law.policy.digest().to_string()
        && known.revocations == law.revocations()
        && known.counts(jiff::Timestamp::now())
    {
        return Ok(Some(known));
    }
    let ticket = registry.verdicts.ticket(&key);
    let document: Value = serde_json::from_slice(&found.content).unwrap_or_default();
    let layout = gather(registry, name, &found.content, &document, true).await?;
    let digest = bundle::Digest::of(&found.content);
    let mut verdict = judge(layout, digest, is_bundle(&document), law).await?;
    verdict.epoch = epoch;
    let verdict = Arc::new(verdict);
    registry
        .verdicts
        .keep(key, Arc::clone(&verdict), 500, ticket);
    Ok(Some(verdict))
}

/// Whether readers see a manifest under the name `reference`: it is released, is about
/// something released, or is a member of a released index.
pub async fn is_released(
    registry: &Registry,
    site: &Site,
    name: &Repository,
    reference: &Reference,
    found: &StoredManifest,
) -> Result<bool, OciError> {
    let mut waiting = vec![(found.clone(), DEPTH)];
    // Under a tag of its own nothing is an attachment: else whoever pushes could show readers
    // anything as `latest` by calling it a signature of something released.
    let mut is_tagged = match reference {
        Reference::Tag(tag) => about(tag.as_str()).is_none(),
        Reference::Digest(_) => false,
    };
    while let Some((found, depth)) = waiting.pop() {
        if depth == 0 {
            continue;
        }
        let document: Value = serde_json::from_slice(&found.content).unwrap_or_default();
        let by_itself = std::mem::take(&mut is_tagged) || is_bundle(&document);
        let subject = match by_itself {
            true => None,
            false => subject(registry, name, &found, &document).await?,
        };
        let mut above: Vec<Digest> = Vec::new();
        match subject {
            // What is about another artifact is seen with it, never by itself.
            Some(subject) => above.extend(subject),
            None => {
                let verdict = verdict(registry, site, name, &found).await?;
                match verdict.map_or(State::Released, |verdict| verdict.state) {
                    State::Released => return Ok(true),
                    // No index brings back what is refused or revoked.
                    State::Refused => continue,
                    State::Quarantined => {}
                }
                above = registry
                    .metadata
                    .referring(name, &found.digest, MOST_PARENTS)
                    .await?;
            }
        }
        for digest in above {
            let reference = Reference::Digest(digest);
            if let Some(next) = registry.metadata.manifest(name, &reference).await? {
                waiting.push((next, depth - 1));
            }
        }
    }
    Ok(false)
}

/// Whether `caller` sees a manifest under the name `reference`.
pub async fn sees(
    registry: &Registry,
    site: &Site,
    caller: &Caller,
    name: &Repository,
    reference: &Reference,
    found: &StoredManifest,
) -> Result<bool, OciError> {
    if site.policy(name).is_none() || sees_all(caller, name) {
        return Ok(true);
    }
    is_released(registry, site, name, reference, found).await
}

/// Whether `caller` sees a blob: a manifest that they see refers to it.
pub async fn sees_blob(
    registry: &Registry,
    site: &Site,
    caller: &Caller,
    name: &Repository,
    digest: &Digest,
) -> Result<bool, OciError> {
    if site.policy(name).is_none() || sees_all(caller, name) {
        return Ok(true);
    }
    for manifest in registry.metadata.referring(name, digest, 64).await? {
        let reference = Reference::Digest(manifest);
        if let Some(found) = registry.metadata.manifest(name, &reference).await?
            && is_released(registry, site, name, &reference, &found).await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Something in a repository with a policy changed: every verdict is taken anew.
pub fn changed(registry: &Registry, site: &Site, name: &Repository) {
    if site.policy(name).is_some() {
        registry.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a manifest is about: by its subject, or by the older schemes' tags. The inner value
/// is missing where it is about something that cannot be named.
async fn subject(
    registry: &Registry,
    name: &Repository,
    found: &StoredManifest,
    document: &Value,
) -> Result<Option<Option<Digest>>, OciError> {
    if !document["subject"].is_null() {
        let digest = document["subject"]["digest"].as_str();
        return Ok(Some(digest.and_then(|digest| digest.parse().ok())));
    }
    let tags = registry.metadata.tags_of(name, &found.digest).await?;
    let about = tags.iter().find_map(|tag| about(tag));
    Ok(about.map(Some))
}

/// The digest that a tag such as `sha256-<hex>.sig` is about.
fn about(tag: &str) -> Option<Digest> {
    let (algorithm, rest) = tag.split_once('-')?;
    let hex = rest.split('.').next()?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// The artifact and, if wanted, what is attached to it. Nothing where a part is missing.
async fn gather(
    registry: &Registry,
    name: &Repository,
    content: &[u8],
    document: &Value,
    attached: bool,
) -> Result<Option<Layout>, OciError> {
    let mut layout = Layout::new();
    let mut room = MOST_BYTES;
    // An index is no image manifest: its digest is all that is signed.
    let _ = layout.add_manifest(content.to_vec(), None);
    if is_bundle(document) {
        let layers = document["layers"].as_array();
        let parts = layers.into_iter().flatten().chain([&document["config"]]);
        for part in parts {
            if !add(registry, name, &mut layout, part, &mut room, MOST_BYTES).await? {
                return Ok(None);
            }
        }
    }
    if !attached {
        return Ok(Some(layout));
    }
    let digest = Digest::of(Algorithm::Sha256, content);
    let query = ReferrerQuery {
        artifact_type: None,
        limit: MOST_REFERRERS,
        after: None,
    };
    let referrers = registry.metadata.referrers(name, &digest, &query).await?;
    let mut manifests: Vec<(Reference, Option<String>)> = Vec::new();
    for descriptor in &referrers.descriptors {
        let descriptor: Value = serde_json::from_str(descriptor).unwrap_or_default();
        let digest = descriptor["digest"]
            .as_str()
            .and_then(|text| text.parse().ok());
        manifests.extend(digest.map(|digest| (Reference::Digest(digest), None)));
    }
    let tag = format!("sha256-{}.sig", digest.to_hex());
    if let Ok(reference) = tag.parse::<Tag>() {
        manifests.push((Reference::Tag(reference), Some(tag)));
    }
    for (reference, tag) in manifests {
        let Some(found) = registry.metadata.manifest(name, &reference).await? else {
            continue;
        };
        let document: Value = serde_json::from_slice(&found.content).unwrap_or_default();
        if layout
            .add_manifest(found.content.to_vec(), tag.as_deref())
            .is_err()
        {
            continue;
        }
        for layer in document["layers"].as_array().into_iter().flatten() {
            // A broken signature spoils only itself.
            add(
                registry,
                name,
                &mut layout,
                layer,
                &mut room,
                LARGEST_SIGNATURE,
            )
            .await?;
        }
    }
    Ok(Some(layout))
}

/// Adds a blob. Says whether it was there and small enough.
async fn add(
    registry: &Registry,
    name: &Repository,
    layout: &mut Layout,
    part: &Value,
    room: &mut u64,
    largest: u64,
) -> Result<bool, OciError> {
    let digest = part["digest"].as_str().and_then(|text| text.parse().ok());
    let most = largest.min(*room);
    let Some(bytes) = crate::api::small_blob(registry, name, digest, most).await? else {
        return Ok(false);
    };
    *room -= bytes.len() as u64;
    layout.add_blob(bytes.to_vec());
    Ok(true)
}
