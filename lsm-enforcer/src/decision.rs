//! What a worker does with the bytes, once it has nothing left to lose.

use std::path::Path;

use bundle::{
    explain::{Anatomy, Order},
    image::Image,
    inventory::Object,
    layout::{self, Layout},
};
use policy::{Admitted, Context, Reason, revocation::Signer, scope, verify::reason_of};

use crate::{
    failure::Failure,
    measure,
    trust::{self, Trusted},
    workshop::{Approved, Finding, Limits, Measured, Stream, Task, Verdict},
};

/// Verifies the policy and the bundle from zero and decides.
pub fn decide(task: &Task<'_>) -> Result<Verdict, Failure> {
    let authority = trust::authority(task.authority)?;
    let trusted = Trusted::verify(task.document, &authority)?;
    let malformed =
        |error: bundle::MalformedBundle| Failure::refused(reason_of(&error), error.to_string());
    let layout = Layout::read(task.bundle, &layout::Limits::default()).map_err(malformed)?;
    let unverified = layout.bundle().map_err(malformed)?;
    let package = unverified.recorded_inventory().name.clone();
    let scope = scope::of_file(task.scope, package.as_deref());
    let verified = policy::verify(unverified, trusted.policy(), &scope, task.now)?;
    let admitted = policy::admit(verified, trusted.policy(), &Context::of(scope.as_str()))?;
    let at_least = match admitted.rule().until {
        Some(_) => 0,
        None => trusted
            .policy()
            .rule_for(&scope)
            .map_or(usize::MAX, |rule| rule.signed_by.at_least),
    };
    Ok(verdict(&admitted, scope, at_least))
}

fn verdict(admitted: &Admitted, scope: String, at_least: usize) -> Verdict {
    let bundle = admitted.bundle();
    let inventory = bundle.inventory();
    // Loaders that kernels check come last: other objects keep their places.
    let loaders = admitted.loaders().into_iter().flatten();
    let objects = admitted
        .objects()
        .chain(loaders)
        .map(|(object, elf, limits)| Approved {
            name: object.name.clone(),
            size: elf.len(),
            elf: elf.to_vec(),
            inventory: object.clone(),
            limits: Limits {
                tunables: limits.tunables.clone(),
                map_sizes: limits.map_entries.clone(),
                places: limits.places.clone(),
                replaces: limits.replaces.clone(),
            },
        })
        .collect();
    Verdict {
        bundle: bundle.digest(),
        name: inventory.name.clone(),
        version: inventory.version.clone(),
        scope,
        rule: bundle.rule().to_string(),
        signers: bundle
            .signed_by()
            .iter()
            .map(|signed| signed.names.join("="))
            .collect(),
        signatories: bundle.signed_by().iter().map(Signer::from).collect(),
        at_least,
        until: admitted.rule().until,
        objects,
    }
}

/// Measures an approved object for the running kernel, or the one whose BTF is in a file.
pub fn measure(object: &Approved, kernel: Option<&Path>) -> Result<Vec<Measured>, Failure> {
    let measured = measure::measure_for(&object.elf, &object.inventory, kernel);
    let measurement = measured.map_err(|error| {
        Failure::refused(
            Reason::MalformedObject,
            format!("{error}: {}", error.source),
        )
    })?;
    // What libbpf made must be found again in the object; where it is, other loaders' layouts
    // follow from it.
    let mut anatomy = Anatomy::read(&object.elf).map_err(|error| error.to_string());
    let unchecked: Vec<Option<String>> = measurement
        .images
        .iter()
        .map(|image| match &mut anatomy {
            Ok(anatomy) => anatomy
                .learn(image)
                .err()
                .map(|difference| difference.to_string()),
            Err(why) => Some(why.clone()),
        })
        .collect();
    let others = measurement.others;
    let images = measurement.images.into_iter().zip(unchecked);
    let measured: Vec<Measured> = images
        .map(|(image, unchecked)| Measured {
            program: image.name.clone(),
            others: match (&anatomy, &unchecked) {
                (Ok(anatomy), None) => other_layouts(anatomy, &image),
                _ => Vec::new(),
            }
            .into_iter()
            .chain(
                others
                    .iter()
                    .filter(|other| other.name == image.name)
                    .cloned(),
            )
            .collect(),
            image: Ok(image),
            unchecked,
        })
        .collect();
    let unmeasured = measurement.unmeasured.into_iter().map(|program| Measured {
        program: program.name,
        image: Err(program.why),
        others: Vec::new(),
        unchecked: None,
    });
    let all = measured.into_iter().chain(unmeasured);
    Ok(all
        .map(|known| match may_throw(&object.inventory, &known.program) {
            true => Measured {
                image: Err(THROWS.to_owned()),
                others: Vec::new(),
                unchecked: None,
                ..known
            },
            false => known,
        })
        .collect())
}

/// Gate 2 refuses such a program whatever was measured: `may_throw` of bpf/bind.h.
const THROWS: &str = "it may throw (bpf_throw), and no such program is let in (E509)";

fn may_throw(inventory: &Object, program: &str) -> bool {
    let mut programs = inventory.programs.iter();
    programs
        .any(|known| known.name == program && known.kfuncs.iter().any(|name| name == "bpf_throw"))
}

/// cilium/ebpf puts functions in another order than libbpf; only where there are several.
fn other_layouts(anatomy: &Anatomy, image: &Image) -> Vec<Image> {
    anatomy
        .lay_out(&image.name, Order::BreadthFirstByName)
        .and_then(|layout| anatomy.image(image, &layout))
        .filter(|other| other.words != image.words)
        .into_iter()
        .collect()
}

fn read(object: &Approved) -> Result<Anatomy, Failure> {
    Anatomy::read(&object.elf)
        .map_err(|error| Failure::refused(Reason::MalformedObject, error.to_string()))
}

/// Compares a stream with every program of an object.
pub fn explain(
    object: &Approved,
    measured: &[Measured],
    stream: &Stream,
) -> Result<Vec<Finding>, Failure> {
    let mut anatomy = read(object)?;
    let images: Vec<&Image> = measured
        .iter()
        .filter_map(|m| m.image.as_ref().ok())
        .collect();
    for image in &images {
        // What does not fit is said where it was measured.
        let _ = anatomy.learn(image);
    }
    let whole = stream.words.len() == stream.length;
    let findings = images.iter().map(|image| {
        let name = &image.name;
        let compared = match whole {
            true => anatomy.explain(name, &stream.words).map(Some),
            false => anatomy
                .compare_start(name, &stream.words, stream.length)
                .map(|()| None),
        };
        let (layout, difference) = match compared {
            Ok(layout) => (layout, None),
            Err(difference) => (None, Some(difference)),
        };
        Finding {
            object: object.name.clone(),
            program: name.clone(),
            difference,
            image: layout
                .as_ref()
                .and_then(|layout| anatomy.image(image, layout)),
            functions: layout.map(|layout| layout.functions).unwrap_or_default(),
        }
    });
    Ok(findings.collect())
}
