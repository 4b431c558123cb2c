//! openssl as counterpart: its keys sign here, its signatures verify here and ours there, and
//! certificates of its making sign bundles.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::Digest;
use serde_json::{Value, json};
use tests::e2e::Workshop;

/// Name, how `genpkey` makes one, how it signs a file, how it verifies.
const KEYS: [(&str, &str, &str, &str); 4] = [
    (
        "p256",
        "EC -pkeyopt ec_paramgen_curve:P-256",
        "dgst -sha256 -sign KEY -out sig tool",
        "dgst -sha256 -verify PUB -signature sig tool",
    ),
    (
        "p384",
        "EC -pkeyopt ec_paramgen_curve:P-384",
        "dgst -sha384 -sign KEY -out sig tool",
        "dgst -sha384 -verify PUB -signature sig tool",
    ),
    (
        "ed25519",
        "ED25519",
        "pkeyutl -sign -inkey KEY -rawin -in tool -out sig",
        "pkeyutl -verify -pubin -inkey PUB -rawin -in tool -sigfile sig",
    ),
    (
        "rsa",
        "RSA -pkeyopt rsa_keygen_bits:2048",
        "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sign KEY -out sig tool",
        "dgst -sha256 -verify PUB -signature sig tool",
    ),
];

fn openssl(workshop: &Workshop, words: &str) {
    workshop.done(Path::new("openssl"), words.split_whitespace());
}

/// A workshop with a file `tool` and a key of each kind: `NAME.key`, `NAME.pub`.
fn workshop() -> Workshop {
    let workshop = Workshop::with_keys("ed25519");
    workshop.write("tool", "a tool");
    workshop.write("pass", "secret\n");
    for (name, kind, ..) in KEYS {
        openssl(
            &workshop,
            &format!("genpkey -algorithm {kind} -out {name}.key"),
        );
        openssl(
            &workshop,
            &format!("pkey -in {name}.key -pubout -out {name}.pub"),
        );
    }
    workshop
}

#[test]
fn signatures_of_a_file_are_read_both_ways() {
    let workshop = workshop();
    for (name, _, sign, verify) in KEYS {
        let put = |words: &str| {
            let words = words.replace("KEY", &format!("{name}.key"));
            words.replace("PUB", &format!("{name}.pub"))
        };
        workshop.bpfseal_done(&put("sign-blob --key KEY --bundle ours.json tool"));
        let ours = fs::read(workshop.path("ours.json")).unwrap();
        let ours: Value = serde_json::from_slice(&ours).unwrap();
        let signature = ours["messageSignature"]["signature"].as_str().unwrap();
        workshop.write("sig", BASE64.decode(signature).unwrap());
        openssl(&workshop, &put(verify));

        openssl(&workshop, &put(sign));
        let theirs = BASE64.encode(fs::read(workshop.path("sig")).unwrap());
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "" } },
            "messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256",
                    "digest": BASE64.encode(Digest::of(b"a tool").as_bytes()),
                },
                "signature": theirs,
            },
        });
        workshop.write("theirs.json", bundle.to_string());
        workshop.bpfseal_done(&put("verify-blob --key PUB --bundle theirs.json tool"));
        workshop.write("other", "another");
        let refused =
            workshop.bpfseal_refusal(&put("verify-blob --key PUB --bundle theirs.json other"));
        assert_eq!(refused, (1, "wrong-subject".into()), "{name}");
    }
}

#[test]
fn its_encrypted_keys_sign_here() {
    let workshop = workshop();
    for how in [
        "-v2 aes-256-cbc -v2prf hmacWithSHA256",
        "-v2 aes-128-cbc -iter 100000",
        "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        "-scrypt",
    ] {
        openssl(
            &workshop,
            &format!("pkcs8 -topk8 -in p256.key {how} -passout file:pass -out sealed.key"),
        );
        workshop
            .bpfseal_done("sign-blob --key sealed.key --passphrase-file pass --bundle b.json tool");
        workshop.bpfseal_done("verify-blob --key p256.pub --bundle b.json tool");
    }
    // Older forms are refused with what to do.
    openssl(&workshop, "rsa -in rsa.key -traditional -out old.key");
    let said = workshop.bpfseal("sign-blob --key old.key --bundle b.json tool");
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("openssl pkcs8 -topk8"), "{}", said.err);
}

#[test]
fn certificates_of_its_authority_sign_bundles() {
    let workshop = workshop();
    workshop.write(
        "root.cnf",
        "[req]\ndistinguished_name = name\nprompt = no\nx509_extensions = root\n\
         [name]\nO = Acme\nCN = Root\n[root]\nbasicConstraints = critical,CA:TRUE\n\
         keyUsage = critical,keyCertSign\n",
    );
    workshop.write(
        "between.ext",
        "basicConstraints = critical,CA:TRUE,pathlen:0\nkeyUsage = critical,keyCertSign\n",
    );
    workshop.write(
        "leaf.ext",
        "keyUsage = critical,digitalSignature\nextendedKeyUsage = codeSigning\n\
         subjectAltName = email:release@acme.example\n",
    );
    workshop.write(
        "policy.toml",
        "[x509.acme]\nroots = \"root.pem\"\nnames = [\"*@acme.example\"]\n[[rule]]\n\
         name = \"ours\"\nscope = \"*\"\nsigned_by = { of = [\"acme\"] }\n",
    );
    openssl(
        &workshop,
        "req -x509 -config root.cnf -key p384.key -days 2 -out root.pem",
    );
    let issue = |subject: &str, key: &str, by: &str, extensions: &str, out: &str| {
        openssl(
            &workshop,
            &format!("req -new -key {key} -subj /O=Acme/CN={subject} -out csr"),
        );
        openssl(
            &workshop,
            &format!(
                "x509 -req -in csr -CA {by} -CAcreateserial -days 1 -extfile {extensions} -out {out}"
            ),
        );
    };
    issue(
        "between",
        "rsa.key",
        "root.pem -CAkey p384.key",
        "between.ext",
        "between.pem",
    );
    let between = fs::read_to_string(workshop.path("between.pem")).unwrap();
    for key in ["p256", "ed25519"] {
        issue(
            "release",
            &format!("{key}.key"),
            "between.pem -CAkey rsa.key",
            "leaf.ext",
            "leaf.pem",
        );
        let leaf = fs::read_to_string(workshop.path("leaf.pem")).unwrap();
        workshop.write("chain.pem", leaf + &between);
        workshop.bpfseal_done("pack x.bpf.o -o x.tar --name net/x");
        // Without the certificate between them nothing leads to the root.
        workshop.bpfseal_done(&format!(
            "sign x.tar --key {key}.key --certificate leaf.pem"
        ));
        let verify = "verify x.tar --policy policy.toml";
        assert_eq!(
            workshop.bpfseal_refusal(verify),
            (1, "bad-certificate".into()),
            "{key}"
        );
        workshop.bpfseal_done(&format!(
            "sign x.tar --key {key}.key --certificate chain.pem"
        ));
        let got = workshop.bpfseal_done(verify);
        assert_eq!(
            got["signed_by"][0]["identity"], "O=Acme, CN=release",
            "{key}"
        );
    }
}
