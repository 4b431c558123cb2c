//! Backup and restore as docs/registry.md says, and repair, also over PostgreSQL.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{
    Client, Server, artifact,
    backends::{Postgres, cached},
    sha256,
};

fn registry(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"));
    command.args(arguments).output().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// An image with a signature; returns what asks for all of it.
fn fill(client: &mut Client) -> Vec<String> {
    let image = client.push_image("team/app", "v1", b"layer");
    let note = artifact("x/signature", &image, "");
    let note = client.push_manifest("team/app", &sha256(note.as_bytes()), &note);
    vec![
        "/v2/team/app/manifests/v1".to_owned(),
        format!("/v2/team/app/manifests/{image}"),
        format!("/v2/team/app/manifests/{note}"),
        format!("/v2/team/app/referrers/{image}"),
        format!("/v2/team/app/blobs/{}", sha256(b"layer")),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/_catalog".to_owned(),
    ]
}

fn answers(client: &mut Client, paths: &[String]) -> Vec<Vec<u8>> {
    let answer = |path: &String| {
        let reply = client.get(path);
        assert_eq!(reply.status, 200, "{path}");
        reply.body
    };
    paths.iter().map(answer).collect()
}

#[test]
fn a_copy_of_sqlite_and_of_the_blobs_is_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let (root, new) = (folder.path().join("root"), folder.path().join("new"));
    let server = Server::start(&root);
    let mut client = server.client();
    let paths = fill(&mut client);
    let want = answers(&mut client, &paths);
    fs::create_dir(&new).unwrap();
    let copied = Command::new(cached("sqlite3").join("bin/sqlite3"))
        .arg(root.join("metadata.db"))
        .arg(format!(".backup {}", new.join("metadata.db").display()))
        .status();
    assert!(copied.unwrap().success());
    // What comes in between has bytes without a record: more than is needed, never less.
    client.push_image("team/app", "v2", b"later");
    copy(&root.join("blobs"), &new);
    drop(client);
    server.stop();
    let checked = registry(&["check", "--json", "--root", new.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let server = Server::start(&new);
    assert_eq!(answers(&mut server.client(), &paths), want);
}

/// An instance over PostgreSQL and a folder.
struct Instance {
    folder: tempfile::TempDir,
    database: String,
    server: Server,
}

impl Instance {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Postgres::shared().database();
        let server = Self::serve(folder.path(), &database);
        Self {
            folder,
            database,
            server,
        }
    }

    fn serve(folder: &Path, database: &str) -> Server {
        let blobs = folder.join("shared");
        let flags = ["--database", database, "--blobs", blobs.to_str().unwrap()];
        Server::with(&folder.join("root"), &flags)
    }

    /// Upkeep from another folder, beside the instance.
    fn upkeep(&self, arguments: &[&str]) -> Output {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (root, blobs) = (path("upkeep"), path("shared"));
        let places = ["--root", &*root, "--database", &*self.database];
        registry(&[arguments, &places, &["--blobs", &*blobs]].concat())
    }

    /// The file of a blob, whose name ends with which copy it is.
    fn file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let place = self.folder.path().join("shared/blobs/sha256");
        let files = fs::read_dir(place.join(&hex[..2])).unwrap();
        let mut files = files.map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| path.display().to_string().contains(hex);
        files.find(is_it).unwrap()
    }
}

#[test]
fn a_dump_of_postgresql_and_a_copy_of_the_store_is_the_registry() {
    let old = Instance::start();
    let mut client = old.server.client();
    let paths = fill(&mut client);
    let want = answers(&mut client, &paths);
    let new = tempfile::tempdir().unwrap();
    let dump = new.path().join("dump.sql").display().to_string();
    Postgres::client("pg_dump", &["-f", &dump, &old.database]);
    client.push_image("team/app", "v2", b"later");
    copy(&old.folder.path().join("shared"), new.path());
    drop(client);
    drop(old);
    let database = Postgres::shared().database();
    let quiet = ["-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"];
    let restore = [&quiet[..], &["-f", &dump, &database]].concat();
    Postgres::client("psql", &restore);
    let blobs = new.path().join("shared").display().to_string();
    let places = ["--database", &*database, "--blobs", &*blobs];
    let checked = registry(&[&["check", "--json"][..], &places].concat());
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let server = Instance::serve(new.path(), &database);
    assert_eq!(answers(&mut server.client(), &paths), want);
}

#[test]
fn repair_over_postgresql_forgets_what_is_damaged_beside_an_instance() {
    let instance = Instance::start();
    let mut client = instance.server.client();
    let good = client.push_blob("a", b"good");
    let flipped = client.push_blob("a", b"flipped");
    let missing = client.push_blob("a", b"missing");
    let file = instance.file(&flipped);
    fs::write(&file, b"fl1pped").unwrap();
    fs::remove_file(instance.file(&missing)).unwrap();
    let found = instance.upkeep(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let damage = report["damage"].as_array().unwrap().len();
    assert_eq!((found.status.code(), damage), (Some(1), 2), "{found:?}");
    let repaired = instance.upkeep(&["check", "--repair"]);
    assert_eq!(repaired.status.code(), Some(1), "{repaired:?}");
    let aside = fs::read_dir(instance.folder.path().join("shared/damaged")).unwrap();
    let aside: Vec<_> = aside
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(aside, [b"fl1pped"]);
    let blob = |digest: &str| format!("/v2/a/blobs/{digest}");
    let mut statuses =
        || [&good, &flipped, &missing].map(|digest| client.get(&blob(digest)).status);
    assert_eq!(statuses(), [200, 404, 404]);
    let mut client = instance.server.client();
    for (digest, bytes) in [(flipped, &b"flipped"[..]), (missing, b"missing")] {
        client.push_blob("a", bytes);
        assert_eq!(client.get(&blob(&digest)).body, bytes);
    }
    assert_eq!(instance.upkeep(&["check"]).status.code(), Some(0));
}
