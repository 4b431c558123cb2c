//! Writers at the same time: nothing acknowledged is lost, nothing half-made is seen.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::{Server, artifact, image, sha256};

const WRITERS: usize = 8;

#[test]
fn no_referrer_is_lost_with_eight_writers_on_one_subject() {
    const EACH: usize = 25;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let subject = client.push_manifest("a", "v1", &image(&[], None));
    let pushed: BTreeSet<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (mut client, subject) = (server.client(), subject.as_str());
                scope.spawn(move || -> Vec<String> {
                    let push = |n| {
                        let json = artifact("x/sig", subject, &format!("{writer} {n}"));
                        client.push_manifest("a", &sha256(json.as_bytes()), &json)
                    };
                    (0..EACH).map(push).collect()
                })
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    });
    assert_eq!(pushed.len(), WRITERS * EACH);
    let reply = client.get(&format!("/v2/a/referrers/{subject}")).json();
    let listed = reply["manifests"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = listed
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, pushed);
}

#[test]
fn one_writer_wins_each_compare_and_swap() {
    const ROUNDS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let json =
        |writer: usize, round: usize| artifact("x/a", &sha256(b""), &format!("{writer} {round}"));
    let mut at = String::new();
    for round in 0..ROUNDS {
        let statuses: Vec<u16> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let mut client = server.client();
                    let condition = match at.as_str() {
                        "" => ("if-none-match", "*"),
                        etag => ("if-match", etag),
                    };
                    scope.spawn(move || {
                        let body = json(writer, round);
                        client
                            .send("PUT /v2/a/manifests/v1", &[condition], body.as_bytes())
                            .status
                    })
                })
                .collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        let winners = statuses.iter().filter(|status| **status == 201).count();
        let losers = statuses.iter().filter(|status| **status == 412).count();
        assert_eq!(
            (winners, losers),
            (1, WRITERS - 1),
            "round {round}: {statuses:?}"
        );
        at = client.get("/v2/a/manifests/v1").header("etag").to_owned();
    }
}

#[test]
fn a_listed_tag_can_be_read_while_manifests_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    server.client().push_blob("a", b"{}");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (mut client, stop) = (server.client(), &stop);
            scope.spawn(move || {
                for n in 0.. {
                    let json = artifact("x/a", &sha256(b""), &format!("{writer} {n}"));
                    let digest = client.push_manifest("a", &format!("t{writer}"), &json);
                    let line = format!("DELETE /v2/a/manifests/{digest}");
                    assert_eq!(client.send(&line, &[], b"").status, 202);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let mut client = server.client();
        for _ in 0..300 {
            for writer in 0..4 {
                let reply = client.get(&format!("/v2/a/manifests/t{writer}"));
                let whole = reply.status == 200
                    && sha256(&reply.body) == reply.header("docker-content-digest");
                assert!(whole || reply.status == 404, "{reply:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Every tag was deleted with its manifest, also in the caches.
    let mut client = server.client();
    assert_eq!(
        client.get("/v2/a/tags/list").text(),
        r#"{"name":"a","tags":[]}"#
    );
    for writer in 0..4 {
        assert_eq!(
            client.get(&format!("/v2/a/manifests/t{writer}")).status,
            404
        );
    }
}
