//! Requests that no honest client sends: the answer is the sender's fault (4xx), never a
//! crash, never a 5xx, never memory without bound.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Read as _;

use common::{Client, IMAGE, Server, image, sha256};

#[test]
fn malformed_requests_are_refused_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let digest = server.client().push_blob("a", b"{}");
    let long = "a".repeat(300);
    let huge = "a".repeat(7_000);
    let names = [
        "A",
        ".",
        "..",
        "../..",
        "a/../b",
        "a//b",
        "/",
        "%2e%2e",
        "a%00b",
        "%ff",
        "a%0d%0ab",
        "a%",
        "-",
        "_",
        "a..b",
        "%E2%80%8B",
        "a b",
        "a;b",
        "*",
        "~root",
        "C:%5Cx",
        &long,
        &huge,
    ];
    let references = [
        "x",
        ".",
        "..",
        "%2e",
        "%00",
        "sha256:",
        "sha256:0",
        "sha256:zz",
        "md5:00",
        "sha512:00",
        ":",
        "@",
        "sha256:%2f..%2f",
        "-",
        &long,
        &huge,
        &digest,
        "sha256%3A00",
        "*",
    ];
    let queries = [
        "",
        "?",
        "?n=-1",
        "?n=99999999999999999999",
        "?n=x",
        "?n=",
        "?last=%00",
        "?last=%ff",
        "?digest=",
        "?digest=x",
        "?digest=sha256:00",
        "?mount=x",
        "?mount=&from=",
        "?%",
        "?=&=&",
        "?digest-algorithm=md5",
        "?artifactType=%00",
        "?tag=..&tag=%00",
        "?from=../..",
        "?n=1&n=2",
    ];
    let methods = [
        "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
    ];
    let mut sent = 0;
    let mut check =
        |client: &mut Option<Client>, line: &str, headers: &[(&str, &str)], body: &[u8]| {
            let open = client.get_or_insert_with(|| server.client());
            let reply = open.try_send(line, headers, body);
            sent += 1;
            match reply {
                Ok(reply) => {
                    assert!(reply.status < 500, "{line}: {reply:?}");
                    if reply.header("connection") == "close" || reply.status == 400 {
                        *client = None;
                    }
                }
                // Such a request line is not HTTP: a closed connection is an answer too.
                Err(_) => *client = None,
            }
        };
    let mut client = None;
    let mut paths = Vec::new();
    for name in names {
        for tail in [
            "tags/list",
            "manifests/x",
            "blobs/uploads/",
            "blobs/x",
            "referrers/x",
            "",
        ] {
            paths.push(format!("/v2/{name}/{tail}"));
        }
    }
    for reference in references {
        for noun in ["manifests", "blobs", "referrers", "blobs/uploads"] {
            paths.push(format!("/v2/a/{noun}/{reference}"));
        }
    }
    for query in queries {
        for path in [
            "_catalog",
            "a/tags/list",
            "a/blobs/uploads/",
            "a/manifests/x",
        ] {
            paths.push(format!("/v2/{path}{query}"));
        }
        paths.push(format!("/v2/a/referrers/{digest}{query}"));
        paths.push(format!("/v2/a/blobs/{digest}{query}"));
        paths.push(format!("/v2/a/manifests/{digest}{query}"));
    }
    paths.extend(
        [
            "/",
            "//",
            "/v1/",
            "/v2//",
            "*",
            "/v2/a",
            "/../../etc/passwd",
            "/v2/\u{fffd}",
        ]
        .map(str::to_owned),
    );
    for path in &paths {
        for method in methods {
            check(&mut client, &format!("{method} {path}"), &[], b"");
        }
    }
    let upload = server.client().start_upload("a");
    for (line, header, value) in [
        ("GET /v2/a/blobs/x", "range", "bytes=0-18446744073709551616"),
        ("PATCH", "content-range", "0-18446744073709551615"),
        ("PATCH", "content-range", "18446744073709551615-0"),
        ("PATCH", "content-range", "x"),
        ("PUT", "content-range", "-"),
        ("PUT /v2/a/manifests/x", "content-type", "\u{1}"),
        ("PUT /v2/a/manifests/x", "content-type", &huge),
        ("PUT /v2/a/manifests/x", "if-match", "\""),
        ("PUT /v2/a/manifests/x", "if-none-match", ",,,"),
        ("PUT /v2/a/manifests/x", "transfer-encoding", "gzip"),
        ("GET /v2/", "expect", "nonsense"),
        ("GET /v2/", "upgrade", "h2c"),
    ] {
        let line = if line.contains('/') {
            line.to_owned()
        } else {
            format!("{line} {upload}")
        };
        check(&mut client, &line, &[(header, value)], b"xyz");
    }
    let deep = format!("{{\"schemaVersion\":2,\"config\":{}", "[".repeat(1 << 20));
    let many = format!("{{\"annotations\":{{{}}}}}", "\"a\":\"\",".repeat(1 << 18));
    let bomb = image(&[], None).replace("\"size\":2", "\"size\":9223372036854775808");
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"\"",
        "0",
        "{}",
        "\u{feff}{}",
        &deep,
        &many,
        &bomb,
    ] {
        check(
            &mut client,
            "PUT /v2/a/manifests/x",
            &[("content-type", IMAGE)],
            body.as_bytes(),
        );
    }
    assert!(sent > 2_000, "{sent}");
    assert_eq!(
        server.client().get("/v2/a/tags/list").text(),
        r#"{"name":"a","tags":[]}"#
    );
}

#[test]
fn what_is_not_http_is_answered_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--client-timeout", "1"]);
    let header = format!("GET /v2/ HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    let headers = format!("GET /v2/ HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    for (bytes, want) in [
        (&b"\0\0\0\0\r\n\r\n"[..], "HTTP/1.1 400"),
        (b"GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400"),
        (
            b"GET /v2/ HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (
            b"GET /v2/ HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (header.as_bytes(), "HTTP/1.1 431"),
        (headers.as_bytes(), "HTTP/1.1 431"),
        (target.as_bytes(), "HTTP/1.1 4"),
        (b"\x16\x03\x01\x02\x00", ""),
        (b"", ""),
        (b"GET /v2/ HT", ""),
    ] {
        let mut client = server.client();
        // The server may hang up before everything was written.
        let _ = client.raw(bytes);
        let got = client
            .reply(false)
            .map(|reply| format!("HTTP/1.1 {}", reply.status));
        let got = got.unwrap_or_default();
        assert!(
            got.starts_with(want) && !got.starts_with("HTTP/1.1 5"),
            "{got:?}, want {want:?}"
        );
    }
    assert_eq!(server.client().get("/v2/").status, 200);
}

#[test]
fn slow_and_half_sent_bodies_end_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--client-timeout", "1"]);
    let digest = sha256(b"never");
    let (_, before) = server.usage();
    let heads = [
        format!(
            "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\npart"
        ),
        "PUT /v2/a/manifests/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n{".to_owned(),
        "PUT /v2/a/manifests/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{"
            .to_owned(),
    ];
    let mut waiting: Vec<_> = (0..60)
        .map(|n| {
            let mut client = server.client();
            client.raw(heads[n % heads.len()].as_bytes()).unwrap();
            client
        })
        .collect();
    // Half of them hang up, half just wait.
    waiting.truncate(30);
    for client in &mut waiting {
        assert_eq!(client.reply(false).unwrap().status, 408);
    }
    drop(waiting);
    let mut client = server.client();
    assert_eq!(client.get("/v2/").status, 200);
    assert_eq!(
        std::fs::read_dir(folder.path().join("uploads"))
            .unwrap()
            .count(),
        0
    );
    common::eventually(|| server.usage().1 <= before + 2);
}

#[test]
fn a_broken_off_chunk_can_be_continued() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut client = server.client();
    let location = client.start_upload("a");
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhello");
    let mut broken = server.client();
    broken.raw(head.as_bytes()).unwrap();
    drop(broken);
    common::eventually(|| {
        let reply = client.get(&location);
        reply.status == 204 && reply.header("range") == "0-4"
    });
    let line = format!("PUT {location}?digest={}", sha256(b"hello world"));
    assert_eq!(
        client
            .send(&line, &[("content-range", "5-10")], b" world")
            .status,
        201
    );
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--client-timeout", "1"]);
    let mut client = server.client();
    let bytes = vec![7; 32 << 20];
    let digest = client.push_blob("a", &bytes);
    let (_, before) = server.usage();
    let mut stuck = std::net::TcpStream::connect(server.address).unwrap();
    let line = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n");
    std::io::Write::write_all(&mut stuck, line.as_bytes()).unwrap();
    // The server has taken the connection, and lets it go by itself.
    common::eventually(|| server.usage().1 > before);
    common::eventually(|| server.usage().1 <= before);
    let mut taken = Vec::new();
    // Cut off: a reset, or an end long before the blob's.
    let _ = stuck.read_to_end(&mut taken);
    assert!(taken.len() < bytes.len(), "{}", taken.len());
}

#[test]
fn uploads_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--max-uploads", "3"]);
    let mut client = server.client();
    let first = client.start_upload("a");
    client.start_upload("a");
    client.start_upload("a");
    let reply = client.send("POST /v2/a/blobs/uploads/", &[], b"");
    assert_eq!(reply.refusal(), (429, "TOOMANYREQUESTS".into()));
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(
        client.send(&format!("DELETE {first}"), &[], b"").status,
        204
    );
    client.start_upload("a");
}

#[test]
fn memory_does_not_grow_with_what_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--cache", "4"]);
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let blob = vec![1; 64 << 20];
    let digest = client.push_blob("a", &blob);
    assert!(client.get(&format!("/v2/a/blobs/{digest}")).body == blob);
    for n in 0..8_u8 {
        let manifest = format!(
            "{}{}",
            image(&[], None),
            " ".repeat((4 << 20) - 500 - usize::from(n))
        );
        client.push_manifest("a", &format!("t{n}"), &manifest);
        let huge = vec![b' '; 6 << 20];
        let reply = client.send("PUT /v2/a/manifests/x", &[], &huge);
        assert_eq!(reply.refusal(), (413, "SIZE_INVALID".into()));
    }
    let (rss, _) = server.usage();
    assert!(rss < 100 * 1024, "{rss} KiB resident");
}
