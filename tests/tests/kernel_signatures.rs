//! Signatures that Linux checks itself: openssl and the kernel's sign-file as counterparts, byte
//! for byte where the algorithm is deterministic.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use policy::{
    kernel_signature::{self, Hash, Naming},
    signer::Signer,
    x509,
};
use ring::rand::SystemRandom;
use tests::{e2e::Workshop, lab::Cache};

fn openssl(workshop: &Workshop, words: &str) {
    workshop.done(Path::new("openssl"), words.split_whitespace());
}

/// A key `NAME.key` and its certificate `NAME.pem`.
fn certified(workshop: &Workshop, name: &str, algorithm: &str) -> Signer {
    openssl(
        workshop,
        &format!("genpkey -algorithm {algorithm} -out {name}.key"),
    );
    openssl(
        workshop,
        &format!("req -x509 -new -key {name}.key -subj /O=Acme/CN=BPF -days 3 -out {name}.pem"),
    );
    let key = fs::read(workshop.path(&format!("{name}.key"))).unwrap();
    let certificate = fs::read(workshop.path(&format!("{name}.pem"))).unwrap();
    let mut ask = || unreachable!("the key is not encrypted");
    let (signer, _) = Signer::from_pem(&key, &mut ask, &SystemRandom::new()).unwrap();
    signer
        .with_certificates(x509::certificates(&certificate).unwrap())
        .unwrap()
}

fn sign(content: &[u8], signer: &Signer, hash: Hash, naming: Naming) -> Vec<u8> {
    kernel_signature::sign(content, signer, hash, naming, &SystemRandom::new()).unwrap()
}

const RSA: &str = "RSA -pkeyopt rsa_keygen_bits:2048";
const CONTENT: &[u8] = b"instructions";

#[test]
fn rsa_signatures_are_those_of_openssl() {
    let workshop = Workshop::new();
    workshop.write("content", CONTENT);
    for bits in [2048, 3072, 4096] {
        let kind = format!("RSA -pkeyopt rsa_keygen_bits:{bits}");
        let signer = certified(&workshop, "rsa", &kind);
        for (hash, word) in [
            (Hash::Sha256, "sha256"),
            (Hash::Sha384, "sha384"),
            (Hash::Sha512, "sha512"),
        ] {
            for (naming, flag) in [(Naming::KeyId, "-keyid"), (Naming::Issuer, "")] {
                openssl(
                    &workshop,
                    &format!(
                        "cms -sign -binary -noattr -nocerts -md {word} {flag} -in content \
                         -signer rsa.pem -inkey rsa.key -outform DER -out theirs.p7s"
                    ),
                );
                let theirs = fs::read(workshop.path("theirs.p7s")).unwrap();
                let ours = sign(CONTENT, &signer, hash, naming);
                assert!(ours == theirs, "{bits} {word} {naming:?}");
            }
        }
    }
}

#[test]
fn they_are_those_of_the_kernel_s_sign_file() {
    let workshop = Workshop::new();
    let root = Cache::open().tool_root("linux-kbuild").unwrap();
    let sign_file = root.join("usr/lib/linux-kbuild-6.1/scripts/sign-file");
    let signer = certified(&workshop, "rsa", RSA);
    workshop.write("module", CONTENT);
    for (hash, word) in [(Hash::Sha256, "sha256"), (Hash::Sha512, "sha512")] {
        workshop.done(&sign_file, ["-dp", word, "rsa.key", "rsa.pem", "module"]);
        let theirs = fs::read(workshop.path("module.p7s")).unwrap();
        assert!(
            sign(CONTENT, &signer, hash, Naming::Issuer) == theirs,
            "{word}"
        );
    }
}

#[test]
fn openssl_verifies_ours_and_refuses_what_was_changed() {
    let workshop = Workshop::new();
    workshop.write("content", CONTENT);
    workshop.write("changed", b"instruction!");
    for (name, kind) in [
        ("rsa", RSA),
        ("p256", "EC -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "EC -pkeyopt ec_paramgen_curve:P-384"),
    ] {
        let signer = certified(&workshop, name, kind);
        let verify = |content: &str| {
            let words = format!(
                "cms -verify -binary -noverify -certfile {name}.pem -inform DER -in ours.p7s \
                 -content {content} -out out"
            );
            workshop
                .run(Path::new("openssl"), words.split_whitespace())
                .code
        };
        for naming in [Naming::KeyId, Naming::Issuer] {
            let ours = sign(CONTENT, &signer, Hash::Sha256, naming);
            workshop.write("ours.p7s", &ours);
            assert_eq!(verify("content"), 0, "{name} {naming:?}");
            assert_ne!(verify("changed"), 0, "{name} {naming:?}");
            let mut forged = ours.clone();
            *forged.last_mut().unwrap() ^= 1;
            workshop.write("ours.p7s", &forged);
            assert_ne!(verify("content"), 0, "{name} {naming:?}");
        }
    }
}

#[test]
fn what_no_kernel_checks_is_not_signed() {
    let workshop = Workshop::new();
    let signer = certified(&workshop, "ed", "ED25519");
    let random = SystemRandom::new();
    let error = kernel_signature::sign(CONTENT, &signer, Hash::Sha256, Naming::KeyId, &random);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the kernel checks signatures by RSA and ECDSA keys, not by ed25519"
    );
}
