//! Signatures that cosign itself made, as it stored them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use bundle::{Digest, manifest::Manifest, unverified::Referrer};
use policy::{
    Reason,
    key::PublicKey,
    signature::{Budget, Form, Outcome, Trusted, check},
};

const REFERRER_SUBJECT: &str =
    "sha256:6ade85537d8dd255156c02cbe8f5d004682e0ac9e7763541df1b993e493786b5";
const TAGGED_SUBJECT: &str =
    "sha256:cc7a803f75e49f6260d73d935f9b32c7607dbcdce37e7f1a99a5af774e1cbe33";

fn vector(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");
    fs::read(format!("{folder}/{name}")).unwrap()
}

fn referrer(manifest: &str, layer: &str) -> Referrer {
    let manifest = vector(manifest);
    Referrer {
        digest: Digest::of(&manifest),
        manifest: Manifest::parse(&manifest).unwrap(),
        layers: vec![Ok(vector(layer))],
    }
}

fn outcome(referrer: &Referrer, subject: &str, key: &str) -> Result<Form, Reason> {
    let key = PublicKey::from_pem(&vector(key)).unwrap();
    let subject = subject.parse().unwrap();
    let findings = check(
        referrer,
        subject,
        &Trusted::keys([("key", &key)], jiff::Timestamp::now()),
        &mut Budget::default(),
    );
    match &findings[..] {
        [finding] => match &finding.outcome {
            Outcome::Valid(valid) => {
                assert_eq!(valid.key, key.id());
                Ok(valid.form)
            }
            Outcome::Attested(attested) => panic!("{attested:?}"),
            Outcome::Rejected(rejected) => Err(rejected.reason),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_forms_count_for_their_key_and_subject_alone() {
    let (ours, other) = ("cosign/key.pub", "keys/p256.pub");
    let bundle = referrer("cosign/referrer.json", "cosign/bundle.json");
    let tagged = referrer("cosign/tagged.json", "cosign/payload.json");
    for (referrer, subject, key, want) in [
        (&bundle, REFERRER_SUBJECT, ours, Ok(Form::SigstoreBundle)),
        (&bundle, TAGGED_SUBJECT, ours, Err(Reason::WrongSubject)),
        (
            &bundle,
            REFERRER_SUBJECT,
            other,
            Err(Reason::UntrustedSigner),
        ),
        (&tagged, TAGGED_SUBJECT, ours, Ok(Form::SimpleSigning)),
        (&tagged, REFERRER_SUBJECT, ours, Err(Reason::WrongSubject)),
        (&tagged, TAGGED_SUBJECT, other, Err(Reason::UntrustedSigner)),
    ] {
        assert_eq!(outcome(referrer, subject, key), want, "{subject} {key}");
    }
}

#[test]
fn our_referrer_is_like_cosigns() {
    let theirs = Manifest::parse(&vector("cosign/referrer.json")).unwrap();
    let random = ring::rand::SystemRandom::new();
    let made = policy::signer::generate(policy::key::Algorithm::EcdsaP256, None, &random).unwrap();
    let mut none = || unreachable!("the key is not encrypted");
    let (signer, _) =
        policy::signer::Signer::from_pem(made.private.as_bytes(), &mut none, &random).unwrap();
    let subject = theirs.subject.clone().unwrap();
    let created = &theirs.annotations["org.opencontainers.image.created"];
    let attached = policy::signature::sign(&subject, &signer, Some(created), &random).unwrap();
    let mut ours = Manifest::parse(&attached.manifest).unwrap();
    // The one thing of cosign's that we leave out: an artifact type on the empty config.
    ours.config
        .artifact_type
        .clone_from(&theirs.config.artifact_type);
    // Signatures differ from run to run, and with them the layer's digest and length.
    ours.layers[0].digest = theirs.layers[0].digest;
    ours.layers[0].size = theirs.layers[0].size;
    assert_eq!(ours, theirs);
}
