//! What reads bytes from strangers, and what must hold whatever they send.
//!
//! One function per reader. Each takes any bytes and panics where a promise is broken: that is
//! what `make fuzz` looks for. `tests/strangers.rs` does the same with changed samples.

use std::{
    env, fs,
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    access::{self, Credentials, Granted, Issuer},
    api,
    config::Config,
    digest::Digest,
    error::OciError,
    import::{self, Wanted},
    manifest::{MAX_ANNOTATIONS, MAX_DESCRIPTORS, Manifest},
    name::{MAX_REPOSITORY, MAX_TAG, Repository, Tag},
    range::{self, Asked},
    route::{self, MAX_PAGE, MAX_TAG_PARAMETERS, MAX_TARGET, Reference, Route, Start},
    tls,
};

/// A request line: `METHOD path?query`. What is accepted holds only what the grammar allows,
/// within the limits, and what is refused is the client's fault.
pub fn request(bytes: &[u8]) {
    let Some((method, target)) = text(bytes).split_once(' ') else {
        return;
    };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return;
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let route = match Route::parse(&method, path, query) {
        Ok(route) => route,
        Err(error) => return is_clients_fault(&error),
    };
    assert!(target.len() <= MAX_TARGET + 1, "a long URL is refused");
    let _ = (route.need(), route.kind());
    match route {
        Route::Catalog(page) | Route::Tags(_, page) => assert!(page.limit <= MAX_PAGE),
        Route::Referrers(name, subject, query) => {
            assert!(query.limit <= MAX_PAGE);
            is_repository(&name);
            is_digest(&subject);
            query.after.iter().for_each(is_digest);
        }
        Route::StartUpload(name, start) => {
            is_repository(&name);
            match start {
                Start::Session(_) => {}
                Start::Monolithic(digest) => is_digest(&digest),
                Start::Mount(digest, from) => {
                    is_digest(&digest);
                    from.iter().for_each(is_repository);
                }
            }
        }
        Route::UploadStatus(name, id) | Route::Append(name, id) => {
            let again = format!("/v2/{name}/blobs/uploads/{id}");
            let again = Route::parse(&Method::GET, &again, None).ok();
            assert_eq!(again, Some(Route::UploadStatus(name, id)));
        }
        Route::ReadManifest(name, reference) | Route::VersionPage(name, reference) => {
            is_reference(&reference);
            let again = format!("/v2/{name}/manifests/{reference}");
            let again = Route::parse(&Method::GET, &again, None).ok();
            assert_eq!(again, Some(Route::ReadManifest(name, reference)));
        }
        Route::WriteManifest(name, reference, tags) => {
            is_repository(&name);
            is_reference(&reference);
            assert!(tags.len() <= MAX_TAG_PARAMETERS);
            tags.iter().for_each(is_tag);
        }
        _ => {}
    }
}

/// A repository's name, a tag, a digest: what is accepted is written as it was read.
pub fn names(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(name) = text.parse::<Repository>() {
        assert_eq!(name.as_str(), text);
        is_repository(&name);
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        is_tag(&tag);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
}

/// `Range` and `Content-Range`, after eight bytes with the size of the blob: never a byte
/// outside, never nothing.
pub fn ranges(bytes: &[u8]) {
    let Some((size, header)) = bytes.split_first_chunk() else {
        return;
    };
    let (size, header) = (u64::from_le_bytes(*size), text(header));
    if let Asked::Part(span) = range::asked(Some(header), size) {
        assert!(
            span.start < span.end && span.end <= size,
            "{span:?} of {size}"
        );
    }
    if let Some(span) = range::chunk(header) {
        assert!(span.start < span.end, "{span:?}");
    }
}

/// A manifest after a line with its `Content-Type`: bounded, and its entry in a list of
/// referrers is JSON with its digest.
pub fn manifest(bytes: &[u8]) {
    let (first, content) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (Some(text(&bytes[..end])), &bytes[end + 1..]),
        None => (None, bytes),
    };
    let Ok(read) = Manifest::read(first, content) else {
        return;
    };
    assert!(read.blobs.len() <= MAX_DESCRIPTORS + 1);
    assert!(read.children.len() <= MAX_DESCRIPTORS);
    assert!(read.annotations.len() <= MAX_ANNOTATIONS);
    let digest = Digest::of(crate::digest::Algorithm::Sha256, content);
    let entry = read.descriptor(&digest, content.len());
    let entry: serde_json::Value = serde_json::from_str(&entry).expect("it is JSON");
    assert_eq!(entry["digest"], digest.to_string());
    assert_eq!(entry["size"], content.len());
    assert_eq!(entry["mediaType"], read.media_type);
}

/// An `Authorization` header, a token, a token's scope, a form: nobody gets in who does not
/// know the secret.
pub fn credentials(bytes: &[u8]) {
    let text = text(bytes);
    let token = match Credentials::parse(Some(text)) {
        Credentials::Bearer(token) => token,
        _ => text.to_owned(),
    };
    let issuer = Issuer::new(&[7; 32], 60);
    assert_eq!(issuer.verify(&token), None, "a forged token is accepted");
    let _ = access::read_identity_token(&token);
    if let Some(granted) = Granted::parse(text)
        && granted.covers("team/app", access::Action::Pull)
    {
        assert_eq!((&*granted.kind, &*granted.name), ("repository", "team/app"));
    }
    if let Some(pairs) = route::form(text) {
        assert!(pairs.len() <= 100);
    }
}

/// An htpasswd file: only names that cannot be taken for something else, only bcrypt.
pub fn users(bytes: &[u8]) {
    let Ok(users) = access::parse_users(text(bytes), Path::new("users")) else {
        return;
    };
    for (name, hash) in users {
        assert!(access::valid_name(&name) && hash.starts_with("$2"));
    }
}

/// The configuration: a mistake is somewhere in the file.
pub fn config(bytes: &[u8]) {
    let text = text(bytes);
    match Config::parse(text) {
        Ok(config) => {
            for rule in &config.repository {
                let _ = rule.name.covers("team/app");
                let mut patterns = rule.immutable_tags.iter();
                let _ = patterns.any(|pattern| pattern.covers("v1.2.3"));
            }
        }
        Err((line, column, message)) => {
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!((1..=text.matches('\n').count() + 1).contains(&line));
            assert!(
                column >= 1 && column <= longest.unwrap_or(0) + 1,
                "{column}"
            );
            assert!(!message.contains('\n'));
        }
    }
}

/// Lines of headers with `If-Match` and `If-None-Match`.
pub fn conditions(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[colon + 1..])) {
            headers.append(name, value);
        }
    }
    match api::condition(&headers) {
        Ok(condition) => {
            let _ = condition.holds(Some("sha256:00"));
            let _ = condition.holds(None);
        }
        Err(error) => is_clients_fault(&error),
    }
}

/// A client's certificate, in DER: its name.
pub fn certificate(bytes: &[u8]) {
    let _ = tls::name(&bytes.into());
}

/// A tar file of layouts that somebody imports: nothing of it lies outside of its folder, no
/// link, and what it calls a manifest is what its digest says.
pub fn archive(bytes: &[u8]) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let outer = env::temp_dir().join(format!("bpfseal-archive-{}-{number}", process::id()));
    let folder = outer.join("in");
    fs::create_dir_all(&folder).expect("there is room for a temporary folder");
    let unpacked = import::unpack_from(bytes, Path::new("stranger.tar"), &folder);
    let beside = fs::read_dir(&outer).expect("it was just made");
    assert_eq!(beside.count(), 1, "something lies outside of the folder");
    are_plain(&folder);
    if unpacked.is_ok() {
        let wanted = Wanted {
            repository: "team/app".parse().ok(),
            sparse: false,
        };
        for wanted in [wanted, Wanted::default()] {
            for (name, manifests) in import::plan(&folder, &wanted).into_iter().flatten() {
                is_repository(&name);
                manifests.iter().for_each(is_digest);
            }
        }
    }
    fs::remove_dir_all(&outer).expect("it is ours");
}

fn are_plain(folder: &Path) {
    for entry in fs::read_dir(folder).expect("it is ours") {
        let entry = entry.expect("it is ours");
        let kind = entry.file_type().expect("it is there");
        assert!(!kind.is_symlink(), "{}", entry.path().display());
        if kind.is_dir() {
            are_plain(&entry.path());
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn is_clients_fault(error: &OciError) {
    let status = error.status;
    assert!(status.is_client_error(), "{status}: {error}");
}

fn is_repository(name: &Repository) {
    let name = name.as_str();
    assert!((1..=MAX_REPOSITORY).contains(&name.len()));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
    assert!(name.bytes().all(plain), "{name}");
    assert!(!name.split('/').any(|part| ["", ".", ".."].contains(&part)));
}

fn is_tag(tag: &Tag) {
    let tag = tag.as_str();
    assert!((1..=MAX_TAG).contains(&tag.len()) && !tag.starts_with(['.', '-']));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    assert!(tag.bytes().all(plain), "{tag}");
}

fn is_digest(digest: &Digest) {
    assert_eq!(digest.to_string().parse().ok(), Some(*digest));
}

fn is_reference(reference: &Reference) {
    match reference {
        Reference::Tag(tag) => is_tag(tag),
        Reference::Digest(digest) => is_digest(digest),
    }
}
