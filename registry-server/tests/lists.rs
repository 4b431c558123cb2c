//! Lists of tags and referrers that are kept in memory: never older than what was acknowledged.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::thread;

use common::{Client, Server, artifact, sha256};
use serde_json::json;

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
fn a_page_and_its_link_follow_each_change() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut client = server.client();
    let subject = client.push_image("a", "b", b"layer");
    client.push_image("a", "d", b"layer");
    let page = |client: &mut Client, query: &str| {
        let answer = client.get(&format!("/v2/a/tags/list?{query}"));
        let link = answer.header("link").to_owned();
        (answer.json()["tags"].clone(), link)
    };
    let next = |last: &str| format!("</v2/a/tags/list?n=1&last={last}>; rel=\"next\"");
    // Each twice: the second time from memory.
    for _ in 0..2 {
        assert_eq!(page(&mut client, "n=1"), (json!(["b"]), next("b")));
        assert_eq!(
            page(&mut client, "n=1&last=b"),
            (json!(["d"]), String::new())
        );
    }
    client.push_image("a", "a", b"layer");
    client.push_image("a", "c", b"layer");
    for _ in 0..2 {
        assert_eq!(page(&mut client, "n=1"), (json!(["a"]), next("a")));
        assert_eq!(page(&mut client, "n=1&last=b"), (json!(["c"]), next("c")));
    }
    let found = |client: &mut Client, query: &str| {
        let path = format!("/v2/a/referrers/{subject}?{query}");
        let answer = client.get(&path);
        let filtered = answer.header("oci-filters-applied").to_owned();
        let count = answer.json()["manifests"].as_array().unwrap().len();
        (count, filtered, !answer.header("link").is_empty())
    };
    let filtered = "artifactType".to_owned();
    for (count, more) in [(0, false), (1, false), (1, true)] {
        for _ in 0..2 {
            let want = (count, filtered.clone(), more);
            assert_eq!(found(&mut client, "artifactType=x/note&n=1"), want);
            assert_eq!(found(&mut client, "artifactType=x/other").0, 0);
        }
        let note = artifact("x/note", &subject, &format!("{count}{more}"));
        client.push_manifest("a", &sha256(note.as_bytes()), &note);
    }
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
