//! `bpfseal-enforcer load`.

use std::path::PathBuf;

use bundle::{
    Digest, Layout,
    layout::Limits,
    loader::{Form, KernelLoader, KernelLoaders},
    media,
};
use enforcer::{
    control::Request,
    enforcer::Admission,
    failure::Failure,
    load::{self, Keyring, LoadError, Loaded, Step},
    output::Output,
    sandbox,
};
use libbpf_rs::btf::Btf;
use policy::Reason;
use serde::Serialize;

use super::{Places, admit, must_be_root};

/// Admits a bundle and loads its programs by the loaders in it, whose signatures the kernel
/// checks itself. Which form of loader this kernel checks is found by asking it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  bpfseal-enforcer load xdp.tar --pin /sys/fs/bpf/xdp
  bpfseal-enforcer load xdp.tar --keyring 812345 --pin /sys/fs/bpf/xdp

Nothing is attached. Without --pin the programs go when this command ends: then it has shown
that they load. The loader is a `syscall` program: the gate lets it pass where the rule names
that type.")]
pub struct Args {
    /// An OCI layout: a tar as `bpfseal pull` and `bpfseal pack` write it, or a folder.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Where it came from (`host/repository`); default: the package name that it was signed with.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Pin programs in this folder of a bpffs, and maps in its folder `maps`.
    #[arg(long, value_name = "FOLDER")]
    pin: Option<PathBuf>,
    /// The keyring that has the certificate: builtin, secondary, platform, or a serial number.
    #[arg(long, value_name = "KEYRING", default_value = "secondary", value_parser = Keyring::parse)]
    keyring: Keyring,
    /// Load without the kernel's check of the signature; only the gate decides then.
    #[arg(long, conflicts_with = "keyring")]
    without_kernel_signature: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Done {
    bundle: Digest,
    form: Form,
    kernel_signature: bool,
    objects: Vec<Object>,
}

#[derive(Serialize)]
struct Object {
    object: String,
    /// Why it was not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<String>,
    programs: Vec<String>,
    maps: Vec<String>,
    pins: Vec<PathBuf>,
}

pub fn run(args: &Args, places: &Places, output: &Output) -> Result<(), Failure> {
    must_be_root()?;
    let form = form(args.without_kernel_signature)?;
    let bytes = admit::read(&args.bundle)?;
    let request = Request::Admit {
        scope: args.scope.clone(),
        length: bytes.len() as u64,
    };
    let admission: Admission = places.perform(request, &bytes)?;
    // From here on it reads what the publisher made and runs his loaders: as nobody special.
    sandbox::step_down().map_err(|error| Failure::internal(format!("stepping down: {error}")))?;
    let wanted = loaders(&bytes, admission.bundle, form)?;
    let keyring = (!args.without_kernel_signature).then_some(args.keyring);
    // All or nothing: what was pinned goes again where a later object does not load.
    let mut objects: Vec<Object> = Vec::new();
    for (of, loader) in &wanted {
        match object(of, loader.as_ref(), keyring, args.pin.as_deref()) {
            Ok(done) => objects.push(done),
            Err(failure) => {
                for pin in objects.iter().flat_map(|object| &object.pins) {
                    // It was pinned a moment ago; if somebody took it away, it is gone.
                    let _ = std::fs::remove_file(pin);
                }
                return Err(failure);
            }
        }
    }
    let done = Done {
        bundle: admission.bundle,
        form,
        kernel_signature: keyring.is_some(),
        objects,
    };
    output.result(&done, || done.describe());
    Ok(())
}

/// The form that this kernel checks.
fn form(without: bool) -> Result<Form, Failure> {
    let btf = Btf::from_vmlinux()
        .map_err(|error| Failure::kernel(format!("the kernel's BTF: {error}")))?;
    match load::form_of(&btf) {
        Some(form) => Ok(form),
        None if without => Ok(Form::MapSigned),
        None => Err(Failure::kernel(
            "this kernel checks no form of loader whose signature covers what it loads",
        )
        .with_remedy(
            "6.18.44, 7.1.13, 7.2 and later do. Elsewhere `admit` the bundle and load it by \
             libbpf, or give --without-kernel-signature.",
        )),
    }
}

type Wanted = Vec<(KernelLoaders, Option<KernelLoader>)>;

/// Each object's loader of this form, out of exactly the bundle that was admitted.
fn loaders(bytes: &[u8], admitted: Digest, form: Form) -> Result<Wanted, Failure> {
    let malformed = |error: bundle::MalformedBundle| {
        Failure::refused(policy::verify::reason_of(&error), error.to_string())
    };
    let layout = Layout::read(bytes, &Limits::default()).map_err(malformed)?;
    let bundle = layout.bundle().map_err(malformed)?;
    if bundle.digest() != admitted {
        return Err(Failure::internal(format!(
            "{admitted} was admitted, and {} was read",
            bundle.digest()
        )));
    }
    let recorded = &bundle.recorded_inventory().kernel_loaders;
    if recorded.iter().all(|of| of.loaders.is_empty()) {
        return Err(
            Failure::not_found("the bundle has no loader that kernels check")
                .with_remedy("Pack it with `bpfseal pack --kernel-loader`."),
        );
    }
    let layers = &bundle.manifest().layers;
    recorded
        .iter()
        .map(|of| {
            let layer = of.loaders.iter().find(|layer| layer.form == form);
            let descriptor = layer.and_then(|layer| {
                layers.iter().find(|candidate| {
                    candidate.media_type == media::KERNEL_LOADER && candidate.digest == layer.digest
                })
            });
            let loader = descriptor
                .map(|descriptor| {
                    let bytes = layout.described(descriptor).map_err(malformed)?;
                    KernelLoader::read(bytes)
                        .map_err(|why| Failure::refused(Reason::MalformedObject, why))
                })
                .transpose()?;
            Ok((of.clone(), loader))
        })
        .collect()
}

fn object(
    of: &KernelLoaders,
    loader: Option<&KernelLoader>,
    keyring: Option<Keyring>,
    pin: Option<&std::path::Path>,
) -> Result<Object, Failure> {
    let Some(loader) = loader else {
        let why = of.obstacle.map_or_else(
            || "the bundle has no loader of the form that this kernel checks".to_owned(),
            |obstacle| format!("{obstacle} ({})", obstacle.code()),
        );
        return Ok(Object {
            object: of.object.clone(),
            obstacle: Some(why),
            programs: Vec::new(),
            maps: Vec::new(),
            pins: Vec::new(),
        });
    };
    if keyring.is_some() && loader.signature.is_none() {
        return Err(Failure::refused(
            Reason::KernelSignature,
            format!("the loader of {} is not signed", of.object),
        ));
    }
    let loaded = load::load(loader, keyring).map_err(|error| refused(&of.object, &error))?;
    let pins = pinned(&loaded, pin)?;
    Ok(Object {
        object: of.object.clone(),
        obstacle: None,
        programs: loader.about.programs.clone(),
        maps: loader.about.maps.clone(),
        pins,
    })
}

fn pinned(loaded: &Loaded, folder: Option<&std::path::Path>) -> Result<Vec<PathBuf>, Failure> {
    folder.map_or(Ok(Vec::new()), |folder| {
        loaded
            .pin(folder)
            .map_err(|error| Failure::io("cannot pin in", folder, error))
    })
}

/// What the kernel's answer means.
fn refused(object: &str, error: &LoadError) -> Failure {
    let said = format!("{object}: {error}: {}", error.source);
    let signature =
        |what: &str| Failure::refused(Reason::KernelSignature, format!("{said}: {what}"));
    match (error.step, error.source.raw_os_error()) {
        (Step::Loader, Some(libc::EKEYREJECTED | libc::EBADMSG | libc::EBADF)) => {
            signature("the signature does not hold")
        }
        (Step::Loader, Some(libc::ENOKEY)) => signature("the certificate is not in the keyring"),
        (Step::Loader, Some(libc::EPERM)) => Failure::kernel(said).with_remedy(
            "The loader is a `syscall` program: does the rule name that type? \
             `bpfseal-enforcer events` says what the gate refused.",
        ),
        (Step::Run, Some(libc::EINVAL)) => {
            signature("its map is not what was signed, or a program of it does not fit this kernel")
        }
        _ => Failure::kernel(said)
            .with_remedy("`bpfseal-enforcer events` says what the gate refused."),
    }
}

impl Done {
    fn describe(&self) -> String {
        let how = match self.kernel_signature {
            true => "signature checked by the kernel",
            false => "signature not checked by the kernel",
        };
        let mut text = format!("{}, {} loader, {how}", self.bundle, self.form);
        for object in &self.objects {
            text += &match &object.obstacle {
                Some(why) => format!("\n  NOT loaded  {}: {why}", object.object),
                None => format!(
                    "\n  loaded      {}: {}",
                    object.object,
                    object.programs.join(", ")
                ),
            };
            for pin in &object.pins {
                text += &format!("\n    {}", pin.display());
            }
        }
        enforcer::output::printable_lines(&text)
    }
}
