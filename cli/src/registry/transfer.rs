//! Whole artifacts: pull, push, copy.

use std::path::Path;

use bundle::{Digest, layout::Layout, manifest::Descriptor, media};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::{
    Client, Error,
    content::{Content, Partial},
    exchange::Registry,
    graph::{Graph, Member, OLDER_SUFFIXES, PARALLEL},
    referrers::fallback_tag,
    upload::Arrival,
};
use crate::reference::{DEFAULT_TAG, Reference, Repository};

/// An artifact that came from a registry.
pub struct Pulled {
    /// What the reference meant when it was asked, once.
    pub digest: Digest,
    /// The artifact and everything that refers to it.
    pub layout: Layout,
    /// What refers to it.
    pub referrers: Vec<Referrer>,
    /// Bytes of all manifests and blobs.
    pub bytes: u64,
}

/// An artifact that went to a registry.
#[derive(Debug, Serialize)]
pub struct Pushed {
    /// Its digest.
    pub digest: Digest,
    /// The tags that now mean it.
    pub tags: Vec<String>,
    /// What refers to it.
    pub referrers: Vec<Referrer>,
    /// How the blobs got there.
    pub blobs: Arrivals,
}

/// Blobs by the way they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arrivals {
    /// Sent over the network.
    pub sent: u64,
    /// Taken by the registry from another of its repositories.
    pub mounted: u64,
    /// There before.
    pub present: u64,
    /// Bytes sent.
    pub bytes: u64,
}

/// A manifest about another, as results show it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its type, taken from the manifest itself.
    pub artifact_type: String,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Its tag, where it is found by that (cosign's older scheme).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Client {
    pub(super) async fn pull(
        &self,
        reference: &Reference,
        folder: Option<&Path>,
    ) -> Result<Pulled, Error> {
        let registry = self.registry(&reference.repository.host)?;
        let (graph, digest) = self.source(&registry, reference).await?;
        let repository = &reference.repository;
        check_size(&graph)?;
        let contents = futures_util::stream::iter(graph.blobs())
            .map(|blob| {
                let registry = &registry;
                async move {
                    let partial = match folder {
                        Some(folder) => Partial::resume(&folder.join(blob.digest.to_hex()))?,
                        None => Partial::new(blob.size)?,
                    };
                    let content = registry
                        .blob(repository, &blob.digest, blob.size, partial, &self.progress)
                        .await?;
                    content.into_bytes()
                }
            })
            .buffered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        let mut layout = Layout::new();
        let mut bytes = 0;
        for content in contents {
            bytes += content.len() as u64;
            layout.add_blob(content.into());
        }
        let mut kept = Vec::new();
        for member in graph.members {
            // Tools like oras and skopeo ask for a name when a layout lists several manifests.
            let tag = reference.tag.as_deref().unwrap_or(DEFAULT_TAG);
            let is_root = member.manifest.digest == digest;
            // A file holds one bundle, and a bundle is never about another one: whoever
            // attaches one could make readers take it for the bundle that was asked for.
            if !is_root && member.node.artifact_type.as_deref() == Some(media::BUNDLE) {
                continue;
            }
            let name = member.name.as_deref().or(is_root.then_some(tag));
            let document = member.manifest.bytes.clone();
            let is_index = !member.node.manifests.is_empty();
            let added = match is_index && is_root {
                // Other people's packages come as an index of platforms.
                true => layout.add_index(document, name),
                // An index that refers to it is none of the kinds that a layout holds.
                false => layout.add_manifest(document, name),
            };
            match added {
                Ok(_) => {
                    bytes += member.manifest.bytes.len() as u64;
                    kept.push(member);
                }
                Err(cause) if is_root => {
                    return Err(Error::NotABundle {
                        what: reference.to_string(),
                        cause: cause.to_string(),
                    });
                }
                // A referrer of a kind that layouts do not hold.
                Err(_) => {}
            }
        }
        let is_index = kept.iter().any(|member: &Member| {
            member.manifest.digest == digest && !member.node.manifests.is_empty()
        });
        // Of indexes only other people's packages are held.
        if let (true, Err(cause)) = (is_index, layout.bundle_descriptor()) {
            return Err(Error::NotABundle {
                what: reference.to_string(),
                cause: cause.to_string(),
            });
        }
        let graph = Graph::ordered(kept);
        Ok(Pulled {
            digest,
            layout,
            referrers: referrers(&graph),
            bytes,
        })
    }

    pub(super) async fn push_layout(
        &self,
        layout: &Layout,
        reference: &Reference,
        more_tags: &[String],
    ) -> Result<Pushed, Error> {
        let (graph, digest) = local_graph(layout)?;
        let tags = tags(reference, digest, more_tags)?;
        let registry = self.registry(&reference.repository.host)?;
        let arrivals = futures_util::stream::iter(graph.blobs())
            .map(|blob| {
                let registry = &registry;
                async move {
                    let bytes = layout.described(blob).map_err(|cause| Error::Manifest {
                        what: digest.to_string(),
                        cause: cause.to_string(),
                    })?;
                    let content = Content::Memory(Bytes::copy_from_slice(bytes));
                    let arrival = self
                        .place(registry, &reference.repository, &blob.digest, &content)
                        .await?;
                    Ok::<_, Error>((arrival, blob.size))
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        self.publish(&registry, &reference.repository, &graph, digest, &tags)
            .await?;
        Ok(Pushed::of(digest, tags, &graph, arrivals))
    }

    pub(super) async fn push_referrer(
        &self,
        repository: &Repository,
        manifest: &[u8],
        blobs: &[&[u8]],
    ) -> Result<Digest, Error> {
        let registry = self.registry(&repository.host)?;
        for blob in blobs {
            let content = Content::Memory(Bytes::copy_from_slice(blob));
            self.place(&registry, repository, &Digest::of(blob), &content)
                .await?;
        }
        let member = Member::of(manifest, None)?;
        self.put(&registry, repository, &member).await?;
        Ok(member.manifest.digest)
    }

    pub(super) async fn copy_graph(
        &self,
        source: &Reference,
        destination: &Reference,
        more_tags: &[String],
    ) -> Result<Pushed, Error> {
        let from = self.registry(&source.repository.host)?;
        let to = self.registry(&destination.repository.host)?;
        let (graph, digest) = self.source(&from, source).await?;
        let tags = tags(destination, digest, more_tags)?;
        let arrivals = futures_util::stream::iter(graph.blobs())
            .map(|blob| {
                let (from, to) = (&from, &to);
                async move {
                    let arrival = self
                        .carry(
                            (from, &source.repository),
                            (to, &destination.repository),
                            blob,
                        )
                        .await?;
                    Ok::<_, Error>((arrival, blob.size))
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        self.publish(&to, &destination.repository, &graph, digest, &tags)
            .await?;
        Ok(Pushed::of(digest, tags, &graph, arrivals))
    }

    /// Brings one blob from a repository to another.
    async fn carry(
        &self,
        (from, source): (&Registry, &Repository),
        (to, destination): (&Registry, &Repository),
        blob: &Descriptor,
    ) -> Result<Arrival, Error> {
        let (digest, progress) = (&blob.digest, &self.progress);
        if to.has_blob(destination, digest, progress).await? {
            return Ok(Arrival::Present);
        }
        if from.host == to.host && to.mount(destination, digest, source, progress).await? {
            return Ok(Arrival::Mounted);
        }
        let partial = Partial::new(blob.size)?;
        let content = from
            .blob(source, digest, blob.size, partial, progress)
            .await?;
        to.send_blob(destination, digest, &content, &self.sessions, progress)
            .await?;
        Ok(Arrival::Sent)
    }

    /// Resolves the reference once and fetches all manifests by digest.
    async fn source(
        &self,
        registry: &Registry,
        reference: &Reference,
    ) -> Result<(Graph, Digest), Error> {
        let repository = &reference.repository;
        let digest = self.resolved(registry, reference).await?;
        let root = registry
            .manifest_of(repository, &digest.to_string(), &self.progress)
            .await?;
        let graph = registry.graph(repository, root, &self.progress).await?;
        Ok((graph, digest))
    }

    /// Sends a blob unless it is there.
    async fn place(
        &self,
        registry: &Registry,
        repository: &Repository,
        digest: &Digest,
        content: &Content,
    ) -> Result<Arrival, Error> {
        let progress = &self.progress;
        if registry.has_blob(repository, digest, progress).await? {
            return Ok(Arrival::Present);
        }
        registry
            .send_blob(repository, digest, content, &self.sessions, progress)
            .await?;
        Ok(Arrival::Sent)
    }

    /// Puts all manifests by digest, and then the tags.
    async fn publish(
        &self,
        registry: &Registry,
        repository: &Repository,
        graph: &Graph,
        root: Digest,
        tags: &[String],
    ) -> Result<(), Error> {
        for member in &graph.members {
            self.put(registry, repository, member).await?;
        }
        let root = graph
            .members
            .iter()
            .find(|member| member.manifest.digest == root);
        for (tag, member) in tags.iter().flat_map(|tag| root.map(|root| (tag, root))) {
            let bytes = Bytes::copy_from_slice(&member.manifest.bytes);
            registry
                .put_manifest(
                    repository,
                    tag,
                    &member.manifest.media_type,
                    bytes,
                    &self.progress,
                )
                .await?;
        }
        Ok(())
    }

    /// Puts one manifest, and lists it by hand if the registry does not.
    async fn put(
        &self,
        registry: &Registry,
        repository: &Repository,
        member: &Member,
    ) -> Result<(), Error> {
        let digest = member.manifest.digest.to_string();
        let name = member.name.as_deref().unwrap_or(&digest);
        let bytes = Bytes::copy_from_slice(&member.manifest.bytes);
        let accepted = registry
            .put_manifest(
                repository,
                name,
                &member.manifest.media_type,
                bytes,
                &self.progress,
            )
            .await?;
        match member.node.subject {
            Some(subject) if !accepted.listed => {
                let entry = member.descriptor();
                registry
                    .list_referrer(repository, &subject, &entry, &self.progress)
                    .await
            }
            _ => Ok(()),
        }
    }
}

impl Pushed {
    fn of(digest: Digest, tags: Vec<String>, graph: &Graph, arrivals: Vec<(Arrival, u64)>) -> Self {
        Self {
            digest,
            tags,
            referrers: referrers(graph),
            blobs: Arrivals::of(arrivals),
        }
    }
}

impl Arrivals {
    fn of(arrivals: Vec<(Arrival, u64)>) -> Self {
        let mut counts = Self::default();
        for (arrival, size) in arrivals {
            match arrival {
                Arrival::Present => counts.present += 1,
                Arrival::Mounted => counts.mounted += 1,
                Arrival::Sent => {
                    counts.sent += 1;
                    counts.bytes += size;
                }
            }
        }
        counts
    }
}

/// The manifests of a layout: one artifact and what is about it or about that.
fn local_graph(layout: &Layout) -> Result<(Graph, Digest), Error> {
    let mut members = Vec::new();
    let mut roots = Vec::new();
    for listed in &layout.index().manifests {
        let bytes = layout.blob(&listed.digest).ok_or_else(|| Error::Manifest {
            what: listed.digest.to_string(),
            cause: "the layout lists it but does not hold it".to_owned(),
        })?;
        let name = listed
            .annotations
            .get(media::REF_NAME)
            .filter(|name| is_older_name(name));
        let member = Member::of(bytes, name.cloned())?;
        if !member.is_referrer() {
            roots.push(member.manifest.digest);
        }
        members.push(member);
    }
    let mut at = 0;
    while at < members.len() {
        for part in members[at].node.manifests.clone() {
            if members
                .iter()
                .any(|known| known.manifest.digest == part.digest)
            {
                roots.retain(|root| *root != part.digest);
                continue;
            }
            let bytes = layout.blob(&part.digest).ok_or_else(|| Error::Manifest {
                what: part.digest.to_string(),
                cause: "an index names it but the layout does not hold it".to_owned(),
            })?;
            members.push(Member::of(bytes, None)?);
        }
        at += 1;
    }
    roots.dedup();
    let [root] = roots.as_slice() else {
        return Err(Error::Manifest {
            what: "the layout".to_owned(),
            cause: format!("it holds {} artifacts, not one", roots.len()),
        });
    };
    let graph = Graph::ordered(members);
    Ok((graph, *root))
}

/// `sha256-HEX.sig` and its like.
fn is_older_name(name: &str) -> bool {
    OLDER_SUFFIXES.iter().any(|suffix| {
        name.strip_suffix(suffix)
            .and_then(|stem| stem.strip_prefix("sha256-"))
            .and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok())
            .is_some_and(|digest| name == format!("{}{suffix}", fallback_tag(&digest)))
    })
}

/// The tags to write; `latest` where neither tag nor digest is written. A digest in the
/// destination is a condition.
fn tags(reference: &Reference, digest: Digest, more: &[String]) -> Result<Vec<String>, Error> {
    if let Some(want) = reference.digest.filter(|want| *want != digest) {
        return Err(Error::Destination { want, got: digest });
    }
    let first = match (&reference.tag, reference.digest) {
        (None, Some(_)) => None,
        _ => Some(
            reference
                .tag
                .clone()
                .unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        ),
    };
    let mut tags: Vec<String> = Vec::new();
    for tag in first.into_iter().chain(more.iter().cloned()) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

fn referrers(graph: &Graph) -> Vec<Referrer> {
    let mut referrers: Vec<_> = graph
        .referrers()
        .map(|member| Referrer {
            digest: member.manifest.digest,
            artifact_type: member.node.artifact_type.clone().unwrap_or_default(),
            subject: member.node.subject,
            tag: member.name.clone(),
        })
        .collect();
    referrers.sort();
    referrers
}

/// A layout is in memory, so it may not be larger than one may be.
fn check_size(graph: &Graph) -> Result<(), Error> {
    let limits = bundle::layout::Limits::default();
    let mut total: u64 = 0;
    for blob in graph.blobs() {
        total = total.saturating_add(blob.size);
        if blob.size > limits.blob || total > limits.total {
            return Err(Error::Limit {
                what: format!("the size of {} or of the whole bundle", blob.digest),
                limit: limits.blob.min(limits.total),
            });
        }
    }
    Ok(())
}
