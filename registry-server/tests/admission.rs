//! Quarantine, release and refusal by policy, over HTTP.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{fs, path::Path};

use common::{
    image,
    quarantine::{Bench, bundle_of, policy_for},
    sha256,
};

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
        let packed = bundle_of(&mut pusher, "tools/app", section);
        let headers = [("content-type", common::IMAGE)];
        let reply = pusher.send("PUT /v2/tools/app/manifests/v1", &headers, &packed);
        (reply, String::from_utf8(packed).unwrap())
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
fn an_exception_lets_one_bundle_in_until_it_ends() {
    let bench = Bench::new(1);
    let (mut pusher, mut reader) = (bench.user("pusher"), bench.user("reader"));
    let manifest = bundle_of(&mut pusher, "tools/app", "kprobe/do_unlinkat");
    let digest = sha256(&manifest);
    let mut push = |tag: &str, manifest: &[u8]| {
        let headers = [("content-type", common::IMAGE)];
        let line = format!("PUT /v2/tools/app/manifests/{tag}");
        pusher.send(&line, &headers, manifest).status
    };
    assert_eq!(push("v1", &manifest), 403);
    let except = |until: jiff::Timestamp| {
        let rules = policy_for(1, "\"xdp\"");
        let exception =
            format!("[[exception]]\nbundle = \"{digest}\"\nreason = \"INC-1\"\nuntil = {until}\n");
        bench.write("policy.toml", &(rules + &exception));
    };
    let now = jiff::Timestamp::now;
    except(now() + jiff::SignedDuration::from_hours(1));
    common::eventually(|| push("v1", &manifest) == 201);
    // Nobody signed it, and the policy's author answers for it; for nothing else.
    let served = reader.get("/v2/tools/app/manifests/v1");
    assert_eq!(
        (served.status, served.header("bpfseal-admission")),
        (200, "released")
    );
    let other = bundle_of(&mut bench.user("pusher"), "tools/app", "kprobe/do_exit");
    assert_eq!(push("v2", &other), 403);
    // It ends by the clock, though nothing is written and the verdict is known.
    let end = now() + jiff::SignedDuration::from_secs(3);
    except(end);
    common::eventually(|| {
        let status = reader.get("/v2/tools/app/manifests/v1").status;
        assert!(status == 404 || now() < end + jiff::SignedDuration::from_secs(1));
        status == 404
    });
    assert!(now() >= end, "it ended too early");
    let why = bench.user("pusher").get("/admission/tools/app:v1").json();
    assert_eq!(
        (&why["state"], &why["number"]),
        (&"refused".into(), &303.into())
    );
    assert!(why["message"].as_str().unwrap().contains("INC-1"), "{why}");
    assert_eq!(push("v1", &manifest), 403);
}

#[test]
fn an_attachment_is_no_way_around_the_policy() {
    let bench = Bench::new(1);
    let mut pusher = bench.user("pusher");
    let released = pusher.push_image("tools/app", "v1", b"layer");
    bench.sign("tools/app", &image(&[b"layer"], None), 0);
    let mut reader = bench.user("reader");
    let mut statuses = |paths: &[&str]| -> Vec<u16> {
        let status = |path: &&str| {
            reader
                .get(&format!("/v2/tools/app/manifests/{path}"))
                .status
        };
        paths.iter().map(status).collect()
    };
    // Something unsigned that says it is about what is released: by digest it is an
    // attachment, and no tag shows it to readers.
    pusher.push_blob("tools/app", b"evil");
    let about = image(&[b"evil"], Some((&released, 1)));
    let about = pusher.push_manifest("tools/app", "v2", &about);
    assert_eq!(statuses(&["v1", "v2", &about]), [200, 404, 200]);
    // The same by the older schemes' tags.
    let older = format!("sha256-{}.sig", &released["sha256:".len()..]);
    let unsigned = pusher.push_image("tools/app", &older, b"evil");
    pusher.push_image("tools/app", "v3", b"evil");
    assert_eq!(statuses(&[&older, "v3", &unsigned]), [200, 404, 200]);
    // A bundle is never an attachment.
    let mut push = |section: &str, tag: &str| {
        let packed = bundle_of(&mut pusher, "tools/app", section);
        let mut manifest: serde_json::Value = serde_json::from_slice(&packed).unwrap();
        manifest["subject"] = serde_json::json!({
            "mediaType": common::IMAGE, "digest": released, "size": 1,
        });
        let headers = [("content-type", common::IMAGE)];
        let line = format!("PUT /v2/tools/app/manifests/{tag}");
        pusher.send(&line, &headers, manifest.to_string().as_bytes())
    };
    for (section, tag) in [("xdp", "v4"), ("kprobe/x", "v4"), ("kprobe/x", &*older)] {
        let reply = push(section, tag);
        assert_eq!(reply.refusal(), (403, "DENIED".into()), "{section} {tag}");
    }
    let tags = reader.get("/v2/tools/app/tags/list").json();
    assert_eq!(tags["tags"], serde_json::json!([older, "v1"]));
    let page = reader.get("/packages/tools/app");
    let shown = ["v1", "v2", "v3", "v4"].map(|tag| page.text().contains(&format!(">{tag}</a>")));
    assert_eq!(shown, [true, false, false, false]);
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
