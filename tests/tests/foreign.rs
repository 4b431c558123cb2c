//! Other people's packages: written in bpfman's layout, read in two, and signed, published and
//! verified like bundles.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use bundle::{
    Layout,
    manifest::{Descriptor, Manifest},
    media,
};
use serde_json::{Value, json};
use tests::{
    e2e::{Registry, Said, Workshop},
    fixtures,
};

struct Desk(Workshop);

impl Desk {
    /// Keys `a` and `b`, a policy that wants `a` for one scope, and an object.
    fn new() -> Self {
        Self(Workshop::with_keys("ecdsa-p256"))
    }

    fn run(&self, words: &str) -> Said {
        self.0.bpfseal(words)
    }

    fn ok(&self, words: &str) -> Value {
        self.0.bpfseal_done(words)
    }

    /// Nobody, then a stranger, then the right one signs `package`, which is at `place`.
    fn sign_and_verify(&self, place: &str, scope: &str, digest: &Value) {
        let policy = format!(
            "[keys.a]\nfile = \"a.pub\"\n[[rule]]\nname = \"r\"\nscope = \"{scope}\"\n\
             signed_by = {{ of = [\"a\"] }}\nprogram_types = [\"xdp\"]\n\
             when = \"inventory.programs.all(p, p.type == 'xdp')\"\n"
        );
        self.0.write("policy.toml", policy);
        let verify = format!("verify {place} --policy policy.toml");
        for (key, want) in [(None, "E201"), (Some("b"), "E203")] {
            if let Some(key) = key {
                self.ok(&format!("sign {place} --key {key}.key"));
            }
            let said = self.run(&verify);
            assert_eq!(said.code, 1, "{place}: {}", said.out);
            assert!(said.err.contains(want), "{place}: {}", said.err);
        }
        self.ok(&format!("sign {place} --key a.key"));
        let verified = self.ok(&verify);
        assert_eq!(verified["digest"], *digest, "{place}");
        assert_eq!(verified["objects"][0]["programs"], 1, "{place}");
    }
}

/// A gadget as `ig image build` lays it out, `docs/spec/oci.md`.
fn gadget() -> Layout {
    let object = fs::read(fixtures::object("drop_port")).unwrap();
    let mut layout = Layout::new();
    let config = b"name: drop\n".to_vec();
    let mut manifest = Manifest::artifact(
        "application/vnd.gadget.v1+binary",
        Descriptor::of("application/vnd.gadget.config.v1+yaml", &config),
        vec![Descriptor::of(
            "application/vnd.gadget.ebpf.program.v1+binary",
            &object,
        )],
    );
    let title = "drop".to_owned();
    manifest.annotations.insert(media::TITLE.to_owned(), title);
    let manifest = manifest.to_bytes();
    let mut part = serde_json::to_value(Descriptor::of(media::MANIFEST, &manifest)).unwrap();
    part["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [part] });
    for blob in [config, object, manifest] {
        layout.add_blob(blob);
    }
    layout
        .add_index(index.to_string().into_bytes(), Some("v1"))
        .unwrap();
    layout
}

#[test]
fn packages_of_others_are_signed_and_verified_in_a_layout_and_in_a_registry() {
    let desk = Desk::new();
    let registry = Registry::start();
    let packed = desk.ok("pack x.bpf.o -o bpfman.tar --format bpfman --name drop --version 1.0");
    let layout = gadget();
    let mut tar = Vec::new();
    layout.write(&mut tar, 0).unwrap();
    desk.0.write("gadget.tar", tar);
    let gadget = layout.bundle_descriptor().unwrap().digest;
    for (name, digest) in [
        ("bpfman", packed["digest"].clone()),
        ("gadget", json!(gadget)),
    ] {
        let place = registry.reference(&format!("others/{name}"));
        desk.ok(&format!("push {name}.tar {place}:v1"));
        desk.sign_and_verify(&format!("{name}.tar"), "drop", &digest);
        let scope = place.replace("http://", "");
        desk.sign_and_verify(&format!("{place}:v1"), &scope, &digest);
    }
}

#[test]
fn what_bpfman_s_layout_cannot_hold_is_said() {
    let desk = Desk::new();
    for (words, want) in [
        (
            "pack x.bpf.o -o o.tar --format bpfman --tunable x",
            "no place for tunables",
        ),
        (
            "pack x.bpf.o -o o.tar --format bpfman --annotation a=b",
            "no place for tunables",
        ),
        (
            "pack x.bpf.o x.bpf.o -o o.tar --format bpfman",
            "holds one object",
        ),
        ("pack x.bpf.o -o o.tar --format ig", "ig"),
    ] {
        let said = desk.run(words);
        assert_eq!(said.code, 2, "{words}: {}", said.err);
        assert!(said.err.contains(want), "{words}: {}", said.err);
    }
}
