//! Six thousand requests that are wrong in ways a seeded generator thinks up. Each answer is
//! the sender's fault, and afterwards the server is as it was.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "malformed/requests.rs"]
mod requests;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use common::{Server, eventually, users};
use requests::{Chance, Target};

/// Requests of each of the workers.
const EACH: usize = 1_000;
const WORKERS: u64 = 6;

#[test]
fn six_thousand_malformed_requests_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(folder.path(), &["--client-timeout", "2"]);
    let (files, memory, answers) = storm(&server, EACH);
    // Most break no framing: they have to be answered, not dropped.
    let answered: usize = answers.values().sum();
    assert!(answered * 10 > EACH * WORKERS as usize * 7, "{answers:?}");
    let refused: usize = answers.range(400..500).map(|(_, count)| count).sum();
    assert!(refused * 2 > answered, "{answers:?}");
    eventually(|| server.usage().1 <= files);
    // What the allocator keeps for the next time is not a leak; what grows with each is.
    let after = server.usage().0;
    assert!(after < memory + 24 * 1024, "{memory} KiB, then {after} KiB");
    let mut client = server.client();
    assert_eq!(
        client.get("/v2/a/tags/list").text(),
        r#"{"name":"a","tags":["v1"]}"#
    );
    assert_eq!(client.get("/readyz").status, 200);
    drop(client);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn malformed_credentials_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    users(&file, &["alice"]);
    let root = folder.path().join("root");
    let server = Server::with(&root, &["--htpasswd", file.to_str().unwrap()]);
    let mut chance = Chance(99);
    let files = server.usage().1;
    for n in 0..400 {
        let scheme = chance.pick(&["Basic", "Bearer", "basic", "BEARER", "Digest", "", "Basic,"]);
        let secret = match chance.below(4) {
            0 => chance.text(b"abcXYZ019+/=", 200),
            1 => chance.text(b"ey.eyJ.-_", 4_000),
            2 => format!("{}:", chance.text(b" \t:=", 20)),
            _ => "YWxpY2U6cHctYWxpY2U".repeat(chance.below(9)),
        };
        let path = chance.pick(&["/v2/", "/v2/a/tags/list", "/token?scope=x", "/metrics"]);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {scheme} {secret}\r\n\r\n"
        );
        let status = exchange(server.address, request.as_bytes(), false).unwrap();
        // `/token` gives nobody a token that is good for nothing; 431 is the longest.
        assert!(
            [200, 400, 401, 429, 431].contains(&status)
                && (status != 200 || path.starts_with("/token")),
            "{n}: {status} {request}"
        );
    }
    eventually(|| server.usage().1 <= files);
}

/// Lets workers send `each` requests after a few to warm up. Returns the descriptors and the
/// memory before, and how often each status came.
fn storm(server: &Server, each: usize) -> (usize, u64, BTreeMap<u16, usize>) {
    let target = Target::new(server);
    run(server.address, &target, 1, each / 4);
    eventually(|| server.usage().1 <= target.files);
    let memory = server.usage().0;
    let mut answers = BTreeMap::new();
    for status in run(server.address, &target, 100, each) {
        *answers.entry(status).or_default() += 1;
    }
    (target.files, memory, answers)
}

fn run(address: SocketAddr, target: &Target, seed: u64, each: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let work = |worker| {
            scope.spawn(move || {
                let mut chance = Chance(seed + worker);
                let mut answers = Vec::new();
                for n in 0..each {
                    let request = target.request(&mut chance);
                    let answer = exchange(address, &request.bytes, request.ends_early);
                    let shown = String::from_utf8_lossy(&request.bytes);
                    let shown: String = shown.chars().take(400).collect();
                    if let Some(status) = answer {
                        assert!(
                            (200..500).contains(&status),
                            "{worker}/{n}: {status} {shown}"
                        );
                    }
                    answers.extend(answer);
                }
                answers
            })
        };
        let workers: Vec<_> = (0..WORKERS).map(work).collect();
        let answers = workers.into_iter().map(|worker| worker.join().unwrap());
        answers.flatten().collect()
    })
}

/// Sends a request on a connection of its own. The status, if there was an answer.
fn exchange(address: SocketAddr, bytes: &[u8], ends_early: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // The server may refuse before everything was sent.
    let _ = stream.write_all(bytes);
    if ends_early {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    head.strip_prefix("HTTP/1.1 ")
        .or(head.strip_prefix("HTTP/1.0 "))
        .map(|status| status.parse().unwrap())
}
