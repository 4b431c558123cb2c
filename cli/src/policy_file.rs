//! Reads a policy file and the key files that it names.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use policy::{Policy, PolicyError, Reason, language::MAX_BYTES};

use crate::{Failure, output::printable};

/// Longest file that a policy names: a key has 1.6 KB at most, trusted roots and revocation
/// lists grow with the years.
const MAX_KEY_BYTES: usize = 1 << 20;

/// The policy in `path`.
pub fn read(path: &Path) -> Result<Policy, Failure> {
    let text = read_text(path)?;
    parse(&text, path).map_err(|error| failure(path, &error))
}

/// The text in `path`.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = read_file(path, MAX_BYTES)
        .map_err(|error| Failure::io("cannot read the policy", path, error))?;
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let detail = format!("{}: not UTF-8 at byte {offset}", path.display());
        Failure::refused(Reason::BadPolicy, detail)
    })
}

/// Parses `text`; key files are looked for beside `path`.
pub fn parse(text: &str, path: &Path) -> Result<Policy, PolicyError> {
    Policy::parse(text, &|name| load_key(path, name))
}

/// The bytes of a key file that the policy in `path` names.
pub fn load_key(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    read_file(&folder.join(name), MAX_KEY_BYTES)
}

/// What a person is told about a policy that cannot be used: every mistake with its place.
pub fn failure(path: &Path, error: &PolicyError) -> Failure {
    let mut lines: Vec<String> = error
        .faults
        .iter()
        .map(|fault| place(path, fault))
        .collect();
    let reason = error.reason();
    if lines.len() == 1 {
        return Failure::refused(reason, lines.remove(0));
    }
    let message = format!("{}: {} mistakes", path.display(), lines.len());
    let mut failure = Failure::refused(reason, message);
    failure.details = lines;
    failure
}

fn place(path: &Path, fault: &policy::Fault) -> String {
    let place = format!("{}:{}:{}", path.display(), fault.line, fault.column);
    printable(&format!("{place}: {}", fault.message))
}

/// A regular file of at most `limit` bytes: a pipe or device would make us wait or fill up.
fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let message = format!("it has over {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}
