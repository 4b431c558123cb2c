use super::*;

fn sample() -> Layout {
    let mut layout = Layout::new();
    let config = layout.add_blob(media::EMPTY_JSON.to_vec());
    let manifest = Manifest::artifact(
        "application/x",
        Descriptor {
            digest: config,
            ..Descriptor::of(media::EMPTY, media::EMPTY_JSON)
        },
        vec![],
    );
    layout
        .add_manifest(manifest.to_bytes(), Some("1.0"))
        .unwrap();
    layout
}

fn tar_of(layout: &Layout) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout.write(&mut bytes, 0).unwrap();
    bytes
}

/// A tar of `(path, kind, bytes)`, with headers as hostile as the test wants them.
fn raw_tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if *kind == tar::EntryType::Symlink || *kind == tar::EntryType::Link {
            header.set_link_name("index.json").unwrap();
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    Layout::read(bytes, &Limits::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn reads_what_it_writes_and_writes_the_same_bytes() {
    let layout = sample();
    let first = tar_of(&layout);
    let again = Layout::read(first.as_slice(), &Limits::default()).unwrap();
    assert_eq!(again, layout);
    assert_eq!(tar_of(&again), first);
}

#[test]
fn a_name_is_one_manifests_alone_and_a_manifest_is_listed_once() {
    let mut layout = sample();
    let mut other =
        Manifest::parse(layout.blob(&layout.index.manifests[0].digest).unwrap()).unwrap();
    layout.add_manifest(other.to_bytes(), None).unwrap();
    assert_eq!(layout.index.manifests.len(), 1);
    other.annotations.insert("a".to_owned(), "b".to_owned());
    layout.add_manifest(other.to_bytes(), Some("1.0")).unwrap();
    let names: Vec<_> = layout
        .index
        .manifests
        .iter()
        .map(|d| d.annotations.get(media::REF_NAME).map(String::as_str))
        .collect();
    assert_eq!(names, [None, Some("1.0")]);
}

#[test]
fn refuses_paths_links_and_duplicates() {
    use tar::EntryType::{Fifo, Link, Regular, Symlink};
    let version: (&str, _, &[u8]) = ("oci-layout", Regular, VERSION_FILE);
    for (entries, want) in [
        (
            vec![("../x", Regular, &b""[..])],
            r#"path "../x" leaves the layout"#,
        ),
        (
            vec![("/oci-layout", Regular, &b""[..])],
            r#"path "/oci-layout" is absolute"#,
        ),
        (
            vec![("a\\b", Regular, &b""[..])],
            r#"path "a\\b" has a character that no layout uses"#,
        ),
        (
            vec![("blobs", Symlink, &b""[..])],
            r#""blobs" is a symbolic link, not a file"#,
        ),
        (
            vec![("blobs", Link, &b""[..])],
            r#""blobs" is a hard link, not a file"#,
        ),
        (
            vec![("blobs", Fifo, &b""[..])],
            r#""blobs" is a FIFO, not a file"#,
        ),
        (
            vec![version, ("./oci-layout", Regular, VERSION_FILE)],
            r#""oci-layout" is in it twice"#,
        ),
        (
            vec![("blobs/sha256/AB", Regular, &b""[..])],
            r#"blob name "AB" is not a SHA-256 digest"#,
        ),
        (
            vec![version],
            "not an OCI layout: there is no `index.json` file",
        ),
        (
            vec![("x", Regular, &b""[..])],
            "not an OCI layout: there is no `oci-layout` file",
        ),
        (vec![], "not an OCI layout: it is empty"),
    ] {
        assert_eq!(refusal(&raw_tar(&entries)), want);
    }
}

#[test]
fn refuses_a_blob_that_is_not_what_its_name_says() {
    let digest = Digest::of(b"a");
    let path = format!("{BLOBS}{}", digest.to_hex());
    let bytes = raw_tar(&[(&path, tar::EntryType::Regular, b"b")]);
    assert_eq!(
        refusal(&bytes),
        format!(
            "blob {} has digest {}, not {digest}",
            digest.to_hex(),
            Digest::of(b"b")
        )
    );
}

#[test]
fn refuses_what_is_over_its_limits() {
    let bytes = tar_of(&sample());
    let read = |limits| {
        Layout::read(bytes.as_slice(), &limits)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let limits = Limits::default();
    assert_eq!(read(limits), Ok(()));
    assert_eq!(
        read(Limits {
            entries: 2,
            ..limits
        }),
        Err("it has more than 2 files".to_owned())
    );
    assert_eq!(
        read(Limits { blob: 1, ..limits }),
        Err(format!(
            "\"{BLOBS}44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\" has 2 bytes, over 1"
        ))
    );
    assert_eq!(
        read(Limits {
            manifest: 10,
            ..limits
        })
        .map_err(|e| e.ends_with("bytes, over 10")),
        Err(true)
    );
}

#[test]
fn a_cut_off_tar_is_refused_at_every_length() {
    let bytes = tar_of(&sample());
    let content = bytes.len() - 1024;
    for end in 0..content - 511 {
        assert!(
            Layout::read(&bytes[..end], &Limits::default()).is_err(),
            "accepted the first {end} bytes"
        );
    }
}

#[test]
fn files_that_no_layout_needs_are_skipped() {
    let layout = sample();
    let mut bytes = tar_of(&layout);
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(raw_tar(&[
        ("manifest.json", tar::EntryType::Regular, b"[]"),
        ("ingest", tar::EntryType::Directory, b""),
    ]));
    assert_eq!(
        Layout::read(bytes.as_slice(), &Limits::default()).unwrap(),
        layout
    );
}

#[test]
fn one_blob_in_many_places_is_not_copied_without_end() {
    let mut layout = sample();
    let subject = layout.index.manifests[0].clone();
    let blob = vec![0; 1 << 20];
    let layer = Descriptor::of("application/x", &blob);
    layout.add_blob(blob);
    let config = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
    let mut manifest = Manifest::artifact("application/x", config, vec![layer; 20]);
    manifest.subject = Some(subject.clone());
    let listed = layout.add_manifest(manifest.to_bytes(), None).unwrap();
    layout.index.manifests.extend(vec![listed; 1000]);
    let referrers = layout.referrers(&subject.digest);
    assert_eq!(referrers.len(), 1);
    let copied = referrers[0]
        .layers
        .iter()
        .filter(|layer| layer.is_ok())
        .count();
    assert_eq!(copied, 15);
    assert_eq!(
        referrers[0].layers[19],
        Err("there is more attached than is read".to_owned())
    );
}

#[test]
fn a_layout_of_something_else_is_no_bundle() {
    assert_eq!(
        sample().bundle().unwrap_err().to_string(),
        "the layout holds no bundle, but application/x"
    );
    assert_eq!(
        Layout::new().bundle().unwrap_err().to_string(),
        "the layout is empty"
    );
}
