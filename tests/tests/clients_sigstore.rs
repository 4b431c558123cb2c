//! sigstore-python, sigstore-js and cosign: what is signed here without a key verifies there,
//! and what they sign verifies here. All against a deployment that this test starts.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::PathBuf, process::Command};

use serde_json::json;
use tests::{
    e2e::tool,
    lab,
    sigstore::{APIS, FLOW, ISSUER, LogApi, Scene},
};

/// A deployment for each version of the log's API, of stand-ins, and one with the real log and
/// the real time-stamp authority.
fn scenes() -> [(Scene, LogApi, &'static str); 3] {
    let [first, second] = APIS;
    [
        (Scene::new(), first.0, first.1),
        (Scene::new(), second.0, second.1),
        (Scene::with_real_services(), second.0, second.1),
    ]
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
    for (scene, _, api) in scenes() {
        let trust = format!("trust-{api}.json");
        for ours in [scene.sign_here(api), scene.attest_here(api)] {
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
        }
        let (signed, attested) = (format!("signed-{api}.json"), format!("attested-{api}.json"));
        let token = scene.token(json!({ "sub": FLOW }));
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
    for (scene, api, name) in scenes() {
        scene.verifies_here(&scene.attest_here(name));
        let urls = scene.sigstore.urls().join(",");
        let ours = scene.sign_here(name);
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
        let token = scene.token(json!({ "sub": FLOW }));
        // For logs of version 2 it writes attestations in a form that they no longer take.
        let attest = (api == LogApi::First).then_some(("attest", "statement.json"));
        let api = if api == LogApi::First { "1" } else { "2" };
        for (command, what) in [("sign", "tool")].into_iter().chain(attest) {
            let theirs = format!("{command}-{api}.json");
            let make = [script, packages, command, &urls, api, &token, &theirs, what];
            scene.workshop.done(&node, make);
            scene.verifies_here(&theirs);
        }
    }
}

#[test]
fn cosign_and_we_agree_without_a_key() {
    let cosign = tool("cosign");
    for (scene, api, name) in scenes() {
        let stamped = match api {
            LogApi::First => "--use-signed-timestamps=false",
            LogApi::Second => "--use-signed-timestamps=true",
        };
        let verifies_there = |bundle: &str| {
            scene.verifies_there(&cosign, |who, what| {
                words([
                    "verify-blob",
                    "--bundle",
                    bundle,
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
        };
        verifies_there(&scene.sign_here(name));
        let token = scene.token(json!({ "sub": FLOW }));
        let config = format!("{name}.json");
        let sign = ["sign-blob", "--yes", "--identity-token", &token];
        let by = ["--signing-config", &config, "--trusted-root", "root.json"];
        let what = ["--bundle", "cosign.json", "tool"];
        scene
            .workshop
            .done(&cosign, [&sign[..], &by, &what].concat());
        verifies_there("cosign.json");
        scene.verifies_here("cosign.json");
    }
}
