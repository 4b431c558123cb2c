//! `bpfseal-enforcer explain`.

use std::path::{Path, PathBuf};

use enforcer::{
    control::Request, enforcer::Explanation, failure::Failure, output::Output, store::read_file,
    workshop::Stream,
};

use super::{Places, must_be_root};

/// Walks the instructions of a refused program along every admitted program, or along those
/// of one bundle, and says which function, instruction, constant, relocation or map is the
/// first that differs. Functions may stand in any order. Exits 0 whatever it finds.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer explain
  bpfseal-enforcer explain --program handle_open opensnoop
  bpfseal-enforcer explain --stream refused.bin opensnoop.tar
  bpfseal-enforcer explain --stream refused.bin --admit")]
pub struct Args {
    /// A signed bundle (file or folder), or the digest or name of an admitted one; default: all
    /// admitted ones.
    #[arg(value_name = "BUNDLE")]
    bundle: Option<String>,
    /// The instructions as they were handed to the kernel, 8 bytes each; default: those of the
    /// last refusal in the event log, which keeps the first 64.
    #[arg(long, value_name = "FILE")]
    stream: Option<PathBuf>,
    /// The last refusal of a program of this name.
    #[arg(long, value_name = "NAME", conflicts_with = "stream")]
    program: Option<String>,
    /// If the stream is an admitted program in another layout, let that load as well.
    #[arg(long)]
    admit: bool,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let file = args
        .bundle
        .as_deref()
        .map(Path::new)
        .filter(|path| path.exists());
    let bytes = file
        .map(super::admit::read)
        .transpose()?
        .unwrap_or_default();
    let request = Request::Explain {
        stream: args.stream.as_deref().map(stream).transpose()?,
        program: args.program.clone(),
        what: args.bundle.clone().filter(|_| file.is_none()),
        length: bytes.len() as u64,
        admit: args.admit,
    };
    let explanation: Explanation = places.perform(request, &bytes)?;
    output.result(&explanation, || {
        enforcer::output::printable_lines(&explanation.text())
    });
    Ok(())
}

fn stream(path: &Path) -> Result<Stream, Failure> {
    let bytes =
        read_file(path, MAX_STREAM).map_err(|error| Failure::io("cannot read", path, error))?;
    if bytes.is_empty() || bytes.len() % 8 != 0 {
        return Err(Failure::usage(format!(
            "{} has {} bytes; instructions have 8 each",
            path.display(),
            bytes.len()
        )));
    }
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| word.try_into().map_or(0, u64::from_le_bytes))
        .collect();
    Ok(Stream {
        length: words.len(),
        words,
    })
}

/// A million instructions, the kernel's limit.
const MAX_STREAM: u64 = 8_000_000;
