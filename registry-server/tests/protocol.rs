//! Each clause of distribution-spec 1.1, over HTTP, against the real program.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{IMAGE, INDEX, Server, artifact, image, sha256, sha512};

fn server() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    (folder, server)
}

#[test]
fn the_server_says_that_it_speaks_the_protocol() {
    let (_folder, server) = server();
    let reply = server.client().get("/v2/");
    assert_eq!((reply.status, reply.text()), (200, "{}"));
}

#[test]
fn a_blob_is_pushed_in_each_way() {
    let (_folder, server) = server();
    let mut client = server.client();
    type Push = fn(&mut common::Client, &[u8], &str);
    let ways: [(&str, Push); 4] = [
        ("one POST", |client, bytes, digest| {
            let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
            assert_eq!(client.send(&line, &[], bytes).status, 201);
        }),
        ("POST then PUT", |client, bytes, digest| {
            let location = client.start_upload("a");
            let reply = client.send(&format!("PUT {location}?digest={digest}"), &[], bytes);
            assert_eq!(reply.status, 201, "{}", reply.text());
            assert_eq!(reply.header("location"), format!("/v2/a/blobs/{digest}"));
        }),
        ("a stream", |client, bytes, digest| {
            let location = client.start_upload("a");
            let reply = client.send(&format!("PATCH {location}"), &[], bytes);
            assert_eq!(reply.status, 202);
            let location = reply.header("location").to_owned();
            let reply = client.send(&format!("PUT {location}?digest={digest}"), &[], b"");
            assert_eq!(reply.status, 201);
        }),
        ("chunks", |client, bytes, digest| {
            let location = client.start_upload("a");
            let (first, rest) = bytes.split_at(3);
            let reply = client.send(
                &format!("PATCH {location}"),
                &[("content-range", "0-2")],
                first,
            );
            assert_eq!((reply.status, reply.header("range")), (202, "0-2"));
            let range = format!("3-{}", bytes.len() - 1);
            let line = format!("PUT {location}?digest={digest}");
            assert_eq!(
                client
                    .send(&line, &[("content-range", &range)], rest)
                    .status,
                201
            );
        }),
    ];
    for (n, (way, push)) in ways.into_iter().enumerate() {
        for hash in [sha256 as fn(&[u8]) -> String, sha512] {
            let bytes = format!("{way} {n}").into_bytes();
            let digest = hash(&bytes);
            let path = format!("/v2/a/blobs/{digest}");
            assert_eq!(
                client.get(&path).refusal(),
                (404, "BLOB_UNKNOWN".into()),
                "{way}"
            );
            push(&mut client, &bytes, &digest);
            let reply = client.get(&path);
            assert_eq!((reply.status, &reply.body), (200, &bytes), "{way}");
            assert_eq!(reply.header("docker-content-digest"), digest, "{way}");
            let reply = client.send(&format!("HEAD {path}"), &[], b"");
            let length = bytes.len().to_string();
            assert_eq!(
                (reply.status, reply.header("content-length")),
                (200, &*length),
                "{way}"
            );
        }
    }
}

#[test]
fn wrong_bytes_never_become_a_blob() {
    let (folder, server) = server();
    let mut client = server.client();
    let digest = sha256(b"right");
    let refusal = (400, "DIGEST_INVALID".to_owned());
    let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(client.send(&line, &[], b"wrong").refusal(), refusal);
    let location = client.start_upload("a");
    let line = format!("PUT {location}?digest={digest}");
    assert_eq!(client.send(&line, &[], b"wrong").refusal(), refusal);
    assert_eq!(
        client.get(&location).refusal(),
        (404, "BLOB_UPLOAD_UNKNOWN".into())
    );
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).status, 404);
    assert_eq!(
        std::fs::read_dir(folder.path().join("uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn chunks_come_in_order() {
    let (_folder, server) = server();
    let mut client = server.client();
    let location = client.start_upload("a");
    let patch = format!("PATCH {location}");
    assert_eq!(
        client
            .send(&patch, &[("content-range", "3-5")], b"def")
            .status,
        416
    );
    assert_eq!(
        client
            .send(&patch, &[("content-range", "0-2")], b"abc")
            .status,
        202
    );
    let reply = client.send(&patch, &[("content-range", "0-2")], b"abc");
    assert_eq!((reply.status, reply.header("range")), (416, "0-2"));
    let reply = client.get(&location);
    assert_eq!((reply.status, reply.header("range")), (204, "0-2"));
    assert_eq!(reply.header("location"), location);
    let line = format!("PUT {location}?digest={}", sha256(b"abcdef"));
    assert_eq!(
        client
            .send(&line, &[("content-range", "9-11")], b"def")
            .status,
        416
    );
    let refusal = client
        .send(&patch, &[("content-range", "3-9")], b"def")
        .refusal();
    assert_eq!(refusal, (400, "SIZE_INVALID".into()));
    assert_eq!(
        client
            .send(&line, &[("content-range", "3-5")], b"def")
            .status,
        201
    );
}

#[test]
fn an_upload_is_cancelled_or_belongs_to_another_repository() {
    let (_folder, server) = server();
    let mut client = server.client();
    let location = client.start_upload("a");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    let unknown = (404, "BLOB_UPLOAD_UNKNOWN".to_owned());
    assert_eq!(client.get(&elsewhere).refusal(), unknown);
    assert_eq!(
        client.send(&format!("DELETE {location}"), &[], b"").status,
        204
    );
    assert_eq!(
        client
            .send(&format!("DELETE {location}"), &[], b"")
            .refusal(),
        unknown
    );
    let line = format!("PUT {location}?digest={}", sha256(b""));
    assert_eq!(client.send(&line, &[], b"").refusal(), unknown);
}

#[test]
fn a_blob_is_mounted_from_where_it_is() {
    let (_folder, server) = server();
    let mut client = server.client();
    let digest = client.push_blob("from", b"layer");
    let mut mount = |name: &str, query: &str| {
        let line = format!("POST /v2/{name}/blobs/uploads/?mount={digest}{query}");
        let status = client.send(&line, &[], b"").status;
        (
            status,
            client.get(&format!("/v2/{name}/blobs/{digest}")).status,
        )
    };
    assert_eq!(mount("named", "&from=from"), (201, 200));
    assert_eq!(mount("anywhere", ""), (201, 200));
    assert_eq!(mount("missing", "&from=other"), (202, 404));
    let line = format!("POST /v2/a/blobs/uploads/?mount={}", sha256(b"nowhere"));
    assert_eq!(client.send(&line, &[], b"").status, 202);
}

#[test]
fn parts_of_a_blob_are_served() {
    let (_folder, server) = server();
    let mut client = server.client();
    let small: Vec<u8> = (0..2048_u32).map(|n| n as u8).collect();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 251) as u8).collect();
    for bytes in [small, large] {
        let path = format!("/v2/a/blobs/{}", client.push_blob("a", &bytes));
        let end = bytes.len();
        for (range, want) in [
            ("bytes=500-1499", Some(500..1500)),
            ("bytes=500-", Some(500..end)),
            ("bytes=-500", Some(end - 500..end)),
            ("bytes=500-0", None),
            ("bytes=99999999-", None),
        ] {
            let reply = client.send(&format!("GET {path}"), &[("range", range)], b"");
            match want {
                Some(part) => {
                    let content_range = format!("bytes {}-{}/{end}", part.start, part.end - 1);
                    assert_eq!(reply.header("content-range"), content_range);
                    assert_eq!(
                        (reply.status, reply.body == bytes[part]),
                        (206, true),
                        "{range}"
                    );
                }
                None => assert_eq!(reply.status, 416, "{range}"),
            }
        }
        let reply = client.get(&path);
        assert_eq!((reply.status, reply.body == bytes), (200, true));
        let etag = reply.header("etag").to_owned();
        let reply = client.send(&format!("GET {path}"), &[("if-none-match", &etag)], b"");
        assert_eq!((reply.status, reply.body.len()), (304, 0));
    }
}

#[test]
fn deleting_a_blob_hides_it_in_one_repository() {
    let (_folder, server) = server();
    let mut client = server.client();
    let digest = client.push_blob("a", b"layer");
    client.push_blob("b", b"layer");
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(client.get(&path).status, 200);
    assert_eq!(client.send(&format!("DELETE {path}"), &[], b"").status, 202);
    assert_eq!(client.get(&path).status, 404);
    assert_eq!(client.send(&format!("DELETE {path}"), &[], b"").status, 404);
    assert_eq!(client.get(&format!("/v2/b/blobs/{digest}")).status, 200);
}

#[test]
fn a_manifest_is_served_as_it_came() {
    let (_folder, server) = server();
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let manifest = format!(" {}\n", image(&[], None));
    let digest = client.push_manifest("a", "v1", &manifest);
    assert_eq!(digest, sha256(manifest.as_bytes()));
    for reference in ["v1", &digest] {
        let path = format!("/v2/a/manifests/{reference}");
        let reply = client.get(&path);
        assert_eq!((reply.status, reply.text()), (200, manifest.as_str()));
        assert_eq!(reply.header("content-type"), IMAGE);
        assert_eq!(reply.header("docker-content-digest"), digest);
        let reply = client.send(&format!("HEAD {path}"), &[], b"");
        let length = manifest.len().to_string();
        assert_eq!(
            (reply.status, reply.header("content-length")),
            (200, &*length)
        );
    }
    let unknown = (404, "MANIFEST_UNKNOWN".to_owned());
    assert_eq!(client.get("/v2/a/manifests/v2").refusal(), unknown);
    assert_eq!(client.get("/v2/b/manifests/v1").refusal(), unknown);
}

#[test]
fn a_manifest_is_refused_with_its_reason() {
    let (_folder, server) = server();
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let missing = image(&[b"nobody pushed me"], None);
    let wrong_size = image(&[], None).replace("\"size\":2", "\"size\":3");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{IMAGE}","digest":"{}","size":9}}]}}"#,
        sha256(b"no manifest")
    );
    let huge = format!("{}{}", image(&[], None), " ".repeat(4 << 20));
    let by_digest = sha256(b"something else");
    let good = image(&[], None);
    for (reference, content_type, json, status, code) in [
        ("v1", IMAGE, missing.as_str(), 400, "MANIFEST_BLOB_UNKNOWN"),
        ("v1", INDEX, &index, 400, "MANIFEST_BLOB_UNKNOWN"),
        ("v1", IMAGE, &wrong_size, 400, "MANIFEST_INVALID"),
        ("v1", INDEX, &good, 400, "MANIFEST_INVALID"),
        ("v1", "text/plain", "{}", 400, "MANIFEST_INVALID"),
        ("v1", IMAGE, "", 400, "MANIFEST_INVALID"),
        ("v1", IMAGE, &huge, 413, "SIZE_INVALID"),
        (&by_digest, IMAGE, &good, 400, "DIGEST_INVALID"),
    ] {
        let line = format!("PUT /v2/a/manifests/{reference}");
        let reply = client.send(&line, &[("content-type", content_type)], json.as_bytes());
        assert_eq!(reply.refusal(), (status, code.into()), "{:.80}", json);
    }
    assert_eq!(client.get("/v2/a/manifests/v1").status, 404);
}

#[test]
fn a_sparse_registry_takes_manifests_before_their_parts() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--allow-sparse"]);
    let mut client = server.client();
    client.push_manifest("a", "v1", &image(&[b"not here"], None));
}

#[test]
fn a_push_by_digest_sets_tags() {
    let (_folder, server) = server();
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let manifest = image(&[], None);
    let digest = sha512(manifest.as_bytes());
    let line = format!("PUT /v2/a/manifests/{digest}?tag=b&tag=a");
    let reply = client.send(&line, &[], manifest.as_bytes());
    assert_eq!((reply.status, reply.header("oci-tag")), (201, "b, a"));
    let reply = client.get("/v2/a/manifests/a");
    assert_eq!(
        (reply.status, reply.header("docker-content-digest")),
        (200, &*digest)
    );
}

#[test]
fn tags_are_listed_in_pages() {
    let (_folder, server) = server();
    let mut client = server.client();
    let unknown = (404, "NAME_UNKNOWN".to_owned());
    assert_eq!(client.get("/v2/a/tags/list").refusal(), unknown);
    client.push_blob("a", b"{}");
    for tag in ["b", "a", "B", "c", "_"] {
        client.push_manifest("a", tag, &image(&[], None));
    }
    for (query, tags, link) in [
        ("", r#"["B","_","a","b","c"]"#, ""),
        (
            "?n=2",
            r#"["B","_"]"#,
            r#"</v2/a/tags/list?n=2&last=_>; rel="next""#,
        ),
        (
            "?n=2&last=_",
            r#"["a","b"]"#,
            r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
        ),
        ("?n=2&last=b", r#"["c"]"#, ""),
        ("?n=5", r#"["B","_","a","b","c"]"#, ""),
        ("?n=0", "[]", ""),
        ("?last=zzz", "[]", ""),
        ("?last=aa", r#"["b","c"]"#, ""),
    ] {
        let reply = client.get(&format!("/v2/a/tags/list{query}"));
        assert_eq!(
            reply.text(),
            format!(r#"{{"name":"a","tags":{tags}}}"#),
            "{query}"
        );
        assert_eq!(reply.header("link"), link, "{query}");
    }
}

#[test]
fn repositories_are_listed() {
    let (_folder, server) = server();
    let mut client = server.client();
    client.push_blob("only/blobs", b"{}");
    client.push_image("b", "v1", b"1");
    client.push_image("a/b", "v1", b"1");
    let reply = client.get("/v2/_catalog");
    assert_eq!(reply.text(), r#"{"repositories":["a/b","b"]}"#);
    let reply = client.get("/v2/_catalog?n=1");
    assert_eq!(reply.text(), r#"{"repositories":["a/b"]}"#);
    assert_eq!(
        reply.header("link"),
        r#"</v2/_catalog?n=1&last=a/b>; rel="next""#
    );
}

#[test]
fn referrers_are_listed_filtered_and_deleted() {
    let (_folder, server) = server();
    let mut client = server.client();
    let subject = sha256(b"pushed later");
    let path = format!("/v2/a/referrers/{subject}");
    let empty = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#);
    let reply = client.get(&path);
    assert_eq!((reply.status, reply.text()), (200, empty.as_str()));
    assert_eq!(reply.header("content-type"), INDEX);
    client.push_blob("a", b"{}");
    let mut pushed: Vec<_> = ["x/sig", "x/sig", "x/sbom"]
        .iter()
        .enumerate()
        .map(|(n, kind)| {
            let json = artifact(kind, &subject, &n.to_string());
            let line = format!("PUT /v2/a/manifests/{}", sha256(json.as_bytes()));
            let reply = client.send(&line, &[], json.as_bytes());
            assert_eq!(
                (reply.status, reply.header("oci-subject")),
                (201, &*subject)
            );
            (sha256(json.as_bytes()), *kind, json.len(), n.to_string())
        })
        .collect();
    pushed.sort();
    let entry = |(digest, kind, size, note): &(String, &str, usize, String)| {
        serde_json::json!({
            "mediaType": IMAGE, "digest": digest, "size": size, "artifactType": kind,
            "annotations": { "note": note },
        })
    };
    let all: Vec<_> = pushed.iter().map(entry).collect();
    assert_eq!(
        client.get(&path).json()["manifests"],
        serde_json::json!(all)
    );
    let reply = client.get(&format!("{path}?artifactType=x/sig"));
    assert_eq!(reply.header("oci-filters-applied"), "artifactType");
    let signatures = pushed
        .iter()
        .filter(|(_, kind, ..)| *kind == "x/sig")
        .map(entry);
    let signatures: Vec<_> = signatures.collect();
    assert_eq!(reply.json()["manifests"], serde_json::json!(signatures));
    let reply = client.get(&format!("{path}?n=2"));
    assert_eq!(reply.json()["manifests"], serde_json::json!(all[..2]));
    let link = format!(r#"<{path}?n=2&last={}>; rel="next""#, pushed[1].0);
    assert_eq!(reply.header("link"), link);
    for (digest, ..) in &pushed {
        let line = format!("DELETE /v2/a/manifests/{digest}");
        assert_eq!(client.send(&line, &[], b"").status, 202);
    }
    assert_eq!(client.get(&path).text(), empty);
}

#[test]
fn an_image_s_artifact_type_falls_back_to_its_config() {
    let (_folder, server) = server();
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let subject = client.push_manifest("a", "v1", &image(&[], None));
    client.push_manifest("a", "sig", &image(&[], Some((&subject, 2))));
    let reply = client.get(&format!("/v2/a/referrers/{subject}"));
    let found = &reply.json()["manifests"][0]["artifactType"];
    assert_eq!(found, "application/vnd.oci.empty.v1+json");
}

#[test]
fn deleting_a_manifest_takes_its_tags_and_deleting_a_tag_leaves_the_manifest() {
    let (_folder, server) = server();
    let mut client = server.client();
    client.push_blob("a", b"{}");
    let digest = client.push_manifest("a", "v1", &image(&[], None));
    client.push_manifest("a", "v2", &image(&[], None));
    for path in ["/v2/a/manifests/v1", "/v2/a/manifests/v2"] {
        assert_eq!(client.get(path).status, 200);
    }
    assert_eq!(
        client.send("DELETE /v2/a/manifests/v1", &[], b"").status,
        202
    );
    assert_eq!(client.get("/v2/a/manifests/v1").status, 404);
    assert_eq!(
        client.send("DELETE /v2/a/manifests/v1", &[], b"").status,
        404
    );
    assert_eq!(client.get(&format!("/v2/a/manifests/{digest}")).status, 200);
    let delete = format!("DELETE /v2/a/manifests/{digest}");
    assert_eq!(client.send(&delete, &[], b"").status, 202);
    assert_eq!(client.get(&format!("/v2/a/manifests/{digest}")).status, 404);
    assert_eq!(client.get("/v2/a/manifests/v2").status, 404);
    assert_eq!(
        client.get("/v2/a/tags/list").text(),
        r#"{"name":"a","tags":[]}"#
    );
    assert_eq!(client.send(&delete, &[], b"").status, 404);
}

#[test]
fn a_tag_moves_only_from_where_the_client_saw_it() {
    let (_folder, server) = server();
    let mut client = server.client();
    for blob in [&b"{}"[..], b"1", b"2"] {
        client.push_blob("a", blob);
    }
    let (one, two) = (image(&[b"1"], None), image(&[b"2"], None));
    let at_one = format!("\"{}\"", sha256(one.as_bytes()));
    let at_two = format!("\"{}\"", sha256(two.as_bytes()));
    for (header, value, manifest, want) in [
        ("if-match", "*", &one, 412),
        ("if-none-match", "*", &one, 201),
        ("if-none-match", "*", &two, 412),
        ("if-match", &at_two, &two, 412),
        ("if-match", &at_one, &two, 201),
        ("if-match", &at_one, &one, 412),
        ("if-match", "*", &one, 201),
        ("if-match", "unquoted", &one, 400),
    ] {
        let reply = client.send(
            "PUT /v2/a/manifests/v1",
            &[(header, value)],
            manifest.as_bytes(),
        );
        assert_eq!(reply.status, want, "{header}: {value}: {}", reply.text());
    }
    let line = "DELETE /v2/a/manifests/v1";
    let reply = client.send(line, &[("if-match", &at_two)], b"");
    assert_eq!((reply.status, reply.header("etag")), (412, &*at_one));
    assert_eq!(client.send(line, &[("if-match", &at_one)], b"").status, 202);
}

#[test]
fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut client = server.client();
    let digest = client.push_image("a", "v1", b"layer");
    let location = client.start_upload("a");
    assert_eq!(
        client
            .send(&format!("PATCH {location}"), &[], b"half ")
            .status,
        202
    );
    drop(client);
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(folder.path());
    let mut client = server.client();
    assert_eq!(
        client
            .get("/v2/a/manifests/v1")
            .header("docker-content-digest"),
        digest
    );
    let layer = format!("/v2/a/blobs/{}", sha256(b"layer"));
    assert_eq!(client.get(&layer).body, b"layer");
    let reply = client.get(&location);
    assert_eq!((reply.status, reply.header("range")), (204, "0-4"));
    let line = format!("PUT {location}?digest={}", sha256(b"half done"));
    assert_eq!(client.send(&line, &[], b"done").status, 201);
    assert_eq!(
        std::fs::read_dir(folder.path().join("uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let (folder, _server) = server();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"))
        .args(["serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let want = format!(
        "error: another bpfseal-registry uses {}\n",
        folder.path().display()
    );
    assert!(error.starts_with(&want), "{error}");
}
