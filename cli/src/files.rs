//! Files that commands write: whole or not at all, and keys for their owner alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use bundle::Layout;
use policy::Reason;

use crate::{Failure, epoch};

/// Writes a layout as a tar, in the place of what was there; readers see the old file or
/// the new one, never half of it.
pub fn write_layout(layout: &Layout, path: &Path) -> Result<(), Failure> {
    let mtime = epoch::seconds()?.unwrap_or(0);
    let failed = |error| Failure::io("cannot write", path, error);
    // Renaming over a device or FIFO would take it away from others.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Failure::usage(format!(
            "{} is there and is no file",
            path.display()
        )));
    }
    persist(path, |file| {
        let mut buffer = io::BufWriter::with_capacity(64 << 10, file);
        layout.write(&mut buffer, mtime)?;
        buffer.flush()
    })
    .map_err(failed)
}

/// Writes a file in the place of what was there, whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::io("cannot write", path, error);
    // A pipe or device is written to, not taken away: `--bundle >(tee b.json)`.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return fs::write(path, bytes).map_err(failed);
    }
    persist(path, |file| file.write_all(bytes)).map_err(failed)
}

/// Puts what `write` writes in the place of `path`, once all of it is there.
fn persist(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".bpfseal-")
        .permissions(readable())
        .tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Writes a file that must not be there yet, readable by `mode`.
pub fn create_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_there(path),
        _ => Failure::io("cannot write", path, error),
    })
}

/// A key file that is there is never overwritten.
pub fn already_there(path: &Path) -> Failure {
    Failure::usage(format!(
        "{} is there already, and keys are never overwritten",
        path.display()
    ))
    .with_remedy("Give another name with `-o`, or move the old key away.")
}

/// Opens a regular file for reading and tells its length in bytes; `None` for all else,
/// because a FIFO would wait for ever and a device never end.
pub fn open_regular(path: &Path) -> io::Result<Option<(File, u64)>> {
    // Opening a device can have effects, so it is asked before; the name may mean another
    // file by then, so it is asked again, without waiting for a writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata.len())))
}

/// Refuses a file that is too large to be what it is taken for.
pub fn check_length(path: &Path, length: u64) -> Result<(), Failure> {
    if length <= LARGEST {
        return Ok(());
    }
    Err(Failure::refused(
        Reason::LimitExceeded,
        format!("{} has {length} bytes, over {LARGEST}", path.display()),
    ))
}

/// Reads an object or an executable of at most [`LARGEST`] bytes.
pub fn read_large(file: File, length: u64) -> io::Result<Vec<u8>> {
    // Exactly what is there: a buffer that doubles would take twice the memory.
    let mut bytes = Vec::with_capacity(length.min(LARGEST) as usize);
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a small file: a key, a passphrase, a policy.
pub fn read_small(path: &Path, doing: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::io(doing, path, error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{} is a folder", path.display())));
    }
    if metadata.is_file() && metadata.len() > SMALL {
        return Err(Failure::usage(format!(
            "{} has {} bytes; {SMALL} are read",
            path.display(),
            metadata.len()
        )));
    }
    // A pipe is fine here: `--passphrase-file <(pass show release)`.
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SMALL).read_to_end(&mut bytes))
        .map_err(failed)?;
    Ok(bytes)
}

/// Reads a Sigstore bundle or a trusted root.
pub fn read_bundle(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::io("cannot read", path, error);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BUNDLE + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > BUNDLE {
        return Err(Failure::refused(
            Reason::LimitExceeded,
            format!("{} has over {BUNDLE} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

fn readable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o644)
}

/// Policies may have 1 MiB; keys and passphrases are far below.
const SMALL: u64 = 2 << 20;
/// A Sigstore bundle or trusted root has some kilobytes.
const BUNDLE: u64 = 4 << 20;
/// Kernels with all their debug information reach a few hundred megabytes; executables
/// with BPF objects in them do not.
const LARGEST: u64 = 160 << 20;
