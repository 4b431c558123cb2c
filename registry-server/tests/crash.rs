//! SIGKILL under load: what was acknowledged is there, byte for byte, and every tag
//! that is listed can be read. `BPFSEAL_SOAK=100` asks for that many kills.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    net::SocketAddr,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use common::{Client, Server, artifact, image, sha256};

const WRITERS: usize = 4;

/// What a writer was told is stored.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(String, Vec<u8>)>,
    manifests: Vec<(String, String)>,
    deleted: Vec<String>,
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let kills = std::env::var("BPFSEAL_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    let kills: usize = kills.unwrap_or(4);
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for kill in 0..kills {
        let server = Server::start(folder.path());
        let address = server.address;
        let (acknowledged, heard) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let acknowledged = acknowledged.clone();
                let name = format!("{kill}-{writer}");
                thread::spawn(move || write(address, &name, &acknowledged))
            })
            .collect();
        // Long enough for some pushes on a slow disk; different each time, so that
        // the kill falls into different moments.
        wait_for_pushes(&heard, Duration::from_millis(150 + 37 * (kill as u64 % 8)));
        server.kill();
        all.extend(writers.into_iter().map(|writer| writer.join().unwrap()));
    }
    let server = Server::start(folder.path());
    let mut client = server.client();
    let mut pushes = 0;
    for writer in &all {
        pushes += writer.manifests.len();
        for (digest, bytes) in &writer.blobs {
            let reply = client.get(&format!("/v2/a/blobs/{digest}"));
            assert_eq!((reply.status, &reply.body), (200, bytes), "{digest}");
        }
        for (tag, manifest) in &writer.manifests {
            if !writer.deleted.contains(tag) {
                let reply = client.get(&format!("/v2/a/manifests/{tag}"));
                assert_eq!(
                    (reply.status, reply.text()),
                    (200, manifest.as_str()),
                    "{tag}"
                );
            }
        }
        for tag in &writer.deleted {
            assert_eq!(
                client.get(&format!("/v2/a/manifests/{tag}")).status,
                404,
                "{tag}"
            );
        }
    }
    assert!(
        pushes >= kills,
        "{pushes} pushes before {kills} kills prove nothing"
    );
    no_ghosts(&mut client);
    println!("{pushes} acknowledged pushes survived {kills} kills");
}

/// Pushes artifacts, each of which it tells, and deletes every fifth tag, until the server is
/// gone.
fn write(address: SocketAddr, name: &str, acknowledged: &Sender<()>) -> Acknowledged {
    let mut told = Acknowledged::default();
    let Ok(mut client) = Client::try_connect(address) else {
        return told;
    };
    for n in 0.. {
        let layer = format!("layer {name} {n} ")
            .repeat(1 + n % 7 * 500)
            .into_bytes();
        if push(&mut client, &format!("t{name}-{n}"), layer, &mut told).is_err() {
            break;
        }
        // Nobody listens any more once the server is about to be killed.
        let _ = acknowledged.send(());
        if n % 5 == 4 {
            let tag = format!("t{name}-{n}");
            let line = format!("DELETE /v2/a/manifests/{tag}");
            match client.try_send(&line, &[], b"") {
                Ok(reply) => assert_eq!(reply.status, 202),
                // Killed in the middle: it may be gone or not.
                Err(_) => {
                    told.manifests.pop();
                    break;
                }
            }
            told.deleted.push(tag);
        }
    }
    told
}

fn push(
    client: &mut Client,
    tag: &str,
    layer: Vec<u8>,
    told: &mut Acknowledged,
) -> std::io::Result<()> {
    for bytes in [b"{}".to_vec(), layer.clone()] {
        let digest = sha256(&bytes);
        let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
        assert_eq!(client.try_send(&line, &[], &bytes)?.status, 201);
        told.blobs.push((digest, bytes));
    }
    let subject = sha256(tag.as_bytes());
    let manifest = image(&[&layer], Some((&subject, 2)));
    let line = format!("PUT /v2/a/manifests/{tag}");
    assert_eq!(
        client.try_send(&line, &[], manifest.as_bytes())?.status,
        201
    );
    told.manifests.push((tag.to_owned(), manifest));
    Ok(())
}

/// Returns once this round's writers have pushed something and `least` has passed.
fn wait_for_pushes(heard: &Receiver<()>, least: Duration) {
    let end = Instant::now() + least;
    heard
        .recv_timeout(Duration::from_secs(60))
        .expect("something is pushed");
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        if heard.recv_timeout(left).is_err() {
            break;
        }
    }
}

/// Every tag leads to a manifest, every manifest to its blobs, and every manifest with
/// a subject is among its referrers.
fn no_ghosts(client: &mut Client) {
    let tags = client.get("/v2/a/tags/list").json();
    for tag in tags["tags"].as_array().unwrap() {
        let tag = tag.as_str().unwrap();
        let reply = client.get(&format!("/v2/a/manifests/{tag}"));
        assert_eq!(reply.status, 200, "{tag}");
        let digest = reply.header("docker-content-digest").to_owned();
        assert_eq!(sha256(&reply.body), digest);
        let manifest = reply.json();
        for layer in manifest["layers"].as_array().unwrap() {
            let layer = layer["digest"].as_str().unwrap();
            let reply = client.get(&format!("/v2/a/blobs/{layer}"));
            assert_eq!((reply.status, sha256(&reply.body).as_str()), (200, layer));
        }
        let subject = manifest["subject"]["digest"].as_str().unwrap();
        let referrers = client.get(&format!("/v2/a/referrers/{subject}")).json();
        assert_eq!(referrers["manifests"][0]["digest"], digest.as_str());
    }
}

#[test]
fn an_upload_goes_on_where_sigkill_stopped_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut client = server.client();
    let location = client.start_upload("a");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 77) as u8).collect();
    assert_eq!(
        client
            .send(&format!("PATCH {location}"), &[], &bytes[..700_000])
            .status,
        202
    );
    server.kill();
    let server = Server::start(folder.path());
    let mut client = server.client();
    let range = client.get(&location).header("range").to_owned();
    assert_eq!(range, "0-699999");
    let line = format!("PUT {location}?digest={}", sha256(&bytes));
    let range = [("content-range", "700000-999999")];
    assert_eq!(client.send(&line, &range, &bytes[700_000..]).status, 201);
    let reply = client.get(&format!("/v2/a/blobs/{}", sha256(&bytes)));
    assert_eq!((reply.status, reply.body == bytes), (200, true));
}

#[test]
fn files_without_a_session_are_cleared_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = folder.path().join("uploads");
    std::fs::create_dir_all(&uploads).unwrap();
    let id = "00112233-4455-4677-8899-aabbccddeeff";
    std::fs::write(uploads.join(id), b"lost").unwrap();
    std::fs::write(
        uploads.join("11112233-4455-4677-8899-aabbccddeeff.note"),
        b"no bytes",
    )
    .unwrap();
    std::fs::write(uploads.join("22222233-4455-4677-8899-aabbccddeeff"), b"bad").unwrap();
    std::fs::write(
        uploads.join("22222233-4455-4677-8899-aabbccddeeff.note"),
        b"?",
    )
    .unwrap();
    let server = Server::start(folder.path());
    assert_eq!(std::fs::read_dir(&uploads).unwrap().count(), 0);
    let mut client = server.client();
    client.push_blob("a", b"{}");
    client.push_manifest("a", "v1", &artifact("x/a", &sha256(b""), ""));
}
