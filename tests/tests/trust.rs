//! Trusted roots that are stored under names: fetched by The Update Framework from a
//! repository that this test signs, used without the network, changed by nothing that is
//! older, stale, half signed or altered.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, io::ErrorKind, net::TcpListener, path::Path};

use bundle::Digest;
use serde_json::{Value, json};
use tests::{
    e2e::Said,
    sigstore::{self, FLOW, ISSUER, LogApi},
    tuf::{self, Mirror, Tuf},
};

const ROOT: &str = "trusted_root.json";
const CONFIG: &str = "signing_config.v0.2.json";

struct Scene {
    inner: sigstore::Scene,
    tuf: Tuf,
    trusted_root: String,
}

impl Scene {
    /// A deployment whose root is published in the folder `tuf`; `root.json` is what a user
    /// was given.
    fn new() -> Self {
        let inner = sigstore::Scene::new();
        let mut tuf = Tuf::new(&inner.workshop.path("tuf"));
        let trusted_root = inner.sigstore.trusted_root();
        let config = inner.sigstore.signing_config(LogApi::First);
        tuf.publish(&[(ROOT, &trusted_root), (CONFIG, &config)]);
        inner.workshop.write("root.json", tuf.root());
        Self {
            inner,
            tuf,
            trusted_root,
        }
    }

    /// The same, stored as `acme`.
    fn stored() -> Self {
        let scene = Self::new();
        scene.done("trust init --name acme --mirror tuf --root root.json");
        scene
    }

    fn run(&self, words: &str) -> Said {
        self.inner.workshop.bpfseal(words)
    }

    fn done(&self, words: &str) -> Value {
        self.inner.workshop.bpfseal_done(words)
    }

    /// Exit code and message.
    fn failure(&self, words: &str) -> (i32, String) {
        let said = self.run(&format!("{words} --json"));
        let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let error = &document["error"];
        let said_so = format!("{} {}", error["message"], error["remedy"]);
        (said.code, said_so)
    }

    fn stored_file(&self) -> Vec<u8> {
        fs::read(
            self.inner
                .workshop
                .path(".local/share/bpfseal/trust/acme.json"),
        )
        .unwrap()
    }

    /// Signs `tool` without a key by the instance `acme`.
    fn sign(&self) {
        let token = self.inner.token(json!({ "sub": FLOW }));
        self.done(&format!(
            "sign-blob --identity-token {token} --trust acme --bundle b.json tool"
        ));
    }

    fn verify(&self, root: &str) -> Said {
        self.run(&format!(
            "verify-blob --bundle b.json --certificate-identity {FLOW} \
             --certificate-oidc-issuer {ISSUER} {root} tool"
        ))
    }
}

#[test]
fn a_stored_instance_signs_and_decides_by_its_name() {
    let scene = Scene::stored();
    scene.sign();
    assert_eq!(scene.verify("--trust acme").code, 0);
    assert_eq!(scene.verify("").code, 1, "the public-good instance");
    assert_eq!(scene.verify("--trust other").code, 3);
    assert_eq!(scene.verify("--trust ../acme").code, 2);

    // A second one beside it, which knows nothing of the first.
    let other = Scene::new();
    scene.inner.workshop.write("other.json", other.tuf.root());
    let folder = other.inner.workshop.path("tuf");
    scene.done(&format!(
        "trust init --name other --mirror {} --root other.json",
        folder.display()
    ));
    assert_eq!(scene.verify("--trust other").code, 1);
    assert_eq!(scene.verify("--trust acme").code, 0);

    let shown = scene.done("trust show acme --export exported.json");
    assert_eq!(
        fs::read_to_string(scene.inner.workshop.path("exported.json")).unwrap(),
        scene.trusted_root
    );
    assert_eq!(
        [
            &shown["digest"],
            &shown["names"],
            &shown["stored"]["versions"],
            &shown["stored"]["signs"],
            &shown["stored"]["is_fresh"],
        ],
        [
            &Value::from(Digest::of(scene.trusted_root.as_bytes()).to_string()),
            &json!(["acme", "other"]),
            &json!({ "root": 1, "snapshot": 1, "targets": 1, "timestamp": 1 }),
            &json!(true),
            &json!(true),
        ]
    );
    let kinds: Vec<&str> = shown["anchors"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|anchor| anchor["kind"].as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "certificate-authority",
            "timestamp-authority",
            "transparency-log",
            "certificate-log"
        ]
    );
    let said = scene.run("trust show acme").out;
    for line in [
        "  stored as    acme\n",
        "  versions     root 1, snapshot 1, targets 1, timestamp 1\n",
        "certificate authority  http://authority.test\n  subject  test, test\n",
        "transparency log       http://log.test\n  key      sha256:",
        "  valid    2020-01-01T00:00:00Z until further notice\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn bundles_are_verified_by_the_stored_instance() {
    let scene = Scene::stored();
    scene
        .inner
        .workshop
        .write("x.bpf.o", bundle::fixture::object("socket", "probe"));
    scene.done("pack x.bpf.o -o x.tar --name net/x --version 1.0");
    let token = scene.inner.token(json!({ "sub": FLOW }));
    scene.done(&format!("sign x.tar --identity-token {token} --trust acme"));
    let verify =
        format!("verify x.tar --certificate-identity {FLOW} --certificate-oidc-issuer {ISSUER}");
    scene.done(&format!("{verify} --trust acme"));
    assert_eq!(scene.run(&verify).code, 1);
    let (code, said) = scene.failure("verify x.tar --key k.pub --trust acme");
    assert_eq!(code, 2, "{said}");
}

#[test]
fn an_update_brings_a_new_root_and_a_second_one_changes_nothing() {
    let mut scene = Scene::stored();
    let newer = scene
        .trusted_root
        .replace("http://log.test", "http://newer.test");
    scene.tuf.publish(&[(ROOT, &newer)]);
    for changed in [true, false] {
        let done = scene.done("trust update");
        assert_eq!(
            (&done[0]["changed"], &done[0]["trusted_root"]),
            (
                &changed.into(),
                &Digest::of(newer.as_bytes()).to_string().into()
            )
        );
    }
    let shown = scene.done("trust show acme");
    assert_eq!(
        (
            &shown["stored"]["versions"]["timestamp"],
            &shown["stored"]["signs"]
        ),
        (&json!(2), &json!(false)),
        "the new version has no signing config"
    );
    let (code, said) = scene.failure("trust init --name acme --mirror tuf --root root.json");
    assert_eq!(code, 2, "{said}");
}

/// What is done to the repository, what `trust update` ends with, and what it says.
type Attack = (&'static str, fn(&mut Scene), i32, &'static str);

const ATTACKS: &[Attack] = &[
    (
        "rollback of everything",
        |scene| {
            // The stored state is of version 2 by now; the mirror goes back to 1.
            let old = fs::read(scene.inner.workshop.path("old-timestamp.json")).unwrap();
            fs::write(scene.tuf.folder.join("timestamp.json"), old).unwrap();
        },
        1,
        "rollback detected for timestamp: trusted version 2 > new version 1",
    ),
    (
        "rollback of the targets under a new timestamp",
        |scene| {
            let old = fs::read_to_string(scene.tuf.folder.join("1.targets.json")).unwrap();
            let pin = json!({ "targets.json": {
                "version": 1, "length": old.len(),
                "hashes": { "sha256": Digest::of(old.as_bytes()).to_hex() },
            }});
            scene.tuf.version = 3;
            let snapshot = scene.tuf.of("snapshot", "meta", pin);
            pins_snapshot(&scene.tuf, &snapshot);
        },
        1,
        "rollback detected for targets.json (via snapshot): trusted version 2 > new version 1",
    ),
    (
        "freeze: the newest is stale",
        |scene| {
            scene.tuf.expires = "2020-01-01T00:00:00Z";
            let root = scene.trusted_root.clone();
            scene.tuf.publish(&[(ROOT, &root)]);
        },
        1,
        "timestamp metadata expired at 2020-01-01T00:00:00Z",
    ),
    (
        "targets signed by one of two",
        |scene| {
            scene.tuf.version = 3;
            let targets = scene.tuf.of("targets", "targets", json!({}));
            let one = [&scene.tuf.keyholders[0]];
            let text = scene.tuf.write("3.targets.json", &targets, &one);
            scene.tuf.publish_pins(&text);
        },
        1,
        "signature threshold not met for role targets: 1/2 valid signatures",
    ),
    (
        "targets signed twice by one",
        |scene| {
            scene.tuf.version = 3;
            let targets = scene.tuf.of("targets", "targets", json!({}));
            let twice = [&scene.tuf.keyholders[0], &scene.tuf.keyholders[0]];
            let text = scene.tuf.write("3.targets.json", &targets, &twice);
            scene.tuf.publish_pins(&text);
        },
        1,
        "duplicate signature key id",
    ),
    (
        "a timestamp by a stranger's key",
        |scene| {
            scene.tuf.online = tuf::key();
            let root = scene.trusted_root.clone();
            scene.tuf.publish(&[(ROOT, &root)]);
        },
        1,
        "signature threshold not met for role timestamp: 0/1 valid signatures",
    ),
    (
        "a root that the former keyholders did not sign",
        |scene| {
            scene.tuf.keyholders = vec![tuf::key(), tuf::key()];
            scene.tuf.publish_root(&[]);
        },
        1,
        "signature threshold not met for role root: 0/2 valid signatures",
    ),
    (
        "a root that leaves a version out",
        |scene| {
            let root = scene.tuf.root_of(3);
            let both = [&scene.tuf.keyholders[0], &scene.tuf.keyholders[1]];
            scene.tuf.write("2.root.json", &root, &both);
        },
        1,
        "root version must increment by one: trusted 1, got 3",
    ),
    (
        "other bytes in the place of the trusted root",
        |scene| {
            let newer = scene.trusted_root.replace("log.test", "new.test");
            scene.tuf.publish(&[(ROOT, &newer)]);
            let hash = Digest::of(newer.as_bytes()).to_hex();
            let evil = scene.trusted_root.replace("log.test", "bad.test");
            let path = format!("targets/{hash}.{ROOT}");
            fs::write(scene.tuf.folder.join(path), evil).unwrap();
        },
        1,
        "integrity check failed: trusted_root.json",
    ),
    (
        "more bytes than the targets say",
        |scene| {
            let newer = scene.trusted_root.replace("log.test", "new.test");
            scene.tuf.publish(&[(ROOT, &newer)]);
            let hash = Digest::of(newer.as_bytes()).to_hex();
            let path = scene.tuf.folder.join(format!("targets/{hash}.{ROOT}"));
            fs::write(path, newer.repeat(2)).unwrap();
        },
        4,
        "bytes",
    ),
    (
        "a snapshot that another timestamp pins",
        |scene| {
            let root = scene.trusted_root.clone();
            scene.tuf.publish(&[(ROOT, &root)]);
            let old = fs::read(scene.tuf.folder.join("2.snapshot.json")).unwrap();
            fs::write(scene.tuf.folder.join("3.snapshot.json"), old).unwrap();
        },
        1,
        "integrity check failed: snapshot.json",
    ),
    (
        "no trusted root any more",
        |scene| scene.tuf.publish(&[]),
        1,
        "is not listed by any trusted targets role",
    ),
    (
        "a trusted root that cannot be read, well signed",
        |scene| scene.tuf.publish(&[(ROOT, "{}")]),
        1,
        "the update: ",
    ),
    (
        "rubbish",
        |scene| fs::write(scene.tuf.folder.join("timestamp.json"), "<html>").unwrap(),
        1,
        "failed to parse JSON",
    ),
    (
        "an outage",
        |scene| fs::remove_dir_all(&scene.tuf.folder).unwrap(),
        4,
        "verification goes on with what was fetched",
    ),
];

fn pins_snapshot(tuf: &Tuf, snapshot: &Value) {
    let text = tuf.write(&tuf.named("snapshot"), snapshot, &[&tuf.online]);
    let pin = json!({ "snapshot.json": {
        "version": tuf.version, "length": text.len(),
        "hashes": { "sha256": Digest::of(text.as_bytes()).to_hex() },
    }});
    tuf.write(
        "timestamp.json",
        &tuf.of("timestamp", "meta", pin),
        &[&tuf.online],
    );
}

#[test]
fn what_cannot_be_proved_to_be_newer_changes_nothing() {
    for (attack, perform, code, says) in ATTACKS {
        let mut scene = Scene::stored();
        let timestamp = fs::read(scene.tuf.folder.join("timestamp.json")).unwrap();
        scene.inner.workshop.write("old-timestamp.json", timestamp);
        let root = scene.trusted_root.clone();
        scene.tuf.publish(&[(ROOT, &root)]);
        scene.done("trust update acme");
        let before = scene.stored_file();
        perform(&mut scene);
        let (got, said) = scene.failure("trust update acme");
        assert_eq!(got, *code, "{attack}: {said}");
        assert!(said.contains(says), "{attack}: {said}");
        assert!(
            said.contains("Nothing changed: verification goes on"),
            "{attack}: {said}"
        );
        assert_eq!(scene.stored_file(), before, "{attack}");
    }
}

#[test]
fn a_first_root_that_does_not_hold_stores_nothing() {
    let scene = Scene::new();
    let own = scene.tuf.root();
    // Somebody else's keyholders vouch for another repository.
    let strange = Tuf::new(&scene.inner.workshop.path("strange")).root();
    let unsigned = {
        let mut root: Value = serde_json::from_str(&own).unwrap();
        root["signatures"].as_array_mut().unwrap().truncate(1);
        root.to_string()
    };
    for (root, says) in [
        (strange, "threshold not met for role timestamp"),
        (unsigned, "threshold not met for role root"),
        ("{}".to_owned(), "missing `signed`"),
    ] {
        scene.inner.workshop.write("given.json", root);
        let (code, said) = scene.failure("trust init --name acme --mirror tuf --root given.json");
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains(says) && said.contains("Nothing was stored."),
            "{said}"
        );
    }
    assert_eq!(scene.done("trust show")["names"], json!([]));
}

#[test]
fn keyholders_change_and_a_stolen_online_key_cannot_hold_the_future() {
    let mut scene = Scene::stored();
    let root = scene.trusted_root.clone();
    // The thief of the online key signs a version that nobody can pass.
    scene.tuf.version = 1 << 40;
    scene.tuf.publish(&[(ROOT, &root)]);
    scene.done("trust update acme");
    // Keyholders change twice, with the online key; versions go on where they were.
    for _ in 0..2 {
        let new = vec![tuf::key(), tuf::key(), tuf::key()];
        let former = std::mem::replace(&mut scene.tuf.keyholders, new);
        scene.tuf.online = tuf::key();
        scene.tuf.publish_root(&former);
    }
    scene.tuf.version = 1;
    let newer = scene.trusted_root.replace("log.test", "new.test");
    scene.tuf.publish(&[(ROOT, &newer)]);
    scene.done("trust update acme");
    let stored = &scene.done("trust show acme")["stored"];
    assert_eq!(
        stored["versions"],
        json!({ "root": 3, "snapshot": 2, "targets": 2, "timestamp": 2 })
    );
    // From now on the former keys are nobody's: the new state is the floor.
    let (code, said) = {
        fs::remove_file(scene.tuf.folder.join("2.root.json")).unwrap();
        fs::remove_file(scene.tuf.folder.join("3.root.json")).unwrap();
        scene.tuf.online = tuf::key();
        scene.tuf.publish(&[(ROOT, &root)]);
        scene.failure("trust update acme")
    };
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("threshold not met for role timestamp"),
        "{said}"
    );
}

#[test]
fn verification_goes_by_what_is_stored_and_asks_nobody() {
    let scene = Scene::new();
    let mut mirror = Mirror::start(&scene.tuf.folder);
    let address = mirror.address.clone();
    scene.done(&format!(
        "trust init --name acme --mirror http://{address} --root root.json"
    ));
    scene.done("trust update acme");
    scene.sign();
    mirror.stop();
    let (code, said) = scene.failure("trust update acme");
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("Nothing changed: verification goes on"),
        "{said}"
    );

    // Whoever comes now is noticed, and never answered.
    let listener = TcpListener::bind(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    age(&scene
        .inner
        .workshop
        .path(".local/share/bpfseal/trust/acme.json"));
    assert_eq!(scene.verify("--trust acme").code, 0);
    let shown = scene.done("trust show acme");
    assert_eq!(shown["stored"]["is_fresh"], false);
    assert!(
        scene
            .run("trust show acme")
            .out
            .contains("over; it still counts")
    );
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Lets what was fetched be stale by now.
fn age(path: &Path) {
    let mut stored: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    stored["fresh_until"] = "2020-01-01T00:00:00Z".into();
    fs::write(path, stored.to_string()).unwrap();
}

#[test]
fn one_instance_that_fails_keeps_no_other_from_its_update() {
    let mut scene = Scene::stored();
    let other = Scene::new();
    scene.inner.workshop.write("other.json", other.tuf.root());
    let folder = other.inner.workshop.path("tuf");
    scene.done(&format!(
        "trust init --name a-broken-one --mirror {} --root other.json",
        folder.display()
    ));
    fs::write(folder.join("timestamp.json"), "{}").unwrap();
    let newer = scene.trusted_root.replace("log.test", "new.test");
    scene.tuf.publish(&[(ROOT, &newer)]);
    let said = scene.run("trust update");
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("acme: the trusted root is new"),
        "{}",
        said.err
    );
    assert_eq!(
        scene.done("trust show acme")["digest"],
        Digest::of(newer.as_bytes()).to_string()
    );
}

#[test]
fn a_stored_public_good_root_takes_the_place_of_the_embedded_one() {
    let scene = Scene::new();
    let embedded = scene.done("trust show");
    assert!(embedded["embedded_since"].is_string(), "{embedded}");
    scene.done("trust init --mirror tuf --root root.json");
    let shown = scene.done("trust show");
    assert_eq!(shown["stored"]["name"], "public-good");
    scene
        .inner
        .workshop
        .write(".local/share/bpfseal/trust/public-good.json", "{");
    let (code, said) = scene.failure("trust show");
    assert_eq!(code, 2, "a damaged file is never passed over: {said}");
    assert!(said.contains("--replace"), "{said}");
    scene.done("trust init --mirror tuf --root root.json --replace");
}
