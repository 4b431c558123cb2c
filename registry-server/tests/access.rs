//! Users, tokens, rights, immutable tags, quotas, rate limits and the audit log, over HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{Client, Server, artifact, basic, command, image, sha256, users};
use serde_json::Value;

const CONFIG: &str = r#"
[auth]
htpasswd = "users"

[[access]]
who = ["alice"]
repository = "team/*"
actions = ["pull", "push", "delete"]

[[access]]
who = ["creator"]
repository = "team/*"
actions = ["pull", "create"]

[[access]]
who = ["signer"]
repository = "team/*"
actions = ["pull", "sign"]

[[access]]
who = ["reader"]
repository = "team/app"
actions = ["pull"]

[[access]]
who = ["root"]
repository = "*"
actions = ["admin"]

[[access]]
who = ["anonymous"]
repository = "public/*"
actions = ["pull"]

[[repository]]
name = "team/small"
quota_bytes = 2000
quota_manifests = 2

[[repository]]
name = "team/*"
immutable_tags = ["v*"]
"#;

const USERS: &[&str] = &["alice", "creator", "signer", "reader", "root"];

/// A server with the rules above.
fn closed(folder: &std::path::Path) -> Server {
    users(&folder.join("users"), USERS);
    fs::write(folder.join("registry.toml"), CONFIG).unwrap();
    let config = folder.join("registry.toml");
    Server::with(
        &folder.join("root"),
        &["--config", config.to_str().unwrap()],
    )
}

fn user(server: &Server, name: &str) -> Client {
    server.user(name, &format!("pw-{name}"))
}

#[test]
fn everybody_may_do_what_the_rules_say() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let pushed = user(&server, "alice").push_image("team/app", "latest", b"layer");
    user(&server, "root").push_image("public/tool", "latest", b"layer");
    let manifest = |name: &str| format!("/v2/{name}/manifests/latest");
    for (who, name, read, write) in [
        ("alice", "team/app", 200, 202),
        ("alice", "public/tool", 200, 403),
        ("alice", "other", 403, 403),
        ("creator", "team/app", 200, 202),
        ("reader", "team/app", 200, 403),
        ("reader", "team/other", 403, 403),
        ("root", "team/app", 200, 202),
    ] {
        let mut client = user(&server, who);
        assert_eq!(client.get(&manifest(name)).status, read, "{who} {name}");
        let upload = client.send(&format!("POST /v2/{name}/blobs/uploads/"), &[], b"");
        assert_eq!(upload.status, write, "{who} {name}");
    }
    let mut nobody = server.client();
    assert_eq!(nobody.get(&manifest("public/tool")).status, 200);
    let asked = nobody.get(&manifest("team/app"));
    assert_eq!(asked.refusal(), (401, "UNAUTHORIZED".into()));
    let host = server.address;
    assert_eq!(
        asked.header("www-authenticate"),
        format!(
            "Bearer realm=\"http://{host}/token\",service=\"bpfseal-registry\",\
             scope=\"repository:team/app:pull\""
        )
    );
    assert_eq!(nobody.get("/v2/").status, 401);
    assert_eq!(user(&server, "reader").get("/v2/").status, 200);
    assert_eq!(server.user("reader", "pw-alice").get("/v2/").status, 401);
    // Deletion is a right of its own.
    let line = format!("DELETE /v2/team/app/manifests/{pushed}");
    assert_eq!(user(&server, "creator").send(&line, &[], b"").status, 403);
    assert_eq!(user(&server, "alice").send(&line, &[], b"").status, 202);
}

#[test]
fn the_catalogue_shows_what_one_may_pull() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let mut root = user(&server, "root");
    for name in ["other", "public/tool", "team/app", "team/tool"] {
        root.push_image(name, "latest", b"layer");
    }
    for (who, want) in [
        (
            "root",
            &["other", "public/tool", "team/app", "team/tool"][..],
        ),
        ("alice", &["public/tool", "team/app", "team/tool"]),
        ("reader", &["public/tool", "team/app"]),
    ] {
        let listed = user(&server, who).get("/v2/_catalog").json();
        assert_eq!(listed["repositories"], serde_json::json!(want), "{who}");
    }
    let page = user(&server, "alice").get("/v2/_catalog?n=1");
    assert_eq!(
        page.json()["repositories"],
        serde_json::json!(["public/tool"])
    );
    assert_eq!(
        page.header("link"),
        "</v2/_catalog?n=1&last=public/tool>; rel=\"next\""
    );
    let asked = server.client().get("/v2/_catalog");
    assert_eq!(asked.refusal(), (401, "UNAUTHORIZED".into()));
    assert!(
        asked
            .header("www-authenticate")
            .ends_with("scope=\"registry:catalog:*\"")
    );
}

#[test]
fn a_token_is_as_narrow_as_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    user(&server, "alice").push_image("team/app", "latest", b"layer");
    let path = "/v2/team/app/manifests/latest";
    let token = |client: &mut Client, query: &str| {
        let reply = client.get(&format!("/token?service=bpfseal-registry{query}"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["token"].as_str().unwrap().to_owned()
    };
    let scope = "&scope=repository:team/app:pull";
    let narrow = token(&mut user(&server, "alice"), scope);
    let mut client = server.client();
    client.authorization = Some(format!("Bearer {narrow}"));
    assert_eq!(client.get("/v2/").status, 200);
    assert_eq!(client.get(path).status, 200);
    let upload = client.send("POST /v2/team/app/blobs/uploads/", &[], b"");
    assert_eq!(upload.refusal(), (401, "UNAUTHORIZED".into()));
    assert!(
        upload
            .header("www-authenticate")
            .ends_with("scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\"")
    );
    // What nobody may do is not in a token for nobody.
    let nothing = token(&mut server.client(), scope);
    client.authorization = Some(format!("Bearer {nothing}"));
    assert_eq!(client.get("/v2/").status, 200);
    assert_eq!(client.get(path).status, 401);
    // A form, as Docker's newer clients send it.
    let form =
        "grant_type=password&username=alice&password=pw-alice&scope=repository:team/app:pull,push";
    let reply = server.client().send("POST /token", &[], form.as_bytes());
    let wide = reply.json()["access_token"].as_str().unwrap().to_owned();
    client.authorization = Some(format!("Bearer {wide}"));
    client.push_blob("team/app", b"by token");
    // A changed password and a removed user end their tokens.
    let file = folder.path().join("users");
    let file = file.to_str().unwrap();
    let change = [
        "user",
        "add",
        "--htpasswd",
        file,
        "alice",
        "--password-stdin",
    ];
    assert_eq!(command(&change, "another\n"), Some(0));
    common::eventually(|| client.get(path).status == 401);
    assert_eq!(
        command(
            &[
                "user",
                "check",
                "--htpasswd",
                file,
                "alice",
                "--password-stdin"
            ],
            "another"
        ),
        Some(0)
    );
    assert_eq!(
        command(
            &[
                "user",
                "check",
                "--htpasswd",
                file,
                "alice",
                "--password-stdin"
            ],
            "pw-alice"
        ),
        Some(1)
    );
    assert_eq!(
        command(&["user", "remove", "--htpasswd", file, "alice"], ""),
        Some(0)
    );
    assert_eq!(
        command(&["user", "remove", "--htpasswd", file, "alice"], ""),
        Some(3)
    );
}

#[test]
fn create_only_users_move_no_tag() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let mut alice = user(&server, "alice");
    let first = alice.push_image("team/app", "latest", b"one");
    let mut creator = user(&server, "creator");
    creator.push_image("team/app", "new", b"two");
    let moved = image(&[b"two"], None);
    let push = |client: &mut Client, reference: &str, manifest: &str| {
        let line = format!("PUT /v2/team/app/manifests/{reference}");
        let headers = [("content-type", common::IMAGE)];
        let reply = client.send(&line, &headers, manifest.as_bytes());
        match reply.status {
            201 => (201, String::new()),
            _ => reply.refusal(),
        }
    };
    let denied = || (403, "DENIED".to_owned());
    assert_eq!(push(&mut creator, "latest", &moved), denied());
    // Nor by the parameter of a push by digest.
    let by_digest = format!("{}?tag=fresh&tag=latest", sha256(moved.as_bytes()));
    assert_eq!(push(&mut creator, &by_digest, &moved), denied());
    assert_eq!(alice.get("/v2/team/app/manifests/fresh").status, 404);
    assert_eq!(
        alice
            .get("/v2/team/app/manifests/latest")
            .header("docker-content-digest"),
        first
    );
    // To where it is already is no move.
    assert_eq!(push(&mut creator, "latest", &image(&[b"one"], None)).0, 201);
    assert_eq!(push(&mut alice, "latest", &moved).0, 201);
    // Who may only sign attaches, and pushes nothing else.
    let mut signer = user(&server, "signer");
    let signature = artifact("application/x", &first, "1");
    assert_eq!(push(&mut signer, "stolen", &moved), denied());
    assert_eq!(push(&mut signer, "latest", &signature), denied());
    let by_digest = sha256(signature.as_bytes());
    assert_eq!(push(&mut signer, &by_digest, &signature).0, 201);
    let old = format!("{}.sig", first.replace(':', "-"));
    assert_eq!(push(&mut signer, &old, &moved).0, 201);
}

#[test]
fn immutable_tags_stay() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let mut alice = user(&server, "alice");
    let first = alice.push_image("team/app", "v1", b"one");
    let second = alice.push_image("team/app", "latest", b"two");
    let manifest = image(&[b"two"], None);
    for line in [
        "PUT /v2/team/app/manifests/v1".to_owned(),
        format!("PUT /v2/team/app/manifests/{second}?tag=v1"),
        "DELETE /v2/team/app/manifests/v1".to_owned(),
        format!("DELETE /v2/team/app/manifests/{first}"),
    ] {
        let body = if line.starts_with("PUT") {
            manifest.as_bytes()
        } else {
            b""
        };
        let reply = alice.send(&line, &[("content-type", common::IMAGE)], body);
        assert_eq!(reply.refusal(), (403, "DENIED".into()), "{line}");
        assert_eq!(
            reply.json()["errors"][0]["message"],
            "the tag v1 is immutable"
        );
    }
    assert_eq!(
        alice
            .get("/v2/team/app/manifests/v1")
            .header("docker-content-digest"),
        first
    );
    alice.push_manifest("team/app", "v1", &image(&[b"one"], None));
}

#[test]
fn a_repository_holds_no_more_than_its_quota() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let mut alice = user(&server, "alice");
    alice.push_image("team/small", "a", &[1; 500]);
    let digest = sha256(&[2; 1500]);
    let line = format!("POST /v2/team/small/blobs/uploads/?digest={digest}");
    assert_eq!(
        alice.send(&line, &[], &[2; 1500]).refusal(),
        (403, "DENIED".into())
    );
    assert_eq!(
        alice.get(&format!("/v2/team/small/blobs/{digest}")).status,
        404
    );
    // What is there already needs no room.
    alice.push_blob("team/small", &[1; 500]);
    alice.push_manifest("team/small", "b", &image(&[], None));
    let third = image(&[], Some((&sha256(b""), 0)));
    let line = "PUT /v2/team/small/manifests/c";
    let reply = alice.send(line, &[("content-type", common::IMAGE)], third.as_bytes());
    assert_eq!(reply.refusal(), (403, "DENIED".into()));
    alice.push_manifest("team/small", "c", &image(&[], None));
    // A mount is no way around.
    alice.push_blob("team/app", &[3; 1500]);
    let mount = format!("mount={}&from=team/app", sha256(&[3; 1500]));
    let line = format!("POST /v2/team/small/blobs/uploads/?{mount}");
    assert_eq!(
        alice.send(&line, &[], b"").refusal(),
        (403, "DENIED".into())
    );
}

#[test]
fn nobody_mounts_what_they_may_not_pull() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    user(&server, "root").push_blob("secret", b"secret");
    let mut alice = user(&server, "alice");
    for from in ["", "&from=secret"] {
        let line = format!(
            "POST /v2/team/app/blobs/uploads/?mount={}{from}",
            sha256(b"secret")
        );
        assert_eq!(alice.send(&line, &[], b"").status, 202, "{from}");
    }
    alice.push_blob("team/tool", b"shared");
    let line = format!(
        "POST /v2/team/app/blobs/uploads/?mount={}",
        sha256(b"shared")
    );
    assert_eq!(alice.send(&line, &[], b"").status, 201);
}

/// Its owner may read the other repository, but the token was not asked for it: an upload begins.
/// The conformance suites' client, for one, would not understand that it should ask for both.
#[test]
fn a_token_mounts_only_from_what_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let shared = user(&server, "alice").push_blob("team/tool", b"shared");
    user(&server, "root").push_blob("secret", b"secret");
    let mut anybody = server.client();
    let mut mount = |scope: &str, from: &str| {
        let scopes = scope.replace(' ', "&scope=");
        let headers = [("authorization", &*basic("alice", "pw-alice"))];
        let line = format!("GET /token?service=bpfseal-registry&scope={scopes}");
        let token = anybody.send(&line, &headers, b"").json()["token"].clone();
        let bearer = format!("Bearer {}", token.as_str().unwrap());
        let line = format!("POST /v2/team/app/blobs/uploads/?mount={shared}&from={from}");
        anybody.send(&line, &[("authorization", &*bearer)], b"")
    };
    let narrow = "repository:team/app:pull,push";
    let wide = "repository:team/app:pull,push repository:team/tool:pull";
    assert_eq!(mount(narrow, "team/tool").status, 202);
    assert_eq!(mount(wide, "team/tool").status, 201);
    // Where the right is missing, no scope helps.
    assert_eq!(
        mount(&wide.replace("team/tool", "secret"), "secret").status,
        202
    );
}

#[test]
fn one_address_asks_only_so_often() {
    let folder = tempfile::tempdir().unwrap();
    users(&folder.path().join("users"), &["alice"]);
    let config = folder.path().join("registry.toml");
    let text = "[auth]\nhtpasswd = \"users\"\n[limits]\nrequests_per_second = 1\nburst = 20\n\
                failed_logins_per_minute = 3\n";
    fs::write(&config, text).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::with(&folder.path().join("root"), &flags);
    let mut wrong = server.user("alice", "wrong");
    let statuses: Vec<u16> = (0..4).map(|_| wrong.get("/v2/").status).collect();
    assert_eq!(statuses, [401, 401, 401, 429]);
    // Even a right password waits: it could be the next guess.
    let right = user(&server, "alice").get("/v2/");
    assert_eq!(right.refusal(), (429, "TOOMANYREQUESTS".into()));
    assert_ne!(right.header("retry-after"), "");
    let mut nobody = server.client();
    let limited = (0..40).find(|_| nobody.get("/v2/").status == 429);
    assert!(limited.is_some());
    // Health does not count.
    assert_eq!(nobody.get("/healthz").status, 200);
}

#[test]
fn every_write_and_refusal_is_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let digest = user(&server, "alice").push_image("team/app", "latest", b"layer");
    user(&server, "reader").send("DELETE /v2/team/app/manifests/latest", &[], b"");
    server.user("alice", "wrong").get("/v2/");
    let log = fs::read_to_string(folder.path().join("root/audit.jsonl")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let short = |line: &Value| {
        let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {}",
            text("event"),
            text("who"),
            text("method"),
            line["status"],
            text("code")
        )
    };
    assert_eq!(
        lines.iter().map(short).collect::<Vec<_>>(),
        [
            "write alice POST 201 -",
            "write alice POST 201 -",
            "write alice PUT 201 -",
            "refusal reader DELETE 403 DENIED",
            "refusal anonymous GET 401 UNAUTHORIZED",
        ]
    );
    assert_eq!(lines[2]["digest"], digest.as_str());
    assert_eq!(lines[2]["path"], "/v2/team/app/manifests/latest");
    assert_eq!(lines[2]["peer"], "127.0.0.1");
}

#[test]
fn the_operator_s_are_the_operator_s() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    assert_eq!(server.client().get("/metrics").status, 401);
    assert_eq!(user(&server, "alice").get("/metrics").status, 403);
    user(&server, "root").push_image("team/app", "latest", b"layer");
    let metrics = user(&server, "root").get("/metrics");
    let want = "bpfseal_registry_requests_total{endpoint=\"manifest\",status=\"2xx\"} 1";
    assert!(
        metrics.text().lines().any(|line| line == want),
        "{}",
        metrics.text()
    );
    for (path, body) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let reply = server.client().get(path);
        assert_eq!(
            (reply.status, &reply.json()["status"]),
            (200, &body.into()),
            "{path}"
        );
    }
    // Pages show what the API would.
    let page = user(&server, "reader").get("/packages/team/app:latest");
    assert!(
        page.text().contains("<h2>Referrers</h2>"),
        "{}",
        page.text()
    );
    assert_eq!(server.client().get("/packages/team/app").status, 401);
    assert!(!server.client().get("/").text().contains("team/app"));
}

#[test]
fn a_changed_configuration_is_in_force_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = closed(folder.path());
    let mut reader = user(&server, "reader");
    assert_eq!(reader.get("/v2/team/other/tags/list").status, 403);
    let config = folder.path().join("registry.toml");
    let more =
        "[[access]]\nwho = [\"reader\"]\nrepository = \"team/other\"\nactions = [\"pull\"]\n";
    fs::write(&config, format!("{CONFIG}{more}")).unwrap();
    common::eventually(|| reader.get("/v2/team/other/tags/list").status == 404);
    // A mistake changes nothing.
    fs::write(&config, "[[acces]]").unwrap();
    user(&server, "alice").push_image("team/other", "x", b"layer");
    assert_eq!(reader.get("/v2/team/other/tags/list").status, 200);
}

#[test]
fn a_mistake_in_the_configuration_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("registry.toml");
    let root = folder.path().join("root");
    for text in [
        "listn = \"127.0.0.1:0\"",
        "[[access]]\nwho = [\"a\"]\nrepository = \"*\"\nactions = [\"pull\"]",
        "[auth]\nhtpasswd = \"absent\"",
        "[tls]\ncertificate = \"absent\"\nkey = \"absent\"",
        "[auth]\n[[access]]\nwho = [\"publisher:nobody\"]\nrepository = \"*\"\nactions = [\"pull\"]",
        "scheme = \"gopher\"",
    ] {
        fs::write(&config, text).unwrap();
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--root",
            root.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ];
        assert_eq!(command(&arguments, ""), Some(2), "{text}");
    }
}
