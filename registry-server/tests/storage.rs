//! Every back end gives the same answers, and each one's failures are clean.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use common::{
    Client, Server, artifact,
    backends::{Moto, Postgres, is_root},
    eventually, image, sha256, sha512,
};

/// Flags of every way to store.
fn back_ends() -> Vec<(&'static str, Vec<String>)> {
    let (postgres, moto) = (Postgres::shared(), Moto::shared());
    let database = || ["--database".to_owned(), postgres.database()];
    let bucket = || {
        let [blobs, endpoint] = ["--blobs", "--s3-endpoint"].map(String::from);
        [blobs, moto.bucket(), endpoint, moto.endpoint()]
    };
    vec![
        ("SQLite and files", Vec::new()),
        ("SQLite and S3", bucket().to_vec()),
        ("PostgreSQL and files", database().to_vec()),
        ("PostgreSQL and S3", [&database()[..], &bucket()].concat()),
    ]
}

fn serve(root: &Path, flags: &[String]) -> Server {
    Server::with(root, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs a command of the program on a back end.
fn run(root: &Path, flags: &[String], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"))
        .args(arguments)
        .arg("--root")
        .arg(root)
        .args(flags)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .output()
        .unwrap()
}

#[test]
fn every_back_end_gives_the_same_answers() {
    let mut want = None;
    for (name, flags) in back_ends() {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(folder.path(), &flags);
        let said = conversation(&mut server.client());
        assert_eq!(server.stop(), Some(0), "{name}");
        let check = run(folder.path(), &flags, &["check"]);
        assert_eq!(check.status.code(), Some(0), "{name}: {check:?}");
        // Everything is there again after a restart.
        let server = serve(folder.path(), &flags);
        let mut client = server.client();
        assert_eq!(client.get("/v2/a/b/manifests/v2").status, 200, "{name}");
        let want = want.get_or_insert_with(|| said.clone());
        assert_eq!(want.len(), said.len());
        for (want, said) in want.iter().zip(&said) {
            assert_eq!(said, want, "{name}");
        }
    }
}

/// What a client asks and is told: the request, the status, telling headers, the body.
fn conversation(client: &mut Client) -> Vec<[String; 4]> {
    let large = vec![7_u8; 3 << 20];
    let [small, big] = [&b"{}"[..], &large].map(sha256);
    let manifest = image(&[&large], None);
    let digest = sha256(manifest.as_bytes());
    let other = image(&[b"{}"], None);
    let signatures: Vec<String> = ["1", "2", "3"]
        .map(|n| artifact(&format!("x/{}", n.repeat(3000)), &digest, n))
        .to_vec();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": common::INDEX,
        "manifests": [{ "mediaType": common::IMAGE, "digest": digest, "size": manifest.len() }] });
    let index = index.to_string();
    let push = |bytes: &[u8]| {
        let line = format!("POST /v2/a/b/blobs/uploads/?digest={}", sha256(bytes));
        (line, bytes.to_vec())
    };
    let put = |tag: &str, json: &str| {
        let line = format!("PUT /v2/a/b/manifests/{tag}");
        (line, json.as_bytes().to_vec())
    };
    let ask = |line: &str| (line.to_owned(), Vec::new());
    let steps = vec![
        ask("GET /v2/_catalog"),
        ask("GET /v2/a/b/tags/list"),
        put("early", &manifest),
        push(b"{}"),
        push(b"{}"),
        push(&large),
        (
            format!("POST /v2/a/b/blobs/uploads/?digest={}", sha512(b"{}")),
            b"{}".to_vec(),
        ),
        (
            format!("POST /v2/a/b/blobs/uploads/?digest={big}"),
            b"wrong".to_vec(),
        ),
        ask(&format!("HEAD /v2/a/b/blobs/{big}")),
        ask(&format!("GET /v2/a/b/blobs/{big}")),
        put("v1", &manifest),
        put("v2", &manifest),
        put("V3", &manifest),
        put("v1", &other),
        put("list", &index),
        put(&sha256(signatures[0].as_bytes()), &signatures[0]),
        put(&sha256(signatures[1].as_bytes()), &signatures[1]),
        put(&sha256(signatures[2].as_bytes()), &signatures[2]),
        put(&sha256(signatures[2].as_bytes()), &signatures[2]),
        ask("GET /v2/a/b/manifests/v1"),
        ask("HEAD /v2/a/b/manifests/v2"),
        ask("GET /v2/a/b/tags/list"),
        ask("GET /v2/a/b/tags/list?n=2"),
        ask("GET /v2/a/b/tags/list?n=2&last=list"),
        ask("GET /v2/a/b/tags/list?n=0"),
        ask(&format!("GET /v2/a/b/referrers/{digest}")),
        ask(&format!("GET /v2/a/b/referrers/{digest}?n=2")),
        ask(&format!(
            "GET /v2/a/b/referrers/{digest}?artifactType=x/{}",
            "2".repeat(3000)
        )),
        ask("POST /v2/c/blobs/uploads/?mount=sha256:00&from=a/b"),
        ask(&format!("POST /v2/c/blobs/uploads/?mount={big}&from=a/b")),
        ask(&format!("GET /v2/c/blobs/{big}")),
        ask("GET /v2/_catalog"),
        ask("DELETE /v2/a/b/manifests/v1"),
        ask("GET /v2/a/b/manifests/v1"),
        ask(&format!(
            "DELETE /v2/a/b/manifests/{}",
            sha256(index.as_bytes())
        )),
        ask("GET /v2/a/b/manifests/list"),
        ask(&format!("DELETE /v2/a/b/blobs/{small}")),
        ask(&format!("GET /v2/a/b/blobs/{small}")),
        put("v4", &other),
        push(b"{}"),
        put("v4", &other),
    ];
    let mut said = Vec::new();
    for (line, body) in steps {
        let reply = client.send(&line, &[], &body);
        let headers = [
            "docker-content-digest",
            "etag",
            "link",
            "content-type",
            "range",
        ];
        let headers = headers.map(|name| reply.header(name)).join(" ");
        let body = match reply.body.len() > 100_000 {
            true => sha256(&reply.body),
            false => reply.text().to_owned(),
        };
        said.push([line, reply.status.to_string(), headers, body]);
    }
    said
}

#[test]
fn garbage_goes_and_damage_is_repaired_on_every_back_end() {
    for (name, flags) in back_ends() {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(folder.path(), &flags);
        let mut client = server.client();
        client.push_image("a", "kept", b"kept");
        client.push_image("a", "gone", b"gone");
        client.send("DELETE /v2/a/manifests/gone", &[], b"");
        server.stop();
        let gc = ["gc", "--grace", "0", "--untagged", "--json"];
        let output = run(folder.path(), &flags, &gc);
        let removed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let want = serde_json::json!({ "manifests": 1, "blobs": 1, "bytes": 4, "files": 0 });
        assert_eq!(removed, want, "{name}: {output:?}");
        let output = run(folder.path(), &flags, &["check", "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let want = serde_json::json!({ "blobs": 2, "bytes": 6, "manifests": 1, "incomplete": 0,
            "unrecorded": 0, "damage": [] });
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn an_export_is_the_same_wherever_it_was_imported() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let mut tar = path("first.tar");
    let mut want = None;
    for (n, (name, flags)) in back_ends().into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        if n == 0 {
            let server = serve(folder.path(), &flags);
            let mut client = server.client();
            let subject = client.push_image("a/b", "v1", &vec![5; 2 << 20]);
            client.push_manifest("a/b", "v2", &image(&[b"{}"], None));
            let signature = artifact("x/sig", &subject, "");
            client.push_manifest("a/b", &sha256(signature.as_bytes()), &signature);
            let index = serde_json::json!({ "schemaVersion": 2, "mediaType": common::INDEX,
                "manifests": [{ "mediaType": common::IMAGE, "digest": subject,
                    "size": image(&[&vec![5; 2 << 20]], None).len() }] });
            client.push_manifest("a/b", "all", &index.to_string());
            client.push_image("c", "v1", b"c");
            server.stop();
        } else {
            let output = run(folder.path(), &flags, &["import", &tar, "--json"]);
            assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
            assert_eq!(Some(output.stdout), want.clone(), "{name}");
            let server = serve(folder.path(), &flags);
            let mut client = server.client();
            let tags = client.get("/v2/a/b/tags/list").json()["tags"].clone();
            assert_eq!(tags, serde_json::json!(["all", "v1", "v2"]), "{name}");
            let subject = client.get("/v2/a/b/manifests/v1");
            let digest = subject.header("docker-content-digest");
            let signatures = client.get(&format!("/v2/a/b/referrers/{digest}")).json();
            assert_eq!(
                signatures["manifests"].as_array().unwrap().len(),
                1,
                "{name}"
            );
            server.stop();
        }
        tar = path(&format!("{n}.tar"));
        let output = run(folder.path(), &flags, &["export", &tar, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        assert_eq!(
            *want.get_or_insert(output.stdout.clone()),
            output.stdout,
            "{name}"
        );
        let output = run(folder.path(), &flags, &["export", &tar]);
        assert_eq!(output.status.code(), Some(2), "{name}: it is there already");
        let layout = path(&format!("layout-{n}"));
        let export = ["export", "--repository", "c", &layout];
        assert_eq!(
            run(folder.path(), &flags, &export).status.code(),
            Some(0),
            "{name}"
        );
        let import = ["import", "--repository", "d", &layout, "--json"];
        let output = run(folder.path(), &flags, &import);
        let got: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let counts = serde_json::json!({ "repositories": 1, "manifests": 1, "tags": 1,
            "blobs": 2, "bytes": 3 });
        assert_eq!(got, counts, "{name}");
    }
}

#[test]
fn an_import_of_bytes_that_are_not_what_they_are_called_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    server.client().push_image("c", "v1", b"c");
    server.stop();
    for wrong in [sha256(b"c"), sha256(image(&[b"c"], None).as_bytes())] {
        let scratch = tempfile::tempdir().unwrap();
        let layout = scratch.path().join("layout").display().to_string();
        let export = ["export", "--repository", "c", &layout];
        assert_eq!(run(folder.path(), &[], &export).status.code(), Some(0));
        let file = Path::new(&layout)
            .join("blobs")
            .join(wrong.replace(':', "/"));
        std::fs::write(file, b"x").unwrap();
        let import = ["import", "--repository", "d", &layout];
        let output = run(folder.path(), &[], &import);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let want = format!("is damaged: its bytes have the digest {}", sha256(b"x"));
        assert!(error.contains(&wrong) && error.contains(&want), "{error}");
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let postgres = Postgres::shared();
    let folder = tempfile::tempdir().unwrap();
    let url = postgres.database();
    let flags = ["--database".to_owned(), url.clone()];
    serve(folder.path(), &flags).stop();
    let name = url.rsplit('/').next().unwrap();
    postgres.execute(name, "INSERT INTO schema_version VALUES (1000, 0)");
    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["check"],
        &["gc"],
    ] {
        let output = run(folder.path(), &flags, command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        let want = "the metadata has version 1000, this program knows up to 2";
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn blobs_of_another_database_are_refused() {
    let (postgres, moto) = (Postgres::shared(), Moto::shared());
    let shared = tempfile::tempdir().unwrap();
    for blobs in [moto.bucket(), shared.path().display().to_string()] {
        let flags = |database: String| {
            let flags = ["--database", &database, "--blobs", &blobs, "--s3-endpoint"];
            let mut flags = flags.map(String::from).to_vec();
            flags.push(moto.endpoint());
            flags
        };
        let folder = tempfile::tempdir().unwrap();
        let first = flags(postgres.database());
        serve(folder.path(), &first).stop();
        serve(folder.path(), &first).stop();
        let other = flags(postgres.database());
        let output = run(folder.path(), &other, &["gc"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        let want = "the store of blobs belongs to another database";
        assert!(error.contains(want), "{error}");
    }
}

/// How a store treats `If-None-Match: *`.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Not at all.
    Ignores,
    /// It looks first and writes later: two writers both find nothing.
    LooksFirst,
    /// It says that one writer won and keeps another's bytes.
    KeepsTheLast,
}

#[test]
fn a_store_whose_conditional_writes_are_not_atomic_is_refused() {
    for (lie, want) in [
        (Lie::Ignores, "of 8 writers create the same object"),
        (Lie::LooksFirst, "of 8 writers create the same object"),
        (Lie::KeepsTheLast, "kept another's bytes"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let objects = Arc::new(Mutex::new(HashMap::new()));
        let another = Arc::new(Barrier::new(2));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (objects, another) = (Arc::clone(&objects), Arc::clone(&another));
                thread::spawn(move || lie_to(stream.unwrap(), lie, &objects, &another));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let flags = ["--blobs", "s3://bucket", "--s3-endpoint", &endpoint].map(String::from);
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        let output = run(folder.path(), &flags, &serve);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &*output.stdout),
            (Some(2), &b""[..]),
            "{error}"
        );
        assert!(error.contains(want), "{lie:?}: {error}");
        assert!(
            error.contains("help: Use a store whose conditional writes"),
            "{error}"
        );
    }
}

type Objects = Mutex<HashMap<String, Vec<u8>>>;

/// As much of S3 as a liar needs, on one connection.
fn lie_to(stream: TcpStream, lie: Lie, objects: &Objects, another: &Barrier) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (mut length, mut create) = (0, false);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).unwrap();
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            create |= header.starts_with("if-none-match:");
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let there = objects.lock().unwrap().contains_key(&path);
        let (status, answer) = match method.as_str() {
            "PUT" => {
                if matches!(lie, Lie::LooksFirst) {
                    another.wait();
                }
                let refused = create && there && !matches!(lie, Lie::Ignores);
                if !refused || matches!(lie, Lie::KeepsTheLast) {
                    objects.lock().unwrap().insert(path, body);
                }
                (
                    if refused {
                        "412 Precondition Failed"
                    } else {
                        "200 OK"
                    },
                    Vec::new(),
                )
            }
            "DELETE" => {
                objects.lock().unwrap().remove(&path);
                ("204 No Content", Vec::new())
            }
            _ => match objects.lock().unwrap().get(&path) {
                Some(bytes) => ("200 OK", bytes.clone()),
                None => ("404 Not Found", Vec::new()),
            },
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"e\"\r\n\
             last-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
            answer.len()
        );
        let stream = stream.get_mut();
        if stream
            .write_all(&[head.as_bytes(), &answer].concat())
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn a_database_that_goes_away_is_503_and_comes_back() {
    let mut postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let server = serve(
        folder.path(),
        &["--database".to_owned(), postgres.database()],
    );
    let mut client = server.client();
    client.push_image("a", "v1", b"layer");
    assert_eq!(client.get("/readyz").status, 200);
    postgres.down();
    let manifest = image(&[b"layer"], None);
    for (line, body) in [
        ("GET /v2/a/manifests/v1", ""),
        ("PUT /v2/a/manifests/v2", &*manifest),
        ("POST /v2/a/blobs/uploads/", ""),
        ("GET /v2/a/tags/list", ""),
        ("GET /readyz", ""),
    ] {
        let reply = client.send(line, &[], body.as_bytes());
        assert_eq!(reply.refusal(), (503, "UNKNOWN".to_owned()), "{line}");
    }
    assert_eq!(client.get("/healthz").status, 200);
    postgres.up();
    eventually(|| client.get("/readyz").status == 200);
    assert_eq!(client.get("/v2/a/manifests/v1").status, 200);
    client.push_manifest("a", "v2", &manifest);
    let tags = client.get("/v2/a/tags/list").json()["tags"].clone();
    assert_eq!(tags, serde_json::json!(["v1", "v2"]));
}

#[test]
fn a_store_that_says_nothing_is_503_and_comes_back() {
    let moto = Moto::shared();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let stuck = Arc::new(AtomicBool::new(false));
    let (port, watch) = (moto.port, Arc::clone(&stuck));
    thread::spawn(move || {
        for near in listener.incoming() {
            let (near, far) = (
                near.unwrap(),
                TcpStream::connect(("127.0.0.1", port)).unwrap(),
            );
            forward(near.try_clone().unwrap(), far.try_clone().unwrap(), &watch);
            forward(far, near, &watch);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let bucket = moto.bucket();
    let flags = [
        "--blobs",
        &bucket,
        "--s3-endpoint",
        &endpoint,
        "--s3-timeout",
        "3",
    ];
    // Without its cache every read goes to the store.
    let server = Server::with(folder.path(), &[&flags[..], &["--cache", "1"]].concat());
    let mut client = server.client();
    let large = vec![1_u8; 1 << 20];
    let digest = client.push_blob("a", &large);
    stuck.store(true, Ordering::SeqCst);
    let get = format!("GET /v2/a/blobs/{digest}");
    let post = format!("POST /v2/a/blobs/uploads/?digest={}", sha256(b"new"));
    for (line, body) in [
        (get.as_str(), &b""[..]),
        (post.as_str(), b"new"),
        ("GET /readyz", b""),
    ] {
        let reply = client.send(line, &[], body);
        assert_eq!(reply.refusal(), (503, "UNKNOWN".to_owned()), "{line}");
    }
    stuck.store(false, Ordering::SeqCst);
    eventually(|| client.get("/readyz").status == 200);
    assert_eq!(client.send(&get, &[], b"").body, large);
    assert_eq!(client.send(&post, &[], b"new").status, 201);
    assert_eq!(
        client
            .get(&format!("/v2/a/blobs/{}", sha256(b"new")))
            .text(),
        "new"
    );
}

/// Carries bytes one way; while `stuck` it swallows them.
fn forward(mut from: TcpStream, mut to: TcpStream, stuck: &Arc<AtomicBool>) {
    let stuck = Arc::clone(stuck);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !stuck.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn a_full_disk_is_507_and_room_helps() {
    if !is_root() {
        println!("SKIPPED a_full_disk_is_507_and_room_helps: only root mounts a small disk");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = Mount::small(folder.path());
    let server = Server::start(folder.path());
    let mut client = server.client();
    let kept = client.push_image("a", "kept", b"kept");
    let filler = folder.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let large = vec![3_u8; 1 << 20];
    let line = format!("POST /v2/a/blobs/uploads/?digest={}", sha256(&large));
    let full = (507, "UNKNOWN".to_owned());
    assert_eq!(client.send(&line, &[], &large).refusal(), full);
    // The rest of the body was not read: the connection is closed.
    let mut client = server.client();
    let location = client.start_upload("a");
    let patch = client.send(&format!("PATCH {location}"), &[], &large);
    assert_eq!(patch.refusal(), full);
    let mut client = server.client();
    // Reading goes on, and metadata is refused in the same words once its log needs room.
    let found = client.get(&format!("/v2/a/manifests/{kept}"));
    assert_eq!(found.status, 200);
    let refused = (0..2000).find_map(|n| {
        let mut manifest: serde_json::Value =
            serde_json::from_str(&image(&[b"kept"], None)).unwrap();
        manifest["annotations"] = serde_json::json!({ "n": n.to_string().repeat(1000) });
        let line = format!("PUT /v2/a/manifests/t{n}");
        let reply = client.send(&line, &[], manifest.to_string().as_bytes());
        (reply.status != 201).then(|| reply.refusal())
    });
    assert_eq!(refused, Some(full));
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(client.send(&line, &[], &large).status, 201);
    client.push_image("a", "after", b"after");
    assert_eq!(client.get("/v2/a/manifests/kept").status, 200);
    assert_eq!(server.stop(), Some(0));
    let check = run(folder.path(), &[], &["check"]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    drop(disk);
}

/// A small file system in memory.
struct Mount(std::path::PathBuf);

impl Mount {
    fn small(path: &Path) -> Self {
        use rustix::mount::{MountFlags, mount};
        mount("none", path, "tmpfs", MountFlags::empty(), Some(c"size=4m")).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
