//! Instances whose policy keeps what is unsigned from readers.

use std::fs;

use bundle::{manifest::Descriptor, media};
use policy::{key::Algorithm, signature, signer};
use ring::rand::SystemRandom;

use super::{Client, Server, sha256, users};

/// Who may do what, and that `tools/*` has a policy.
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
[[access]]
who = ["operator"]
repository = "*"
actions = ["admin"]
[[repository]]
name = "tools/*"
policy = "policy.toml"
"#;

/// `threshold` of two keys must sign programs of `types`.
pub fn policy_for(threshold: u32, types: &str) -> String {
    format!(
        "version = 1\nmode = \"enforce\"\n\
         [keys.first]\nfile = \"first.pub\"\n[keys.second]\nfile = \"second.pub\"\n\
         [[rule]]\nname = \"tools\"\nscope = \"registry.example/tools/*\"\n\
         signed_by = {{ of = [\"first\", \"second\"], at_least = {threshold} }}\n\
         program_types = [{types}]\n"
    )
}

/// Instances with a policy, those who push, sign and read there, and two keys.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub servers: Vec<Server>,
    pub keys: [signer::Signer; 2],
}

impl Bench {
    pub fn new(threshold: u32) -> Self {
        Self::with(threshold, 1, &[])
    }

    /// So many instances, all with the same flags.
    pub fn with(threshold: u32, instances: usize, flags: &[&str]) -> Self {
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
            &["pusher", "signer", "reader", "operator"],
        );
        fs::write(
            folder.path().join("policy.toml"),
            policy_for(threshold, "\"xdp\""),
        )
        .unwrap();
        let config = folder.path().join("registry.toml");
        fs::write(&config, CONFIG).unwrap();
        let flags = [&["--config", config.to_str().unwrap()], flags].concat();
        let roots = (0..instances).map(|n| match n {
            0 => folder.path().join("root"),
            n => folder.path().join(format!("root{n}")),
        });
        let servers = roots.map(|root| Server::with(&root, &flags)).collect();
        Self {
            folder,
            servers,
            keys,
        }
    }

    /// A client of the first instance.
    pub fn user(&self, name: &str) -> Client {
        self.at(0, name)
    }

    /// A client of an instance.
    pub fn at(&self, instance: usize, name: &str) -> Client {
        self.servers[instance].user(name, &format!("pw-{name}"))
    }

    /// Writes a file of the configuration's folder; the servers read it at once.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
        self.servers.iter().for_each(Server::hangup);
    }

    /// What `CONFIG` says, and `more`.
    pub fn configure(&self, more: &str) {
        self.write("registry.toml", &format!("{CONFIG}{more}"));
    }

    /// Attaches a signature, as the signer; returns its manifest's digest.
    pub fn sign(&self, repository: &str, manifest: &str, key: usize) -> String {
        self.sign_at(0, repository, manifest, key)
    }

    /// The same at an instance.
    pub fn sign_at(&self, instance: usize, repository: &str, manifest: &str, key: usize) -> String {
        let subject = Descriptor::of(media::MANIFEST, manifest.as_bytes());
        let random = SystemRandom::new();
        let attached = signature::sign(&subject, &self.keys[key], None, &random).unwrap();
        let mut signer = self.at(instance, "signer");
        for blob in &attached.blobs {
            signer.push_blob(repository, blob);
        }
        let text = String::from_utf8(attached.manifest).unwrap();
        signer.push_manifest(repository, &sha256(text.as_bytes()), &text)
    }

    /// What the three get.
    pub fn statuses(&self, path: &str) -> [u16; 3] {
        ["pusher", "signer", "reader"].map(|who| self.user(who).get(path).status)
    }
}

/// Pushes the parts of a bundle of one program; returns its manifest.
pub fn bundle_of(client: &mut Client, repository: &str, section: &str) -> Vec<u8> {
    let object = bundle::fixture::object(section, "program");
    let objects = vec![("program.bpf.o".to_owned(), object)];
    let options = bundle::pack::PackOptions {
        name: Some("probe".to_owned()),
        version: Some("1.2.0".to_owned()),
        ..Default::default()
    };
    let packed = bundle::pack::pack(objects, &options).unwrap();
    client.push_blob(repository, &packed.config);
    client.push_blob(repository, &packed.layers[0].1);
    packed.manifest
}
