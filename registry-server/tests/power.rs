//! A power cut: what the server did not flush is gone, files and names. The server runs with
//! `power/journal.c` preloaded, which notes what it writes and flushes; after SIGKILL the test
//! takes away what no flush covered and starts a server on the rest. One flush left out of the
//! program, of a file or of a folder, fails this test.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Server, image, sha256};

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (root, journal) = (folder.path().join("root"), folder.path().join("journal"));
    let library = compile(folder.path());
    let mut acknowledged = Vec::new();
    let mut lost = 0;
    for cut in 0..3 {
        let set = [
            ("LD_PRELOAD", library.as_path()),
            ("JOURNAL", &journal),
            ("JOURNAL_ROOT", &root),
        ];
        let server = Server::with_environment(&root, &[], &set);
        let mut client = server.client();
        for n in 0..8 {
            let layer = format!("layer {cut} {n} ").repeat(n * 4000 + 1);
            let tag = format!("t{cut}-{n}");
            client.push_image("a", &tag, layer.as_bytes());
            acknowledged.push((tag, layer));
        }
        // Chunks, and one upload that nobody finishes: nothing of it was promised.
        let location = client.start_upload("a");
        client.send(&format!("PATCH {location}"), &[], &[cut; 300_000]);
        let whole = [[cut; 300_000], [cut + 1; 300_000]].concat();
        let line = format!("PUT {location}?digest={}", sha256(&whole));
        assert_eq!(client.send(&line, &[], &whole[300_000..]).status, 201);
        let unfinished = client.start_upload("a");
        client.send(&format!("PATCH {unfinished}"), &[], &[cut; 300_000]);
        server.kill();
        lost += cut_power(&root, &fs::read_to_string(&journal).unwrap());
        fs::remove_file(&journal).unwrap();
        let server = Server::start(&root);
        let mut client = server.client();
        let reply = client.get(&format!("/v2/a/blobs/{}", sha256(&whole)));
        assert_eq!((reply.status, reply.body == whole), (200, true));
        for (tag, layer) in &acknowledged {
            let manifest = client.get(&format!("/v2/a/manifests/{tag}"));
            let want = image(&[layer.as_bytes()], None);
            assert_eq!((manifest.status, manifest.text()), (200, &*want), "{tag}");
            let blob = client.get(&format!("/v2/a/blobs/{}", sha256(layer.as_bytes())));
            assert_eq!((blob.status, blob.text() == layer), (200, true), "{tag}");
        }
        assert_eq!(server.stop(), Some(0));
    }
    assert!(
        lost > 0,
        "the power cut took nothing away: it proves nothing"
    );
}

fn compile(folder: &Path) -> PathBuf {
    let library = folder.join("journal.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/journal.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    library
}

/// What the disk knows of the files and names under a folder.
#[derive(Default)]
struct Disk {
    /// Files with bytes that were never flushed: how many were before.
    dirty: BTreeMap<PathBuf, u64>,
    /// Bytes that were flushed of each file.
    flushed: BTreeMap<PathBuf, u64>,
    /// Names that no flush of their folder covered.
    names: BTreeSet<PathBuf>,
}

/// Takes away what was not flushed. Returns how many files and names that changed.
fn cut_power(root: &Path, journal: &str) -> usize {
    let mut disk = Disk::default();
    for line in journal.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let path = PathBuf::from(words[1]);
        let size = || words[2].parse().unwrap();
        match words[0] {
            "W" => {
                let before = disk.flushed.get(&path).copied().unwrap_or(0);
                disk.dirty.insert(path, before.min(size()));
            }
            "S" => {
                disk.dirty.remove(&path);
                disk.flushed.insert(path.clone(), size());
                disk.names.retain(|name| name.parent() != Some(&path));
            }
            "N" => {
                disk.names.insert(path);
            }
            "R" => {
                let to = PathBuf::from(words[2]);
                if let Some(before) = disk.dirty.remove(&path) {
                    disk.dirty.insert(to.clone(), before);
                }
                if let Some(size) = disk.flushed.remove(&path) {
                    disk.flushed.insert(to.clone(), size);
                }
                disk.names.remove(&path);
                disk.names.insert(to);
            }
            "U" => {
                disk.dirty.remove(&path);
                disk.names.remove(&path);
            }
            other => panic!("{other}"),
        }
    }
    let mut changed = 0;
    for (path, before) in &disk.dirty {
        // SQLite makes this index anew.
        if path.to_string_lossy().ends_with("-shm") || !path.exists() {
            continue;
        }
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(*before).unwrap();
        changed += 1;
    }
    for path in disk
        .names
        .iter()
        .rev()
        .filter(|path| *path != root && path.exists())
    {
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.unwrap();
        changed += 1;
    }
    changed
}
