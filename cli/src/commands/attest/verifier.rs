//! `bpfseal attest verifier`: boots kernels, loads every program, signs what happened.

use std::{path::PathBuf, time::Duration};

use bundle::{
    Layout, UnverifiedBundle, media,
    verifier::{Evidence, Kernel},
};
use policy::verify::reason_of;

use crate::{
    Failure, Output,
    commands::sign,
    machine,
    registry::Connection,
    signing::SignArgs,
    source::{Opened, Source},
};

/// Boot kernels in virtual machines, load every program there, and sign what happened.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal attest verifier xdp.tar --kernels 6.1,6.12,7.3 --key release.key
  bpfseal attest verifier registry.example.com/net/xdp:v1 --kernel /boot/vmlinuz-6.12.9-amd64

Each program is loaded alone, by libbpf, as it was signed, and attached nowhere. The statement
says for each kernel its release, build id and image, and for each program whether the verifier
accepted it, at what cost, or why not. A program that a kernel refuses is part of the evidence;
a policy decides what it means. The machines are emulated: no privileges, no /dev/kvm.")]
pub struct Args {
    /// A bundle file, or a reference: host[:port]/repository[:tag][@digest].
    #[arg(value_name = "BUNDLE|REFERENCE")]
    bundle: String,
    /// Kernel series or releases in the cache that tests/lab/fetch.sh fills, or releases
    /// in /boot.
    #[arg(long, value_name = "RELEASE,…", value_delimiter = ',')]
    kernels: Vec<String>,
    /// A kernel image: vmlinuz, or vmlinux; can be repeated.
    #[arg(long, value_name = "FILE", required_unless_present = "kernels")]
    kernel: Vec<PathBuf>,
    /// The static bpfseal-enforcer that is the machines' first process; else the one beside
    /// this program, or in PATH.
    #[arg(long, value_name = "FILE")]
    enforcer: Option<PathBuf>,
    /// How many seconds one machine may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Fail, and sign nothing, if a kernel refuses a program.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    by: SignArgs,
    /// Write the bundle here instead of into the same file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let opened = Source::parse(&args.bundle)?.open(&args.connection, output)?;
    let objects = match &opened {
        Opened::File { .. } => Vec::new(),
        Opened::Layout { layout, .. } => objects(layout)?,
        Opened::Remote(remote) => objects(&remote.layout)?,
    };
    let done = sign::store(opened, args.output.as_deref(), |bundle| {
        let evidence = evidence(args, output, &objects)?;
        let predicate = serde_json::to_value(&evidence)
            .map_err(|error| Failure::internal(error.to_string()))?;
        super::make(
            &args.by,
            output,
            bundle,
            media::VERIFIER_PREDICATE,
            &predicate,
        )
    })?;
    output.result(&done, || done.describe());
    Ok(())
}

/// Names and bytes of the bundle's objects. Nobody has vouched for them; they are given to
/// an emulated machine alone.
fn objects(layout: &Layout) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let refused =
        |error: bundle::MalformedBundle| Failure::refused(reason_of(&error), error.to_string());
    let bundle: UnverifiedBundle = layout.bundle().map_err(refused)?;
    let objects = &bundle.recorded_inventory().objects;
    objects
        .iter()
        .map(|object| {
            let elf = layout.blob(&object.digest).ok_or_else(|| {
                Failure::refused(
                    policy::Reason::NotABundle,
                    format!("{} is not a layer of its own", object.name),
                )
                .with_remedy("Pack the objects with `bpfseal pack`.")
            })?;
            Ok((object.name.clone(), elf.to_vec()))
        })
        .collect()
}

fn evidence(
    args: &Args,
    output: &Output,
    objects: &[(String, Vec<u8>)],
) -> Result<Evidence, Failure> {
    let enforcer = machine::enforcer(args.enforcer.as_deref())?;
    let machine = machine::Machine {
        enforcer: &enforcer,
        objects,
        limit: Duration::from_secs(args.timeout),
    };
    let found: Result<Vec<PathBuf>, Failure> = args
        .kernels
        .iter()
        .map(|name| machine::kernel(name))
        .collect();
    let mut evidence = Evidence::default();
    for image in found?.iter().chain(&args.kernel) {
        let kernel = machine.run(image)?;
        output.note(&describe(&kernel));
        refuse(args, &kernel)?;
        evidence.kernels.push(kernel);
    }
    Ok(evidence)
}

fn describe(kernel: &Kernel) -> String {
    let loaded = kernel.programs.iter().filter(|program| program.loaded);
    let mut text = format!(
        "{}: {} of {} programs load",
        kernel.release,
        loaded.count(),
        kernel.programs.len()
    );
    for program in &kernel.programs {
        if let Some(error) = &program.error {
            text += &format!("\n  {} of {}: {error}", program.name, program.object);
        }
    }
    text
}

fn refuse(args: &Args, kernel: &Kernel) -> Result<(), Failure> {
    match kernel.programs.iter().find(|program| !program.loaded) {
        Some(program) if args.strict => Err(Failure::kernel(format!(
            "{} refuses {:?} of {}",
            kernel.release, program.name, program.object
        ))
        .with_remedy("Without `--strict` that is signed as evidence.")),
        _ => Ok(()),
    }
}
