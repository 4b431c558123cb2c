//! Quarantine, release and refusal by policy, over HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{fs, path::Path};

use bundle::{manifest::Descriptor, media};
use common::{Client, Server, image, sha256, users};
use policy::{key::Algorithm, signature, signer};
use ring::rand::SystemRandom;

const CONFIG: &str = r#"
name = "registry.example"
[auth]
htpasswd = "users"
[[access]]
who = ["pusher"]
repository = "*"
actions = ["pull", "push", "delete"]
[[access]]
who = ["signer"]
repository = "*"
actions = ["pull", "sign"]
[[access]]
who = ["reader"]
repository = "*"
actions = ["pull"]
[[repository]]
name = "tools/*"
policy = "policy.toml"
"#;

fn policy_for(threshold: u32, types: &str) -> String {
    format!(
        "version = 1\nmode = \"enforce\"\n\
         [keys.first]\nfile = \"first.pub\"\n[keys.second]\nfile = \"second.pub\"\n\
         [[rule]]\nname = \"tools\"\nscope = \"registry.example/tools/*\"\n\
         signed_by = {{ of = [\"first\", \"second\"], at_least = {threshold} }}\n\
         program_types = [{types}]\n"
    )
}

struct Bench {
    folder: tempfile::TempDir,
    server: Server,
    keys: [signer::Signer; 2],
}

impl Bench {
    fn new(threshold: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = SystemRandom::new();
        let keys = ["first", "second"].map(|name| {
            let made = signer::generate(Algorithm::EcdsaP256, None, &random).unwrap();
            fs::write(
                folder.path().join(name).with_extension("pub"),
                made.public.to_pem(),
            )
            .unwrap();
            let mut none = || unreachable!("the key is not encrypted");
            let read = signer::Signer::from_pem(made.private.as_bytes(), &mut none, &random);
            read.unwrap().0
        });
        users(
            &folder.path().join("users"),
            &["pusher", "signer", "reader"],
        );
        fs::write(
            folder.path().join("policy.toml"),
            policy_for(threshold, "\"xdp\""),
        )
        .unwrap();
        let config = folder.path().join("registry.toml");
        fs::write(&config, CONFIG).unwrap();
        let flags = ["--config", config.to_str().unwrap()];
        let server = Server::with(&folder.path().join("root"), &flags);
        Self {
            folder,
            server,
            keys,
        }
    }

    fn user(&self, name: &str) -> Client {
        self.server.user(name, &format!("pw-{name}"))
    }

    /// Attaches a signature, as the signer; returns its manifest's digest.
    fn sign(&self, repository: &str, manifest: &str, key: usize) -> String {
        let subject = Descriptor::of(media::MANIFEST, manifest.as_bytes());
        let random = SystemRandom::new();
        let attached = signature::sign(&subject, &self.keys[key], None, &random).unwrap();
        let mut signer = self.user("signer");
        for blob in &attached.blobs {
            signer.push_blob(repository, blob);
        }
        let text = String::from_utf8(attached.manifest).unwrap();
        signer.push_manifest(repository, &sha256(text.as_bytes()), &text)
    }

    fn statuses(&self, path: &str) -> [u16; 3] {
        ["pusher", "signer", "reader"].map(|who| self.user(who).get(path).status)
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn an_unsigned_artifact_waits_until_it_is_signed() {
    let bench = Bench::new(2);
    let mut pusher = bench.user("pusher");
    let digest = pusher.push_image("tools/app", "v1", b"layer");
    let manifest = image(&[b"layer"], None);
    let by_tag = "/v2/tools/app/manifests/v1";
    let by_digest = format!("/v2/tools/app/manifests/{digest}");
    let blob = format!("/v2/tools/app/blobs/{}", sha256(b"layer"));
    let referrers = format!("/v2/tools/app/referrers/{digest}");
    let paths = [by_tag, &by_digest, &blob, "/packages/tools/app:v1"];
    let check = |want: [u16; 3]| {
        for path in paths {
            assert_eq!(bench.statuses(path), want, "{path}");
        }
    };
    let mut reader = bench.user("reader");
    check([200, 200, 404]);
    let held = pusher.get(by_tag);
    assert_eq!(held.header("bpfseal-admission"), "quarantined");
    let why = pusher.get("/admission/tools/app:v1").json();
    assert_eq!(
        (&why["state"], &why["number"]),
        (&"quarantined".into(), &201.into())
    );
    assert_eq!(
        reader.get("/v2/tools/app/tags/list").json()["tags"],
        serde_json::json!([])
    );
    assert_eq!(reader.get("/admission/tools/app:v1").status, 404);
    // A reader mounts nothing out of quarantine either.
    let first = bench.sign("tools/app", &manifest, 0);
    check([200, 200, 404]);
    assert_eq!(pusher.get("/admission/tools/app:v1").json()["number"], 302);
    assert_eq!(
        reader.get(&referrers).json()["manifests"],
        serde_json::json!([])
    );
    assert_eq!(
        bench.statuses(&format!("/v2/tools/app/manifests/{first}")),
        [200, 200, 404]
    );
    bench.sign("tools/app", &manifest, 1);
    check([200, 200, 200]);
    let served = reader.get(by_tag);
    assert_eq!(served.header("bpfseal-admission"), "released");
    assert_eq!(served.header("bpfseal-signed-by"), "first, second");
    assert_eq!(
        reader.get("/v2/tools/app/tags/list").json()["tags"],
        serde_json::json!(["v1"])
    );
    assert_eq!(
        reader.get(&referrers).json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        reader
            .get(&format!("/v2/tools/app/manifests/{first}"))
            .status,
        200
    );
    assert!(
        reader
            .get("/packages/tools/app:v1")
            .text()
            .contains("released: first, second")
    );
    // A signature that goes takes the release with it.
    let line = format!("DELETE /v2/tools/app/manifests/{first}");
    assert_eq!(pusher.send(&line, &[], b"").status, 202);
    check([200, 200, 404]);
    // Other repositories have no policy.
    pusher.push_image("open/app", "v1", b"layer");
    let open = reader.get("/v2/open/app/manifests/v1");
    assert_eq!((open.status, open.header("bpfseal-admission")), (200, ""));
}

#[test]
fn a_changed_policy_decides_anew() {
    let bench = Bench::new(1);
    let mut pusher = bench.user("pusher");
    pusher.push_image("tools/app", "v1", b"layer");
    bench.sign("tools/app", &image(&[b"layer"], None), 0);
    let mut reader = bench.user("reader");
    assert_eq!(reader.get("/v2/tools/app/manifests/v1").status, 200);
    let file = bench.folder.path().join("policy.toml");
    write(&file, &policy_for(2, "\"xdp\""));
    common::eventually(|| reader.get("/v2/tools/app/manifests/v1").status == 404);
    write(&file, &policy_for(1, "\"xdp\", \"kprobe\""));
    common::eventually(|| reader.get("/v2/tools/app/manifests/v1").status == 200);
}

#[test]
fn what_breaks_the_policy_is_refused_with_the_reason() {
    let bench = Bench::new(1);
    let mut pusher = bench.user("pusher");
    let mut push = |section: &str| {
        let object = bundle::fixture::object(section, "program");
        let objects = vec![("program.bpf.o".to_owned(), object)];
        let packed = bundle::pack::pack(objects, &Default::default()).unwrap();
        pusher.push_blob("tools/app", &packed.config);
        pusher.push_blob("tools/app", &packed.layers[0].1);
        let headers = [("content-type", common::IMAGE)];
        let reply = pusher.send("PUT /v2/tools/app/manifests/v1", &headers, &packed.manifest);
        (reply, String::from_utf8(packed.manifest).unwrap())
    };
    let (reply, _) = push("kprobe/do_unlinkat");
    assert_eq!(reply.refusal(), (403, "DENIED".into()));
    let error = &reply.json()["errors"][0];
    assert_eq!(error["detail"]["reason"], "E303");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("E303 program-type: "),
        "{error}"
    );
    let (reply, manifest) = push("xdp");
    assert_eq!(reply.status, 201, "{}", reply.text());
    let mut reader = bench.user("reader");
    assert_eq!(reader.get("/v2/tools/app/manifests/v1").status, 404);
    bench.sign("tools/app", &manifest, 1);
    let served = reader.get("/v2/tools/app/manifests/v1");
    assert_eq!(
        (served.status, served.header("bpfseal-signed-by")),
        (200, "second")
    );
    let page = reader.get("/packages/tools/app:v1");
    assert!(
        page.text().contains("<h2>Inventory</h2>"),
        "{}",
        page.text()
    );
    let audit = fs::read_to_string(bench.folder.path().join("root/audit.jsonl")).unwrap();
    assert!(audit.contains("\"reason\":\"program-type\""), "{audit}");
}

#[test]
fn a_policy_needs_users_and_a_name() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("policy.toml"),
        "version = 1\nmode = \"enforce\"\n",
    );
    let config = folder.path().join("registry.toml");
    let root = folder.path().join("root");
    let rule = "[[repository]]\nname = \"*\"\npolicy = \"policy.toml\"\n";
    for text in [
        format!("name = \"a\"\n{rule}"),
        format!("[auth]\n{rule}"),
        format!(
            "name = \"a\"\n[auth]\n{}",
            rule.replace("policy.toml", "absent")
        ),
        format!(
            "name = \"a\"\n[auth]\n{}",
            rule.replace("policy.toml", "registry.toml")
        ),
    ] {
        write(&config, &text);
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--root",
            root.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ];
        assert_eq!(common::command(&arguments, ""), Some(2), "{text}");
    }
}
