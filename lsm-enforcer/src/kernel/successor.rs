//! Another build of the enforcer takes the place of the one that armed the gate.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use libbpf_rs::MapHandle;

use super::generators::{Pin, keep_from_writers};

/// A file that is there and has no name that counts.
pub struct Next {
    pub file: File,
    path: PathBuf,
}

/// Writes `content` beside the daemon's file `path`.
pub fn write(path: &Path, content: &[u8]) -> io::Result<Next> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = path.with_file_name(format!(".{name}.next"));
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&next)?;
    // Not by the mode above, of which the daemon's umask takes its part.
    file.set_permissions(fs::metadata(path)?.permissions())?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    Ok(Next {
        file: File::open(&next)?,
        path: next,
    })
}

/// Nobody writes it from here on, and nobody did before.
pub fn guard(pinned: &MapHandle, mut file: &File, content: &[u8]) -> io::Result<()> {
    keep_from_writers(pinned, file, &Pin::default())?;
    let mut found = Vec::with_capacity(content.len());
    file.read_to_end(&mut found)?;
    match found == content {
        true => Ok(()),
        false => Err(io::Error::other("somebody wrote to it")),
    }
}

impl Next {
    /// Gives it the daemon's name.
    pub fn take(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_another_ones_place_with_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o757)).unwrap();
        // What a crash left.
        fs::write(folder.path().join(".daemon.next"), "half").unwrap();
        let next = write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        next.take(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o757);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
