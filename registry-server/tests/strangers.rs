//! Any bytes, and changed samples, through everything that reads bytes from strangers.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::{collection::vec, prelude::*, sample::Index};
use ring::hmac;

use bpfseal_registry::strangers::*;

type Reader = (fn(&[u8]), &'static [&'static str]);

/// Each reader, and what it reads on ordinary days.
const READERS: [Reader; 10] = [
    (
        request,
        &[
            "GET /v2/team/app/tags/list?n=100&last=v1",
            "PUT /v2/team/app/manifests/v1.2.3",
            "PUT /v2/a/manifests/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855?tag=a&tag=b",
            "GET /v2/a/referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855?artifactType=a/b%2Bjson&n=7",
            "POST /v2/a/blobs/uploads/?mount=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&from=b/c",
            "PATCH /v2/a/blobs/uploads/01234567-89ab-4def-8123-456789abcdef",
            "GET /packages/team/app:v1",
        ],
    ),
    (
        names,
        &[
            "team/app",
            "v1.2.3-rc.1_x",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ],
    ),
    (
        ranges,
        &[
            "\x10\0\0\0\0\0\0\0bytes=0-3",
            "\x10\0\0\0\0\0\0\0bytes=-5",
            "\x10\0\0\0\0\0\0\0bytes 10-19/20",
            "\x10\0\0\0\0\0\0\u{0}18446744073709551614-18446744073709551615",
        ],
    ),
    (
        manifest,
        &[
            "application/vnd.oci.image.manifest.v1+json\n{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":2},\"layers\":[],\"annotations\":{\"a\":\"b\"}}",
            "\n{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}",
        ],
    ),
    (
        credentials,
        &[
            "Basic YWxpY2U6c2VjcmV0",
            "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOiJicGZzZWFsLXJlZ2lzdHJ5Iiwia2luZCI6InVzZXIiLCJzdWIiOiJhIiwicHJvb2YiOiIiLCJleHAiOjk5OTk5OTk5OTksImlhdCI6MH0.AAAA",
            "repository:team/app:pull,push",
            "grant_type=password&username=a%20b&scope=repository:a:pull",
        ],
    ),
    (users, &["alice:$2y$10$abcdefghijklmnopqrstuv\n# nobody\n"]),
    (
        config,
        &[include_str!("../../docs/examples/registry/registry.toml")],
    ),
    (
        conditions,
        &["if-match: \"sha256:00\", W/\"x\"\nif-none-match:*\n"],
    ),
    (certificate, &["0\u{3}\u{2}\u{1}\u{1}"]),
    (archive, &[include_str!("strangers/layout.tar")]),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        for (read, _) in READERS {
            read(&bytes);
        }
    }

    #[test]
    fn changed_samples_are_read_or_refused(
        reader in any::<Index>(),
        sample in any::<Index>(),
        changes in vec((any::<Index>(), 0_usize..9, vec(any::<u8>(), 0..4)), 0..6),
    ) {
        let (read, samples) = READERS[reader.index(READERS.len())];
        let mut bytes = samples[sample.index(samples.len())].as_bytes().to_vec();
        for (place, length, new) in changes {
            let start = place.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, new);
        }
        read(&bytes);
    }
}

/// The reader of credentials would notice: this token is what a forger dreams of.
#[test]
#[should_panic(expected = "a forged token is accepted")]
fn a_token_that_is_accepted_is_noticed() {
    let claims =
        r#"{"aud":"bpfseal-registry","kind":"user","sub":"a","proof":"","exp":9999999999,"iat":0}"#;
    let encode = |bytes: &[u8]| base64::Engine::encode(&URL_SAFE_NO_PAD, bytes);
    let header = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", encode(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let tag = hmac::sign(&key, signed.as_bytes());
    credentials(format!("Bearer {signed}.{}", encode(tag.as_ref())).as_bytes());
}
