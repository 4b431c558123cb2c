//! Several instances over PostgreSQL and S3, or PostgreSQL and a folder, without affinity:
//! each request of a client goes to another one.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use common::{
    Client, Reply, Server, artifact,
    backends::{Moto, Postgres},
    image,
    quarantine::{Bench, policy_for},
    sha256,
};
use tempfile::TempDir;

/// Where blobs are.
#[derive(Clone, Copy, Debug)]
enum Blobs {
    Folder,
    Bucket,
}

/// Instances over one database and one store.
struct Fleet {
    servers: Vec<Option<Server>>,
    flags: Vec<String>,
    roots: Vec<TempDir>,
    _shared: TempDir,
}

impl Fleet {
    fn start(count: usize, blobs: Blobs) -> Self {
        let shared = tempfile::tempdir().unwrap();
        let mut flags = vec!["--database".to_owned(), Postgres::shared().database()];
        match blobs {
            Blobs::Folder => {
                flags.extend(["--blobs".to_owned(), shared.path().display().to_string()]);
            }
            Blobs::Bucket => {
                let moto = Moto::shared();
                flags.extend(["--blobs".to_owned(), moto.bucket()]);
                flags.extend(["--s3-endpoint".to_owned(), moto.endpoint()]);
            }
        }
        let mut fleet = Self {
            servers: Vec::new(),
            flags,
            roots: Vec::new(),
            _shared: shared,
        };
        for _ in 0..count {
            let root = tempfile::tempdir().unwrap();
            fleet.servers.push(Some(fleet.serve(&root)));
            fleet.roots.push(root);
        }
        fleet
    }

    fn serve(&self, root: &TempDir) -> Server {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Server::with(root.path(), &flags)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let running = self.servers.iter().flatten();
        running.map(|server| server.address).collect()
    }

    fn clients(&self) -> Rotation {
        Rotation::new(&self.addresses(), 0)
    }
}

/// Connections to every instance; each request takes the next.
struct Rotation {
    clients: Vec<Client>,
    next: usize,
}

impl Rotation {
    fn new(addresses: &[SocketAddr], first: usize) -> Self {
        let clients = addresses.iter().map(|address| Client::connect(*address));
        Self {
            clients: clients.collect(),
            next: first,
        }
    }

    fn next(&mut self) -> &mut Client {
        self.next += 1;
        let count = self.clients.len();
        &mut self.clients[self.next % count]
    }

    fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.next().send(line, headers, body)
    }

    /// A blob in chunks, each request to another instance.
    fn push_chunks(&mut self, name: &str, chunks: &[&[u8]]) -> String {
        let mut location = self.next().start_upload(name);
        let mut sent = 0;
        for chunk in chunks {
            let range = format!("{sent}-{}", sent + chunk.len() - 1);
            let headers = [("content-range", range.as_str())];
            let reply = self.send(&format!("PATCH {location}"), &headers, chunk);
            sent += chunk.len();
            let received = format!("0-{}", sent - 1);
            assert_eq!((reply.status, reply.header("range")), (202, &*received));
            location = reply.header("location").to_owned();
            let status = self.send(&format!("GET {location}"), &[], b"");
            assert_eq!((status.status, status.header("range")), (204, &*received));
        }
        let digest = sha256(&chunks.concat());
        let reply = self.send(&format!("PUT {location}?digest={digest}"), &[], b"");
        assert_eq!(reply.status, 201, "{}", reply.text());
        let gone = self.send(&format!("GET {location}"), &[], b"");
        assert_eq!(gone.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
        digest
    }
}

#[test]
fn what_one_instance_acknowledged_all_serve_and_chunks_may_go_anywhere() {
    for (count, blobs) in [(3, Blobs::Bucket), (2, Blobs::Bucket), (2, Blobs::Folder)] {
        let fleet = Fleet::start(count, blobs);
        let (addresses, barrier) = (fleet.addresses(), Barrier::new(4));
        let pushed: Mutex<Vec<(String, String)>> = Mutex::default();
        thread::scope(|scope| {
            for writer in 0..4 {
                let (addresses, barrier, pushed) = (&addresses, &barrier, &pushed);
                scope.spawn(move || {
                    let mut clients = Rotation::new(addresses, writer);
                    barrier.wait();
                    for n in 0..4 {
                        let config = clients.next().push_blob("a", b"{}");
                        assert_eq!(config, sha256(b"{}"));
                        let layer = format!("layer {writer} {n}").repeat(40_000 * (n % 2) + 1);
                        let (first, second) = layer.as_bytes().split_at(layer.len() / 3);
                        clients.push_chunks("a", &[first, second]);
                        let manifest = image(&[layer.as_bytes()], None);
                        let tag = format!("{writer}-{n}");
                        let client = clients.next();
                        let digest = client.push_manifest("a", &tag, &manifest);
                        assert_eq!(digest, sha256(manifest.as_bytes()));
                        pushed.lock().unwrap().push((tag, manifest));
                        let blob = clients.send(
                            &format!("GET /v2/a/blobs/{}", sha256(layer.as_bytes())),
                            &[],
                            b"",
                        );
                        assert_eq!((blob.status, blob.body == layer.as_bytes()), (200, true));
                    }
                });
            }
        });
        let pushed = pushed.into_inner().unwrap();
        assert_eq!(pushed.len(), 16, "{count} {blobs:?}");
        let mut clients = fleet.clients();
        for _ in 0..count {
            let client = clients.next();
            for (tag, manifest) in &pushed {
                let reply = client.get(&format!("/v2/a/manifests/{tag}"));
                assert_eq!((reply.status, reply.text()), (200, manifest.as_str()));
            }
            let tags = client.get("/v2/a/tags/list").json()["tags"].clone();
            assert_eq!(tags.as_array().unwrap().len(), 16);
        }
    }
}

#[test]
fn eight_writers_on_one_subject_and_one_tag_lose_nothing() {
    let fleet = Fleet::start(3, Blobs::Bucket);
    let subject = fleet.clients().next().push_image("a", "subject", b"layer");
    fleet
        .clients()
        .next()
        .push_manifest("a", "counter", &counter(0));
    let (addresses, won) = (fleet.addresses(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for writer in 0..8 {
            let (addresses, subject, won) = (&addresses, &subject, &won);
            scope.spawn(move || {
                let mut clients = Rotation::new(addresses, writer);
                for n in 0..6 {
                    let signature = artifact("x/sig", subject, &format!("{writer} {n}"));
                    let digest = sha256(signature.as_bytes());
                    clients.next().push_manifest("a", &digest, &signature);
                    // Read, add one, compare and swap.
                    let now = clients.send("GET /v2/a/manifests/counter", &[], b"");
                    let count = now.json()["annotations"]["count"].as_str().unwrap().parse();
                    let count: usize = count.unwrap();
                    let headers = [("if-match", now.header("etag"))];
                    let more = counter(count + 1);
                    let line = "PUT /v2/a/manifests/counter";
                    match clients.send(line, &headers, more.as_bytes()).status {
                        201 => won.fetch_add(1, Ordering::Relaxed),
                        412 => 0,
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    let mut clients = fleet.clients();
    for _ in 0..3 {
        let client = clients.next();
        let referrers = client.get(&format!("/v2/a/referrers/{subject}")).json();
        assert_eq!(referrers["manifests"].as_array().unwrap().len(), 48);
        let count = client.get("/v2/a/manifests/counter").json()["annotations"]["count"].clone();
        assert_eq!(count, won.load(Ordering::Relaxed).to_string());
    }
    assert!(won.load(Ordering::Relaxed) > 0);
}

fn counter(count: usize) -> String {
    let mut manifest: serde_json::Value = serde_json::from_str(&image(&[], None)).unwrap();
    manifest["annotations"] = serde_json::json!({ "count": count.to_string() });
    manifest.to_string()
}

#[test]
fn an_instance_that_is_killed_loses_nothing_that_it_acknowledged() {
    let mut fleet = Fleet::start(2, Blobs::Bucket);
    let victim = fleet.servers[0].take().unwrap();
    let (address, survivor) = (victim.address, fleet.addresses()[0]);
    let (tell, told) = std::sync::mpsc::channel();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let tell = tell.clone();
            thread::spawn(move || {
                let mut client = Client::connect(address);
                for n in 0.. {
                    let layer = format!("{writer} {n}");
                    let manifest = image(&[layer.as_bytes()], None);
                    let digest = sha256(layer.as_bytes());
                    let requests = [
                        (
                            format!("POST /v2/a/blobs/uploads/?digest={}", sha256(b"{}")),
                            "{}",
                        ),
                        (
                            format!("POST /v2/a/blobs/uploads/?digest={digest}"),
                            &*layer,
                        ),
                        (format!("PUT /v2/a/manifests/t{writer}-{n}"), &*manifest),
                    ];
                    for (line, body) in requests {
                        let Ok(reply) = client.try_send(&line, &[], body.as_bytes()) else {
                            return;
                        };
                        assert_eq!(reply.status, 201, "{}", reply.text());
                    }
                    tell.send((format!("t{writer}-{n}"), manifest, digest, layer))
                        .unwrap();
                }
            })
        })
        .collect();
    drop(tell);
    let mut acknowledged: Vec<_> = told.iter().take(12).collect();
    // An upload that the victim began goes on elsewhere.
    let mut client = Client::connect(address);
    let location = client.start_upload("a");
    let half = client.send(&format!("PATCH {location}"), &[], b"half ");
    assert_eq!(half.status, 202);
    victim.kill();
    for writer in writers {
        writer.join().unwrap();
    }
    acknowledged.extend(told.iter());
    let mut client = Client::connect(survivor);
    for (tag, manifest, digest, layer) in &acknowledged {
        let reply = client.get(&format!("/v2/a/manifests/{tag}"));
        assert_eq!((reply.status, reply.text()), (200, manifest.as_str()));
        let reply = client.get(&format!("/v2/a/blobs/{digest}"));
        assert_eq!((reply.status, reply.text()), (200, layer.as_str()));
    }
    let tags = client.get("/v2/a/tags/list").json()["tags"].clone();
    for tag in tags.as_array().unwrap() {
        let path = format!("/v2/a/manifests/{}", tag.as_str().unwrap());
        assert_eq!(client.get(&path).status, 200, "a ghost: {tag}");
    }
    let line = format!("PUT {location}?digest={}", sha256(b"half done"));
    assert_eq!(client.send(&line, &[], b"done").status, 201);
}

#[test]
fn two_writers_of_one_upload_do_not_mix_their_bytes() {
    for blobs in [Blobs::Bucket, Blobs::Folder] {
        let fleet = Fleet::start(2, blobs);
        let location = fleet.clients().next().start_upload("a");
        let barrier = Barrier::new(2);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let writers: Vec<_> = ["one", "two"]
                .into_iter()
                .zip(fleet.addresses())
                .map(|(bytes, address)| {
                    let (location, barrier) = (&location, &barrier);
                    scope.spawn(move || {
                        let mut client = Client::connect(address);
                        barrier.wait();
                        let headers = [("content-range", "0-2")];
                        let line = format!("PATCH {location}");
                        client.send(&line, &headers, bytes.as_bytes()).status
                    })
                })
                .collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        let accepted = statuses.iter().filter(|status| **status == 202).count();
        assert_eq!(accepted, 1, "{blobs:?}: {statuses:?}");
        let mut clients = fleet.clients();
        let got = ["one", "two"].into_iter().zip(&statuses);
        let (won, _) = { got }.find(|(_, status)| **status == 202).unwrap();
        let line = format!("PUT {location}?digest={}", sha256(won.as_bytes()));
        assert_eq!(clients.send(&line, &[], b"").status, 201);
    }
}

#[test]
fn collecting_on_one_instance_breaks_no_push_on_another() {
    let mut fleet = Fleet::start(1, Blobs::Folder);
    let root = tempfile::tempdir().unwrap();
    fleet
        .flags
        .extend(["--gc-interval", "1", "--gc-grace", "2", "--gc-untagged"].map(String::from));
    fleet.servers.push(Some(fleet.serve(&root)));
    let (addresses, end) = (
        fleet.addresses(),
        std::time::Instant::now() + std::time::Duration::from_secs(6),
    );
    let pushes: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let addresses = &addresses;
                scope.spawn(move || {
                    let mut clients = Rotation::new(addresses, writer);
                    let mut pushes = 0;
                    while std::time::Instant::now() < end {
                        // The same few blobs again and again: used, deleted, collected, pushed.
                        let layer = format!("layer {}", pushes % 3);
                        let tag = format!("t{writer}");
                        clients.next().push_image("a", &tag, layer.as_bytes());
                        let blob = format!("GET /v2/a/blobs/{}", sha256(layer.as_bytes()));
                        let reply = clients.send(&blob, &[], b"");
                        assert_eq!((reply.status, reply.text()), (200, &*layer));
                        let line = format!("DELETE /v2/a/manifests/{tag}");
                        assert_eq!(clients.send(&line, &[], b"").status, 202);
                        pushes += 1;
                    }
                    pushes
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    assert!(pushes > 8, "{pushes}");
    let mut clients = fleet.clients();
    clients.next().push_image("a", "last", b"layer 0");
    let found = clients.send(&format!("GET /v2/a/blobs/{}", sha256(b"layer 0")), &[], b"");
    assert_eq!(found.text(), "layer 0");
}

#[test]
fn what_one_instance_releases_all_of_them_show() {
    let shared = tempfile::tempdir().unwrap();
    let (database, blobs) = (Postgres::shared().database(), shared.path().to_str());
    let flags = ["--database", &*database, "--blobs", blobs.unwrap()];
    let bench = Bench::with(2, 2, &flags);
    let (mut first, mut second) = (bench.at(0, "pusher"), bench.at(1, "pusher"));
    let digest = first.push_image("tools/app", "v1", b"layer");
    let manifest = image(&[b"layer"], None);
    let paths = [
        "/v2/tools/app/manifests/v1".to_owned(),
        format!("/v2/tools/app/blobs/{}", sha256(b"layer")),
        format!("/v2/tools/app/referrers/{digest}"),
        "/v2/tools/app/tags/list".to_owned(),
    ];
    let mut readers = [bench.at(0, "reader"), bench.at(1, "reader")];
    let mut is_shown = |want: bool| {
        for reader in &mut readers {
            let replies = paths.each_ref().map(|path| reader.get(path));
            let [tag, blob, referrers, list] = replies;
            let status = if want { 200 } else { 404 };
            assert_eq!((tag.status, blob.status), (status, status));
            let lists = [(referrers, "manifests"), (list, "tags")];
            let full = lists.map(|(list, key)| list.json()[key] != serde_json::json!([]));
            assert_eq!(full, [want; 2]);
        }
    };
    is_shown(false);
    // One signature at each instance.
    let signature = bench.sign_at(0, "tools/app", &manifest, 0);
    is_shown(false);
    bench.sign_at(1, "tools/app", &manifest, 1);
    is_shown(true);
    let line = format!("DELETE /v2/tools/app/manifests/{signature}");
    assert_eq!(second.send(&line, &[], b"").status, 202);
    is_shown(false);
    bench.write("policy.toml", &policy_for(1, "\"xdp\""));
    for reader in [bench.at(0, "reader"), bench.at(1, "reader")].iter_mut() {
        common::eventually(|| reader.get("/v2/tools/app/manifests/v1").status == 200);
    }
    is_shown(true);
}
