//! Revocation lists: what was released is taken back, and comes back.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bundle::{fixture, media};
use common::{
    Client, image,
    quarantine::{Bench, bundle_of},
    sha256,
};
use policy::{key::Algorithm, revocation::SignedRevocations, signer};
use ring::rand::SystemRandom;

/// Who signs lists.
struct Authority(signer::Signer, String);

impl Authority {
    fn new() -> Self {
        let random = SystemRandom::new();
        let made = signer::generate(Algorithm::EcdsaP256, None, &random).unwrap();
        let mut none = || unreachable!("the key is not encrypted");
        let read = signer::Signer::from_pem(made.private.as_bytes(), &mut none, &random);
        Self(read.unwrap().0, made.public.to_pem())
    }

    fn list(&self, version: u64, entry: &str) -> String {
        let entry = match entry {
            "" => String::new(),
            entry => format!("[[revoke]]\n{entry}\nreason = \"INC-4711\"\n"),
        };
        let text = format!("version = {version}\nissued = \"2026-11-22T08:00:00Z\"\n{entry}");
        let random = SystemRandom::new();
        let sign = |message: &[u8]| self.0.sign(message, &random);
        SignedRevocations::seal(&text, self.0.public_key(), sign).unwrap()
    }
}

const SECTION: &str = "[revocation]\nauthority = \"authority.pub\"\nlist = \"revoked.json\"\n";

/// A bench with an empty list, on which a bundle was signed by the first key and an index of
/// it by the second. Returns their manifests too.
fn bench(authority: &Authority) -> (Bench, String, String) {
    let bench = Bench::new(1);
    bench.write("authority.pub", &authority.1);
    bench.write("revoked.json", &authority.list(1, ""));
    bench.configure(SECTION);
    let mut pusher = bench.user("pusher");
    let bundle = String::from_utf8(bundle_of(&mut pusher, "tools/app", "xdp")).unwrap();
    pusher.push_manifest("tools/app", "v1", &bundle);
    bench.sign("tools/app", &bundle, 0);
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::INDEX,
        "manifests": [{
            "mediaType": common::IMAGE, "digest": sha256(bundle.as_bytes()), "size": bundle.len(),
        }],
    });
    let index = index.to_string();
    pusher.push_manifest("tools/app", "all", &index);
    let mut reader = bench.user("reader");
    common::eventually(|| reader.get("/v2/tools/app/manifests/v1").status == 200);
    (bench, bundle, index)
}

/// State and number of the reason, as the pusher is told.
fn verdict(client: &mut Client, reference: &str) -> (String, Option<u64>) {
    let said = client
        .get(&format!("/admission/tools/app{reference}"))
        .json();
    let state = said["state"].as_str().unwrap().to_owned();
    (state, said["number"].as_u64())
}

#[test]
fn a_changed_list_decides_anew() {
    let authority = Authority::new();
    let (bench, bundle, _) = bench(&authority);
    let object = sha256(&fixture::object("xdp", "program"));
    let digest = sha256(bundle.as_bytes());
    let first = bench.keys[0].public_key().id();
    let second = bench.keys[1].public_key().id();
    let (mut pusher, mut reader) = (bench.user("pusher"), bench.user("reader"));
    let cases = [
        (format!("bundle = \"{digest}\""), "refused"),
        (format!("object = \"{object}\""), "refused"),
        (
            "package = \"probe\"\nversions = \">=1.0, <1.3\"".to_owned(),
            "refused",
        ),
        (format!("key = \"{first}\""), "quarantined"),
        // Not its signer, not its version, not what a registry can know.
        (format!("key = \"{second}\""), "released"),
        (
            "package = \"probe\"\nversions = \"<1.2\"".to_owned(),
            "released",
        ),
        (format!("program = \"{object}\""), "released"),
    ];
    let mut version = 1;
    for (entry, want) in cases {
        version += 1;
        bench.write("revoked.json", &authority.list(version, &entry));
        let want = match want {
            "released" => ("released".to_owned(), None),
            state => (state.to_owned(), Some(309)),
        };
        common::eventually(|| verdict(&mut pusher, ":v1") == want);
        let status = if want.1.is_none() { 200 } else { 404 };
        for path in ["manifests/v1", &format!("blobs/{object}")] {
            let got = reader.get(&format!("/v2/tools/app/{path}")).status;
            assert_eq!(got, status, "{entry}: {path}");
        }
        let tags = reader.get("/v2/tools/app/tags/list").json();
        assert_eq!(
            tags["tags"].as_array().unwrap().len(),
            usize::from(status == 200)
        );
        version += 1;
        bench.write("revoked.json", &authority.list(version, ""));
        common::eventually(|| verdict(&mut pusher, ":v1").0 == "released");
    }
    // Another signature stands in for the one that does not count any more.
    let revoked = format!("key = \"{first}\"");
    bench.write("revoked.json", &authority.list(version + 1, &revoked));
    common::eventually(|| verdict(&mut pusher, ":v1") == ("quarantined".to_owned(), Some(309)));
    bench.sign("tools/app", &bundle, 1);
    let served = reader.get("/v2/tools/app/manifests/v1");
    assert_eq!(served.status, 200);
}

#[test]
fn what_is_revoked_is_refused_at_its_push_and_in_an_index() {
    let authority = Authority::new();
    let (bench, bundle, index) = bench(&authority);
    let digest = sha256(bundle.as_bytes());
    let (mut pusher, mut reader) = (bench.user("pusher"), bench.user("reader"));
    bench.sign("tools/app", &index, 1);
    assert_eq!(reader.get("/v2/tools/app/manifests/all").status, 200);
    // An image that is no bundle can be named by its digest.
    let plain = pusher.push_image("tools/app", "plain", b"layer");
    bench.sign("tools/app", &image(&[b"layer"], None), 0);
    assert_eq!(reader.get("/v2/tools/app/manifests/plain").status, 200);
    let entries =
        format!("bundle = \"{digest}\"\nreason = \"x\"\n[[revoke]]\nbundle = \"{plain}\"");
    bench.write("revoked.json", &authority.list(2, &entries));
    common::eventually(|| verdict(&mut pusher, ":plain") == ("refused".to_owned(), Some(309)));
    // The index is signed, and shows the member no more.
    let by_digest = format!("/v2/tools/app/manifests/{digest}");
    let paths = ["all", "v1", "plain"].map(|tag| format!("/v2/tools/app/manifests/{tag}"));
    let got = paths.map(|path| reader.get(&path).status);
    assert_eq!((got, reader.get(&by_digest).status), ([200, 404, 404], 404));
    for (tag, manifest) in [("v2", bundle), ("p2", image(&[b"layer"], None))] {
        let headers = [("content-type", common::IMAGE)];
        let line = format!("PUT /v2/tools/app/manifests/{tag}");
        let reply = pusher.send(&line, &headers, manifest.as_bytes());
        assert_eq!(reply.refusal(), (403, "DENIED".into()));
        let error = &reply.json()["errors"][0];
        assert_eq!(error["detail"]["reason"], "E309", "{error}");
        assert!(error["message"].as_str().unwrap().ends_with("INC-4711") || tag == "v2");
    }
}

#[test]
fn a_list_that_is_older_or_forged_changes_nothing() {
    let authority = Authority::new();
    let (bench, bundle, _) = bench(&authority);
    let entry = format!("bundle = \"{}\"", sha256(bundle.as_bytes()));
    let mut pusher = bench.user("pusher");
    let revoked = ("refused".to_owned(), Some(309));
    bench.write("revoked.json", &authority.list(5, &entry));
    common::eventually(|| verdict(&mut pusher, ":v1") == revoked);
    let mut operator = bench.user("operator");
    let mut metric = |name: &str| -> u64 {
        let text = operator.get("/metrics");
        let lines = text.text().lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().unwrap().parse().unwrap()
    };
    for list in [
        authority.list(4, ""),
        Authority::new().list(6, ""),
        "{}".to_owned(),
    ] {
        let errors = "bpfseal_registry_configuration_errors_total";
        let before = metric(errors);
        bench.write("revoked.json", &list);
        common::eventually(|| metric(errors) > before);
        assert_eq!(verdict(&mut pusher, ":v1"), revoked, "{list}");
        assert_eq!(metric("bpfseal_registry_revocation_list_version"), 5);
    }
    bench.write("revoked.json", &authority.list(6, ""));
    common::eventually(|| verdict(&mut pusher, ":v1").0 != "refused");
}

#[test]
fn a_list_that_cannot_be_used_is_no_start() {
    let authority = Authority::new();
    let (bench, ..) = bench(&authority);
    let root = bench.folder.path().join("another");
    let config = bench.folder.path().join("other.toml");
    let policy = "[[repository]]\nname = \"*\"\npolicy = \"policy.toml\"\n";
    let auth = "name = \"a\"\n[auth]\nhtpasswd = \"users\"\n";
    for text in [
        format!("{auth}{SECTION}"),
        format!(
            "{auth}{policy}{}",
            SECTION.replace("revoked.json", "absent")
        ),
        format!(
            "{auth}{policy}{}",
            SECTION.replace("revoked.json", "policy.toml")
        ),
        format!(
            "{auth}{policy}{}",
            SECTION.replace("authority.pub", "first.pub")
        ),
        format!("{auth}{policy}[revocation]\nlist = \"revoked.json\"\n"),
    ] {
        std::fs::write(&config, &text).unwrap();
        let (root, config) = (root.to_str().unwrap(), config.to_str().unwrap());
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--root",
            root,
            "--config",
            config,
        ];
        assert_eq!(common::command(&arguments, ""), Some(2), "{text}");
    }
}
