//! Packing: BPF objects in, a bundle out; the same bytes on every machine.

use std::collections::BTreeSet;

use crate::{
    Blob, Digest, MalformedObject,
    inventory::{self, Inventory, Object, SCHEMA},
    layout::{Layout, Limits, MalformedBundle},
    loader::{self, KernelLoader},
    manifest::{Annotations, Descriptor, Manifest, to_json},
    media,
    unverified::is_title,
};

/// What the packer adds to what the objects say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// Package name.
    pub name: Option<String>,
    /// Package version.
    pub version: Option<String>,
    /// Where the source is.
    pub source: Option<String>,
    /// When it was made (RFC 3339), only from `SOURCE_DATE_EPOCH`: a clock would give every
    /// machine another digest.
    pub created: Option<String>,
    /// Read-only variables that a loader may set: `VAR`, or `OBJECT:VAR` for one object.
    pub tunables: Vec<String>,
    /// Marks every `const volatile` variable that BTF names as tunable.
    pub tunable_volatile: bool,
    /// More annotations for the manifest.
    pub annotations: Annotations,
    /// Loaders that kernels check; `None`: none were asked for, and nothing is said of them.
    pub kernel_loaders: Option<Vec<KernelLoader>>,
}

/// Why objects cannot be packed. The caller is at fault.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Nothing to pack.
    #[error("there is no object to pack")]
    NoObject,
    /// An object cannot be parsed.
    #[error("{name}: {error}")]
    Object {
        /// The object's title.
        name: String,
        /// What is wrong with it.
        error: MalformedObject,
    },
    /// A title is no file name.
    #[error("{0:?} cannot be an object's title")]
    Title(String),
    /// Two objects have one title.
    #[error("two objects are titled {0:?}; give one of them another file name")]
    DuplicateTitle(String),
    /// No object has such a variable.
    #[error("no read-only variable is called {name:?}; {}", list(.candidates))]
    UnknownTunable {
        /// As given.
        name: String,
        /// What could be given.
        candidates: Vec<String>,
    },
    /// An annotation has a key that the packer writes itself.
    #[error("annotation {0:?} is written by pack itself; use its own option")]
    ReservedAnnotation(String),
    /// A loader is not one, or of something else.
    #[error("{0}")]
    Loader(String),
    /// The bundle would be over the limits of those who read it.
    #[error("{what} has {got} bytes, over {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its bytes.
        got: u64,
        /// What readers take.
        limit: u64,
    },
}

/// A bundle just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBundle {
    /// SHA-256 of the manifest: the bundle's name.
    pub digest: Digest,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The config's bytes: the inventory as JSON.
    pub config: Vec<u8>,
    /// The inventory.
    pub inventory: Inventory,
    /// Title and ELF bytes of every object, in the order given.
    pub layers: Vec<(String, Vec<u8>)>,
    /// Title and bytes of every loader that kernels check.
    pub loaders: Vec<(String, Blob)>,
}

impl PackedBundle {
    /// The bundle as a layout, listed under a name or tag if one is given.
    ///
    /// # Errors
    /// None for a bundle that [`pack`] made.
    pub fn into_layout(self, name: Option<&str>) -> Result<Layout, MalformedBundle> {
        let mut layout = Layout::new();
        for (_, bytes) in self.layers {
            layout.add_blob(bytes);
        }
        for (_, bytes) in self.loaders {
            layout.add_blob(bytes.to_vec());
        }
        layout.add_blob(self.config);
        layout.add_manifest(self.manifest, name)?;
        Ok(layout)
    }
}

/// Packs objects, given as title and ELF bytes, in the order given.
///
/// # Errors
/// See [`PackError`]; nothing is packed in part.
pub fn pack(
    objects: Vec<(String, Vec<u8>)>,
    options: &PackOptions,
) -> Result<PackedBundle, PackError> {
    if objects.is_empty() {
        return Err(PackError::NoObject);
    }
    check_sizes(&objects)?;
    check_titles(&objects)?;
    let mut inventory = inventory_of(&objects, options)?;
    mark_tunables(&mut inventory.objects, options)?;
    let loaders = loaders_of(&mut inventory, options)?;
    let config = to_json(&inventory);
    let layer = |kind, title: &str, bytes: &[u8]| {
        Descriptor::of(kind, bytes).annotated(media::TITLE, title)
    };
    let layers = objects
        .iter()
        .map(|(title, bytes)| layer(media::OBJECT, title, bytes))
        .chain(
            loaders
                .iter()
                .map(|(title, bytes)| layer(media::KERNEL_LOADER, title, bytes)),
        )
        .collect();
    let mut manifest = Manifest::artifact(
        media::BUNDLE,
        Descriptor::of(media::INVENTORY, &config),
        layers,
    );
    manifest.annotations = annotations(options)?;
    let manifest = manifest.to_bytes();
    Ok(PackedBundle {
        digest: Digest::of(&manifest),
        manifest,
        config,
        inventory,
        layers: objects,
        loaders,
    })
}

fn loaders_of(
    inventory: &mut Inventory,
    options: &PackOptions,
) -> Result<Vec<(String, Blob)>, PackError> {
    let Some(loaders) = &options.kernel_loaders else {
        return Ok(Vec::new());
    };
    let whole = room();
    let total: u64 = loaders.iter().map(|made| made.size() as u64).sum();
    let objects: u64 = inventory.objects.iter().map(|object| object.size).sum();
    if total + objects > whole {
        return Err(PackError::TooLarge {
            what: "the bundle with its loaders".to_owned(),
            got: total + objects,
            limit: whole,
        });
    }
    let layers: Vec<(String, Blob)> = loaders
        .iter()
        .map(|made| {
            let object = made.about.object;
            let named = inventory
                .objects
                .iter()
                .find(|known| known.digest == object);
            let name = named.map_or("", |known| known.name.as_str());
            let title = KernelLoader::title(name, made.about.form);
            (title, Blob::new(made.to_object()))
        })
        .collect();
    inventory.kernel_loaders =
        loader::describe(&inventory.objects, &layers).map_err(PackError::Loader)?;
    Ok(layers)
}

fn check_sizes(objects: &[(String, Vec<u8>)]) -> Result<(), PackError> {
    let limits = Limits::default();
    let whole = room();
    let too_large = |what: &str, got: u64, limit: u64| PackError::TooLarge {
        what: what.to_owned(),
        got,
        limit,
    };
    let mut total = 0;
    for (title, bytes) in objects {
        let size = bytes.len() as u64;
        if size > limits.blob {
            return Err(too_large(title, size, limits.blob));
        }
        total += size;
    }
    if total > whole {
        return Err(too_large("the bundle", total, whole));
    }
    Ok(())
}

/// Bytes for layers: the rest of the tar is for manifest, config and signatures.
fn room() -> u64 {
    Limits::default().total - (16 << 20)
}

fn check_titles(objects: &[(String, Vec<u8>)]) -> Result<(), PackError> {
    let mut titles = BTreeSet::new();
    for (title, _) in objects {
        if !is_title(title) {
            return Err(PackError::Title(title.clone()));
        }
        if !titles.insert(title) {
            return Err(PackError::DuplicateTitle(title.clone()));
        }
    }
    Ok(())
}

fn inventory_of(
    objects: &[(String, Vec<u8>)],
    options: &PackOptions,
) -> Result<Inventory, PackError> {
    let mut reader = inventory::Reader::default();
    let objects = objects
        .iter()
        .map(|(title, bytes)| {
            reader
                .read(title, bytes)
                .map_err(|error| PackError::Object {
                    name: title.clone(),
                    error,
                })
        })
        .collect::<Result<_, _>>()?;
    Ok(Inventory {
        schema: SCHEMA.to_owned(),
        name: options.name.clone(),
        version: options.version.clone(),
        source: options.source.clone(),
        objects,
        kernel_loaders: Vec::new(),
    })
}

fn mark_tunables(objects: &mut [Object], options: &PackOptions) -> Result<(), PackError> {
    if options.tunable_volatile {
        for_each_readonly(objects, |_, variable| variable.tunable |= variable.volatile);
    }
    for wanted in &options.tunables {
        let mut found = false;
        for_each_readonly(objects, |object, variable| {
            let named = variable.name == *wanted
                || wanted
                    .strip_prefix(object)
                    .and_then(|rest| rest.strip_prefix(':'))
                    == Some(variable.name.as_str());
            if named {
                variable.tunable = true;
                found = true;
            }
        });
        if !found {
            return Err(PackError::UnknownTunable {
                name: wanted.clone(),
                candidates: tunable_candidates(objects),
            });
        }
    }
    Ok(())
}

fn for_each_readonly(
    objects: &mut [Object],
    mut visit: impl FnMut(&str, &mut inventory::Variable),
) {
    for object in objects {
        for section in object.data.iter_mut().filter(|section| section.readonly) {
            for variable in &mut section.variables {
                visit(&object.name, variable);
            }
        }
    }
}

/// Names of read-only variables, those declared `volatile` first: a loader is meant to set them.
fn tunable_candidates(objects: &mut [Object]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for_each_readonly(objects, |_, variable| {
        names.insert((!variable.volatile, variable.name.clone()));
    });
    names.into_iter().map(|(_, name)| name).collect()
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    match names.len() {
        0 => "the objects have none".to_owned(),
        n if n > SHOWN => format!(
            "there are {} and {} more",
            names[..SHOWN].join(", "),
            n - SHOWN
        ),
        _ => format!("there are {}", names.join(", ")),
    }
}

fn annotations(options: &PackOptions) -> Result<Annotations, PackError> {
    let own = [
        (media::TITLE, &options.name),
        (media::VERSION, &options.version),
        (media::SOURCE, &options.source),
        (media::CREATED, &options.created),
    ];
    let mut annotations = options.annotations.clone();
    for (key, value) in own {
        if annotations.contains_key(key) {
            return Err(PackError::ReservedAnnotation(key.to_owned()));
        }
        if let Some(value) = value {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    Ok(annotations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{DataSection, Variable};

    fn object(number: u8) -> Vec<u8> {
        crate::fixture::object("xdp", &format!("program_{number}"))
    }

    fn two() -> Vec<(String, Vec<u8>)> {
        vec![("b.o".to_owned(), object(0)), ("a.o".to_owned(), object(1))]
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_and_reads_back() {
        let options = PackOptions {
            name: Some("probe".to_owned()),
            version: Some("1.2".to_owned()),
            annotations: [
                ("z".to_owned(), "1".to_owned()),
                ("a".to_owned(), "2".to_owned()),
            ]
            .into(),
            ..PackOptions::default()
        };
        let packed = pack(two(), &options).unwrap();
        assert_eq!(pack(two(), &options).unwrap(), packed);
        let inventory = packed.inventory.clone();
        let digest = packed.digest;
        let mut bundle = packed.into_layout(Some("1.2")).unwrap().bundle().unwrap();
        assert_eq!(bundle.digest(), digest);
        assert_eq!(bundle.recorded_inventory(), &inventory);
        assert_eq!(
            inventory
                .objects
                .iter()
                .map(|o| o.name.as_str())
                .collect::<Vec<_>>(),
            ["b.o", "a.o"]
        );
        bundle.check_inventory().unwrap();
    }

    #[test]
    fn a_bundle_outlives_the_tables_of_its_day_but_hides_nothing() {
        let repacked = |edit: &dyn Fn(&mut Object)| {
            let mut packed = pack(two(), &PackOptions::default()).unwrap();
            edit(&mut packed.inventory.objects[0]);
            packed.config = to_json(&packed.inventory);
            let mut manifest = Manifest::parse(&packed.manifest).unwrap();
            manifest.config = Descriptor::of(media::INVENTORY, &packed.config);
            packed.manifest = manifest.to_bytes();
            packed.into_layout(None).unwrap().bundle().unwrap()
        };
        let derived = pack(two(), &PackOptions::default()).unwrap().inventory;

        let mut older = repacked(&|object| object.needs.oldest_kernel = Some("2.6".to_owned()));
        older.check_inventory().unwrap();
        assert_eq!(older.recorded_inventory(), &derived);

        let mut hiding = repacked(&|object| object.programs.clear());
        assert!(matches!(
            hiding.check_inventory(),
            Err(MalformedBundle::Inventory(_))
        ));
    }

    #[test]
    fn refuses_bad_titles_and_reserved_annotations() {
        let error =
            |objects, options: &PackOptions| pack(objects, options).unwrap_err().to_string();
        let plain = PackOptions::default();
        assert_eq!(error(vec![], &plain), "there is no object to pack");
        for title in ["", "..", "a/b", "a\nb"] {
            assert_eq!(
                error(vec![(title.to_owned(), object(0))], &plain),
                format!("{title:?} cannot be an object's title")
            );
        }
        let twice = vec![("a.o".to_owned(), object(0)), ("a.o".to_owned(), object(1))];
        assert_eq!(
            error(twice, &plain),
            "two objects are titled \"a.o\"; give one of them another file name"
        );
        let reserved = PackOptions {
            annotations: [(media::CREATED.to_owned(), "now".to_owned())].into(),
            ..PackOptions::default()
        };
        assert_eq!(
            error(two(), &reserved),
            "annotation \"org.opencontainers.image.created\" is written by pack itself; use its own option"
        );
    }

    fn with_variables() -> Vec<Object> {
        let variable = |name: &str, volatile| Variable {
            name: name.to_owned(),
            offset: 0,
            size: 4,
            volatile,
            signed: true,
            tunable: false,
        };
        let section = |section: &str, readonly, variables| DataSection {
            section: section.to_owned(),
            size: 8,
            readonly,
            variables,
        };
        let mut objects = inventory_of(&two(), &PackOptions::default())
            .unwrap()
            .objects;
        for object in &mut objects {
            object.data = vec![
                section(
                    ".rodata",
                    true,
                    vec![variable("banner", false), variable("pid", true)],
                ),
                section(".data", false, vec![variable("state", true)]),
            ];
        }
        objects
    }

    fn tunables(objects: &[Object]) -> Vec<String> {
        objects
            .iter()
            .flat_map(|o| {
                o.data
                    .iter()
                    .flat_map(move |d| d.variables.iter().map(move |v| (o, v)))
            })
            .filter(|(_, v)| v.tunable)
            .map(|(o, v)| format!("{}:{}", o.name, v.name))
            .collect()
    }

    #[test]
    fn marks_the_tunables_asked_for_and_no_others() {
        for (wanted, volatile, want) in [
            (vec!["pid"], false, vec!["b.o:pid", "a.o:pid"]),
            (vec!["a.o:banner"], false, vec!["a.o:banner"]),
            (vec![], true, vec!["b.o:pid", "a.o:pid"]),
            (vec![], false, vec![]),
        ] {
            let mut objects = with_variables();
            let options = PackOptions {
                tunables: wanted.iter().map(|&w| w.to_owned()).collect(),
                tunable_volatile: volatile,
                ..PackOptions::default()
            };
            mark_tunables(&mut objects, &options).unwrap();
            assert_eq!(tunables(&objects), want);
        }
    }

    #[test]
    fn an_unknown_tunable_names_the_candidates() {
        let options = PackOptions {
            tunables: vec!["state".to_owned()],
            ..PackOptions::default()
        };
        assert_eq!(
            mark_tunables(&mut with_variables(), &options)
                .unwrap_err()
                .to_string(),
            "no read-only variable is called \"state\"; there are pid, banner"
        );
    }
}
