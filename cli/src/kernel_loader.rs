//! Loaders that kernels check themselves: libbpf generates, `bundle` gives them their form, a key
//! signs.
//!
//! Generating asks nothing of this machine's kernel and loads nothing; what would depend on this
//! machine is an [`Obstacle`].

use std::{io, path::PathBuf};

use bundle::{
    Digest, inventory,
    light::Loader,
    loader::{About, Form, KernelLoader, Obstacle},
};
use libbpf_rs::ObjectBuilder;
use policy::{
    kernel_signature::{self, Hash, Naming},
    signer::Signer,
};
use ring::rand::SystemRandom;

use crate::{
    Failure, Output,
    passphrase::{self, KeyArgs},
    signing,
};

/// Whether to make loaders, and who signs them.
#[derive(clap::Args)]
#[command(next_help_heading = "Kernel signatures")]
pub struct Args {
    /// Add loaders that kernels check themselves: one form for 6.18.44, 7.1.13 and 7.2, one for
    /// 7.3. An object for which there can be none says why.
    #[arg(long)]
    kernel_loader: bool,
    /// Sign them with this private key, RSA or ECDSA; named as for `sign --key`.
    #[arg(
        long,
        value_name = "KEY",
        requires = "kernel_loader",
        requires = "kernel_certificate"
    )]
    kernel_key: Option<String>,
    /// Its certificate (PEM), as it is in the kernel's keyring.
    #[arg(long, value_name = "FILE", requires = "kernel_key")]
    kernel_certificate: Option<PathBuf>,
    /// Read the key's passphrase from the first line of FILE; else BPFSEAL_PASSPHRASE, else
    /// you are asked.
    #[arg(long, value_name = "FILE", requires = "kernel_key")]
    passphrase_file: Option<PathBuf>,
}

impl Args {
    /// Are loaders asked for?
    pub const fn is_given(&self) -> bool {
        self.kernel_loader
    }

    /// Both forms of a loader for every object that can have one; `None`: not asked for.
    pub fn make(
        &self,
        objects: &[(String, Vec<u8>)],
        output: &Output,
    ) -> Result<Option<Vec<KernelLoader>>, Failure> {
        if !self.kernel_loader {
            return Ok(None);
        }
        let signer = self.signer(output)?;
        let mut loaders = Vec::new();
        for (title, elf) in objects {
            // What cannot be read is refused where the bundle is packed.
            let Ok(object) = inventory::read(title, elf) else {
                continue;
            };
            if Obstacle::of(&object).is_some() {
                continue;
            }
            match generate(title, elf) {
                Ok(made) => loaders.extend(made),
                Err(why) => output.note(&format!("note: no loader of {title}: {why}")),
            }
        }
        if let Some(signer) = &signer {
            for loader in &mut loaders {
                loader.signature = Some(sign(loader, signer)?);
            }
        }
        Ok(Some(loaders))
    }

    fn signer(&self, output: &Output) -> Result<Option<Signer>, Failure> {
        let (Some(key), Some(certificate)) = (&self.kernel_key, &self.kernel_certificate) else {
            return Ok(None);
        };
        let key = KeyArgs {
            key: PathBuf::from(key),
            passphrase_file: self.passphrase_file.clone(),
            verbose: false,
        };
        let signer = passphrase::signer(&key, output)?;
        signing::with_certificate(signer, certificate).map(Some)
    }
}

fn sign(loader: &KernelLoader, signer: &Signer) -> Result<Vec<u8>, Failure> {
    let random = SystemRandom::new();
    let content = loader.signed_bytes();
    kernel_signature::sign(&content, signer, Hash::Sha256, Naming::KeyId, &random)
        .map_err(|error| Failure::usage(format!("cannot sign for the kernel: {error}")))
}

/// Both forms of an object's loader, or why libbpf makes none.
fn generate(title: &str, elf: &[u8]) -> Result<Vec<KernelLoader>, String> {
    let (generated, maps, programs) =
        generated(title, elf).map_err(|error| format!("libbpf makes none: {error}"))?;
    let object = Digest::of(elf);
    Form::ALL
        .into_iter()
        .map(|form| {
            let about = About {
                form,
                object,
                maps: maps.clone(),
                programs: programs.clone(),
            };
            KernelLoader::make(&generated, about)
        })
        .collect()
}

/// The loader, and the names of maps and programs in the order in which it makes them.
fn generated(title: &str, elf: &[u8]) -> io::Result<(Loader, Vec<String>, Vec<String>)> {
    libbpf_rs::set_print(None);
    let mut builder = ObjectBuilder::default();
    // Maps of data sections are named after the object, as libbpf names one in a file.
    let name = title.split('.').next().unwrap_or(title);
    builder.name(name).map_err(io::Error::other)?;
    let mut object = builder.open_memory(elf).map_err(io::Error::other)?;
    let loader = gen_loader::generate(&mut object)?;
    let maps = object
        .maps_mut()
        .map(|map| map.name().to_string_lossy().into_owned())
        .collect();
    let programs = object
        .progs_mut()
        .filter(|program| program.autoload())
        .map(|program| program.name().to_string_lossy().into_owned())
        .collect();
    Ok((loader, maps, programs))
}
