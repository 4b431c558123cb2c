//! The client against a registry that misbehaves in every way that we know of.

use std::{fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{
    Digest,
    layout::Layout,
    manifest::{Descriptor, Manifest},
    media,
};
use serde_json::json;

use super::{
    Client, Connection, Error, Progress,
    connection::Pace,
    credential::Store,
    fake::{Fake, Fault, Guard, Seen},
    session::Sessions,
    transfer::{Arrivals, Referrer},
};
use crate::reference::Reference;

const SIGNATURE: &str = "application/vnd.example.signature";

/// One artifact with one blob, a signature of it, a note about the signature, and a
/// signature by cosign's older scheme.
fn signed_layout(blob: &[u8]) -> (Layout, Digest) {
    let mut layout = Layout::new();
    let empty = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
    let older = Manifest::artifact("application/vnd.example.older", empty.clone(), vec![]);
    layout.add_blob(media::EMPTY_JSON.to_vec());
    layout.add_blob(blob.to_vec());
    let object = Descriptor::of(media::OBJECT, blob);
    let artifact = Manifest::artifact(media::BUNDLE, empty.clone(), vec![object]).to_bytes();
    let digest = Digest::of(&artifact);
    let mut subject = Descriptor::of(media::MANIFEST, &artifact);
    layout.add_manifest(artifact, None).unwrap();
    for _ in 0..2 {
        let mut referrer = Manifest::artifact(SIGNATURE, empty.clone(), vec![]);
        referrer.subject = Some(subject);
        let bytes = referrer.to_bytes();
        subject = Descriptor::of(media::MANIFEST, &bytes);
        layout.add_manifest(bytes, None).unwrap();
    }
    let name = format!("sha256-{}.sig", digest.to_hex());
    layout.add_manifest(older.to_bytes(), Some(&name)).unwrap();
    (layout, digest)
}

fn client_with(folder: &Path, store: Store) -> Client {
    Client {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
        registries: Default::default(),
        connection: Connection::default(),
        store,
        sessions: Sessions::of(&folder.join("uploads")),
        pace: Pace {
            tries: 3,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_secs(1),
            silence: Duration::from_secs(5),
        },
        progress: Progress::hidden(),
    }
}

fn client(folder: &Path) -> Client {
    client_with(folder, Store::default())
}

fn reference(fake: &Fake, rest: &str) -> Reference {
    format!("{}/{rest}", fake.host()).parse().unwrap()
}

fn pushed(fake: &Fake, folder: &Path, blob: &[u8]) -> (Layout, Digest) {
    let (layout, digest) = signed_layout(blob);
    client(folder)
        .push(&layout, &reference(fake, "a:v1"), &[])
        .unwrap();
    (layout, digest)
}

fn blobs(layout: &Layout) -> Vec<(Digest, Vec<u8>)> {
    let blobs = layout.blobs();
    blobs
        .map(|(digest, bytes)| (*digest, bytes.to_vec()))
        .collect()
}

#[test]
fn what_was_pushed_comes_back_with_all_referrers() {
    for no_referrers_api in [false, true] {
        let fake = Fake::start();
        fake.state().no_referrers_api = no_referrers_api;
        let folder = tempfile::tempdir().unwrap();
        let (layout, digest) = signed_layout(b"object");
        let result = client(folder.path())
            .push(&layout, &reference(&fake, "a:v1"), &["v2".to_owned()])
            .unwrap();
        assert_eq!(result.digest, digest);
        assert_eq!(result.tags, ["v1", "v2"]);
        assert_eq!(
            result.blobs,
            Arrivals {
                sent: 2,
                bytes: 8,
                ..Arrivals::default()
            }
        );
        // Tags come after all manifests.
        let puts = fake.lines("PUT /v2/a/manifests/");
        assert_eq!(
            puts[puts.len() - 2..],
            ["PUT /v2/a/manifests/v1", "PUT /v2/a/manifests/v2"]
        );

        let pulled = client(folder.path())
            .fetch(&reference(&fake, "a:v2"))
            .unwrap();
        assert_eq!(pulled.digest, digest);
        assert_eq!(blobs(&pulled.layout), blobs(&layout), "{no_referrers_api}");
        assert_eq!(pulled.referrers, result.referrers);
        let mut types: Vec<_> = pulled.referrers.iter().map(kind).collect();
        types.sort_unstable();
        // By the manifests: the list says `application/wrong`.
        assert_eq!(
            types,
            ["application/vnd.example.older", SIGNATURE, SIGNATURE]
        );
        // The tag was asked about once; after that it could mean anything.
        assert_eq!(fake.lines("T /v2/a/manifests/v2").len(), 1); // the PUT
        assert_eq!(fake.lines("HEAD /v2/a/manifests/v2").len(), 1);
        assert_eq!(fake.lines("GET /v2/a/manifests/v2").len(), 0);
    }
}

fn kind(referrer: &Referrer) -> &str {
    &referrer.artifact_type
}

#[test]
fn what_is_falsely_listed_as_a_referrer_is_left_out() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let (_, other) = signed_layout(b"other");
    client(folder.path())
        .push(
            &signed_layout(b"other").0,
            &reference(&fake, "a:other"),
            &[],
        )
        .unwrap();
    let (layout, digest) = pushed(&fake, folder.path(), b"object");
    let junk = b"[]".to_vec();
    let junk_digest = Digest::of(&junk).to_string();
    let missing = Digest::of(b"missing").to_string();
    {
        let mut state = fake.state();
        let key = ("a".to_owned(), junk_digest.clone());
        state
            .manifests
            .insert(key, (media::MANIFEST.to_owned(), junk));
        for digest in [&other.to_string(), &junk_digest, &missing] {
            let entry = json!({"mediaType": media::MANIFEST, "digest": digest, "size": 2});
            state.false_referrers.push(entry);
        }
    }
    let pulled = client(folder.path())
        .fetch(&reference(&fake, "a:v1"))
        .unwrap();
    assert_eq!(pulled.digest, digest);
    assert_eq!(blobs(&pulled.layout), blobs(&layout));
}

#[test]
fn a_bundle_attached_to_a_bundle_is_not_taken_along() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let (layout, digest) = pushed(&fake, folder.path(), b"object");
    let empty = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
    let mut attached = Manifest::artifact(media::BUNDLE, empty, vec![]);
    let subject = layout.bundle_descriptor().unwrap().clone();
    attached.subject = Some(subject);
    let reference = reference(&fake, "a:v1");
    client(folder.path())
        .attach(
            &reference.repository,
            &attached.to_bytes(),
            &[media::EMPTY_JSON],
        )
        .unwrap();
    let pulled = client(folder.path()).fetch(&reference).unwrap();
    assert_eq!(pulled.layout.bundle_descriptor().unwrap().digest, digest);
    assert_eq!(blobs(&pulled.layout), blobs(&layout));
}

#[test]
fn the_fallback_index_lists_every_referrer_once() {
    let fake = Fake::start();
    fake.state().no_referrers_api = true;
    let folder = tempfile::tempdir().unwrap();
    let (_, digest) = pushed(&fake, folder.path(), b"object");
    pushed(&fake, folder.path(), b"object");
    let tag = format!("sha256-{}", digest.to_hex());
    let state = fake.state();
    let (kind, index) = &state.manifests[&("a".to_owned(), tag)];
    assert_eq!(kind, media::INDEX);
    let index: serde_json::Value = serde_json::from_slice(index).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let types: Vec<_> = entries.iter().map(|entry| &entry["artifactType"]).collect();
    assert_eq!(types, [SIGNATURE]);
}

#[test]
fn what_is_there_is_not_sent_again() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let (layout, _) = pushed(&fake, folder.path(), b"object");
    let again = client(folder.path())
        .push(&layout, &reference(&fake, "a:v1"), &[])
        .unwrap();
    assert_eq!(
        again.blobs,
        Arrivals {
            present: 2,
            ..Arrivals::default()
        }
    );
}

#[test]
fn copies_by_mounting_within_a_registry_and_by_sending_to_another() {
    let (from, to) = (Fake::start(), Fake::start());
    let folder = tempfile::tempdir().unwrap();
    let (_, digest) = pushed(&from, folder.path(), b"object");
    for (target, want) in [
        (
            &from,
            Arrivals {
                mounted: 2,
                ..Arrivals::default()
            },
        ),
        (
            &to,
            Arrivals {
                sent: 2,
                bytes: 8,
                ..Arrivals::default()
            },
        ),
    ] {
        let destination = reference(target, "b/c:v9");
        let copied = client(folder.path())
            .copy(&reference(&from, "a:v1"), &destination, &[])
            .unwrap();
        assert_eq!(copied.digest, digest);
        assert_eq!(copied.blobs, want);
        assert_eq!(copied.referrers.len(), 3);
        let pulled = client(folder.path()).fetch(&destination).unwrap();
        assert_eq!(pulled.digest, digest);
        assert_eq!(pulled.referrers, copied.referrers);
    }
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let object = vec![7; 100_000];
    let blob = format!("GET /v2/a/blobs/{}", Digest::of(&object));
    for (no_ranges, first, want) in [
        (
            false,
            Fault::CutAfter(40_000),
            vec![None, Some("bytes=40000-")],
        ),
        (
            true,
            Fault::CutAfter(40_000),
            vec![None, Some("bytes=40000-")],
        ),
        (false, Fault::CutAfter(0), vec![None, None]),
        (false, Fault::Status(503, vec![]), vec![None, None]),
        (false, Fault::NoLength, vec![None]),
    ] {
        let fake = Fake::start();
        let folder = tempfile::tempdir().unwrap();
        let (layout, _) = pushed(&fake, folder.path(), &object);
        fake.state().no_ranges = no_ranges;
        fake.fail(&blob, first);
        let pulled = client(folder.path())
            .fetch(&reference(&fake, "a:v1"))
            .unwrap();
        assert_eq!(blobs(&pulled.layout), blobs(&layout));
        let state = fake.state();
        let asked: Vec<_> = state
            .seen
            .iter()
            .filter(|seen| seen.line == blob)
            .map(|seen| seen.range.as_deref())
            .collect();
        assert_eq!(asked, want);
    }
}

#[test]
fn a_download_goes_on_in_another_process() {
    let object = vec![7; 100_000];
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let (layout, _) = pushed(&fake, folder.path(), &object);
    let blob = format!("GET /v2/a/blobs/{}", Digest::of(&object));
    for _ in 0..3 {
        fake.fail(&blob, Fault::CutAfter(0));
    }
    fake.state().faults[0].1 = Fault::CutAfter(30_000);
    fake.fail(&blob, Fault::CutAfter(0));
    let kept = tempfile::tempdir().unwrap();
    let reference = reference(&fake, "a:v1");
    let error = client(folder.path())
        .fetch_via(&reference, kept.path())
        .err()
        .unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let file = kept.path().join(Digest::of(&object).to_hex());
    assert_eq!(fs::metadata(&file).unwrap().len(), 30_000);

    let pulled = client(folder.path())
        .fetch_via(&reference, kept.path())
        .unwrap();
    assert_eq!(blobs(&pulled.layout), blobs(&layout));
    let last = fake
        .state()
        .seen
        .iter()
        .rfind(|seen| seen.line == blob)
        .cloned();
    assert_eq!(last.unwrap().range.as_deref(), Some("bytes=30000-"));

    // What an earlier process left may be rubbish: it is noticed and replaced.
    fs::write(&file, vec![8; 30_000]).unwrap();
    let pulled = client(folder.path())
        .fetch_via(&reference, kept.path())
        .unwrap();
    assert_eq!(blobs(&pulled.layout), blobs(&layout));
}

#[test]
fn other_bytes_are_refused() {
    let object = vec![7; 1000];
    let digest = Digest::of(&object);
    let blob = format!("GET /v2/a/blobs/{digest}");
    for (wrong, want) in [
        (
            vec![8; 1000],
            format!(
                "HOST sends other bytes for {digest}: they have digest {}",
                Digest::of(&[8; 1000])
            ),
        ),
        (
            vec![7; 999],
            format!("HOST sends 999 bytes for {digest}, its descriptor says 1000"),
        ),
        (
            vec![7; 1001],
            format!("HOST sends 1001 bytes for {digest}, its descriptor says 1000"),
        ),
    ] {
        let fake = Fake::start();
        let folder = tempfile::tempdir().unwrap();
        pushed(&fake, folder.path(), &object);
        fake.fail(&blob, Fault::Body(wrong));
        let kept = tempfile::tempdir().unwrap();
        let error = client(folder.path())
            .fetch_via(&reference(&fake, "a:v1"), kept.path())
            .err()
            .unwrap();
        assert_eq!(error.to_string(), want.replace("HOST", &fake.host()));
        let file = kept.path().join(digest.to_hex());
        assert!(!file.exists(), "wrong bytes stayed in {}", file.display());
    }
}

#[test]
fn another_manifest_is_refused() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let (_, digest) = pushed(&fake, folder.path(), b"object");
    let manifest = format!("GET /v2/a/manifests/{digest}");
    fake.fail(&manifest, Fault::Body(b"{}".to_vec()));
    let error = client(folder.path())
        .fetch(&reference(&fake, "a:v1"))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{} sends other bytes for {digest}: they have digest {}",
            fake.host(),
            Digest::of(b"{}")
        )
    );
}

#[test]
fn waits_when_told_and_gives_up_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let head = "HEAD /v2/a/manifests/v1";
    for (faults, asked, want) in [
        (vec![429, 503], 3, None),
        (
            vec![500, 502, 504],
            3,
            Some("HOST answers 504 Gateway Timeout to manifest v1 of HOST/a"),
        ),
        (
            vec![418],
            1,
            Some("HOST answers 418 I'm a teapot to manifest v1 of HOST/a"),
        ),
    ] {
        let fake = Fake::start();
        pushed(&fake, folder.path(), b"object");
        for status in faults {
            let later = vec![("Retry-After", "0".to_owned())];
            fake.fail(head, Fault::Status(status, later));
        }
        let result = client(folder.path()).fetch(&reference(&fake, "a:v1"));
        let message = result.err().map(|error| error.to_string());
        assert_eq!(message, want.map(|want| want.replace("HOST", &fake.host())));
        assert_eq!(fake.lines(head).len(), asked);
    }
    // An hour is not waited for.
    let fake = Fake::start();
    pushed(&fake, folder.path(), b"object");
    let later = vec![("Retry-After", "3600".to_owned())];
    fake.fail(head, Fault::Status(429, later));
    let error = client(folder.path())
        .fetch(&reference(&fake, "a:v1"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("429"), "{error}");
}

#[test]
fn says_what_is_missing() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let error = client(folder.path())
        .fetch(&reference(&fake, "a:v1"))
        .err()
        .unwrap();
    let failure = crate::Failure::from(error);
    assert_eq!(
        failure.message,
        format!("tag v1 is not in {}/a", fake.host())
    );
    assert_eq!(failure.exit, crate::failure::Exit::NotFound);
}

fn stored(folder: &Path, fake: &Fake, user: &str) -> Store {
    let file = folder.join("config.json");
    let auth = BASE64.encode(format!("{user}:hunter2"));
    let config = json!({"auths": {fake.host(): {"auth": auth}}});
    fs::write(&file, config.to_string()).unwrap();
    Store::of(file)
}

#[test]
fn shows_what_the_registry_asks_for() {
    let good = format!("Basic {}", BASE64.encode("u:hunter2"));
    let folder = tempfile::tempdir().unwrap();
    for bearer in [false, true] {
        let fake = Fake::start();
        let (_, digest) = pushed(&fake, folder.path(), b"object");
        fake.state().guard = Some(if bearer {
            Guard::Bearer {
                realm: format!("http://{}/token", fake.host()),
                basic: good.clone(),
            }
        } else {
            Guard::Basic(good.clone())
        });
        let reference = reference(&fake, "a:v1");
        let store = stored(folder.path(), &fake, "u");
        let pulled = client_with(folder.path(), store).fetch(&reference).unwrap();
        assert_eq!(pulled.digest, digest);
        if bearer {
            assert_eq!(
                fake.lines("/token"),
                ["GET /token?service=fake&scope=repository%3Aa%3Apull&client_id=bpfseal"]
            );
        }

        let (layout, _) = signed_layout(b"other");
        let store = stored(folder.path(), &fake, "u");
        client_with(folder.path(), store)
            .push(&layout, &reference, &[])
            .unwrap();

        for store in [Store::default(), stored(folder.path(), &fake, "wrong")] {
            let error = client_with(folder.path(), store)
                .fetch(&reference)
                .err()
                .unwrap();
            assert!(matches!(error, Error::Denied { .. }), "{error}");
            let failure = crate::Failure::from(error);
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
            assert_eq!(
                failure.remedy,
                Some(format!(
                    "Give credentials: `bpfseal login {}`.",
                    fake.host()
                ))
            );
        }
    }
}

#[test]
fn a_password_is_tried_before_it_is_remembered() {
    let fake = Fake::start();
    fake.state().guard = Some(Guard::Basic(format!("Basic {}", BASE64.encode("u:p"))));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let client = client_with(folder.path(), Store::of(file.clone()));
    let host = fake.host().parse().unwrap();
    let wrong = client.login(&host, "u", &super::Secret::new("q"));
    assert!(matches!(wrong, Err(Error::Denied { .. })));
    assert!(!file.exists());
    let place = client.login(&host, "u", &super::Secret::new("p")).unwrap();
    assert_eq!(place, file.display().to_string());
    assert!(client.logout(&host).unwrap().is_some());
}

#[test]
fn a_redirect_takes_no_credentials_along() {
    let good = format!("Basic {}", BASE64.encode("u:hunter2"));
    let folder = tempfile::tempdir().unwrap();
    let (fake, elsewhere) = (Fake::start(), Fake::start());
    let (_, digest) = pushed(&fake, folder.path(), b"object");
    pushed(&elsewhere, folder.path(), b"object");
    elsewhere.state().seen.clear();
    fake.state().guard = Some(Guard::Basic(good.clone()));
    fake.state().blobs_at = Some(format!("http://{}", elsewhere.host()));
    let store = stored(folder.path(), &fake, "u");
    let pulled = client_with(folder.path(), store)
        .fetch(&reference(&fake, "a:v1"))
        .unwrap();
    assert_eq!(pulled.digest, digest);
    let object = Digest::of(b"object");
    let seen = elsewhere.state().seen.clone();
    assert!(seen.contains(&Seen {
        line: format!("GET /v2/a/blobs/{object}"),
        authorization: None,
        range: None,
    }));
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
    // And a place that wants them does not get them either.
    elsewhere.state().guard = Some(Guard::Basic(good));
    let store = stored(folder.path(), &fake, "u");
    let error = client_with(folder.path(), store)
        .fetch(&reference(&fake, "a:v1"))
        .err()
        .unwrap();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    let seen = elsewhere.state().seen.clone();
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn an_upload_goes_on_where_it_stopped() {
    // Three chunks of 8 MiB and a bit.
    let object: Vec<u8> = (0..20_u32 << 20).map(|at| (at >> 8) as u8).collect();
    let folder = tempfile::tempdir().unwrap();
    let (layout, _) = signed_layout(&object);
    let key = ("a".to_owned(), Digest::of(&object).to_string());
    for fault in [
        Fault::CutUpload(1 << 20),
        Fault::Status(503, vec![]),
        Fault::Status(416, vec![]),
    ] {
        let fake = Fake::start();
        fake.fail("PATCH", fault.clone());
        client(folder.path())
            .push(&layout, &reference(&fake, "a:v1"), &[])
            .unwrap();
        assert!(fake.state().blobs[&key] == object, "{fault:?}");
        assert_eq!(fake.lines("PATCH").len(), 4, "{fault:?}");
        assert_eq!(fake.lines("GET /v2/a/blobs/uploads/").len(), 1, "{fault:?}");
    }
    // Another process goes on too.
    let fake = Fake::start();
    fake.fail("PATCH", Fault::Status(500, vec![]));
    {
        let mut state = fake.state();
        state.faults.clear();
        state
            .faults
            .push_back(("PATCH".to_owned(), Fault::CutUpload(1 << 20)));
        for _ in 0..9 {
            let gone = ("GET /v2/a/blobs/uploads/".to_owned(), Fault::CutAfter(0));
            state.faults.push_back((gone.0, Fault::CutUpload(0)));
        }
    }
    let error = client(folder.path())
        .push(&layout, &reference(&fake, "a:v1"), &[])
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    fake.state().faults.clear();
    let before = fake.lines("PATCH").len();
    client(folder.path())
        .push(&layout, &reference(&fake, "a:v1"), &[])
        .unwrap();
    assert!(fake.state().blobs[&key] == object);
    assert_eq!(fake.lines("PATCH").len() - before, 3);
}
