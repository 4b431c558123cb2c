//! Whole processes against Debian's cosign: signing and verifying with a key, offline.
//!
//! The runs of all programs alternate, so that a busy machine slows them alike; medians
//! and their ratios are printed, and peak memory. `cosign` always derives a key from a
//! passphrase, an empty one if there is none.

#![expect(unsafe_code, reason = "wait4, which alone tells a child's peak memory")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::zombie_processes, reason = "wait4 reaps the child")]

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tests::e2e::{Workshop, program, tool};

/// Runs of each program; odd, so that there is a median.
const RUNS: usize = 41;

struct Contender {
    name: &'static str,
    program: PathBuf,
    args: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
    times: Vec<Duration>,
    /// KiB.
    memory: Vec<i64>,
}

fn main() {
    let workshop = Workshop::new();
    // Copied, as an installation copies them: what a linker wrote lies in the page cache in
    // smaller pieces, and takes longer to map (0.35 ms of ours).
    let installed = |name: &str, from: PathBuf| {
        let to = workshop.path(name);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let ours = installed("bpfseal", program("bpfseal"));
    let cosign = installed("cosign", tool("cosign"));
    prepare(&workshop, &ours, &cosign);
    let contender = |name, program: &PathBuf, args: &[&'static str], variables: &[_]| Contender {
        name,
        program: program.clone(),
        args: args.to_vec(),
        variables: variables.to_vec(),
        times: Vec::new(),
        memory: Vec::new(),
    };
    let secret = ("BPFSEAL_PASSPHRASE", "secret");
    let cosign_sign = [
        "sign-blob",
        "--key",
        "cosign.key",
        "--bundle",
        "signed.json",
        "--tlog-upload=false",
        "--use-signing-config=false",
        "--yes",
        "probe.bpf.o",
    ];
    let cosign_verify = [
        "verify-blob",
        "--key",
        "cosign.pub",
        "--bundle",
        "blob.json",
        "--insecure-ignore-tlog",
        "probe.bpf.o",
    ];
    println!("{RUNS} alternating runs of each; wall time of the whole process, peak memory\n");
    measure(
        &workshop,
        "verify",
        vec![
            contender("cosign", &cosign, &cosign_verify, &[]),
            contender(
                "bpfseal",
                &ours,
                &["verify", "signed.tar", "--key", "plain.pub"],
                &[],
            ),
        ],
    );
    measure(
        &workshop,
        "sign",
        vec![
            contender(
                "cosign, with a passphrase",
                &cosign,
                &cosign_sign,
                &[("COSIGN_PASSWORD", "secret")],
            ),
            contender(
                "bpfseal, without",
                &ours,
                &["sign", "bundle.tar", "--key", "plain.key", "-o", "out.tar"],
                &[],
            ),
            contender(
                "bpfseal, with one",
                &ours,
                &["sign", "bundle.tar", "--key", "sealed.key", "-o", "out.tar"],
                &[secret],
            ),
        ],
    );
}

/// Keys, a bundle, and signatures to verify.
fn prepare(workshop: &Workshop, ours: &PathBuf, cosign: &PathBuf) {
    workshop.write("probe.bpf.o", bundle::fixture::object("socket", "probe"));
    let done = |program: &PathBuf, args: &[&str]| {
        let variables = [
            ("COSIGN_PASSWORD", "secret"),
            ("BPFSEAL_PASSPHRASE", "secret"),
        ];
        let said = workshop.run_with(program, args, &variables);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    };
    done(ours, &["keygen", "-o", "plain", "--no-passphrase"]);
    done(ours, &["keygen", "-o", "sealed"]);
    done(ours, &["pack", "probe.bpf.o", "-o", "bundle.tar"]);
    done(
        ours,
        &[
            "sign",
            "bundle.tar",
            "--key",
            "plain.key",
            "-o",
            "signed.tar",
        ],
    );
    done(cosign, &["generate-key-pair"]);
    done(
        cosign,
        &[
            "sign-blob",
            "--key",
            "cosign.key",
            "--bundle",
            "blob.json",
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--yes",
            "probe.bpf.o",
        ],
    );
}

fn measure(workshop: &Workshop, what: &str, mut contenders: Vec<Contender>) {
    for round in 0..=RUNS {
        for contender in &mut contenders {
            let (time, memory) = run(workshop, contender);
            // The first round only warms the page cache.
            if round > 0 {
                contender.times.push(time);
                contender.memory.push(memory);
            }
        }
    }
    let medians: Vec<_> = contenders
        .iter_mut()
        .map(|c| {
            (
                median(&mut c.times).as_secs_f64() * 1e3,
                median(&mut c.memory) as f64 / 1024.0,
            )
        })
        .collect();
    let (first_time, first_memory) = medians[0];
    println!("{what}");
    for (contender, (time, memory)) in contenders.iter().zip(medians) {
        println!(
            "  {:26} {time:8.2} ms {memory:7.1} MiB   {:6.1} times as fast, {:4.1} times the memory",
            contender.name,
            first_time / time,
            memory / first_memory,
        );
    }
    println!();
}

/// Wall time and peak memory of one run, which has to succeed.
fn run(workshop: &Workshop, contender: &Contender) -> (Duration, i64) {
    let start = Instant::now();
    let child = Command::new(&contender.program)
        .args(&contender.args)
        .current_dir(workshop.path(""))
        .env("HOME", workshop.path(""))
        // Cargo's, in which no installed program looks for libraries.
        .env_remove("LD_LIBRARY_PATH")
        .envs(contender.variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: both pointers are to live values of the types that wait4(2) fills, and an
    // all-zero rusage is a valid value.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage), usage)
    };
    let time = start.elapsed();
    assert_eq!(
        (waited, status),
        (pid, 0),
        "{}: {:?}",
        contender.name,
        contender.args
    );
    (time, usage.ru_maxrss)
}

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
