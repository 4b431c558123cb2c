//! Signing by one's own identity: a browser that this test plays, against an issuer that it
//! starts. What does not answer the question that was asked signs nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tests::{
    e2e::program,
    sigstore::{CODE, Scene},
};

/// `bpfseal sign-blob` that waits for a login.
fn sign(scene: &Scene, more: &[&str], variables: &[(&str, &str)]) -> Signing {
    let child = Command::new(program("bpfseal"))
        .args(["sign-blob", "--bundle", "b.json", "tool"])
        .args(["--trusted-root", "root.json"])
        .args(["--signing-config", "first.json"])
        .args(more)
        .current_dir(scene.workshop.path(""))
        .env("HOME", scene.workshop.path(""))
        .env_remove("BROWSER")
        .env_remove("DISPLAY")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Signing {
        child,
        said: String::new(),
    }
}

fn is_signed(scene: &Scene) -> bool {
    scene.workshop.path("b.json").exists()
}

struct Signing {
    child: Child,
    /// What was read of standard error so far.
    said: String,
}

impl Signing {
    /// The address that it prints.
    fn address(&mut self) -> String {
        self.line("http")
    }

    /// The next line that begins so; the process may not end before.
    fn line(&mut self, begins: &str) -> String {
        let mut lines = BufReader::new(self.child.stderr.as_mut().unwrap());
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "{}", self.said);
            self.said += &line;
            if line.trim().starts_with(begins) {
                return line.trim().to_owned();
            }
        }
    }

    /// Exit code, the JSON, and everything that it said.
    fn end(mut self) -> (i32, Value, String) {
        let mut out = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        let mut err = self.child.stderr.take().unwrap();
        err.read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let document = serde_json::from_str(&out).unwrap_or_default();
        (code, document, self.said + &out)
    }
}

/// What a browser does with an address: the status, where it is sent, and the page.
fn visit(url: &str) -> (u16, Option<String>, String) {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut stream = TcpStream::connect(host.replace("localhost", "127.0.0.1")).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    let location = reply
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    let page = reply.split("\r\n\r\n").nth(1).unwrap_or_default();
    (status, location.map(str::to_owned), page.to_owned())
}

#[test]
fn a_person_logs_in_and_signs_by_their_address() {
    let scene = Scene::new();
    // A browser that only tells the test where it was sent.
    let pipe = scene.workshop.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let browser = scene.workshop.write(
        "browser",
        format!("#!/bin/sh\nprintf '%s' \"$1\" > {}\n", pipe.display()),
    );
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
    let name = format!("/nowhere/at-all:{}", browser.display());
    let mut signing = sign(&scene, &["--browser"], &[("BROWSER", &name)]);
    signing.line("log in with the browser that opens");
    let address = fs::read_to_string(&pipe).unwrap();

    let (status, back, _) = visit(&address);
    assert_eq!(status, 302);
    let back = back.unwrap();
    assert!(back.starts_with("http://localhost:"), "{back}");
    // Strangers on this machine, and a browser's own curiosity, are turned away.
    let (home, _) = back.split_once("/auth").unwrap();
    for other in [
        "/favicon.ico",
        "/auth/callback?code=evil&state=guessed",
        "/",
    ] {
        assert_eq!(visit(&format!("{home}{other}")).0, 404, "{other}");
    }
    // A connection that stays idle keeps nobody waiting.
    let idle = TcpStream::connect(home.replace("http://localhost", "127.0.0.1")).unwrap();
    let (status, _, page) = visit(&back);
    assert_eq!(
        (status, page.as_str()),
        (200, "You are logged in; this page can be closed.")
    );
    drop(idle);

    let (code, _, said) = signing.end();
    assert_eq!(code, 0, "{said}");
    let issuer = format!("http://{}", scene.sigstore.address);
    assert!(!said.contains(CODE), "{said}");
    let verify = [
        "verify-blob",
        "--bundle",
        "b.json",
        "--trusted-root",
        "root.json",
        "tool",
        "--certificate-identity",
        "ann@acme.test",
        "--certificate-oidc-issuer",
        &issuer,
    ];
    scene.workshop.done(&program("bpfseal"), verify);
}

#[test]
fn without_a_browser_the_address_is_printed_and_no_secret_is() {
    let scene = Scene::new();
    let mut signing = sign(&scene, &["--no-browser"], &[("BROWSER", "/nowhere/at-all")]);
    let address = signing.address();
    assert!(!address.contains("code_verifier"), "{address}");
    let (_, back, _) = visit(&address);
    assert_eq!(visit(&back.unwrap()).0, 200);
    let (code, _, said) = signing.end();
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains(CODE), "{said}");
}

#[test]
fn what_answers_another_question_signs_nothing() {
    for (lie, want, says) in [
        ("refuse", 2, "the login was refused: access_denied"),
        (
            "nonce",
            4,
            "the identity token answers another question (nonce)",
        ),
        // The code belongs to a challenge whose verifier this process does not have.
        ("challenge", 4, "answered 400: invalid_grant"),
    ] {
        let scene = Scene::new();
        let mut signing = sign(&scene, &["--no-browser", "--json"], &[]);
        let address = signing.address();
        let (_, back, _) = visit(&format!("{address}&lie={lie}"));
        visit(&back.unwrap());
        let (code, document, said) = signing.end();
        assert_eq!(code, want, "{lie}: {said}");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{lie}: {message}");
        assert!(!said.contains(CODE), "{lie}: {said}");
        assert!(!is_signed(&scene), "{lie}");
    }
}

#[test]
fn nobody_is_asked_where_nobody_can_answer_or_listen_in() {
    let scene = Scene::new();
    for (more, says) in [
        (&[][..], "no CI system offers an identity"),
        (
            &["--browser", "--oidc-issuer", "http://issuer.test"],
            "only https is safe",
        ),
    ] {
        let (code, document, said) = sign(&scene, &[more, &["--json"]].concat(), &[]).end();
        assert_eq!(code, 2, "{said}");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert!(!is_signed(&scene));
    }
}
