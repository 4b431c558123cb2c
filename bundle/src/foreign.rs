//! Other people's packages: bpfman's bytecode images and Inspektor Gadget's gadgets, read
//! as bundles. What a bundle records, these do not: the inventory is derived from their
//! objects alone.

pub mod bpfman;

use std::{collections::BTreeMap, io::Read};

use serde::Deserialize;

use crate::{
    Blob,
    inventory::{self, Inventory},
    layout::{Layout, MalformedBundle},
    manifest::{Descriptor, Index, Manifest},
    media,
    unverified::is_title,
};

/// Whose package it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// bpfman (`docs/developer-guide/shipping-bytecode.md`).
    Bpfman,
    /// Inspektor Gadget (`docs/spec/oci.md`).
    InspektorGadget,
}

impl Maker {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpfman => "bpfman",
            Self::InspektorGadget => "Inspektor Gadget",
        }
    }
}

/// A package of somebody else's, its objects taken out.
pub(crate) struct Package {
    pub(crate) manifest: Manifest,
    pub(crate) inventory: Inventory,
    pub(crate) objects: Vec<(String, Blob)>,
}

/// Whose package `descriptor` is, if anybody's that is known.
pub(crate) fn maker(layout: &Layout, descriptor: &Descriptor) -> Option<Maker> {
    manifest_of(layout, descriptor)
        .ok()
        .and_then(|manifest| maker_of(layout, &manifest))
}

/// Reads the package for this machine's architecture.
pub(crate) fn read(layout: &Layout, descriptor: &Descriptor) -> Result<Package, MalformedBundle> {
    let manifest = manifest_of(layout, descriptor)?;
    let objects = match maker_of(layout, &manifest) {
        Some(Maker::InspektorGadget) => gadget(layout, &manifest)?,
        Some(Maker::Bpfman) => bytecode(layout, &manifest)?,
        None => return Err(structure("it is no package with BPF objects")),
    };
    let mut reader = inventory::Reader::default();
    let mut read = Vec::new();
    for (name, bytes) in &objects {
        let mut object =
            reader
                .read_blob(name, bytes)
                .map_err(|error| MalformedBundle::Object {
                    name: name.clone(),
                    detail: error.to_string(),
                })?;
        // Its loader sets what is `const volatile`; nothing else could be meant by that.
        for section in object.data.iter_mut().filter(|section| section.readonly) {
            for variable in &mut section.variables {
                variable.tunable = variable.volatile;
            }
        }
        read.push(object);
    }
    let said = |key: &str| manifest.annotations.get(key).cloned();
    let mut inventory = Inventory::of(read);
    inventory.name = said(media::TITLE);
    inventory.version = said(media::VERSION);
    inventory.source = said(media::SOURCE);
    Ok(Package {
        manifest,
        inventory,
        objects,
    })
}

/// The manifest itself, or that of this machine's platform in an index.
fn manifest_of(layout: &Layout, descriptor: &Descriptor) -> Result<Manifest, MalformedBundle> {
    let bytes = small(layout, descriptor)?;
    if descriptor.media_type != media::INDEX {
        return Manifest::parse(bytes).map_err(structure);
    }
    let platforms: Platforms =
        serde_json::from_slice(bytes).map_err(|error| structure(error.to_string()))?;
    Index::parse(bytes).map_err(structure)?;
    let mut fitting = platforms.manifests.iter().filter(|part| {
        let platform = part.platform.as_ref();
        platform.is_some_and(|p| p.os == "linux" && p.architecture == ARCHITECTURE)
    });
    let (Some(part), None) = (fitting.next(), fitting.next()) else {
        return Err(structure(format!(
            "the index has not one manifest for linux/{ARCHITECTURE}"
        )));
    };
    Manifest::parse(small(layout, &part.descriptor)?).map_err(structure)
}

/// A document of a few kilobytes. Many indexes may share one manifest, so that a large one
/// would be parsed again and again.
fn small<'l>(layout: &'l Layout, descriptor: &Descriptor) -> Result<&'l [u8], MalformedBundle> {
    let bytes = layout.described(descriptor)?;
    if bytes.len() > LARGEST_DOCUMENT {
        return Err(MalformedBundle::Limit(format!(
            "{} has {} bytes, over {LARGEST_DOCUMENT}",
            descriptor.digest,
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn maker_of(layout: &Layout, manifest: &Manifest) -> Option<Maker> {
    if manifest.subject.is_some() {
        return None;
    }
    if manifest.kind() == GADGET || manifest.config.media_type == GADGET_CONFIG {
        return Some(Maker::InspektorGadget);
    }
    if manifest.config.media_type != media::IMAGE_CONFIG {
        return None;
    }
    let config: ImageConfig = serde_json::from_slice(small(layout, &manifest.config).ok()?).ok()?;
    let labels = config.config.and_then(|config| config.labels)?;
    let is_bpfman = BPFMAN_LABELS
        .iter()
        .any(|label| labels.contains_key(*label));
    is_bpfman.then_some(Maker::Bpfman)
}

/// The one layer with an ELF object as it is.
fn gadget(layout: &Layout, manifest: &Manifest) -> Result<Vec<(String, Blob)>, MalformedBundle> {
    let programs = manifest.layers.iter();
    let mut programs = programs.filter(|layer| layer.media_type == GADGET_PROGRAM);
    let (Some(layer), None) = (programs.next(), programs.next()) else {
        return Err(structure("a gadget has one layer with BPF programs"));
    };
    let blob = layout.described(layer)?.clone();
    Ok(vec![("program.bpf.o".to_owned(), blob)])
}

/// The one layer, a tar that holds an object; bpfman reads it compressed or not, and takes
/// the first.
fn bytecode(layout: &Layout, manifest: &Manifest) -> Result<Vec<(String, Blob)>, MalformedBundle> {
    let [layer] = manifest.layers.as_slice() else {
        return Err(structure("a bytecode image has exactly one layer"));
    };
    let packed: &[u8] = layout.described(layer)?;
    let mut plain = Vec::new();
    match packed {
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(packed)
            .take(LARGEST_LAYER + 1)
            .read_to_end(&mut plain)
            .map_err(|error| structure(format!("the layer is not gzip: {error}")))?,
        plain_tar => plain_tar
            .take(LARGEST_LAYER + 1)
            .read_to_end(&mut plain)
            .map_err(|error| structure(error.to_string()))?,
    };
    if plain.len() as u64 > LARGEST_LAYER {
        return Err(MalformedBundle::Limit(format!(
            "the layer has over {LARGEST_LAYER} bytes"
        )));
    }
    if plain.starts_with(b"\x7fELF") {
        return Ok(vec![("program.bpf.o".to_owned(), Blob::new(plain))]);
    }
    let mut found = Vec::new();
    let mut archive = tar::Archive::new(plain.as_slice());
    for entry in archive.entries()? {
        let mut entry =
            entry.map_err(|error| structure(format!("the layer is not a tar: {error}")))?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if !entry.header().entry_type().is_file() || !name.ends_with(".o") || !is_title(&name) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if bytes.starts_with(b"\x7fELF") {
            found.push((name, Blob::new(bytes)));
        }
    }
    // Which one is meant would be for the reader to guess, and readers guess differently.
    match found.len() {
        1 => Ok(found),
        0 => Err(structure("the layer holds no BPF object")),
        several => Err(structure(format!(
            "the layer holds {several} BPF objects; one is read"
        ))),
    }
}

fn structure(what: impl Into<String>) -> MalformedBundle {
    MalformedBundle::Structure(what.into())
}

#[derive(Deserialize)]
struct Platforms {
    manifests: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct ImageConfig {
    config: Option<RunConfig>,
}

#[derive(Deserialize)]
struct RunConfig {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// As OCI names this machine's architecture.
const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};
const GADGET: &str = "application/vnd.gadget.v1+binary";
const GADGET_CONFIG: &str = "application/vnd.gadget.config.v1+yaml";
const GADGET_PROGRAM: &str = "application/vnd.gadget.ebpf.program.v1+binary";
const BPFMAN_LABELS: [&str; 3] = [
    "io.ebpf.programs",
    "io.ebpf.program_name",
    "io.ebpf.bpf_function_name",
];
/// Manifests, indexes and image configs have a few kilobytes.
const LARGEST_DOCUMENT: usize = 64 << 10;
/// What bpfman takes at most.
const LARGEST_LAYER: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{Digest, fixture};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn image(kind: &str, config: &[u8], layer: (&str, Vec<u8>), more: &str) -> (Layout, Vec<u8>) {
        let mut layout = Layout::new();
        let config_descriptor = Descriptor::of(kind, config);
        let layer_descriptor = Descriptor::of(layer.0, &layer.1);
        layout.add_blob(config.to_vec());
        layout.add_blob(layer.1);
        let manifest = format!(
            r#"{{"schemaVersion":2,{more}"config":{},"layers":[{}]}}"#,
            serde_json::to_string(&config_descriptor).unwrap(),
            serde_json::to_string(&layer_descriptor).unwrap()
        );
        (layout, manifest.into_bytes())
    }

    const LABELS: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{"Labels":{"io.ebpf.programs":"{\"probe\":\"xdp\"}","io.ebpf.maps":"{}"}}}"#;
    const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn names(layout: &Layout) -> Result<Vec<String>, String> {
        let mut bundle = layout.bundle().map_err(|error| error.to_string())?;
        bundle
            .check_inventory()
            .map_err(|error| error.to_string())?;
        let objects = &bundle.recorded_inventory().objects;
        Ok(objects.iter().map(|object| object.name.clone()).collect())
    }

    #[test]
    fn a_bytecode_image_is_read_as_bpfman_reads_it() {
        let object = fixture::object("xdp", "probe");
        for (layer, want) in [
            (gzip(&tar_of(&[("probe.o", &object)])), Ok("probe.o")),
            (
                tar_of(&[("./probe.o", &object), ("README", b"x")]),
                Ok("probe.o"),
            ),
            (gzip(&object), Ok("program.bpf.o")),
            (object.clone(), Ok("program.bpf.o")),
            (
                gzip(&tar_of(&[("x", b"y")])),
                Err("the layer holds no BPF object"),
            ),
            (
                gzip(&tar_of(&[("a.o", &object), ("b.o", &object)])),
                Err("the layer holds 2 BPF objects; one is read"),
            ),
            (
                gzip(&vec![0; LARGEST_LAYER as usize + 1]),
                Err("the layer has over 16777216 bytes"),
            ),
        ] {
            let (mut layout, manifest) = image(media::IMAGE_CONFIG, LABELS, (TAR_GZIP, layer), "");
            layout.add_manifest(manifest, Some("v1")).unwrap();
            let want = want
                .map(|name| vec![name.to_owned()])
                .map_err(str::to_owned);
            assert_eq!(names(&layout), want);
        }
        // Any other image is none.
        let (mut layout, manifest) = image(media::IMAGE_CONFIG, b"{}", (TAR_GZIP, object), "");
        layout.add_manifest(manifest, None).unwrap();
        assert!(names(&layout).unwrap_err().contains("holds no bundle"));
    }

    #[test]
    fn a_gadget_is_read_through_its_index_and_the_index_is_what_is_signed() {
        let object = fixture::object("xdp", "probe");
        let (mut layout, manifest) = image(
            GADGET_CONFIG,
            b"name: probe\n",
            (GADGET_PROGRAM, object),
            r#""artifactType":"application/vnd.gadget.v1+binary","annotations":{"org.opencontainers.image.title":"probe"},"#,
        );
        let descriptor = serde_json::to_value(Descriptor::of(media::MANIFEST, &manifest)).unwrap();
        layout.add_blob(manifest);
        let index = |architectures: &[&str]| {
            let parts: Vec<serde_json::Value> = architectures
                .iter()
                .map(|architecture| {
                    let mut part = descriptor.clone();
                    part["platform"] =
                        serde_json::json!({ "os": "linux", "architecture": architecture });
                    part
                })
                .collect();
            serde_json::json!({
                "schemaVersion": 2, "mediaType": media::INDEX, "manifests": parts,
            })
            .to_string()
            .into_bytes()
        };
        let mut one = layout.clone();
        let good = index(&["s390x", ARCHITECTURE]);
        one.add_index(good.clone(), Some("v1")).unwrap();
        assert_eq!(names(&one), Ok(vec!["program.bpf.o".to_owned()]));
        let bundle = one.bundle().unwrap();
        assert_eq!(bundle.digest(), Digest::of(&good));
        assert_eq!(bundle.descriptor().media_type, media::INDEX);
        assert_eq!(bundle.recorded_inventory().name.as_deref(), Some("probe"));
        layout.add_index(index(&["s390x"]), Some("v1")).unwrap();
        assert!(names(&layout).unwrap_err().contains("holds no bundle"));
    }
}
