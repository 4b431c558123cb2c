//! An artifact with everything that refers to it.

use std::collections::BTreeSet;

use bundle::{Digest, manifest::Descriptor};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{
    Error, Progress,
    download::Fetched,
    exchange::Registry,
    node::{self, Node},
    referrers::fallback_tag,
};
use crate::reference::Repository;

/// An artifact, its parts and its referrers, in the order in which they can be pushed:
/// parts before wholes, subjects before referrers.
#[derive(Debug, Default)]
pub struct Graph {
    /// The manifests; each once.
    pub members: Vec<Member>,
}

/// One manifest of a graph.
#[derive(Debug)]
pub struct Member {
    /// Its bytes.
    pub manifest: Fetched,
    /// What it points to.
    pub node: Node,
    /// The tag by which cosign's older scheme finds it.
    pub name: Option<String>,
}

impl Member {
    /// A manifest that is here already.
    pub fn of(bytes: &[u8], name: Option<String>) -> Result<Self, Error> {
        let manifest = Fetched {
            media_type: node::media_type(bytes),
            digest: Digest::of(bytes),
            bytes: bytes.to_vec(),
        };
        Self::fetched(manifest, name)
    }

    fn fetched(manifest: Fetched, name: Option<String>) -> Result<Self, Error> {
        Ok(Self {
            node: Node::parse(&manifest.bytes, &manifest.digest.to_string())?,
            manifest,
            name,
        })
    }

    /// Its descriptor, as an index or a list of referrers shows it.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::of(&self.manifest.media_type, &self.manifest.bytes);
        descriptor
            .artifact_type
            .clone_from(&self.node.artifact_type);
        descriptor.annotations.clone_from(&self.node.annotations);
        descriptor
    }

    /// Is it about another manifest?
    pub fn is_referrer(&self) -> bool {
        self.node.subject.is_some() || self.name.is_some()
    }
}

impl Graph {
    /// These manifests in the order in which they can be pushed.
    pub fn ordered(members: Vec<Member>) -> Self {
        Self {
            members: in_push_order(members),
        }
    }

    /// Every blob that the manifests name, each once.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut seen = BTreeSet::new();
        self.members
            .iter()
            .flat_map(|member| &member.node.blobs)
            .filter(|blob| seen.insert(blob.digest))
            .collect()
    }

    /// The manifests that are about others.
    pub fn referrers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_referrer())
    }
}

impl Registry {
    /// Fetches the manifests of an artifact, wave by wave.
    pub async fn graph(
        &self,
        repository: &Repository,
        root: Fetched,
        progress: &Progress,
    ) -> Result<Graph, Error> {
        let mut seen = BTreeSet::from([root.digest]);
        let mut wave = vec![Member::fetched(root, None)?];
        let mut members = Vec::new();
        for _ in 0..DEEPEST {
            let neighbours: Vec<_> = futures_util::stream::iter(&wave)
                .map(|member| self.neighbours(repository, member, progress))
                .buffered(PARALLEL)
                .try_collect()
                .await?;
            members.append(&mut wave);
            let mut wanted: Vec<Wanted> = neighbours.into_iter().flatten().collect();
            wanted.retain(|wanted| seen.insert(wanted.digest));
            if wanted.is_empty() {
                return Ok(Graph::ordered(members));
            }
            if seen.len() > MOST_MANIFESTS {
                return Err(Error::Limit {
                    what: format!("the number of manifests around {repository}"),
                    limit: MOST_MANIFESTS as u64,
                });
            }
            wave = futures_util::stream::iter(wanted)
                .map(|wanted| self.member(repository, wanted, progress))
                .buffered(PARALLEL)
                .try_filter_map(async |member| Ok(member))
                .try_collect()
                .await?;
        }
        Err(Error::Limit {
            what: format!("the depth of referrers in {repository}"),
            limit: DEEPEST,
        })
    }

    /// A manifest that was found; none if it is not what it was found as. Anybody who may
    /// push can have any digest listed as a referrer, so the manifest itself decides.
    async fn member(
        &self,
        repository: &Repository,
        wanted: Wanted,
        progress: &Progress,
    ) -> Result<Option<Member>, Error> {
        let digest = wanted.digest.to_string();
        let Found::Referrer(subject) = wanted.found else {
            let name = match wanted.found {
                Found::Name(name) => Some(name),
                _ => None,
            };
            let manifest = self.manifest_of(repository, &digest, progress).await?;
            return Member::fetched(manifest, name).map(Some);
        };
        let Some(manifest) = self.manifest(repository, &digest, progress).await? else {
            return Ok(None);
        };
        let member = Member::fetched(manifest, None).ok();
        Ok(member.filter(|member| member.node.subject == Some(subject)))
    }

    /// A manifest that must be there.
    pub async fn manifest_of(
        &self,
        repository: &Repository,
        wanted: &str,
        progress: &Progress,
    ) -> Result<Fetched, Error> {
        let fetched = self.manifest(repository, wanted, progress).await?;
        fetched.ok_or_else(|| Error::NotFound {
            what: wanted.to_owned(),
            place: repository.to_string(),
        })
    }

    /// Parts and referrers of one manifest.
    async fn neighbours(
        &self,
        repository: &Repository,
        member: &Member,
        progress: &Progress,
    ) -> Result<Vec<Wanted>, Error> {
        let digest = member.manifest.digest;
        let part = |part: &Descriptor| Wanted {
            digest: part.digest,
            found: Found::Part,
        };
        let mut wanted: Vec<_> = member.node.manifests.iter().map(part).collect();
        let referrers = self.referrers(repository, &digest, progress).await?;
        wanted.extend(referrers.into_iter().map(|referrer| Wanted {
            digest: referrer.digest,
            found: Found::Referrer(digest),
        }));
        if member.is_referrer() {
            // Nothing was ever signed about a signature by the older scheme.
            return Ok(wanted);
        }
        let older = OLDER_SUFFIXES.map(|suffix| async move {
            let name = format!("{}{suffix}", fallback_tag(&digest));
            let resolved = self.resolve(repository, &name, progress).await?;
            Ok::<_, Error>(resolved.map(|digest| Wanted {
                digest,
                found: Found::Name(name),
            }))
        });
        let older = futures_util::future::try_join_all(older).await?;
        wanted.extend(older.into_iter().flatten());
        Ok(wanted)
    }
}

/// A manifest to fetch.
struct Wanted {
    digest: Digest,
    found: Found,
}

/// As what it was found.
enum Found {
    /// A part of an index.
    Part,
    /// A referrer of this, so says a list.
    Referrer(Digest),
    /// Under this tag, by cosign's older scheme.
    Name(String),
}

/// Parts before wholes, subjects before referrers; else as found.
fn in_push_order(members: Vec<Member>) -> Vec<Member> {
    let present: BTreeSet<Digest> = members
        .iter()
        .map(|member| member.manifest.digest)
        .collect();
    let mut done: BTreeSet<Digest> = BTreeSet::new();
    let mut left = members;
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let before = left.len();
        let ready = |member: &Member| {
            let parts = member.node.manifests.iter().map(|part| part.digest);
            parts
                .chain(member.node.subject)
                .all(|digest| done.contains(&digest) || !present.contains(&digest))
        };
        let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(ready);
        done.extend(now.iter().map(|member| member.manifest.digest));
        ordered.extend(now);
        left = later;
        if left.len() == before {
            // Digests cannot form a circle; but if they did, order would not matter.
            ordered.append(&mut left);
        }
    }
    ordered
}

/// Signatures, attestations and bills of materials (cosign `SIGNATURE_SPEC.md`).
pub const OLDER_SUFFIXES: [&str; 3] = [".sig", ".att", ".sbom"];

/// Requests under way at once: enough to hide a round trip, too few to be rude.
pub const PARALLEL: usize = 6;

/// An index, its manifests, their signatures, notes about those: with room to spare.
const DEEPEST: u64 = 16;

/// An index of forty systems with a hundred signatures each.
const MOST_MANIFESTS: usize = 8192;

#[cfg(test)]
mod tests {
    use bundle::media;

    use super::*;

    #[test]
    fn orders_parts_and_subjects_first() {
        let image = |name: &str, subject: Option<&Member>| {
            let empty = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
            let mut manifest = bundle::manifest::Manifest::artifact(name, empty, vec![]);
            manifest.subject = subject.map(Member::descriptor);
            Member::of(&manifest.to_bytes(), None).unwrap()
        };
        let part = image("part", None);
        let index = bundle::manifest::Index::of(vec![part.descriptor()]);
        let whole = Member::of(&index.to_bytes(), None).unwrap();
        let signature = image("signature", Some(&whole));
        let note = image("note", Some(&signature));
        let want = [&part, &whole, &signature, &note].map(|member| member.manifest.digest);
        let got: Vec<_> = in_push_order(vec![note, whole, signature, part])
            .into_iter()
            .map(|member| member.manifest.digest)
            .collect();
        assert_eq!(got, want);
    }
}
