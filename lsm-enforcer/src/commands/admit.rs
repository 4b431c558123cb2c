//! `bpfseal-enforcer admit`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bundle::layout::{Builder, Limits};
use enforcer::{
    control::Request,
    enforcer::Admission,
    failure::Failure,
    output::Output,
    store::{MAX_BUNDLE, read_file},
};
use policy::Reason;

use super::{Places, must_be_root};

/// Verifies the bundle from zero under the policy in force, computes what its programs
/// look like on this kernel, and lets exactly those load, by any loader.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer admit opensnoop.tar
  bpfseal-enforcer admit ./layout --scope registry.acme.example/tracing/opensnoop")]
pub struct Args {
    /// An OCI layout: a tar as `bpfseal pull` and `bpfseal pack` write it, or a folder.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Where it came from (`host/repository`); default: the package name that it was signed with.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let bytes = read(&args.bundle)?;
    let request = Request::Admit {
        scope: args.scope.clone(),
        length: bytes.len() as u64,
    };
    let admission: Admission = places.perform(request, &bytes)?;
    output.result(&admission, || text(&admission));
    Ok(())
}

pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::io("cannot read", path, error);
    if fs::metadata(path).map_err(failed)?.is_dir() {
        return pack(path);
    }
    read_file(path, MAX_BUNDLE).map_err(failed)
}

/// A layout in a folder as the tar that the daemon takes.
fn pack(folder: &Path) -> Result<Vec<u8>, Failure> {
    let malformed = |error: bundle::MalformedBundle| {
        Failure::refused(Reason::MalformedBundle, error.to_string())
    };
    let mut builder = Builder::new(Limits::default());
    let mut files = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    let blobs = folder.join("blobs/sha256");
    for entry in fs::read_dir(&blobs).map_err(|error| Failure::io("cannot read", &blobs, error))? {
        let entry = entry.map_err(|error| Failure::io("cannot read", &blobs, error))?;
        files.push(format!(
            "blobs/sha256/{}",
            entry.file_name().to_string_lossy()
        ));
    }
    for name in files {
        let path = folder.join(&name);
        let bytes = read_file(&path, MAX_BUNDLE)
            .map_err(|error| Failure::io("cannot read", &path, error))?;
        builder
            .file(&name, bytes.len() as u64, &mut bytes.as_slice())
            .map_err(malformed)?;
    }
    let mut tar = Vec::new();
    builder
        .finish()
        .map_err(malformed)?
        .write(&mut tar, 0)
        .map_err(|error| Failure::internal(error.to_string()))?;
    Ok(tar)
}

fn text(admission: &Admission) -> String {
    let name = admission.name.as_deref().unwrap_or("(no name)");
    let version = admission
        .version
        .as_deref()
        .map(|v| format!(" {v}"))
        .unwrap_or_default();
    let mut text = format!(
        "{name}{version}, {}, signed by {}: {}",
        admission.bundle,
        admission.signers.join(", "),
        admission.rule
    );
    for program in &admission.programs {
        text += &match (&program.why, program.insns) {
            (None, Some(insns)) if program.unchecked.is_some() => format!(
                "\n  admitted      {} ({insns} instructions; NOT found again in the object: {})",
                program.program,
                program.unchecked.as_deref().unwrap_or_default()
            ),
            (None, Some(insns)) => format!(
                "\n  admitted      {} ({insns} instructions)",
                program.program
            ),
            (None, None) => format!("\n  admitted      {}", program.program),
            (Some(why), _) => format!("\n  NOT admitted  {}: {why}", program.program),
        };
    }
    enforcer::output::printable_lines(&text)
}
