//! `bpfseal enroll`.

use std::path::PathBuf;

use serde::Serialize;

use super::{pack, sign};
use crate::{
    Failure, Output, files, objects,
    passphrase::{self, KeyArgs},
    registry::{Client, Connection, Pushed},
    source,
};

/// Extract, pack, sign and publish what nobody signs: a vendor's tool, in one step.
#[derive(clap::Args)]
#[command(
    disable_version_flag = true,
    after_help = "\
Examples:
  bpfseal enroll /usr/sbin/opensnoop --key fleet.key
  bpfseal enroll agent --key fleet.key --push registry.example.com/vendor/agent:v7

The objects inside an executable are signed as they are; the executable itself is not
changed. Without `--name` the package is named after the file, and a rule of the policy
finds it by that name: scope = \"opensnoop\". Its loader may set `const volatile` variables unless you say otherwise."
)]
pub struct Args {
    /// Executables that carry BPF objects, or objects.
    #[arg(required = true, value_name = "EXECUTABLE|OBJECT")]
    objects: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
    /// Where to write the bundle; NAME.tar in this folder if neither this nor `--push` is
    /// given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Send the signed bundle there: host[:port]/repository[:tag].
    #[arg(long, value_name = "REFERENCE")]
    push: Option<String>,
    /// Declare every `const volatile` variable tunable, or none: by default for what comes
    /// out of executables.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    tunable_volatile: Option<bool>,
    #[command(flatten)]
    options: pack::Options,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    packed: pack::Done,
    signature: sign::Done,
    #[serde(skip_serializing_if = "Option::is_none")]
    pushed: Option<Pushed>,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let reference = args.push.as_deref().map(source::reference).transpose()?;
    let objects = objects::read(&args.objects)?;
    let volatile = args
        .tunable_volatile
        .unwrap_or_else(|| objects::any_executable(&objects, &args.objects));
    let options = named(&args.options, &args.objects);
    let packed = pack::make(objects, &options, volatile, None)?;
    let signer = passphrase::signer(&args.key, output)?;
    let file = match (&args.output, &reference) {
        (Some(path), _) => Some(path.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(default_file(&args.objects)),
    };
    let repository = reference
        .as_ref()
        .map(|reference| reference.repository.to_string());
    let shown = file
        .clone()
        .or_else(|| repository.clone().map(PathBuf::from));
    let shown = shown.unwrap_or_default();
    let done = pack::Done::of(&packed, &shown, &options);
    let mut layout = pack::layout(packed, &pack::tag(&options))?;
    let bundle = layout
        .bundle()
        .map_err(|error| Failure::internal(error.to_string()))?;
    let attached = sign::attach(&mut layout, bundle.descriptor(), &signer)?;
    let stored = file.as_ref().map(|path| path.display().to_string());
    if let Some(path) = &file {
        files::write_layout(&layout, path)?;
    }
    let pushed = reference
        .as_ref()
        .map(|reference| -> Result<Pushed, Failure> {
            let client = Client::new(&args.connection, source::progress(output, "push"))?;
            Ok(client.push(&layout, reference, &[])?)
        })
        .transpose()?;
    let stored = stored.or_else(|| repository.clone()).unwrap_or_default();
    let done = Done {
        packed: done,
        signature: sign::Done::of(&bundle, &attached, sign::by_key(&signer), None, stored),
        pushed,
    };
    output.result(&done, || done.describe(repository.as_deref()));
    Ok(())
}

/// A package is named after the only file it comes from unless told otherwise, so that a
/// policy can have a rule for it.
fn named(options: &pack::Options, objects: &[PathBuf]) -> pack::Options {
    let mut options = options.clone();
    if let (None, [object]) = (&options.name, objects) {
        options.name = object
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
    }
    options
}

fn default_file(objects: &[PathBuf]) -> PathBuf {
    let name = objects
        .first()
        .and_then(|path| path.file_name())
        .unwrap_or_default();
    let mut name = name.to_owned();
    name.push(".tar");
    name.into()
}

impl Done {
    fn describe(&self, repository: Option<&str>) -> String {
        let mut text = self.packed.describe();
        text += &self.signature.describe();
        if let (Some(pushed), Some(repository)) = (&self.pushed, repository) {
            text += &super::push::describe(pushed, repository);
        }
        text
    }
}
