//! A registry with a million manifests: its pages have to come in milliseconds.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use tests::lab::Cache;

use crate::{connection::Connection, peer::Peer, quantile};

/// Requests measured of each kind.
const REQUESTS: usize = 300;

/// Half of the manifests are in one repository, each with a tag, a fifth of them about one
/// subject; the other half are in repositories of five.
const ROWS: &str = "
BEGIN;
INSERT INTO repository (id, name) VALUES (1, 'all');
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {small})
INSERT INTO repository (id, name) SELECT i + 2, printf('small/r%06d', i) FROM n;
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {all})
INSERT INTO manifest (id, repository, digest, media_type, size, pushed_at, content)
SELECT i, CASE WHEN i < {half} THEN 1 ELSE 2 + (i - {half}) / 5 END,
    'sha256:' || lower(hex(randomblob(32))), 'application/vnd.oci.image.manifest.v1+json', 300, 0,
    CAST(printf('{\"schemaVersion\":2,\"n\":\"%0280d\"}', i) AS BLOB) FROM n;
INSERT INTO tag (repository, name, manifest, updated_at)
SELECT repository, printf('tag-%07d', id), id, 0 FROM manifest WHERE repository = 1;
INSERT INTO referrer (repository, subject, digest, manifest, artifact_type, descriptor)
SELECT 1, 'sha256:' || printf('%064x', 7), digest, id, 'application/x.' || (id % 10),
    '{\"digest\":\"' || digest || '\",\"size\":300}' FROM manifest WHERE id < {half} / 5;
COMMIT;
";

/// Fills a registry in `root` and prints how long its answers take.
pub fn measure(root: &Path, manifests: u64) {
    // Serving once makes the database.
    drop(Peer::ours(root));
    let started = Instant::now();
    let half = manifests / 2;
    let rows = ROWS
        .replace("{all}", &manifests.to_string())
        .replace("{half}", &half.to_string())
        .replace("{small}", &half.div_ceil(5).to_string());
    fill(root, &rows);
    println!(
        "\n{manifests} manifests in one instance (written in {:.0} s):\n",
        started.elapsed().as_secs_f64()
    );
    println!("| | p50 ms | p99 ms |\n|---|---|---|");
    let peer = Peer::ours(root);
    let mut connection = Connection::open(peer.address);
    let subject = format!("/v2/all/referrers/sha256:{:064x}?n=100", 7);
    // Spread over everything there is, so that nothing is in a cache.
    let spread = |n: usize, all: u64| n as u64 * 7919 % all;
    let kinds: [(&str, &dyn Fn(usize) -> String); 7] = [
        ("tags, n=100, first page", &|_| {
            "/v2/all/tags/list?n=100".to_owned()
        }),
        ("tags, n=100, anywhere", &|n| {
            let after = spread(n * 61, half);
            format!("/v2/all/tags/list?n=100&last=tag-{after:07}")
        }),
        ("catalogue, n=100, anywhere", &|n| {
            let after = spread(n * 13, half / 5);
            format!("/v2/_catalog?n=100&last=small/r{after:06}")
        }),
        ("referrers, n=100, first page", &|_| subject.clone()),
        ("referrers, n=100, anywhere", &|n| {
            let after = n as u64 * 0x00d9_3a52_9c4e_77b1;
            format!("{subject}&last=sha256:{after:016x}{:048}", 0)
        }),
        ("referrers of one type, n=100", &|n| {
            format!("{subject}&artifactType=application/x.{}", n % 10)
        }),
        ("manifest by tag, anywhere", &|n| {
            format!("/v2/all/manifests/tag-{:07}", spread(n * 61, half))
        }),
    ];
    for (name, path) in kinds {
        let mut times: Vec<f64> = (0..REQUESTS)
            .map(|n| {
                let path = path(n);
                let before = Instant::now();
                connection.get(&path);
                before.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "| {name} | {:.2} | {:.2} |",
            quantile(&times, 0.5),
            quantile(&times, 0.99)
        );
    }
    println!("\npeak memory {} MiB", peer.peak());
}

/// With Debian's `sqlite3`.
fn fill(root: &Path, rows: &str) {
    let sqlite = Cache::open().program("sqlite3", "sqlite3").unwrap();
    let mut child = Command::new(sqlite)
        .arg("-bail")
        .arg(root.join("metadata.db"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(rows.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}
