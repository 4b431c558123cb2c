//! sigstore-python, sigstore-js and cosign: what is signed here without a key verifies there,
//! and what they sign verifies here. All against a deployment that this test starts.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use bundle::Digest;
use serde_json::{Value, json};
use tests::{
    e2e::{Workshop, tool},
    lab,
    sigstore::{LogApi, Sigstore},
};

const ISSUER: &str = "https://token.test";
const FLOW: &str = "https://ci.test/acme/xdp/.ci/release.yml@refs/tags/v1";
const SOMEBODY: &str = "https://ci.test/somebody@else";
const APIS: [(LogApi, &str); 2] = [(LogApi::First, "1"), (LogApi::Second, "2")];

struct Scene {
    workshop: Workshop,
    sigstore: Sigstore,
}

impl Scene {
    /// A file `tool`, a statement about it, the root, and what each client wants to know.
    fn new() -> Self {
        let workshop = Workshop::new();
        let sigstore = Sigstore::start(&workshop.path(""));
        let root = sigstore.trusted_root();
        workshop.write("root.json", &root);
        workshop.write("tool", "a tool");
        workshop.write("other", "another");
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "tool", "digest": { "sha256": Digest::of(b"a tool").to_hex() } }],
            "predicateType": "https://acme.example/review/v1",
            "predicate": { "by": "ann" },
        });
        workshop.write("statement.json", statement.to_string());
        let root: Value = serde_json::from_str(&root).unwrap();
        for (api, name) in APIS {
            let config = sigstore.signing_config(api);
            workshop.write(&format!("config-{name}.json"), &config);
            let config: Value = serde_json::from_str(&config).unwrap();
            let trust = json!({
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": root,
                "signingConfig": config,
            });
            workshop.write(&format!("trust-{name}.json"), trust.to_string());
        }
        Self { workshop, sigstore }
    }

    fn token(&self) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = since.as_secs();
        self.sigstore.token(&json!({
            "iss": ISSUER, "aud": "sigstore", "sub": FLOW,
            "iat": now - 10, "nbf": now - 10, "exp": now + 600,
        }))
    }

    /// Signs `tool` here, by each API of the log.
    fn sign_here(&self, api: &str) -> String {
        let bundle = format!("ours-{api}.json");
        self.workshop.bpfseal_done(&format!(
            "sign-blob --identity-token {} --bundle {bundle} --trusted-root root.json \
             --signing-config config-{api}.json tool",
            self.token()
        ));
        bundle
    }

    /// `bundle` is by the workflow over `tool`, and by nobody else over nothing else.
    fn verifies_here(&self, bundle: &str) {
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
            let got = self.workshop.bpfseal_refusal(&verify(who, what));
            assert_eq!(got, (1, want.into()), "{bundle}: {who} {what}");
        }
    }

    /// `program words` succeeds, and does not for another identity nor for another file.
    fn verifies_there(&self, program: &Path, words: impl Fn(&str, &str) -> Vec<String>) {
        let run = |who, what| self.workshop.run(program, words(who, what));
        let said = run(FLOW, "tool");
        let asked = words(FLOW, "tool").join(" ");
        assert_eq!(said.code, 0, "{asked}: {}{}", said.out, said.err);
        for (who, what) in [(SOMEBODY, "tool"), (FLOW, "other")] {
            assert_ne!(run(who, what).code, 0, "{who} {what} was accepted");
        }
    }
}

/// Where a client is, unless it cannot be had: then that is said for `test`.
fn client(test: &str, name: &str) -> Option<PathBuf> {
    let script = lab::workspace().join("tests/lab/sigstore-clients.sh");
    let output = Command::new(script).arg(name).output().unwrap();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().last().unwrap_or("no reason given");
        println!("SKIPPED {test}: sigstore-{name}: {why}");
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn sigstore_python_and_we_agree() {
    let Some(python) = client("sigstore_python_and_we_agree", "python") else {
        return;
    };
    let scene = Scene::new();
    for (_, api) in APIS {
        let trust = format!("trust-{api}.json");
        let ours = scene.sign_here(api);
        scene.verifies_there(&python, |who, what| {
            words([
                "--trust-config",
                &trust,
                "verify",
                "identity",
                "--offline",
                "--bundle",
                &ours,
                "--cert-identity",
                who,
                "--cert-oidc-issuer",
                ISSUER,
                what,
            ])
        });
        let (signed, attested) = (format!("signed-{api}.json"), format!("attested-{api}.json"));
        let token = scene.token();
        let sign = ["--trust-config", &trust, "sign", "--identity-token", &token];
        scene
            .workshop
            .done(&python, sign.iter().chain(&["--bundle", &signed, "tool"]));
        scene.verifies_here(&signed);
        // Its `attest` wants one of two types of predicate.
        let predicate = json!({ "buildDefinition": {
            "buildType": "https://acme.example/b", "externalParameters": {},
        }, "runDetails": { "builder": { "id": "https://acme.example/b" } } });
        scene
            .workshop
            .write("predicate.json", predicate.to_string());
        let attest = [
            "--trust-config",
            &trust,
            "attest",
            "--identity-token",
            &token,
            "--predicate",
            "predicate.json",
            "--predicate-type",
            "https://slsa.dev/provenance/v1",
            "--bundle",
            &attested,
            "tool",
        ];
        scene.workshop.done(&python, attest);
        scene.verifies_here(&attested);
    }
}

#[test]
fn sigstore_js_and_we_agree() {
    let Some(packages) = client("sigstore_js_and_we_agree", "js") else {
        return;
    };
    let packages = packages.to_str().unwrap();
    let script = lab::workspace().join("tests/lab/sigstore-js/client.cjs");
    let script = script.to_str().unwrap();
    let node = PathBuf::from("node");
    let scene = Scene::new();
    let url = format!("http://{}", scene.sigstore.address);
    for (_, api) in APIS {
        let ours = scene.sign_here(api);
        scene.verifies_there(&node, |who, what| {
            words([
                script,
                packages,
                "verify",
                "root.json",
                &ours,
                who,
                ISSUER,
                what,
            ])
        });
        let token = scene.token();
        // For logs of version 2 it writes attestations in a form that they no longer take.
        let attest = (api == "1").then_some(("attest", "statement.json"));
        for (command, what) in [("sign", "tool")].into_iter().chain(attest) {
            let theirs = format!("{command}-{api}.json");
            let make = [script, packages, command, &url, api, &token, &theirs, what];
            scene.workshop.done(&node, make);
            scene.verifies_here(&theirs);
        }
    }
}

#[test]
fn cosign_verifies_what_is_signed_here_without_a_key() {
    let scene = Scene::new();
    for (api, name) in APIS {
        let ours = scene.sign_here(name);
        let stamped = match api {
            LogApi::First => "--use-signed-timestamps=false",
            LogApi::Second => "--use-signed-timestamps=true",
        };
        scene.verifies_there(&tool("cosign"), |who, what| {
            words([
                "verify-blob",
                "--bundle",
                &ours,
                "--trusted-root",
                "root.json",
                stamped,
                "--certificate-identity",
                who,
                "--certificate-oidc-issuer",
                ISSUER,
                what,
            ])
        });
    }
}
