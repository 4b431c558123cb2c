//! A bundle that nobody vouches for yet: its parts fit together, and that is all.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::{
    Blob, Digest, foreign,
    inventory::{self, Inventory, Object},
    layout::{Layout, Limits, MalformedBundle},
    loader,
    manifest::{Descriptor, Manifest},
    media,
};

/// A bundle before verification.
///
/// Every blob has the digest and size that its manifest says, and the config parses as an
/// inventory. There is no accessor for code: only `policy::verify` turns this into a value
/// that has one.
#[derive(Debug)]
pub struct UnverifiedBundle {
    descriptor: Descriptor,
    manifest: Manifest,
    inventory: Inventory,
    objects: Vec<(String, Blob)>,
    loaders: Vec<(String, Blob)>,
    referrers: Vec<Referrer>,
}

/// A manifest that claims to be about a bundle: a signature, an attestation, anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// SHA-256 of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Its layers in order: the bytes, or why they are not there. A broken referrer spoils
    /// itself, not the bundle, because anybody may attach one.
    pub layers: Vec<Result<Vec<u8>, String>>,
}

/// What verification hands on, see [`UnverifiedBundle::danger_into_parts`].
#[derive(Debug)]
pub struct Parts {
    /// The manifest's media type, digest and size: what was signed.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The inventory; equal to the one derived from the objects only if
    /// [`UnverifiedBundle::check_inventory`] passed before.
    pub inventory: Inventory,
    /// Title and ELF bytes of every object, in layer order.
    pub objects: Vec<(String, Blob)>,
    /// Title and bytes of every loader that kernels check, in layer order.
    pub loaders: Vec<(String, Blob)>,
}

impl Referrer {
    /// Copies the layers out of `layout` as long as there is `room` for their bytes.
    pub(crate) fn read(
        layout: &Layout,
        digest: Digest,
        manifest: Manifest,
        room: &mut u64,
    ) -> Self {
        let mut copy = |layer: &Descriptor| {
            let cost = layer.size.saturating_add(LAYER_COST);
            *room = room
                .checked_sub(cost)
                .ok_or("there is more attached than is read")?;
            let bytes = layout.described(layer).map_err(|error| error.to_string())?;
            Ok(bytes.to_vec())
        };
        let layers = manifest.layers.iter().map(&mut copy).collect();
        Self {
            digest,
            manifest,
            layers,
        }
    }
}

impl UnverifiedBundle {
    pub(crate) fn read(layout: &Layout, descriptor: &Descriptor) -> Result<Self, MalformedBundle> {
        if foreign::maker(layout, descriptor).is_some() {
            let package = foreign::read(layout, descriptor)?;
            return Ok(Self {
                descriptor: Descriptor {
                    annotations: Default::default(),
                    ..descriptor.clone()
                },
                referrers: layout.referrers(&descriptor.digest),
                manifest: package.manifest,
                inventory: package.inventory,
                objects: package.objects,
                loaders: Vec::new(),
            });
        }
        let bytes = layout.described(descriptor)?;
        let manifest = Manifest::parse(bytes)
            .map_err(|error| MalformedBundle::Structure(format!("bundle manifest: {error}")))?;
        if manifest.subject.is_some() {
            return Err(MalformedBundle::Structure(
                "bundle manifest: it has a subject, so it is about something else".to_owned(),
            ));
        }
        if manifest.config.media_type != media::INVENTORY {
            return Err(MalformedBundle::Structure(format!(
                "bundle manifest: the config is of type {:?}, not {:?}",
                manifest.config.media_type,
                media::INVENTORY
            )));
        }
        let inventory = read_inventory(layout.described(&manifest.config)?)?;
        let (objects, loaders) = read_layers(layout, &manifest)?;
        let listed: Vec<&str> = inventory.objects.iter().map(|o| o.name.as_str()).collect();
        let titled: Vec<&str> = objects.iter().map(|(title, _)| title.as_str()).collect();
        if listed != titled {
            return Err(MalformedBundle::Inventory(format!(
                "the inventory lists {listed:?}, the manifest {titled:?}"
            )));
        }
        Ok(Self {
            descriptor: Descriptor {
                media_type: media::MANIFEST.to_owned(),
                annotations: Default::default(),
                ..descriptor.clone()
            },
            referrers: layout.referrers(&descriptor.digest),
            manifest,
            inventory,
            objects,
            loaders,
        })
    }

    /// SHA-256 of the manifest: the bundle's name.
    pub const fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Media type, digest and size of the manifest: what a signature is about.
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Everything that claims to be about this bundle.
    pub fn referrers(&self) -> &[Referrer] {
        &self.referrers
    }

    /// The inventory as the bundle records it. Nothing has compared it with the objects.
    pub const fn recorded_inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Derives the inventory from the objects and compares it with the recorded one.
    ///
    /// Only the packer's choices may differ from what the bytes say: name, version, source,
    /// and which read-only variables are tunable. `needs` is not compared but taken from the
    /// objects: it comes from tables of kernel releases that grow, and a bundle must outlive
    /// the tables of its day.
    ///
    /// # Errors
    /// [`MalformedBundle::Inventory`] names the first field that differs;
    /// [`MalformedBundle::Object`] when an object cannot be parsed.
    pub fn check_inventory(&mut self) -> Result<(), MalformedBundle> {
        let mut reader = inventory::Reader::default();
        for ((title, bytes), recorded) in self.objects.iter().zip(&mut self.inventory.objects) {
            let mut derived =
                reader
                    .read_blob(title, bytes)
                    .map_err(|error| MalformedBundle::Object {
                        name: title.clone(),
                        detail: error.to_string(),
                    })?;
            copy_marks(recorded, &mut derived);
            recorded.needs.clone_from(&derived.needs);
            if derived != *recorded {
                return Err(MalformedBundle::Inventory(format!(
                    "object {title:?}: {}",
                    first_difference(recorded, &derived)
                )));
            }
        }
        self.check_loaders()
    }

    /// A bundle may be without loaders; then it says nothing of them.
    fn check_loaders(&self) -> Result<(), MalformedBundle> {
        let recorded = &self.inventory.kernel_loaders;
        if recorded.is_empty() && self.loaders.is_empty() {
            return Ok(());
        }
        let derived = loader::describe(&self.inventory.objects, &self.loaders)
            .map_err(MalformedBundle::Inventory)?;
        if derived != *recorded {
            return Err(MalformedBundle::Inventory(format!(
                "kernel loaders: {}",
                first_difference(recorded, &derived)
            )));
        }
        Ok(())
    }

    /// Gives up the proof that nothing was verified and hands out the code.
    ///
    /// For `policy::verify` alone, which is in another crate; a test there holds that
    /// nothing else calls it.
    pub fn danger_into_parts(self) -> Parts {
        Parts {
            descriptor: self.descriptor,
            manifest: self.manifest,
            inventory: self.inventory,
            objects: self.objects,
            loaders: self.loaders,
        }
    }
}

/// Is this a file name that can be a layer's title: no folder, no control character?
pub fn is_title(title: &str) -> bool {
    !title.is_empty()
        && title.len() <= MAX_TITLE
        && title != "."
        && title != ".."
        && !title.contains(|c: char| c == '/' || c == '\\' || c.is_control())
}

/// Takes over which read-only variables are tunable: all else a loader may write anyway,
/// so a mark there means nothing and counts as a difference.
fn copy_marks(recorded: &Object, derived: &mut Object) {
    for (from, to) in recorded.data.iter().zip(&mut derived.data) {
        if !to.readonly {
            continue;
        }
        for (from, to) in from.variables.iter().zip(&mut to.variables) {
            to.tunable = from.tunable;
        }
    }
}

fn first_difference<T: Serialize>(recorded: &T, derived: &T) -> String {
    let (Ok(recorded), Ok(derived)) = (
        serde_json::to_value(recorded),
        serde_json::to_value(derived),
    ) else {
        return "it differs".to_owned();
    };
    difference("", &recorded, &derived).unwrap_or_else(|| "it differs".to_owned())
}

fn difference(path: &str, recorded: &Value, derived: &Value) -> Option<String> {
    match (recorded, derived) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let null = Value::Null;
                let dot = if path.is_empty() { "" } else { "." };
                difference(
                    &format!("{path}{dot}{key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                )
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b)),
        (a, b) if a == b => None,
        (a, b) => Some(format!(
            "{path} is recorded as {}, the object says {}",
            short(a),
            short(b)
        )),
    }
}

/// JSON of a value, cut for a one-line message.
fn short(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("{} entries", items.len()),
        Value::Object(_) => "an entry".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(80) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

fn read_inventory(config: &[u8]) -> Result<Inventory, MalformedBundle> {
    if config.len() > MAX_INVENTORY {
        return Err(MalformedBundle::Limit(format!(
            "the inventory has {} bytes, over {MAX_INVENTORY}",
            config.len()
        )));
    }
    let inventory: Inventory = serde_json::from_slice(config).map_err(|error| {
        MalformedBundle::Inventory(format!("the inventory cannot be parsed: {error}"))
    })?;
    if inventory.schema != inventory::SCHEMA {
        return Err(MalformedBundle::Inventory(format!(
            "the inventory is of schema {:?}, not {:?}",
            inventory.schema,
            inventory::SCHEMA
        )));
    }
    Ok(inventory)
}

/// Titles and bytes.
type Layers = Vec<(String, Blob)>;

/// Objects, and loaders that kernels check.
fn read_layers(layout: &Layout, manifest: &Manifest) -> Result<(Layers, Layers), MalformedBundle> {
    let mut titles = BTreeSet::new();
    let (mut objects, mut loaders) = (Vec::new(), Vec::new());
    let mut room = Limits::default().total;
    for layer in &manifest.layers {
        let bytes = layout.described(layer)?;
        let kind = match layer.media_type.as_str() {
            media::OBJECT => &mut objects,
            media::KERNEL_LOADER => &mut loaders,
            // Signed with the rest, but nothing that is loaded: licences, minimised BTF.
            _ => continue,
        };
        let title = layer
            .annotations
            .get(media::TITLE)
            .map_or("", String::as_str);
        if !is_title(title) {
            return Err(MalformedBundle::Structure(format!(
                "bundle manifest: {title:?} cannot be an object's title"
            )));
        }
        if !titles.insert(title) {
            return Err(MalformedBundle::Structure(format!(
                "bundle manifest: two objects are titled {title:?}"
            )));
        }
        // Many layers may name one blob, so what a layout may hold is no limit for copies.
        room = room
            .checked_sub(layer.size.saturating_add(LAYER_COST))
            .ok_or_else(|| MalformedBundle::Limit("its objects have too many bytes".to_owned()))?;
        kind.push((title.to_owned(), bytes.clone()));
    }
    if objects.is_empty() {
        return Err(MalformedBundle::Structure(
            "bundle manifest: it has no object layer".to_owned(),
        ));
    }
    Ok((objects, loaders))
}

/// What a layer costs besides its bytes, so that empty ones come to an end too.
const LAYER_COST: u64 = 1024;
/// As `NAME_MAX` in Linux, because a title becomes a file name.
const MAX_TITLE: usize = 255;
/// An inventory of 10,000 programs and maps fits; what parses it holds it in memory several times.
const MAX_INVENTORY: usize = 8 << 20;
