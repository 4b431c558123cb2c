//! Lists of tags and referrers that are kept in memory: never older than what was acknowledged.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::thread;

use common::{Client, Server, artifact, sha256};

fn tags(client: &mut Client) -> Vec<String> {
    let list = client.get("/v2/a/tags/list").json();
    let tags = list["tags"].as_array().unwrap().iter();
    tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

fn referrers(client: &mut Client, subject: &str) -> Vec<String> {
    let list = client.get(&format!("/v2/a/referrers/{subject}")).json();
    let entries = list["manifests"].as_array().unwrap().iter();
    let digests = entries.map(|entry| entry["digest"].as_str().unwrap().to_owned());
    digests.collect()
}

#[test]
fn each_change_is_in_the_next_list() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--gc-interval", "1", "--gc-grace", "4", "--gc-untagged"];
    let server = Server::with(folder.path(), &flags);
    let mut client = server.client();
    let image = client.push_image("a", "one", b"layer");
    let list = |client: &mut Client| (tags(client), referrers(client, &image).len());
    let want = |tags: &[&str], referrers| {
        let tags = tags.iter().map(|tag| (*tag).to_owned());
        (tags.collect::<Vec<_>>(), referrers)
    };
    // Twice: the second time from memory.
    for _ in 0..2 {
        assert_eq!(list(&mut client), want(&["one"], 0));
    }
    client.push_image("a", "two", b"layer");
    let note = artifact("x/note", &image, "");
    let note = client.push_manifest("a", &sha256(note.as_bytes()), &note);
    for _ in 0..2 {
        assert_eq!(list(&mut client), want(&["one", "two"], 1));
    }
    client.send("DELETE /v2/a/manifests/two", &[], b"");
    assert_eq!(list(&mut client), want(&["one"], 1));
    client.send(&format!("DELETE /v2/a/manifests/{note}"), &[], b"");
    assert_eq!(list(&mut client), want(&["one"], 0));
    // Garbage collection takes what is about nothing that is there.
    let lost = sha256(b"not there");
    let note = artifact("x/note", &lost, "");
    client.push_manifest("a", &sha256(note.as_bytes()), &note);
    common::eventually(|| referrers(&mut client, &lost).is_empty());
    client.send(&format!("DELETE /v2/a/manifests/{image}"), &[], b"");
    assert_eq!(list(&mut client), want(&[], 0));
}

#[test]
fn eight_writers_each_find_what_they_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let subject = server.client().push_image("a", "first", b"layer");
    thread::scope(|scope| {
        for writer in 0..8 {
            let (server, subject) = (&server, &subject);
            scope.spawn(move || {
                let mut client = server.client();
                for n in 0..25 {
                    let tag = format!("t{writer}-{n}");
                    let note = artifact("x/note", subject, &tag);
                    let digest = client.push_manifest("a", &tag, &note);
                    assert!(tags(&mut client).contains(&tag), "{tag}");
                    assert!(referrers(&mut client, subject).contains(&digest), "{tag}");
                    if n % 5 == 0 {
                        client.send(&format!("DELETE /v2/a/manifests/{tag}"), &[], b"");
                        assert!(!tags(&mut client).contains(&tag), "{tag}");
                    }
                }
            });
        }
    });
}
