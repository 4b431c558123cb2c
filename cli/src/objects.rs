//! BPF objects named on a command line: object files, and executables that carry some.

use std::path::{Path, PathBuf};

use bundle::{embedded, light};
use policy::Reason;

use crate::{Failure, files};

/// Reads every object in the files, as title and ELF bytes, in the order given.
pub fn read(paths: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut objects = Vec::new();
    for path in paths {
        let bytes = read_file(path)?;
        let name = title(path)?;
        if embedded::is_object(&bytes) {
            objects.push((name, bytes));
            continue;
        }
        if light::is_skeleton(&bytes) {
            objects.push((loader_title(&name), loader(path, &bytes)?));
            continue;
        }
        let found = embedded::find_in(&name, &bytes);
        if found.is_empty() {
            return Err(no_object(path, &bytes));
        }
        for object in found {
            let elf = bytes.get(object.range).unwrap_or_default().to_vec();
            objects.push((object.name, elf));
        }
    }
    Ok(objects)
}

/// Is one of the files an executable with objects in it?
pub fn any_executable(objects: &[(String, Vec<u8>)], paths: &[PathBuf]) -> bool {
    let titles: Vec<_> = paths.iter().filter_map(|path| title(path).ok()).collect();
    objects.iter().any(|(name, _)| !titles.contains(name))
}

/// The loader of a light skeleton, as an object.
fn loader(path: &Path, header: &[u8]) -> Result<Vec<u8>, Failure> {
    let loader = light::read(header).map_err(|why| {
        Failure::refused(
            Reason::MalformedObject,
            format!("{} is a light skeleton, but {why}", path.display()),
        )
        .with_remedy("Give the header as `bpftool gen skeleton -L` wrote it.")
    })?;
    Ok(loader.to_object())
}

fn loader_title(header: &str) -> String {
    format!("{}.loader.o", header.strip_suffix(".h").unwrap_or(header))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::io("cannot read", path, error);
    let Some((file, length)) = files::open_regular(path).map_err(failed)? else {
        return Err(Failure::usage(format!("{} is not a file", path.display())));
    };
    files::check_length(path, length)?;
    files::read_large(file, length).map_err(failed)
}

fn title(path: &Path) -> Result<String, Failure> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| Failure::usage(format!("{} has no file name that is UTF-8", path.display())))
}

fn no_object(path: &Path, bytes: &[u8]) -> Failure {
    let what = if bytes.starts_with(b"\x7fELF") {
        "is no BPF object, and none is embedded in it"
    } else {
        "is no ELF file, and no BPF object is embedded in it"
    };
    Failure::refused(
        Reason::MalformedObject,
        format!("{} {what}", path.display()),
    )
    .with_remedy("Give objects made by `clang -target bpf`, or executables that carry some.")
}
