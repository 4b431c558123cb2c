//! A revocation list: read or refused with a reason, and asked about versions.
#![no_main]

use bundle::Digest;
use policy::{
    revocation::{Revocations, Signatory, Signer, Subject},
    signed_list::List,
};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let list = match Revocations::parse(text) {
        Ok(list) => list,
        Err(refusal) => return assert!(!refusal.detail.is_empty()),
    };
    assert!(list.version > 0);
    let signers = [Signer {
        who: Signatory::Key(Digest::of(b"key")),
        entries: vec!["release".to_owned()],
    }];
    let _ = list.find(&Subject {
        bundle: Digest::of(b"bundle"),
        objects: &[Digest::of(b"object")],
        name: Some("net/x"),
        version: Some("1.2.3-rc.1"),
        signers: &signers,
        at_least: 1,
    });
    for entry in &list.entries {
        assert!(!entry.to_string().is_empty());
    }
});
