//! A workshop beside a deployment: what tests of keyless signing begin with.

use std::path::Path;

use bundle::Digest;
use serde_json::{Value, json};

use super::{LogApi, Sigstore, now};
use crate::e2e::Workshop;

/// A folder with a file `tool`, one `other`, the deployment's `root.json` and its signing configs.
pub struct Scene {
    /// The folder.
    pub workshop: Workshop,
    /// The deployment.
    pub sigstore: Sigstore,
}

/// Who vouches for [`FLOW`].
pub const ISSUER: &str = "https://token.test";
/// The workflow that signs.
pub const FLOW: &str = "https://ci.test/acme/xdp/.ci/release.yml@refs/tags/v1";
/// Both versions of the log's API, and what their files are called: `first.json` is a signing
/// config, `trust-first.json` one together with the root (sigstore-python's `--trust-config`).
pub const APIS: [(LogApi, &str); 2] = [(LogApi::First, "first"), (LogApi::Second, "second")];

impl Scene {
    /// One with the stand-ins alone.
    #[expect(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Self {
        Self::with(Sigstore::start, &APIS)
    }

    /// One whose log (version 2) and time-stamp authority are the real ones; its signing config is
    /// `second.json`.
    pub fn with_real_services() -> Self {
        Self::with(Sigstore::start_real, &APIS[1..])
    }

    fn with(start: impl Fn(&Path) -> Sigstore, apis: &[(LogApi, &str)]) -> Self {
        let workshop = Workshop::new();
        let sigstore = start(&workshop.path(""));
        let root = sigstore.trusted_root();
        workshop.write("tool", "a tool");
        workshop.write("other", "another");
        workshop.write("root.json", &root);
        let root: Value = serde_json::from_str(&root).expect("a root is JSON");
        for &(api, name) in apis {
            let config = sigstore.signing_config(api);
            workshop.write(&format!("{name}.json"), &config);
            let config: Value = serde_json::from_str(&config).expect("a config is JSON");
            let trust = json!({
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": root,
                "signingConfig": config,
            });
            workshop.write(&format!("trust-{name}.json"), trust.to_string());
        }
        Self { workshop, sigstore }
    }

    /// A token for ten minutes; `claims` add to it or replace what it says.
    pub fn token(&self, claims: Value) -> String {
        let now = now();
        let mut all = json!({
            "iss": ISSUER, "aud": "sigstore", "iat": now - 10, "nbf": now - 10, "exp": now + 600,
        });
        if let (Some(all), Value::Object(claims)) = (all.as_object_mut(), claims) {
            all.extend(claims);
        }
        self.sigstore.token(&all)
    }

    /// Signs `tool` as the workflow, here, by this signing config; names the bundle.
    pub fn sign_here(&self, config: &str) -> String {
        self.make_here(config, "ours", "tool")
    }

    /// The same for a statement about `tool`.
    pub fn attest_here(&self, config: &str) -> String {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "tool", "digest": { "sha256": Digest::of(b"a tool").to_hex() } }],
            "predicateType": "https://acme.example/review/v1",
            "predicate": { "by": "ann" },
        });
        self.workshop.write("statement.json", statement.to_string());
        self.make_here(config, "attested-here", "--in-toto statement.json")
    }

    fn make_here(&self, config: &str, name: &str, what: &str) -> String {
        let bundle = format!("{name}-{config}.json");
        let token = self.token(json!({ "sub": FLOW }));
        self.workshop.bpfseal_done(&format!(
            "sign-blob --identity-token {token} --bundle {bundle} --trusted-root root.json \
             --signing-config {config}.json {what}"
        ));
        bundle
    }

    /// `bundle` is by the workflow over `tool`, logged, and by nobody else over nothing else.
    pub fn verifies_here(&self, bundle: &str) -> Value {
        let verify = |who: &str, what: &str| {
            format!(
                "verify-blob --bundle {bundle} --trusted-root root.json \
                 --certificate-identity {who} --certificate-oidc-issuer {ISSUER} {what}"
            )
        };
        let got = self.workshop.bpfseal_done(&verify(FLOW, "tool"));
        assert_eq!(got["logged"], true, "{bundle}: {got}");
        let digest = Digest::of(b"a tool").to_string();
        self.workshop.bpfseal_done(&verify(FLOW, &digest));
        for (who, what, want) in [
            (SOMEBODY, "tool", "wrong-identity"),
            (FLOW, "other", "wrong-subject"),
        ] {
            let said = self.workshop.bpfseal_refusal(&verify(who, what));
            assert_eq!(said, (1, want.into()), "{bundle}: {who} {what}");
        }
        got
    }

    /// `program words(who, what)` succeeds for the workflow and `tool`, and for nobody and nothing
    /// else.
    pub fn verifies_there(&self, program: &Path, words: impl Fn(&str, &str) -> Vec<String>) {
        let run = |who, what| self.workshop.run(program, words(who, what));
        let said = run(FLOW, "tool");
        let asked = words(FLOW, "tool").join(" ");
        assert_eq!(said.code, 0, "{asked}: {}{}", said.out, said.err);
        for (who, what) in [(SOMEBODY, "tool"), (FLOW, "other")] {
            assert_ne!(run(who, what).code, 0, "{who} {what} was accepted");
        }
    }
}

const SOMEBODY: &str = "https://ci.test/somebody@else";
