//! Writes an object as bpfman's bytecode image, for hosts that bpfman manages.
//!
//! Source: bpfman, `docs/developer-guide/shipping-bytecode.md`: an image of exactly one layer
//! that holds the object, with programs and maps in labels of its config.

use std::{collections::BTreeMap, io};

use serde_json::{Value, json};

use super::{ARCHITECTURE, LARGEST_LAYER};
use crate::{
    Digest,
    inventory::{Inventory, Object, Program},
    layout::{Layout, MalformedBundle},
    manifest::{Descriptor, Manifest},
    media,
};

/// An image just written.
#[derive(Debug)]
pub struct Image {
    /// Its layout.
    pub layout: Layout,
    /// SHA-256 of the index: what is signed.
    pub digest: Digest,
}

/// Writes the only object of `inventory`, `elf`, as an index with one image for this
/// machine's architecture. The same input gives the same bytes.
///
/// # Errors
/// When there is not exactly one object, or it is larger than bpfman reads.
pub fn write(
    inventory: &Inventory,
    elf: &[u8],
    tag: Option<&str>,
) -> Result<Image, MalformedBundle> {
    let [object] = inventory.objects.as_slice() else {
        return Err(super::structure(format!(
            "a bytecode image holds one object; got {}",
            inventory.objects.len()
        )));
    };
    let archive = archive(&object.name, elf)?;
    if archive.len() as u64 > LARGEST_LAYER {
        return Err(MalformedBundle::Limit(format!(
            "the object has {} bytes; bpfman reads at most {LARGEST_LAYER}",
            elf.len()
        )));
    }
    let config = json!({
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": { "Labels": labels(object) },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&archive)] },
    });
    let config = config.to_string().into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut gzip, &archive)?;
    let layer = gzip.finish()?;
    let mut manifest = Manifest::artifact(
        "",
        Descriptor::of(media::IMAGE_CONFIG, &config),
        vec![Descriptor::of(LAYER, &layer)],
    );
    manifest.artifact_type = None;
    let said = [
        (media::TITLE, &inventory.name),
        (media::VERSION, &inventory.version),
        (media::SOURCE, &inventory.source),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            manifest.annotations.insert(key.to_owned(), value.clone());
        }
    }
    let manifest = manifest.to_bytes();
    let mut part = serde_json::to_value(Descriptor::of(media::MANIFEST, &manifest))
        .map_err(|error| super::structure(error.to_string()))?;
    part["platform"] = json!({ "os": "linux", "architecture": ARCHITECTURE });
    let index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [part] });
    let index = index.to_string().into_bytes();
    let digest = Digest::of(&index);
    let mut layout = Layout::new();
    for blob in [config, layer, manifest] {
        layout.add_blob(blob);
    }
    layout.add_index(index, tag)?;
    Ok(Image { layout, digest })
}

fn archive(name: &str, elf: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(elf.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, elf)?;
    archive.into_inner()
}

/// Names of programs and maps with their types, as JSON in strings.
fn labels(object: &Object) -> BTreeMap<&'static str, String> {
    let programs = object.programs.iter();
    let programs: BTreeMap<&str, &str> = programs.map(|p| (p.name.as_str(), kind(p))).collect();
    let maps = object.maps.iter();
    let maps: BTreeMap<&str, &str> = maps.map(|m| (m.name.as_str(), m.kind.as_str())).collect();
    let text = |names: BTreeMap<&str, &str>| Value::from_iter(names).to_string();
    BTreeMap::from([
        ("io.ebpf.programs", text(programs)),
        ("io.ebpf.maps", text(maps)),
    ])
}

/// bpfman has a word of its own for each way to attach.
fn kind(program: &Program) -> &str {
    let section = program.section.trim_start_matches('?');
    let word = section.split(['/', '.']).next().unwrap_or_default();
    match program.kind.as_str() {
        "sched_cls" if word == "tcx" => "tcx",
        "sched_cls" => "tc",
        "kprobe" | "tracing" if WORDS.contains(&word) => word,
        kind => kind,
    }
}

const WORDS: [&str; 6] = [
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "uprobe",
    "uretprobe",
];
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, inventory};

    fn inventory(section: &str) -> (Inventory, Vec<u8>) {
        let elf = fixture::object(section, "probe");
        let object = inventory::read("probe.bpf.o", &elf).unwrap();
        let inventory = Inventory {
            name: Some("probe".into()),
            version: Some("1.0".into()),
            ..Inventory::of(vec![object])
        };
        (inventory, elf)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (inventory, elf) = inventory("xdp");
        let image = write(&inventory, &elf, Some("1.0")).unwrap();
        let mut bundle = image.layout.bundle().unwrap();
        bundle.check_inventory().unwrap();
        assert_eq!(bundle.digest(), image.digest);
        assert_eq!(bundle.recorded_inventory(), &inventory);
        let again = write(&inventory, &elf, Some("1.0")).unwrap();
        assert_eq!(again.digest, image.digest);
        let none = Inventory::of(Vec::new());
        assert_eq!(
            write(&none, &elf, None).unwrap_err().to_string(),
            super::super::structure("a bytecode image holds one object; got 0").to_string()
        );
    }

    #[test]
    fn types_are_in_bpfman_s_words() {
        for (section, want) in [
            ("xdp", "xdp"),
            ("tc", "tc"),
            ("tcx/ingress", "tcx"),
            ("kprobe/do_exit", "kprobe"),
            ("kretprobe/do_exit", "kretprobe"),
            ("uprobe", "uprobe"),
            ("tracepoint/a/b", "tracepoint"),
            ("fentry/do_exit", "fentry"),
            ("fexit.s/do_exit", "fexit"),
        ] {
            let (inventory, _) = inventory(section);
            let object = &inventory.objects[0];
            assert_eq!(kind(&object.programs[0]), want, "{section}");
            let labels = labels(object);
            let programs: Value = serde_json::from_str(&labels["io.ebpf.programs"]).unwrap();
            assert_eq!(programs, json!({ "probe": want }), "{section}");
        }
    }
}
