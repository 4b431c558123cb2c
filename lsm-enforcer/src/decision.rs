//! What a worker does with the bytes, once it has nothing left to lose.

use bundle::layout::{self, Layout};
use policy::{Admitted, Context, Reason, revocation::Signatory, scope, verify::reason_of};

use crate::{
    failure::Failure,
    measure,
    trust::{self, Trusted},
    workshop::{Approved, Limits, Measured, Task, Verdict},
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
    let verified = policy::verify(unverified, trusted.policy(), &scope)?;
    let admitted = policy::admit(verified, trusted.policy(), &Context::of(scope.as_str()))?;
    let at_least = trusted
        .policy()
        .rule_for(&scope)
        .map_or(usize::MAX, |rule| rule.signed_by.at_least);
    Ok(verdict(&admitted, scope, at_least))
}

fn verdict(admitted: &Admitted, scope: String, at_least: usize) -> Verdict {
    let bundle = admitted.bundle();
    let inventory = bundle.inventory();
    let objects = bundle
        .objects()
        .iter()
        .zip(&inventory.objects)
        .zip(admitted.limits())
        .map(|(((name, elf), object), limits)| Approved {
            name: name.clone(),
            size: elf.len(),
            elf: elf.clone(),
            inventory: object.clone(),
            limits: Limits {
                tunables: limits.tunables.clone(),
                map_sizes: limits.map_entries.clone(),
                places: limits.places.clone(),
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
        signatories: bundle
            .signed_by()
            .iter()
            .map(|signed| Signatory::Key(signed.key))
            .collect(),
        at_least,
        objects,
    }
}

/// Measures an approved object for the running kernel.
pub fn measure(object: &Approved) -> Result<Vec<Measured>, Failure> {
    let measurement = measure::measure(&object.elf, &object.inventory).map_err(|error| {
        Failure::refused(
            Reason::MalformedObject,
            format!("{error}: {}", error.source),
        )
    })?;
    let measured = measurement.images.into_iter().map(|image| Measured {
        program: image.name.clone(),
        image: Ok(image),
    });
    let unmeasured = measurement.unmeasured.into_iter().map(|program| Measured {
        program: program.name,
        image: Err(program.why),
    });
    Ok(measured.chain(unmeasured).collect())
}
