//! `bpfseal pack`.

use std::path::{Path, PathBuf};

use bundle::{
    Layout,
    inventory::Object,
    loader::{KernelLoader, KernelLoaders},
    pack::{PackError, PackOptions, PackedBundle, pack},
};
use policy::Reason;
use serde::Serialize;

use crate::{Failure, Output, epoch, files, kernel_loader, objects, output::counted};

/// Pack BPF objects into a bundle: an OCI layout in a tar.
#[derive(clap::Args)]
#[command(
    disable_version_flag = true,
    after_help = "\
Examples:
  bpfseal pack xdp.bpf.o -o xdp.tar --name net/xdp --version 1.2.0
  bpfseal pack /usr/sbin/opensnoop -o opensnoop.tar --tunable-volatile
  bpfseal pack xdp.bpf.o -o image.tar --format bpfman
  bpfseal pack xdp.bpf.o xdp.lskel.h -o xdp.tar
  bpfseal pack xdp.bpf.o -o xdp.tar --kernel-loader --kernel-key k.pem --kernel-certificate c.pem

The same input gives the same bytes everywhere. A loader may set the variables declared
tunable before it loads the object; all other read-only data is as packed."
)]
pub struct Args {
    /// BPF objects, executables that carry some, or headers of light skeletons.
    #[arg(required = true, value_name = "OBJECT|EXECUTABLE")]
    objects: Vec<PathBuf>,
    /// Where to write the bundle.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Declare every `const volatile` variable that BTF names tunable.
    #[arg(long)]
    tunable_volatile: bool,
    /// Write the package in this layout: our own, or bpfman's (one object; no tunables).
    #[arg(long, value_enum, default_value_t = Format::Bpfseal)]
    format: Format,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    kernel: kernel_loader::Args,
}

/// In whose layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A bundle.
    Bpfseal,
    /// A bytecode image for bpfman.
    Bpfman,
}

/// What goes into the bundle besides objects; `enroll` has the same.
#[derive(Clone, clap::Args)]
pub struct Options {
    /// Name of the package.
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the package.
    #[arg(long = "version", value_name = "VERSION")]
    pub package_version: Option<String>,
    /// Where the source is, a URL.
    #[arg(long, value_name = "URL")]
    pub source: Option<String>,
    /// A read-only variable that a loader may set: VAR, or OBJECT:VAR; can be repeated.
    #[arg(long = "tunable", value_name = "VAR")]
    pub tunables: Vec<String>,
    /// One more annotation of the manifest; can be repeated.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = annotation)]
    pub annotations: Vec<(String, String)>,
}

/// A bundle just packed, as `--json` shows it.
#[derive(Serialize)]
pub struct Done {
    file: PathBuf,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    tag: String,
    objects: Vec<Packed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernel_loaders: Vec<KernelLoaders>,
}

#[derive(Serialize)]
struct Packed {
    name: String,
    digest: String,
    size: u64,
    programs: usize,
    maps: usize,
    tunables: Vec<String>,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let objects = objects::read(&args.objects)?;
    if args.format == Format::Bpfman {
        return bytecode_image(args, &objects, output);
    }
    let loaders = args.kernel.make(&objects, output)?;
    let packed = make(objects, &args.options, args.tunable_volatile, loaders)?;
    let tag = tag(&args.options);
    let done = Done::of(&packed, &args.output, &args.options);
    files::write_layout(&layout(packed, &tag)?, &args.output)?;
    output.result(&done, || done.describe());
    Ok(())
}

fn bytecode_image(
    args: &Args,
    objects: &[(String, Vec<u8>)],
    output: &Output,
) -> Result<(), Failure> {
    let options = &args.options;
    let has_tunables = args.tunable_volatile || !options.tunables.is_empty();
    if has_tunables || !options.annotations.is_empty() {
        return Err(
            Failure::usage("bpfman's layout has no place for tunables and annotations")
                .with_remedy("Leave them out: every `const volatile` variable is tunable there."),
        );
    }
    if args.kernel.is_given() {
        return Err(Failure::usage(
            "bpfman's layout has no place for kernel loaders",
        ));
    }
    let [(_, elf)] = objects else {
        return Err(Failure::usage(format!(
            "a bytecode image holds one object; got {}",
            objects.len()
        )));
    };
    // Packing checks names and versions, whatever they are written into.
    let packed = make(objects.to_vec(), options, false, None)?;
    let tag = tag(options);
    let image = bundle::foreign::bpfman::write(&packed.inventory, elf, Some(&tag))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let done = Done {
        digest: image.digest.to_string(),
        ..Done::of(&packed, &args.output, options)
    };
    files::write_layout(&image.layout, &args.output)?;
    output.result(&done, || done.describe());
    Ok(())
}

/// Packs with the options of a command line.
pub fn make(
    objects: Vec<(String, Vec<u8>)>,
    options: &Options,
    tunable_volatile: bool,
    kernel_loaders: Option<Vec<KernelLoader>>,
) -> Result<PackedBundle, Failure> {
    let mut annotations = bundle::manifest::Annotations::new();
    for (key, value) in &options.annotations {
        if annotations.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("annotation {key:?} is given twice")));
        }
    }
    let options = PackOptions {
        name: options.name.clone(),
        version: options.package_version.clone(),
        source: options.source.clone(),
        created: epoch::created()?,
        tunables: options.tunables.clone(),
        tunable_volatile,
        annotations,
        kernel_loaders,
    };
    pack(objects, &options).map_err(failure)
}

/// The bundle as a layout.
pub fn layout(packed: PackedBundle, tag: &str) -> Result<Layout, Failure> {
    packed
        .into_layout(Some(tag))
        .map_err(|error| Failure::internal(error.to_string()))
}

/// The tag under which the layout lists the bundle: tools like oras ask for one. The
/// version where it can be a tag, else `latest`.
pub fn tag(options: &Options) -> String {
    match &options.package_version {
        Some(version) if crate::reference::is_tag(version) => version.clone(),
        _ => "latest".to_owned(),
    }
}

impl Done {
    /// Says what was packed and where it went.
    pub fn of(packed: &PackedBundle, file: &Path, options: &Options) -> Self {
        Self {
            file: file.to_owned(),
            digest: packed.digest.to_string(),
            name: options.name.clone(),
            version: options.package_version.clone(),
            tag: tag(options),
            objects: packed.inventory.objects.iter().map(Packed::of).collect(),
            kernel_loaders: packed.inventory.kernel_loaders.clone(),
        }
    }

    /// The same for people.
    pub fn describe(&self) -> String {
        let mut text = format!("{}\n  digest    {}\n", self.file.display(), self.digest);
        for object in &self.objects {
            text += &format!(
                "  object    {} ({} bytes, {}, {})\n",
                object.name,
                object.size,
                counted(object.programs, "program"),
                counted(object.maps, "map")
            );
            if !object.tunables.is_empty() {
                text += &format!("            tunable: {}\n", object.tunables.join(", "));
            }
        }
        text + &describe_loaders(&self.kernel_loaders)
    }
}

/// Loaders that kernels check, or why there are none, for people.
pub fn describe_loaders(all: &[KernelLoaders]) -> String {
    let mut text = String::new();
    for of in all {
        if let Some(obstacle) = of.obstacle {
            let code = obstacle.code();
            text += &format!("  no loader {}: {obstacle} ({code})\n", of.object);
        }
        for loader in &of.loaders {
            text += &format!(
                "  loader    {} ({}, {} bytes, {})\n",
                loader.title,
                counted(loader.insns as usize, "instruction"),
                loader.data,
                match loader.signature {
                    Some(_) => "signed for the kernel",
                    None => "not signed for the kernel",
                }
            );
        }
    }
    text
}

impl Packed {
    fn of(object: &Object) -> Self {
        let variables = object.data.iter().flat_map(|section| &section.variables);
        Self {
            name: object.name.clone(),
            digest: object.digest.to_string(),
            size: object.size,
            programs: object.programs.len(),
            maps: object.maps.len(),
            tunables: variables
                .filter(|variable| variable.tunable)
                .map(|variable| variable.name.clone())
                .collect(),
        }
    }
}

fn failure(error: PackError) -> Failure {
    let message = error.to_string();
    match error {
        PackError::Object { error, .. } if error.is_limit() => {
            Failure::refused(Reason::LimitExceeded, message)
        }
        PackError::Object { .. } => Failure::refused(Reason::MalformedObject, message),
        PackError::TooLarge { .. } => Failure::refused(Reason::LimitExceeded, message),
        _ => Failure::usage(message),
    }
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("an annotation is KEY=VALUE".to_owned()),
    }
}
