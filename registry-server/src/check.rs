//! Reading everything that is stored and comparing it with its digest.

use std::io;

use serde::Serialize;

use crate::{
    digest::{Digest, Hasher},
    error::OciError,
    metadata::Metadata,
    store::{Object, Store},
};

/// What a check read and found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Manifests that refer to something which their repository does not have. Allowed
    /// in a sparse registry, and after a client deleted a blob that was in use.
    pub incomplete: u64,
    /// Files that no record mentions; garbage collection removes them.
    pub unrecorded: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// Something stored that is not what it should be.
#[derive(Debug, Serialize)]
pub struct Damage {
    /// Which blob or manifest, or `metadata`.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
    /// The blob, if forgetting it lets clients push it again.
    #[serde(skip)]
    pub blob: Option<Object>,
}

/// Reads everything once. `blocking` because it reads files: run it where that is fine.
pub async fn check(metadata: &Metadata, store: &dyn Store) -> Result<Report, OciError> {
    let mut report = Report::default();
    for problem in metadata.integrity().await? {
        report.damage.push(Damage {
            what: "metadata".to_owned(),
            problem,
            blob: None,
        });
    }
    check_blobs(metadata, store, &mut report).await?;
    check_manifests(metadata, &mut report).await?;
    for (object, _) in store.list()? {
        report.unrecorded += u64::from(!metadata.has_blob(&object).await?);
    }
    Ok(report)
}

async fn check_blobs(
    metadata: &Metadata,
    store: &dyn Store,
    report: &mut Report,
) -> Result<(), OciError> {
    let mut after = String::new();
    loop {
        let blobs = metadata.blobs(&after).await?;
        let Some((last, _)) = blobs.last() else {
            return Ok(());
        };
        after = last.digest.to_string();
        for (object, size) in blobs {
            report.blobs += 1;
            report.bytes += size;
            // Deleted since it was listed: the server may be running.
            if let Some(problem) = problem(store, &object, size)
                && metadata.has_blob(&object).await?
            {
                let what = format!("blob {}", object.digest);
                report.damage.push(Damage {
                    what,
                    problem,
                    blob: Some(object),
                });
            }
        }
    }
}

async fn check_manifests(metadata: &Metadata, report: &mut Report) -> Result<(), OciError> {
    let mut after = 0;
    loop {
        let manifests = metadata.manifests(after).await?;
        let Some(last) = manifests.last() else {
            return Ok(());
        };
        after = last.id;
        for manifest in manifests {
            report.manifests += 1;
            report.incomplete += u64::from(manifest.missing > 0);
            let want = manifest.digest.parse::<Digest>();
            let got = want.map(|want| Digest::of(want.algorithm(), &manifest.content));
            if want != got {
                let what = format!("manifest {}@{}", manifest.repository, manifest.digest);
                let got = got.map_or_else(|error| error.to_string(), |got| got.to_string());
                let problem = format!("its bytes have the digest {got}");
                report.damage.push(Damage {
                    what,
                    problem,
                    blob: None,
                });
            }
        }
    }
}

/// What is wrong with a blob's bytes, if anything.
fn problem(store: &dyn Store, object: &Object, size: u64) -> Option<String> {
    match read(store, object) {
        Ok(None) => Some("its bytes are missing".to_owned()),
        Ok(Some((got, _))) if got != size => Some(format!("it has {got} bytes and had {size}")),
        Ok(Some((_, got))) if got != object.digest => {
            Some(format!("its bytes have the digest {got}"))
        }
        Ok(Some(_)) => None,
        Err(error) => Some(format!("it cannot be read: {error}")),
    }
}

fn read(store: &dyn Store, object: &Object) -> io::Result<Option<(u64, Digest)>> {
    let Some(content) = store.open(object)? else {
        return Ok(None);
    };
    let size = content.size();
    let mut hasher = Hasher::new(object.digest.algorithm());
    let mut buffer = vec![0; size.min(1 << 20) as usize];
    let mut offset = 0;
    while offset < size {
        let part = (size - offset).min(buffer.len() as u64) as usize;
        content.read_at(&mut buffer[..part], offset)?;
        hasher.update(&buffer[..part]);
        offset += part as u64;
    }
    Ok(Some((size, hasher.finish())))
}
