use std::convert::Infallible;

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

/// A key pair that is the same in every run.
pub(crate) fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let spki = [
        b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(),
        pair.public_key().as_ref(),
    ]
    .concat();
    let public = PublicKey::from_spki(&spki).unwrap();
    (pair, public)
}

const POLICY: &str = "version = 7\nkeys.release.file = \"../release.pub\"\n\
    [[rule]]\nname = \"all\"\nscope = \"*\"\nsigned_by = { of = [\"release\"] }\n";

fn load_key(_: &str) -> io::Result<Vec<u8>> {
    Ok(pair(9).1.to_pem().into_bytes())
}

fn sign(text: &str, seed: u8) -> String {
    let (pair, public) = pair(seed);
    let sign = |message: &[u8]| Ok::<_, Infallible>(pair.sign(message).as_ref().to_vec());
    let Ok(sealed) = Statement::about(text, &load_key)
        .unwrap()
        .seal(&public, sign);
    sealed
}

fn verify(text: &str, signature: &str) -> Result<VerifiedPolicy, (Reason, String)> {
    VerifiedPolicy::verify(text, signature, &pair(1).1).map_err(|r| (r.reason, r.detail))
}

#[test]
fn what_the_authority_signed_is_read_with_the_keys_it_signed() {
    let verified = verify(POLICY, &sign(POLICY, 1)).unwrap();
    assert_eq!(verified.version(), 7);
    assert_eq!(verified.digest(), Digest::of(POLICY.as_bytes()));
    assert_eq!(verified.authority(), pair(1).1.id());
    assert_eq!(verified.policy().keys()["release"].key, pair(9).1);
}

#[test]
fn all_else_is_refused() {
    let (_, public) = pair(1);
    let changed = POLICY.replace("release.pub", "mine.pub");
    let envelope = sign(POLICY, 1);
    let other_type = envelope.replace("policy.v1+json", "permit.v1");
    let table = [
        (POLICY, String::new(), "the policy has no signature".to_owned()),
        (POLICY, "{}".to_owned(), "not a signature file: missing field `payload` at line 1 column 2".to_owned()),
        (POLICY, sign(POLICY, 2), format!("no signature by the authority {}; it names as signer: {}", public.id(), pair(2).1.id())),
        (
            changed.as_str(),
            envelope,
            format!("the policy was changed after it was signed: signed {}, got {}", Digest::of(POLICY.as_bytes()), Digest::of(changed.as_bytes())),
        ),
        (POLICY, other_type, "the signature is for \"application/vnd.bpfseal.permit.v1\", want \"application/vnd.bpfseal.policy.v1+json\"".to_owned()),
    ];
    for (text, signature, want) in table {
        let got = verify(text, &signature).map(|_| ());
        assert_eq!(got, Err((Reason::BadAuthority, want)));
    }
}

#[test]
fn a_policy_without_a_version_cannot_be_signed() {
    let got = Statement::about(&POLICY.replace("version = 7\n", ""), &load_key).unwrap_err();
    assert_eq!(got.reason, Reason::BadPolicy);
}

#[test]
fn a_lower_version_is_refused_and_the_same_is_not() {
    let verified = verify(POLICY, &sign(POLICY, 1)).unwrap();
    assert_eq!(verified.check_not_older(7), Ok(()));
    let want = Refusal::new(Reason::OlderPolicy, "version 8 is in force, got 7");
    assert_eq!(verified.check_not_older(8), Err(want));
}
