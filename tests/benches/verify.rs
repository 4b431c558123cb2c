//! Verification in process: one bundle with a signature and five attestations, all of which
//! the rule asks for, from the bytes of the tar to the decision. Once everything is by a key,
//! once without a key (certificate, log entry, time stamp), from a local deployment. Beside the
//! time that passes, in which others have the processor too, stands the processor's time: what a
//! run costs on a machine that has nothing else to do.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant, SystemTime},
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
        "{RUNS} runs; a signature and {ATTESTATIONS} attestations, ECDSA P-256; least and median of the \
         time that passes, then of the processor's\n"
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
        let now = SystemTime::now().try_into().unwrap();
        let layout = Layout::read(tar.as_slice(), &Limits::default()).unwrap();
        let bundle = layout.bundle().unwrap();
        let verified = policy::verify(bundle, &policy, "net/x", now).unwrap();
        policy::admit(verified, &policy, &Context::of("net/x")).unwrap()
    };
    assert_eq!(verify().bundle().evidence().len(), 1 + ATTESTATIONS);
    let (mut passed, mut used): (Vec<Duration>, Vec<Duration>) = (0..RUNS)
        .map(|_| {
            let (start, before) = (Instant::now(), processor_time());
            black_box(verify());
            (start.elapsed(), processor_time() - before)
        })
        .unzip();
    passed.sort_unstable();
    used.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{name:16} {:6.2} ms {:6.2} ms   {:6.2} ms {:6.2} ms",
        ms(passed[0]),
        ms(passed[RUNS / 2]),
        ms(used[0]),
        ms(used[RUNS / 2])
    );
}

/// What this thread has had of processors (`Documentation/scheduler/sched-stats.rst`: the first
/// number, in nanoseconds).
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
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
