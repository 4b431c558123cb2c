//! The state folder: what survives a restart. Root can write all of it, so nothing in it is
//! believed: policies and bundles are verified again each time they are read, and what must
//! not be forged (authority, version, mode, deadline, used permits) is pinned in the kernel.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bundle::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A policy as it travels: its text and the authority's signature, which holds the key files
/// that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `policy.toml`.
    pub text: String,
    /// `policy.toml.sig`.
    pub signature: String,
}

/// What was asked for at arming, so that the next boot arms alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// `--audit-only`.
    pub audit_only: bool,
}

/// A stored bundle's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Digest of its manifest, as the file's name says.
    pub bundle: Digest,
    /// The scope under which it was admitted.
    pub scope: Option<String>,
}

/// Largest bundle: a few hundred objects of a few hundred kilobytes.
pub const MAX_BUNDLE: u64 = 256 << 20;
/// Largest other file.
const MAX_FILE: u64 = 4 << 20;

/// The state folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder; makes it, readable by root alone, if it is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for part in ["", "bundles", "events", "revocations"] {
            builder.create(folder.join(part))?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The policies on disk: the one in `policy.toml`, and one whose exchange was cut off
    /// by a crash. Whichever the authority signed is meant.
    pub fn documents(&self) -> io::Result<Vec<Document>> {
        let mut found = Vec::new();
        let pairs = [
            ("policy.toml", "policy.toml.sig"),
            ("policy.toml.next", "policy.toml.sig.next"),
            ("policy.toml.next", "policy.toml.sig"),
        ];
        for (name, signature) in pairs {
            let Some(text) = self.text(name)? else {
                continue;
            };
            let signature = self.text(signature)?.unwrap_or_default();
            let document = Document { text, signature };
            if !found.contains(&document) {
                found.push(document);
            }
        }
        Ok(found)
    }

    /// Exchanges the policy. A crash leaves the old one or the new one, never neither:
    /// [`Store::documents`] finds a complete pair at each step.
    pub fn put_document(&self, document: &Document) -> io::Result<()> {
        self.write("policy.toml.next", document.text.as_bytes())?;
        self.write("policy.toml.sig.next", document.signature.as_bytes())?;
        self.write("policy.toml.sig", document.signature.as_bytes())?;
        self.write("policy.toml", document.text.as_bytes())?;
        self.remove("policy.toml.next")?;
        self.remove("policy.toml.sig.next")
    }

    /// The authority's public key, PEM.
    pub fn authority(&self) -> io::Result<Option<String>> {
        self.text("authority.pub")
    }

    /// Stores the authority's public key.
    pub fn put_authority(&self, pem: &str) -> io::Result<()> {
        self.write("authority.pub", pem.as_bytes())
    }

    /// What was asked for at arming; `None`: not armed.
    pub fn intent(&self) -> io::Result<Option<Intent>> {
        self.json("armed.json")
    }

    /// Stores or, with `None`, forgets it.
    pub fn put_intent(&self, intent: Option<Intent>) -> io::Result<()> {
        match intent {
            Some(intent) => self.put_json("armed.json", &intent),
            None => self.remove("armed.json"),
        }
    }

    /// Highest version admitted so far, by package name.
    pub fn marks(&self) -> io::Result<BTreeMap<String, String>> {
        Ok(self.json("marks.json")?.unwrap_or_default())
    }

    /// Stores them.
    pub fn put_marks(&self, marks: &BTreeMap<String, String>) -> io::Result<()> {
        self.put_json("marks.json", marks)
    }

    /// Digests of the permits used so far, on this machine.
    pub fn spent(&self) -> io::Result<Vec<Digest>> {
        Ok(self.json("permits.json")?.unwrap_or_default())
    }

    /// Stores them.
    pub fn put_spent(&self, spent: &[Digest]) -> io::Result<()> {
        self.put_json("permits.json", &spent)
    }

    /// Every file in the folder of revocation lists; most likely one.
    pub fn revocations(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder.join("revocations"))? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".json")) else {
                continue;
            };
            found.extend(self.text(&format!("revocations/{name}"))?);
        }
        Ok(found)
    }

    /// Names, times and lengths there: whether somebody changed something.
    pub fn revocations_seen(&self) -> Vec<(OsString, SystemTime, u64)> {
        let Ok(entries) = fs::read_dir(self.folder.join("revocations")) else {
            return Vec::new();
        };
        let mut seen: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                let changed = metadata.modified().ok()?;
                Some((entry.file_name(), changed, metadata.len()))
            })
            .collect();
        seen.sort();
        seen
    }

    /// Stores a list; the ones that this program stored before are its predecessors and go.
    pub fn put_revocations(&self, version: u64, file: &str) -> io::Result<()> {
        let name = |version: u64| format!("revocations/list-{version:020}.json");
        self.write(&name(version), file.as_bytes())?;
        for entry in fs::read_dir(self.folder.join("revocations"))? {
            let other = format!("revocations/{}", entry?.file_name().to_string_lossy());
            if other.starts_with("revocations/list-") && other < name(version) {
                self.remove(&other)?;
            }
        }
        Ok(())
    }

    /// The list of probe programs.
    pub fn probes(&self) -> io::Result<Option<String>> {
        self.text("probes.json")
    }

    /// Stores it.
    pub fn put_probes(&self, file: &str) -> io::Result<()> {
        self.write("probes.json", file.as_bytes())
    }

    /// The stored bundles, by digest.
    pub fn bundles(&self) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder.join("bundles"))? {
            let name = entry?.file_name();
            let Some(bundle) = name
                .to_str()
                .and_then(|name| name.strip_suffix(".tar"))
                .and_then(|hex| format!("sha256:{hex}").parse().ok())
            else {
                continue;
            };
            let scope = self.text(&scope_file(&bundle))?;
            found.push(Stored { bundle, scope });
        }
        found.sort_by_key(|stored| stored.bundle);
        Ok(found)
    }

    /// The bytes of a stored bundle.
    pub fn bundle(&self, bundle: &Digest) -> io::Result<Vec<u8>> {
        read_file(&self.folder.join(bundle_file(bundle)), MAX_BUNDLE)
    }

    /// Stores a bundle under its digest.
    pub fn put_bundle(&self, bundle: &Digest, scope: Option<&str>, bytes: &[u8]) -> io::Result<()> {
        match scope {
            Some(scope) => self.write(&scope_file(bundle), scope.as_bytes())?,
            None => self.remove(&scope_file(bundle))?,
        }
        self.write(&bundle_file(bundle), bytes)
    }

    /// Forgets a bundle.
    pub fn remove_bundle(&self, bundle: &Digest) -> io::Result<()> {
        self.remove(&bundle_file(bundle))?;
        self.remove(&scope_file(bundle))
    }

    fn text(&self, name: &str) -> io::Result<Option<String>> {
        match read_file(&self.folder.join(name), MAX_FILE) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {error}")))
    }

    fn put_json<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.write(name, serde_json::to_string_pretty(value)?.as_bytes())
    }

    /// Whole or not at all, on the disk when it returns.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.folder.join(name);
        let folder = path.parent().unwrap_or(&self.folder);
        let temporary = path.with_added_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Reads a regular file that is not larger than `most`; never blocks on a FIFO.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    if metadata.len() > most {
        let message = format!("it has {} bytes; at most {most} are read", metadata.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bundle_file(bundle: &Digest) -> String {
    format!("bundles/{}.tar", bundle.to_hex())
}

fn scope_file(bundle: &Digest) -> String {
    format!("bundles/{}.scope", bundle.to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document {
            text: text.to_owned(),
            signature: format!("signature of {text}"),
        }
    }

    #[test]
    fn what_was_stored_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.documents().unwrap(), []);
        store.put_document(&document("one")).unwrap();
        store.put_document(&document("two")).unwrap();
        assert_eq!(store.documents().unwrap(), [document("two")]);
        let digest = Digest::of(b"bundle");
        store.put_bundle(&digest, Some("tools/x"), b"tar").unwrap();
        let want = Stored {
            bundle: digest,
            scope: Some("tools/x".to_owned()),
        };
        assert_eq!(store.bundles().unwrap(), [want]);
        assert_eq!(store.bundle(&digest).unwrap(), b"tar");
        store.remove_bundle(&digest).unwrap();
        assert_eq!(store.bundles().unwrap(), []);
    }

    /// Every prefix of the steps of `put_document` leaves a pair that belongs together.
    #[test]
    fn a_crash_while_the_policy_is_exchanged_leaves_a_complete_pair() {
        let (old, new) = (document("old"), document("new"));
        let steps: [(&str, &str); 4] = [
            ("policy.toml.next", &new.text),
            ("policy.toml.sig.next", &new.signature),
            ("policy.toml.sig", &new.signature),
            ("policy.toml", &new.text),
        ];
        for done in 0..=steps.len() {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            store.put_document(&old).unwrap();
            for (name, text) in &steps[..done] {
                store.write(name, text.as_bytes()).unwrap();
            }
            let found = store.documents().unwrap();
            assert!(
                found.contains(&old) || found.contains(&new),
                "after {done} steps: {found:?}"
            );
        }
    }

    #[test]
    fn nobody_else_reads_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        store.put_authority("PEM").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.folder()), 0o700);
        assert_eq!(mode(&store.folder().join("authority.pub")), 0o600);
    }
}
