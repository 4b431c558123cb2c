//! Loaders that the kernel itself checks: light skeletons in the two forms whose signature also
//! covers what they load.
//!
//! libbpf's `gen_loader` makes a loader that takes sizes and contents of maps from its caller. A
//! signed one must not, so what reads them is taken out of the instructions here, as libbpf does
//! from commits 62fab2fc and 364ee320 on. One form then checks its own map, as libbpf's commit
//! 7e3bab2a has it; for the other the kernel appends the map to what is signed (debb5e82). The
//! form before these, whose map is bound by a digest alone, is never made: a map that is not
//! exclusive can be changed behind its back.

mod obstacle;
mod seal;

use std::{collections::BTreeSet, fmt};

use goblin::elf::Elf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Digest,
    blob::Blob,
    inventory::Object,
    light::{self, Loader},
    unverified::is_title,
};

pub use obstacle::Obstacle;

/// What a kernel's signature over a loader covers, and who checks the loader's map.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The instructions are signed; they hold the digest of their map and refuse one that is not
    /// exclusive or has another digest. Kernels 6.18.44, 7.1.13 and 7.2.
    MapChecked,
    /// Instructions and map are signed; the kernel refuses a map that is not exclusive and frozen.
    /// Kernels from 7.3 on.
    MapSigned,
}

impl Form {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MapChecked, Self::MapSigned];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MapChecked => "map-checked",
            Self::MapSigned => "map-signed",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a loader says of itself; not part of what the kernel checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// In which form it is.
    pub form: Form,
    /// The object that it was made of.
    pub object: Digest,
    /// The maps that it makes, in the order in which it reports them.
    pub maps: Vec<String>,
    /// The programs that it loads, likewise.
    pub programs: Vec<String>,
}

/// A loader in one of the two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLoader {
    /// What it says of itself.
    pub about: About,
    /// Instructions, and the contents of its map.
    pub loader: Loader,
    /// CMS over [`KernelLoader::signed_bytes`]; none: it is not signed.
    pub signature: Option<Vec<u8>>,
}

impl KernelLoader {
    /// Brings what libbpf's `gen_loader` made, without `gen_hash`, into the form that `about` says.
    ///
    /// # Errors
    /// A lower-case clause, where the instructions are not as `gen_loader` writes them.
    pub fn make(generated: &Loader, about: About) -> Result<Self, String> {
        let insns = seal::sealed(&generated.insns, &generated.data, about.form)?;
        let made = Self {
            about,
            loader: Loader {
                insns,
                data: generated.data.clone(),
            },
            signature: None,
        };
        made.check()?;
        Ok(made)
    }

    /// About how many bytes the layer has.
    pub fn size(&self) -> usize {
        let signature = self.signature.as_ref().map_or(0, Vec::len);
        self.loader.insns.len() + self.loader.data.len() + signature
    }

    /// What the signature is over.
    pub fn signed_bytes(&self) -> Vec<u8> {
        match self.about.form {
            Form::MapChecked => self.loader.insns.clone(),
            Form::MapSigned => [self.loader.insns.as_slice(), &self.loader.data].concat(),
        }
    }

    /// The only program that may use its map: the kernel's digest of the instructions, which
    /// refer to the map by index alone.
    pub fn exclusive_to(&self) -> Digest {
        Digest::of(&self.loader.insns)
    }

    /// Bytes of its context: `struct bpf_loader_ctx`, one `bpf_map_desc` a map, one
    /// `bpf_prog_desc` a program (`tools/lib/bpf/skel_internal.h`).
    pub fn context_size(&self) -> usize {
        CONTEXT + MAP_DESC * self.about.maps.len() + PROG_DESC * self.about.programs.len()
    }

    /// The layer's title.
    pub fn title(object: &str, form: Form) -> String {
        let most = 255 - SUFFIX.len() - form.name().len() - 1;
        let stem = object
            .char_indices()
            .take_while(|(at, c)| at + c.len_utf8() <= most);
        let stem: String = stem.map(|(_, c)| c).collect();
        format!("{stem}.{form}{SUFFIX}")
    }

    /// As an object, with the signature and what it says of itself in sections of their own.
    pub fn to_object(&self) -> Vec<u8> {
        let about = crate::manifest::to_json(&self.about);
        let mut more = vec![(ABOUT, about.as_slice())];
        if let Some(signature) = &self.signature {
            more.push((SIGNATURE, signature));
        }
        self.loader.to_object_with(&more)
    }

    /// Reads such an object back.
    ///
    /// # Errors
    /// A lower-case clause.
    pub fn read(object: &[u8]) -> Result<Self, String> {
        let elf = Elf::parse(object).map_err(|error| format!("it is no ELF file: {error}"))?;
        let section = |name: &str| {
            let found = elf
                .section_headers
                .iter()
                .find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(name))?;
            object.get(found.file_range()?)
        };
        let need = |name: &str| section(name).ok_or_else(|| format!("it has no section {name}"));
        let about = serde_json::from_slice(need(ABOUT)?)
            .map_err(|error| format!("what it says of itself: {error}"))?;
        let loader = Self {
            about,
            loader: Loader {
                insns: need(light::SYSCALL)?.to_vec(),
                data: need(light::DATA)?.to_vec(),
            },
            signature: section(SIGNATURE).map(<[u8]>::to_vec),
        };
        loader.check()?;
        // One loader, one object: nothing rides along.
        if loader.to_object() != object {
            return Err("it holds more than a loader".to_owned());
        }
        Ok(loader)
    }

    /// It must be complete in its form, and report as many maps and programs as it names.
    fn check(&self) -> Result<(), String> {
        let (insns, data) = (&self.loader.insns, &self.loader.data);
        let bytes = insns.len() + data.len();
        if data.is_empty() || bytes > light::MAX_DATA {
            return Err(format!(
                "it has {bytes} bytes; the kernel checks up to 16 MiB"
            ));
        }
        seal::check(
            &self.loader,
            self.about.form,
            (self.about.maps.len(), self.about.programs.len()),
        )
    }
}

/// What there is of one object for kernels to check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelLoaders {
    /// The object's title.
    pub object: String,
    /// Why it has no loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
    /// Its loaders, one for each form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loaders: Vec<LoaderLayer>,
}

/// One loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoaderLayer {
    /// The layer's title.
    pub title: String,
    /// SHA-256 of the layer.
    pub digest: Digest,
    /// In which form it is.
    pub form: Form,
    /// Instructions, in 8-byte slots.
    pub insns: u32,
    /// Bytes of its map.
    pub data: u32,
    /// Programs that it loads.
    pub programs: Vec<String>,
    /// Maps that it makes.
    pub maps: Vec<String>,
    /// SHA-256 of the signature; none: it is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Digest>,
}

/// Derives what is recorded of the loaders in a bundle from its objects and layers.
///
/// # Errors
/// A lower-case clause, where a layer is no loader of an object of the bundle.
pub fn describe(
    objects: &[Object],
    layers: &[(String, Blob)],
) -> Result<Vec<KernelLoaders>, String> {
    let mut titles = BTreeSet::new();
    let mut loaders = Vec::new();
    for (title, bytes) in layers {
        if !is_title(title) || !titles.insert(title) {
            return Err(format!("{title:?} cannot be a loader's title"));
        }
        let loader = KernelLoader::read(bytes).map_err(|why| format!("loader {title:?}: {why}"))?;
        let of = objects
            .iter()
            .position(|object| object.digest == loader.about.object)
            .ok_or_else(|| format!("loader {title:?} is of an object that is not here"))?;
        loader
            .fits(&objects[of])
            .map_err(|why| format!("loader {title:?}: {why}"))?;
        loaders.push((of, loader.layer(title, bytes.digest())));
    }
    objects
        .iter()
        .enumerate()
        .map(|(at, object)| {
            let own: Vec<LoaderLayer> = loaders
                .iter()
                .filter(|(of, _)| *of == at)
                .map(|(_, layer)| layer.clone())
                .collect();
            let forms: BTreeSet<Form> = own.iter().map(|layer| layer.form).collect();
            if forms.len() != own.len() {
                return Err(format!(
                    "object {:?} has two loaders of one form",
                    object.name
                ));
            }
            let obstacle = match (Obstacle::of(object), own.is_empty()) {
                (Some(obstacle), false) => {
                    return Err(format!(
                        "object {:?} has a loader, though {obstacle}",
                        object.name
                    ));
                }
                (None, true) => Some(Obstacle::NotGenerated),
                (obstacle, _) => obstacle,
            };
            Ok(KernelLoaders {
                object: object.name.clone(),
                obstacle,
                loaders: own,
            })
        })
        .collect()
}

impl KernelLoader {
    /// It loads just the programs of the object.
    fn fits(&self, object: &Object) -> Result<(), String> {
        let wanted: BTreeSet<&str> = object
            .programs
            .iter()
            .filter(|program| !program.optional)
            .map(|program| program.name.as_str())
            .collect();
        let loaded: BTreeSet<&str> = self.about.programs.iter().map(String::as_str).collect();
        if loaded != wanted || loaded.len() != self.about.programs.len() {
            return Err(format!(
                "it loads {loaded:?}, and the object has {wanted:?}"
            ));
        }
        Ok(())
    }

    fn layer(&self, title: &str, digest: Digest) -> LoaderLayer {
        LoaderLayer {
            title: title.to_owned(),
            digest,
            form: self.about.form,
            insns: (self.loader.insns.len() / 8) as u32,
            data: self.loader.data.len() as u32,
            programs: self.about.programs.clone(),
            maps: self.about.maps.clone(),
            signature: self.signature.as_deref().map(Digest::of),
        }
    }
}

/// `struct bpf_loader_ctx`, `struct bpf_map_desc`, `struct bpf_prog_desc`.
const CONTEXT: usize = 24;
const MAP_DESC: usize = 16;
const PROG_DESC: usize = 4;
const ABOUT: &str = ".loader.about";
const SIGNATURE: &str = ".loader.signature";
const SUFFIX: &str = ".loader.o";

#[cfg(test)]
mod tests;
