//! `check` and `gc`, alone and beside a server.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use common::{Server, artifact, image, sha256};

fn run(root: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"))
        .args(args)
        .arg("--root")
        .arg(root)
        .output()
        .unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn file(root: &Path, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    root.join("blobs/sha256").join(&hex[..2]).join(hex)
}

/// What a crash between a blob's file and its record leaves.
fn write_unrecorded(root: &Path) {
    let file = file(root, &sha256(b"x"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, b"x").unwrap();
}

#[test]
fn check_names_each_kind_of_damage_and_repair_lets_it_be_pushed_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let server = Server::start(root);
    let mut client = server.client();
    let good = client.push_blob("a", b"good");
    let flipped = client.push_blob("a", b"flipped");
    let short = client.push_blob("a", b"short");
    let missing = client.push_blob("a", b"missing");
    let output = run(root, &["check", "--json"]);
    assert_eq!(output.status.code(), Some(0), "beside a server: {output:?}");
    let whole = serde_json::json!({
        "blobs": 4, "bytes": 23, "manifests": 0, "incomplete": 0, "unrecorded": 0, "damage": [],
    });
    assert_eq!(json(&output), whole);
    assert_eq!(
        run(root, &["check", "--repair"]).status.code(),
        Some(2),
        "beside a server"
    );
    drop(client);
    assert_eq!(server.stop(), Some(0));

    fs::write(file(root, &flipped), b"fl1pped").unwrap();
    fs::write(file(root, &short), b"shor").unwrap();
    fs::remove_file(file(root, &missing)).unwrap();
    write_unrecorded(root);
    let output = run(root, &["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found = json(&output);
    assert_eq!(
        (&found["blobs"], &found["unrecorded"]),
        (&4.into(), &1.into())
    );
    let mut want = [
        (
            format!("blob {flipped}"),
            format!("its bytes have the digest {}", sha256(b"fl1pped")),
        ),
        (
            format!("blob {short}"),
            "it has 4 bytes and had 5".to_owned(),
        ),
        (
            format!("blob {missing}"),
            "its bytes are missing".to_owned(),
        ),
    ];
    want.sort();
    let want = want.map(|(what, problem)| serde_json::json!({ "what": what, "problem": problem }));
    assert_eq!(found["damage"], serde_json::json!(want));

    assert_eq!(run(root, &["check", "--repair"]).status.code(), Some(1));
    let aside = root.join("damaged").join(flipped.replace(':', "-"));
    assert_eq!(fs::read(aside).unwrap(), b"fl1pped");
    let server = Server::start(root);
    let mut client = server.client();
    assert_eq!(client.get(&format!("/v2/a/blobs/{good}")).body, b"good");
    for (digest, bytes) in [
        (flipped, &b"flipped"[..]),
        (short, b"short"),
        (missing, b"missing"),
    ] {
        let path = format!("/v2/a/blobs/{digest}");
        assert_eq!(client.get(&path).status, 404);
        client.push_blob("a", bytes);
        assert_eq!(client.get(&path).body, bytes);
    }
    assert_eq!(run(root, &["check"]).status.code(), Some(0));
}

#[test]
fn upkeep_says_when_there_is_no_registry_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["check"][..], &["check", "--repair"], &["gc"]] {
        let output = run(folder.path(), command);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert!(
            error.ends_with("holds no registry\n  help: Name its folder with --root.\n"),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn gc_removes_what_nothing_uses() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let server = Server::start(root);
    let mut client = server.client();
    client.push_image("a", "kept", b"kept");
    let shared = client.push_blob("b", b"kept");
    let unused = client.push_blob("a", b"unused");
    let lost = client.push_image("a", "deleted", b"lost");
    client.send("DELETE /v2/a/manifests/deleted", &[], b"");
    let signature = client.push_manifest(
        "a",
        &sha256(artifact("x/sig", &lost, "").as_bytes()),
        &artifact("x/sig", &lost, ""),
    );
    let output = run(root, &["gc"]);
    assert_eq!(output.status.code(), Some(2), "beside a server");
    drop(client);
    server.stop();

    write_unrecorded(root);
    let removed = |manifests, blobs, bytes, files| serde_json::json!({ "manifests": manifests, "blobs": blobs, "bytes": bytes, "files": files });
    assert_eq!(
        json(&run(root, &["gc", "--json"])),
        removed(0, 0, 0, 0),
        "within the grace"
    );
    assert_eq!(
        json(&run(root, &["gc", "--json", "--grace", "0"])),
        removed(0, 1, 6, 1)
    );
    let server = Server::start(root);
    let mut client = server.client();
    for (path, status) in [
        (format!("/v2/a/blobs/{unused}"), 404),
        (format!("/v2/a/blobs/{}", sha256(b"kept")), 200),
        // No manifest of b uses it, but its bytes stay for a.
        (format!("/v2/b/blobs/{shared}"), 404),
        (format!("/v2/a/manifests/{lost}"), 200),
        (format!("/v2/a/manifests/{signature}"), 200),
        ("/v2/a/manifests/kept".to_owned(), 200),
    ] {
        assert_eq!(client.get(&path).status, status, "{path}");
    }
    drop(client);
    server.stop();

    let output = run(root, &["gc", "--json", "--grace", "0", "--untagged"]);
    assert_eq!(json(&output), removed(2, 1, 4, 0));
    assert_eq!(run(root, &["check"]).status.code(), Some(0));
    let server = Server::start(root);
    let mut client = server.client();
    assert_eq!(client.get(&format!("/v2/a/manifests/{lost}")).status, 404);
    assert_eq!(
        client.get(&format!("/v2/a/manifests/{signature}")).status,
        404
    );
    assert_eq!(client.get("/v2/a/manifests/kept").status, 200);
}

#[test]
fn collecting_while_serving_breaks_no_push() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--gc-interval", "1", "--gc-grace", "2", "--gc-untagged"];
    let server = Server::with(folder.path(), &flags);
    let until = Instant::now() + Duration::from_secs(6);
    thread::scope(|scope| {
        for writer in 0..4 {
            let mut client = server.client();
            scope.spawn(move || {
                let mut kept = Vec::new();
                for n in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    // The same few layers over and over: collected, pushed again,
                    // asked for instead of pushed.
                    let layer = format!("layer {}", n % 7).into_bytes();
                    let path = format!("/v2/a/blobs/{}", sha256(&layer));
                    let there = client.send(&format!("HEAD {path}"), &[], b"").status == 200;
                    if !there {
                        client.push_blob("a", &layer);
                    }
                    client.push_blob("a", b"{}");
                    let tag = format!("t{writer}-{n}");
                    let digest = client.push_manifest("a", &tag, &image(&[&layer], None));
                    assert_eq!(client.get(&format!("/v2/a/manifests/{digest}")).status, 200);
                    if n % 3 == 0 {
                        kept.push((tag, path));
                    } else {
                        let line = format!("DELETE /v2/a/manifests/{tag}");
                        assert_eq!(client.send(&line, &[], b"").status, 202);
                    }
                }
                for (tag, blob) in kept {
                    assert_eq!(client.get(&format!("/v2/a/manifests/{tag}")).status, 200);
                    assert_eq!(client.get(&blob).status, 200);
                }
            });
        }
    });
    let mut client = server.client();
    let garbage = format!("/v2/a/blobs/{}", client.push_blob("a", b"garbage"));
    common::await_removal(&file(folder.path(), &sha256(b"garbage")));
    assert_eq!(client.get(&garbage).status, 404);
}

#[test]
fn failures_are_told_to_machines_and_a_closed_pipe_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    common::users(&file, &["alice"]);
    let file = file.to_str().unwrap();
    let program = || Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"));
    let refused = program()
        .args([
            "--json",
            "user",
            "remove",
            "--htpasswd",
            file,
            "bob\u{1b}[m",
        ])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let said: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(said["error"]["exit"], 3);
    assert_eq!(said["error"]["message"], "there is no user bob\u{1b}[m");

    let refused = program()
        .args(["user", "remove", "--htpasswd", file, "bob\u{1b}[m"])
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(said, "error: there is no user bob\u{fffd}[m\n");

    // Nobody reads what it prints.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let listed = program()
        .args(["user", "list", "--htpasswd", file])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((listed.status.code(), &*listed.stderr), (Some(0), &[][..]));
}
