use super::*;

const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const ID: &str = "00112233-4455-4677-8899-aabbccddeeff";

fn digest() -> Digest {
    format!("sha256:{HEX}").parse().unwrap()
}

fn parse(line: &str) -> Result<Route, OciError> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Route::parse(&method.parse().unwrap(), path, query)
}

#[test]
fn every_endpoint_of_the_specification() {
    let a = || "a/b".parse::<Repository>().unwrap();
    let id = || UploadId::parse(ID).unwrap();
    let tag = |text: &str| text.parse::<Tag>().unwrap();
    let whole = Page {
        limit: MAX_PAGE,
        after: None,
    };
    let all = ReferrerQuery {
        artifact_type: None,
        limit: MAX_PAGE,
        after: None,
    };
    for (line, want) in [
        ("GET /v2/".into(), Route::Version),
        ("GET /v2".into(), Route::Version),
        ("GET /v2/_catalog".into(), Route::Catalog(whole.clone())),
        ("GET /v2/a/b/tags/list".into(), Route::Tags(a(), whole)),
        (
            "GET /v2/a/b/tags/list?n=99999999999&last=x".into(),
            Route::Tags(
                a(),
                Page {
                    limit: MAX_PAGE,
                    after: Some("x".into()),
                },
            ),
        ),
        (
            "GET /v2/a/b/tags/list?n=0".into(),
            Route::Tags(
                a(),
                Page {
                    limit: 0,
                    after: None,
                },
            ),
        ),
        (
            format!("HEAD /v2/a/b/blobs/sha256:{HEX}"),
            Route::ReadBlob(a(), digest()),
        ),
        (
            format!("GET /v2/a/b/blobs/sha256%3A{HEX}"),
            Route::ReadBlob(a(), digest()),
        ),
        (
            format!("DELETE /v2/a/b/blobs/sha256:{HEX}"),
            Route::DeleteBlob(a(), digest()),
        ),
        (
            "POST /v2/a/b/blobs/uploads/".into(),
            Route::StartUpload(a(), Start::Session(Algorithm::Sha256)),
        ),
        (
            "POST /v2/a/b/blobs/uploads?digest-algorithm=sha512".into(),
            Route::StartUpload(a(), Start::Session(Algorithm::Sha512)),
        ),
        (
            format!("POST /v2/a/b/blobs/uploads/?digest=sha256:{HEX}"),
            Route::StartUpload(a(), Start::Monolithic(digest())),
        ),
        (
            format!("POST /v2/a/b/blobs/uploads/?mount=sha256:{HEX}&from=c"),
            Route::StartUpload(a(), Start::Mount(digest(), Some("c".parse().unwrap()))),
        ),
        (
            format!("POST /v2/a/b/blobs/uploads/?mount=sha256:{HEX}"),
            Route::StartUpload(a(), Start::Mount(digest(), None)),
        ),
        (
            format!("GET /v2/a/b/blobs/uploads/{ID}"),
            Route::UploadStatus(a(), id()),
        ),
        (
            format!("PATCH /v2/a/b/blobs/uploads/{ID}"),
            Route::Append(a(), id()),
        ),
        (
            format!("DELETE /v2/a/b/blobs/uploads/{ID}"),
            Route::CancelUpload(a(), id()),
        ),
        (
            format!("PUT /v2/a/b/blobs/uploads/{ID}?digest=sha256:{HEX}"),
            Route::FinishUpload(a(), id(), digest()),
        ),
        (
            "GET /v2/a/b/manifests/1.0".into(),
            Route::ReadManifest(a(), Reference::Tag(tag("1.0"))),
        ),
        (
            format!("PUT /v2/a/b/manifests/sha256:{HEX}?tag=1&tag=2"),
            Route::WriteManifest(a(), Reference::Digest(digest()), vec![tag("1"), tag("2")]),
        ),
        (
            "DELETE /v2/a/b/manifests/x".into(),
            Route::DeleteManifest(a(), Reference::Tag(tag("x"))),
        ),
        (
            format!("GET /v2/a/b/referrers/sha256:{HEX}"),
            Route::Referrers(a(), digest(), all),
        ),
        (
            format!("GET /v2/a/b/referrers/sha256:{HEX}?artifactType=a/b%2Bjson&n=5"),
            Route::Referrers(
                a(),
                digest(),
                ReferrerQuery {
                    artifact_type: Some("a/b+json".into()),
                    limit: 5,
                    after: None,
                },
            ),
        ),
    ] {
        let line: String = line;
        assert_eq!(parse(&line), Ok(want), "{line}");
    }
}

#[test]
fn names_may_contain_the_words_of_the_protocol() {
    let name: Repository = "blobs/uploads/manifests/tags".parse().unwrap();
    assert_eq!(
        parse("GET /v2/blobs/uploads/manifests/tags/tags/list"),
        Ok(Route::Tags(
            name,
            Page {
                limit: MAX_PAGE,
                after: None
            }
        ))
    );
}

#[test]
fn what_is_malformed_is_the_client_s_fault() {
    let long = format!("GET /v2/a/manifests/{}", "a".repeat(MAX_TARGET));
    let many = format!(
        "PUT /v2/a/manifests/sha256:{HEX}?{}",
        "tag=a&".repeat(MAX_TAG_PARAMETERS + 1)
    );
    for (line, status, code) in [
        ("GET /other", 404, Code::NameUnknown),
        ("GET /packages/", 400, Code::NameInvalid),
        ("GET /packages/../x", 400, Code::NameInvalid),
        ("GET /packages/a@x", 400, Code::DigestInvalid),
        ("DELETE /token", 405, Code::Unsupported),
        ("GET /v1/", 404, Code::NameUnknown),
        ("GET /v2x", 404, Code::NameUnknown),
        ("GET /v2/a", 404, Code::NameUnknown),
        ("GET /v2//manifests/x", 400, Code::NameInvalid),
        ("GET /v2/../manifests/x", 400, Code::NameInvalid),
        ("GET /v2/a/../../etc/manifests/x", 400, Code::NameInvalid),
        ("GET /v2/%2e%2e/manifests/x", 400, Code::NameInvalid),
        ("GET /v2/A/tags/list", 400, Code::NameInvalid),
        ("GET /v2/a%/tags/list", 400, Code::Unsupported),
        ("GET /v2/a%ff/tags/list", 400, Code::Unsupported),
        ("GET /v2/a%+1/tags/list", 400, Code::Unsupported),
        ("GET /v2/a/tags/list?n=-1", 400, Code::Unsupported),
        ("GET /v2/a/tags/list?n=x", 400, Code::Unsupported),
        ("GET /v2/a/manifests/.INVALID", 404, Code::ManifestUnknown),
        ("GET /v2/a/manifests/%2e%2e%2f", 404, Code::NameUnknown),
        ("GET /v2/a/manifests/sha256:x", 400, Code::DigestInvalid),
        ("PUT /v2/a/manifests/.x", 400, Code::ManifestInvalid),
        ("PUT /v2/a/manifests/sha256:x", 400, Code::DigestInvalid),
        ("GET /v2/a/blobs/sha256:x", 400, Code::DigestInvalid),
        ("GET /v2/a/blobs/md5:00", 400, Code::DigestInvalid),
        ("GET /v2/a/referrers/x", 400, Code::DigestInvalid),
        ("PATCH /v2/a/blobs/uploads/x", 404, Code::BlobUploadUnknown),
        (
            "PUT /v2/a/blobs/uploads/00112233-4455-4677-8899-aabbccddeeff",
            400,
            Code::DigestInvalid,
        ),
        (
            "POST /v2/a/blobs/uploads/?digest-algorithm=md5",
            400,
            Code::DigestInvalid,
        ),
        (
            "POST /v2/a/blobs/uploads/?mount=x",
            400,
            Code::DigestInvalid,
        ),
        ("POST /v2/a/manifests/x", 405, Code::Unsupported),
        ("DELETE /v2/a/tags/list", 405, Code::Unsupported),
        ("PUT /v2/", 405, Code::Unsupported),
        (long.as_str(), 414, Code::Unsupported),
        (many.as_str(), 414, Code::Unsupported),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.code),
            (status, code),
            "{line}"
        );
    }
}

#[test]
fn upload_ids_are_uuids_of_version_4() {
    let id = UploadId::from_random([0xff; 16]);
    assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(UploadId::parse(&id.to_string()), Some(id));
    for bad in [
        "",
        "x",
        "ffffffffffff4fffbfffffffffffffff",
        "FFFFFFFF-ffff-4fff-bfff-ffffffffffff",
    ] {
        assert_eq!(UploadId::parse(bad), None, "{bad}");
    }
}
