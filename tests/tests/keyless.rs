//! Keyless signing from end to end, against a deployment that this test starts: what is made
//! verifies by its root and no other, and a service that is lied to makes nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};
use tests::{
    e2e::{Said, Workshop, program},
    sigstore::{self, FLOW, ISSUER, Scene, Sigstore},
};

/// Packs the bundle `x.tar`.
fn pack(scene: &Scene) {
    let object = bundle::fixture::object("socket", "probe");
    scene.workshop.write("x.bpf.o", object);
    done(scene, "pack x.bpf.o -o x.tar --name net/x --version 1.0");
}

fn run(scene: &Scene, words: &str) -> Said {
    scene.workshop.bpfseal(words)
}

fn done(scene: &Scene, words: &str) -> Value {
    scene.workshop.bpfseal_done(words)
}

fn refusal(scene: &Scene, words: &str) -> (i32, Value) {
    scene.workshop.bpfseal_refusal(words)
}

#[test]
fn a_file_signed_without_a_key_verifies_by_the_root_alone() {
    let scene = Scene::new();
    for (claims, who) in [
        (json!({ "sub": FLOW }), FLOW),
        (
            json!({ "sub": "7", "email": "ann@acme.test", "email_verified": true }),
            "ann@acme.test",
        ),
    ] {
        let token = scene.token(claims);
        for config in ["first", "second"] {
            let made = done(
                &scene,
                &format!(
                    "sign-blob --identity-token {token} --bundle b.json --trusted-root root.json \
                 --signing-config {config}.json tool"
                ),
            );
            assert_eq!(
                (&made["identity"], &made["issuer"]),
                (&who.into(), &ISSUER.into()),
                "{config}"
            );
            let verify = format!(
                "verify-blob --bundle b.json --certificate-oidc-issuer {ISSUER} --certificate-identity"
            );
            let root = "--trusted-root root.json tool";
            let got = done(&scene, &format!("{verify} {who} {root}"));
            assert_eq!(
                (&got["logged"], got["times"].as_array().map(Vec::len)),
                (&true.into(), Some(1)),
                "{config}"
            );
            assert_eq!(
                refusal(&scene, &format!("{verify} bob@acme.test {root}")),
                (1, "wrong-identity".into())
            );
            // The public-good instance knows nothing of it.
            let (code, reason) = refusal(&scene, &format!("{verify} {who} tool"));
            assert_eq!(code, 1);
            assert!(
                ["bad-log-entry", "no-trusted-time", "bad-certificate"]
                    .contains(&reason.as_str().unwrap()),
                "{reason}"
            );
        }
    }
}

#[test]
fn a_bundle_signed_without_a_key_is_allowed_by_identity() {
    let scene = Scene::new();
    pack(&scene);
    let token = scene.token(json!({ "sub": FLOW }));
    scene.workshop.write(
        "policy.toml",
        format!(
            r#"
version = 1
[keyless.ci]
identity = "https://ci.test/acme/xdp/.ci/release.yml@refs/tags/*"
issuer = "{ISSUER}"
trusted_root = "root.json"
[[rule]]
name = "net"
scope = "net/*"
signed_by = {{ of = ["ci"] }}
require = ["inventory"]
"#
        ),
    );
    let verify = "verify x.tar --policy policy.toml";
    let services = "--trusted-root root.json --signing-config";
    assert_eq!(refusal(&scene, verify), (1, "no-signature".into()));
    for config in ["first", "second"] {
        pack(&scene);
        let by = format!("--identity-token {token} {services} {config}.json");
        done(&scene, &format!("sign x.tar {by}"));
        assert_eq!(refusal(&scene, verify), (1, "missing-attestation".into()));
        done(&scene, &format!("attest x.tar --inventory {by}"));
        let got = done(&scene, verify);
        assert_eq!(
            (
                &got["signed_by"][0]["identity"],
                &got["signed_by"][0]["issuer"]
            ),
            (&FLOW.into(), &ISSUER.into()),
            "{config}"
        );
        assert_eq!(got["attestations"].as_array().unwrap().len(), 1);
        let identity = format!(
            "verify x.tar --certificate-identity {FLOW} --certificate-oidc-issuer {ISSUER}"
        );
        done(&scene, &format!("{identity} --trusted-root root.json"));
        assert_eq!(run(&scene, &identity).code, 1);
        let said = run(&scene, &format!("{verify} --explain"));
        for line in [
            "valid     by ci",
            "log inclusion proved",
            "identity https://ci.test",
        ] {
            assert!(said.out.contains(line), "{config}: {line}: {}", said.out);
        }
    }
    // Another branch's workflow is somebody else.
    let token = scene.token(json!({ "sub": FLOW.replace("tags", "heads") }));
    pack(&scene);
    done(
        &scene,
        &format!("sign x.tar --identity-token {token} {services} first.json"),
    );
    assert_eq!(refusal(&scene, verify), (1, "untrusted-signer".into()));
}

#[test]
fn an_authority_that_is_not_convinced_certifies_nothing() {
    let scene = Scene::new();
    let claims = json!({
        "iss": ISSUER, "aud": "sigstore", "exp": 4_000_000_000_u64, "sub": FLOW,
    });
    let forged = sigstore::token(&sigstore::key(), &claims);
    let elsewhere = scene.token(json!({ "sub": FLOW, "aud": "another" }));
    let over = scene.token(json!({ "sub": FLOW, "exp": 1 }));
    for (token, code) in [
        (forged, 4),
        (elsewhere, 4),
        (over, 4),
        ("a.b".to_owned(), 2),
    ] {
        let said = run(
            &scene,
            &format!(
                "sign-blob --identity-token {token} --bundle b.json --signing-config first.json tool"
            ),
        );
        assert_eq!(said.code, code, "{}", said.err);
        assert!(!said.err.contains(&token) || code == 2, "{}", said.err);
        assert!(!scene.workshop.path("b.json").exists());
    }
}

#[test]
fn what_the_services_answer_is_checked_before_it_is_kept() {
    let scene = Scene::new();
    let other = Workshop::new();
    let elsewhere = Sigstore::start(&other.path(""));
    scene.workshop.write("other.json", elsewhere.trusted_root());
    let token = scene.token(json!({ "sub": FLOW }));
    let said = run(
        &scene,
        &format!(
            "sign-blob --identity-token {token} --bundle b.json --signing-config first.json \
         --trusted-root other.json tool"
        ),
    );
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(!scene.workshop.path("b.json").exists());
}

#[test]
fn the_ci_system_s_identity_is_found() {
    let scene = Scene::new();
    let token = scene.token(json!({ "sub": FLOW }));
    scene.workshop.write("token", &token);
    let file = scene.workshop.path("token");
    let file = file.to_str().unwrap();
    let sign = "sign-blob --bundle b.json --trusted-root root.json --signing-config first.json \
                tool --json";
    let agent = scene.workshop.write(
        "buildkite-agent",
        format!("#!/bin/sh\n[ \"$*\" = 'oidc request-token --audience sigstore' ] && cat {file}\n"),
    );
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    let home = scene.workshop.path("");
    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    let url = format!("http://{}/github?give={token}", scene.sigstore.address);
    let github = |bearer| {
        vec![
            ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer),
        ]
    };
    let in_ci = |variables: &[(&str, &str)]| {
        scene
            .workshop
            .run_with(&program("bpfseal"), sign.split_whitespace(), variables)
    };
    for variables in [
        vec![("SIGSTORE_ID_TOKEN", token.as_str())],
        vec![("SIGSTORE_ID_TOKEN_FILE", file)],
        vec![("BUILDKITE", "true"), ("PATH", path.as_str())],
        github(sigstore::BEARER),
    ] {
        let said = in_ci(&variables);
        assert_eq!(said.code, 0, "{variables:?}: {}", said.out);
        let made: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(made["identity"], FLOW, "{variables:?}");
    }
    // Where cosign has the volume projected: in a mount namespace with a `/run` of its own.
    let inside = format!(
        "mount -t tmpfs none /run && mkdir -p /run/sigstore/cosign && \
         cp {file} /run/sigstore/cosign/oidc-token && exec {} {sign}",
        program("bpfseal").display()
    );
    let namespace = ["--user", "--map-root-user", "--mount", "sh", "-c"];
    let said = scene.workshop.run(
        Path::new("unshare"),
        namespace.into_iter().chain([inside.as_str()]),
    );
    match Path::new("/var/run/sigstore/cosign").exists() || said.err.contains("unshare failed") {
        true => println!("SKIPPED the_ci_system_s_identity_is_found: no namespace for /var/run"),
        false => {
            assert_eq!(said.code, 0, "{}{}", said.out, said.err);
            let made: Value = serde_json::from_str(&said.out).unwrap();
            assert_eq!(made["identity"], FLOW, "the default path");
        }
    }
    // A system that refuses is an error, not a reason to look elsewhere.
    let mut refused = github("another");
    refused.push(("SIGSTORE_ID_TOKEN", &token));
    assert_eq!(in_ci(&refused).code, 4);
    let said = run(&scene, sign);
    assert_eq!(said.code, 2, "{}", said.out);
}
