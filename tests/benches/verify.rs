//! Verification in process: one bundle with a signature and five attestations, all of which
//! the rule asks for, from the bytes of the tar to the decision. Once everything is by a key,
//! once without a key (certificate, log entry, time stamp), from a local deployment.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use bundle::layout::{Layout, Limits};
use policy::{Admitted, Context, Policy};
use serde_json::json;
use tests::{
    e2e::Workshop,
    sigstore::{LogApi, Sigstore},
};

/// Runs of each measurement; odd, so that there is a median.
const RUNS: usize = 301;
const ATTESTATIONS: usize = 5;
const FLOW: &str = "https://ci.test/acme/xdp/.ci/release.yml@refs/tags/v1";

fn main() {
    let workshop = Workshop::with_keys("ecdsa-p256");
    let sigstore = Sigstore::start(&workshop.path(""));
    workshop.write("root.json", sigstore.trusted_root());
    workshop.write("config.json", sigstore.signing_config(LogApi::Second));
    let token = sigstore.token(&json!({
        "iss": "https://token.test", "aud": "sigstore", "exp": 4_000_000_000_u64, "sub": FLOW,
    }));
    println!(
        "{RUNS} runs; a signature and {ATTESTATIONS} attestations, ECDSA P-256; least, median\n"
    );
    let keyless =
        format!("--identity-token {token} --trusted-root root.json --signing-config config.json");
    measure("by a key", &workshop, "--key a.key");
    measure("without a key", &workshop, &keyless);
}

fn measure(name: &str, workshop: &Workshop, by: &str) {
    workshop.bpfseal_done("pack x.bpf.o -o x.tar --name net/x --version 1.0");
    workshop.bpfseal_done(&format!("sign x.tar {by}"));
    workshop.write("predicate.json", r#"{"by":"ann"}"#);
    for number in 0..ATTESTATIONS {
        workshop.bpfseal_done(&format!(
            "attest x.tar --predicate predicate.json --type {} {by}",
            predicate_type(number)
        ));
    }
    let tar = fs::read(workshop.path("x.tar")).unwrap();
    let policy = policy(workshop);
    let verify = || -> Admitted {
        let layout = Layout::read(tar.as_slice(), &Limits::default()).unwrap();
        let verified = policy::verify(layout.bundle().unwrap(), &policy, "net/x").unwrap();
        policy::admit(verified, &policy, &Context::of("net/x")).unwrap()
    };
    assert_eq!(verify().bundle().evidence().len(), 1 + ATTESTATIONS);
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(verify());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{name:16} {:6.2} ms {:6.2} ms",
        ms(times[0]),
        ms(times[RUNS / 2])
    );
}

fn predicate_type(number: usize) -> String {
    format!("https://acme.example/review-{number}/v1")
}

fn policy(workshop: &Workshop) -> Policy {
    let require: Vec<String> = (0..ATTESTATIONS).map(predicate_type).collect();
    let text = format!(
        r#"
[keys.release]
file = "a.pub"
[keyless.ci]
identity = "{FLOW}"
issuer = "https://token.test"
trusted_root = "root.json"
[[rule]]
name = "net"
scope = "net/*"
signed_by = {{ of = ["release", "ci"] }}
require = {require:?}
"#
    );
    Policy::parse(&text, &|name| fs::read(workshop.path(name))).unwrap()
}
