//! `bpfseal-enforcer preflight`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use enforcer::{
    control::{Request, Runtime},
    enforcer::Preflight,
    failure::Failure,
    output::Output,
    preflight::btf_of,
    store::read_file,
};

use super::{Places, must_be_root};

/// Measures everything that is admitted for another kernel, from its BTF alone, and says what
/// would not load there. Exits 5 if something that loads now would not. Meant for the package
/// manager's hook, before the reboot.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer preflight --kernel /boot/vmlinuz-6.12.9-amd64
  bpfseal-enforcer preflight --kernel vmlinux --json | jq '.programs[] | select(.there | not)'")]
pub struct Args {
    /// Its image: vmlinuz (x86; unpacked by gzip, xz, zstd, lz4 or bzip2), vmlinux, or raw BTF.
    #[arg(long, value_name = "IMAGE")]
    kernel: PathBuf,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let image = read_file(&args.kernel, MAX_IMAGE)
        .map_err(|error| Failure::io("cannot read", &args.kernel, error))?;
    let btf = btf_of(&image)
        .map_err(|why| Failure::usage(format!("{}: {why}", args.kernel.display())))?;
    drop(image);
    Runtime::open(&places.runtime)?;
    // In the folder that is root's alone.
    let path = places
        .runtime
        .join(format!("preflight-{}.btf", std::process::id()));
    let done = write_and_ask(&path, &btf, places);
    let _ = fs::remove_file(&path);
    let preflight = done?;
    output.result(&preflight, || {
        enforcer::output::printable_lines(&preflight.text())
    });
    if preflight.ready {
        return Ok(());
    }
    Err(
        Failure::kernel("some of what loads here would be refused on that kernel")
            .with_remedy("Admit bundles that fit both kernels, or stay on this one."),
    )
}

fn write_and_ask(path: &Path, btf: &[u8], places: &Places) -> Result<Preflight, Failure> {
    fs::write(path, btf).map_err(|error| Failure::io("cannot write", path, error))?;
    let btf = path.to_owned();
    places.perform(Request::Preflight { btf }, &[])
}

/// A vmlinux with its symbols; distributions' have 50 MB.
const MAX_IMAGE: u64 = 1 << 30;
