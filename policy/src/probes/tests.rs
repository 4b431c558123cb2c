use bundle::Digest;
use std::convert::Infallible;

use super::*;
use crate::document::tests::pair;

fn list(rows: &str) -> String {
    format!("version = 7\nissued = \"2026-11-22T08:00:00Z\"\n{rows}")
}

fn row(more: &str) -> String {
    format!("[[probe]]\nname = \"libbpf: x\"\nreason = \"asks\"\n{more}")
}

fn sealed(text: &str, seed: u8) -> String {
    let (key, public) = pair(seed);
    let sign = |message: &[u8]| Ok::<_, Infallible>(key.sign(message).as_ref().to_vec());
    SignedProbes::seal(text, &public, sign).unwrap()
}

fn trusted(seed: u8) -> TrustedKey {
    TrustedKey {
        name: format!("key {seed}"),
        line: 1,
        file: None,
        key: pair(seed).1,
    }
}

const ONE_MAP: &str = "program_type = \"socket_filter\"\nmaps = [{ type = \"array\", value_size = 8 }]\n\
    words = [\"0000000000002118\", \"0000001000000000\", \"00000000000000b7\", \"0000000000000095\"]\n";

#[test]
fn what_a_key_of_the_policy_signed_is_read() {
    let text = list(&row(ONE_MAP));
    let keys = [trusted(1), trusted(2)];
    let signed = SignedProbes::verify(&sealed(&text, 2), &keys).unwrap();
    let want = Probe {
        name: "libbpf: x".to_owned(),
        reason: "asks".to_owned(),
        program_type: "socket_filter".to_owned(),
        attach_type: 0,
        any_target: false,
        words: vec![0x8000_0000_0000_2118, 0x10_0000_0000, 0xb7, 0x95],
        maps: vec![ProbeMap {
            kind: "array".to_owned(),
            key_size: 4,
            value_size: 8,
            max_entries: 1,
        }],
    };
    assert_eq!(signed.list().version, 7);
    assert_eq!(signed.list().probes, [want]);
    assert_eq!(signed.signer(), "key 2");
    assert_eq!(signed.digest(), Digest::of(text.as_bytes()));
    assert_eq!(signed.check_not_older(7), Ok(()));
    let older = Refusal::new(Reason::OlderProbes, "version 8 is in force, got 7");
    assert_eq!(signed.check_not_older(8), Err(older));
}

#[test]
fn a_list_by_anybody_else_is_refused() {
    let text = list("");
    let good = sealed(&text, 1);
    let keys = [trusted(1)];
    let of = |file: &str, keys: &[TrustedKey]| SignedProbes::verify(file, keys).unwrap_err().reason;
    let other_text = sealed(&list("# changed\n"), 1);
    let payload = |file: &str| file.split('"').nth(3).unwrap().to_owned();
    let changed = good.replace(&payload(&good), &payload(&other_text));
    let revocation = good.replace("probes.v1+toml", "revocation.v1+toml");
    assert_eq!(of(&sealed(&text, 2), &keys), Reason::UntrustedSigner);
    assert_eq!(of(&good, &[]), Reason::UntrustedSigner);
    assert_eq!(of(&changed, &keys), Reason::BadSignature);
    assert_eq!(of(&revocation, &keys), Reason::BadSignature);
    assert_eq!(of(&text, &keys), Reason::MalformedSignature);
}

#[test]
fn a_list_that_cannot_be_meant_is_refused() {
    let exit = "words = [\"0000000000000095\"]";
    let table = [
        (
            format!("program_type = \"ext\"\n{exit}"),
            "a ext program is no probe",
        ),
        (
            format!("program_type = \"syscall\"\n{exit}"),
            "a syscall program is no probe",
        ),
        (
            format!("program_type = \"xpd\"\n{exit}"),
            "unknown program type \"xpd\"",
        ),
        (
            "program_type = \"xdp\"\nwords = []".to_owned(),
            "0 words; a probe has 1 to 64",
        ),
        (
            "program_type = \"xdp\"\nwords = [\"95\"]".to_owned(),
            "\"95\" is not an instruction: want 16 hexadecimal digits",
        ),
        (
            ONE_MAP.replace("array", "prog_array"),
            "map type \"prog_array\": only array, hash, percpu_array, percpu_hash, ringbuf",
        ),
        (
            ONE_MAP.replace("0000002118", "0100002118"),
            "word 0 refers to map 1 of 1",
        ),
        (
            ONE_MAP.replace("2118", "6118"),
            "word 0 names a map by index: descriptors alone",
        ),
        (
            format!(
                "program_type = \"xdp\"\nmaps = [{{ type = \"hash\", value_size = 8 }}]\n{exit}"
            ),
            "1 maps, and 0 referred to",
        ),
        (
            "program_type = \"xdp\"\nwords = [\"000000a600000085\"]".to_owned(),
            "a probe does not call bpf_sys_bpf",
        ),
        (
            "program_type = \"xdp\"\nwords = [\"0000000100002085\"]".to_owned(),
            "a probe does not call functions of the kernel",
        ),
    ];
    for (rows, want) in table {
        let refusal = Probes::parse(&list(&row(&rows))).unwrap_err();
        let want = format!("[[probe]] number 1: {want}");
        assert_eq!((refusal.reason, refusal.detail), (Reason::BadPolicy, want));
    }
    let unknown = Probes::parse(&list(&row(
        "program_type = \"xdp\"\nwords = []\nexe = \"x\"",
    )));
    assert!(unknown.unwrap_err().detail.contains("unknown field `exe`"));
}
