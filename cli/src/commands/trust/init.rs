//! `bpfseal trust init`.

use std::path::PathBuf;

use jiff::Timestamp;

use super::update::Done;
use crate::{
    Failure, Output, files,
    signing::http::Http,
    trust::{
        refresh,
        store::{Instance, PUBLIC_GOOD, Store},
    },
};

/// Store a Sigstore instance's trusted root under a name.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal trust init
  bpfseal trust init --mirror /mnt/usb/sigstore
  bpfseal trust init --name acme --mirror https://tuf.acme.example --root root.json
  bpfseal verify-blob --trust acme --bundle b.json --certificate-identity …

Trust begins with ROOT, which you got on a way that you trust; all else is proved from it.
Without --name it is the public-good instance, whose root this program carries.")]
pub struct Args {
    /// Name for --trust: small letters, digits, '.', '_', '-'.
    #[arg(long, value_name = "NAME", default_value = PUBLIC_GOOD)]
    name: String,
    /// The instance's repository (The Update Framework): a URL, or a folder with a copy.
    #[arg(long, value_name = "URL|FOLDER")]
    mirror: Option<String>,
    /// The repository's root metadata (`root.json`), of any version.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Begin anew where the name is stored already: what was seen is forgotten.
    #[arg(long)]
    replace: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let is_public = args.name == PUBLIC_GOOD;
    let mirror = match &args.mirror {
        Some(text) if refresh::is_web(text) => text.clone(),
        Some(folder) => std::path::absolute(folder)
            .map_err(|error| Failure::io("cannot find", folder.as_ref(), error))?
            .display()
            .to_string(),
        None if is_public => PUBLIC_MIRROR.to_owned(),
        None => return Err(missing("--mirror", &args.name)),
    };
    let pinned = match &args.root {
        Some(path) => String::from_utf8(files::read_bundle(path)?)
            .map_err(|_| Failure::usage(format!("{} is not UTF-8", path.display())))?,
        None if is_public => PUBLIC_ROOT.to_owned(),
        None => return Err(missing("--root", &args.name)),
    };
    let store = Store::writable()?;
    let _lock = store.lock()?;
    if !args.replace && store.find(&args.name)?.is_some() {
        return Err(Failure::usage(format!("{:?} is stored already", args.name))
            .with_remedy("`bpfseal trust update` updates it; `--replace` begins anew."));
    }
    let begun = Instance::new(mirror, pinned);
    let instance = refresh::refresh(&args.name, &begun, &Http::new(), Timestamp::now())?;
    store.put(&args.name, &instance)?;
    let done = Done::of(&args.name, &begun, &instance);
    output.result(&done, || crate::output::printable_lines(&done.describe()));
    Ok(())
}

fn missing(option: &str, name: &str) -> Failure {
    Failure::usage(format!(
        "nothing is known of an instance {name:?}: {option} is missing"
    ))
    .with_remedy("Whoever runs the instance tells its repository and gives you its root.json.")
}

/// Where the public-good instance publishes.
const PUBLIC_MIRROR: &str = "https://tuf-repo-cdn.sigstore.dev";
/// See `cli/data/README.md`.
const PUBLIC_ROOT: &str = include_str!("../../../data/public-good-root.json");
