//! What a worker does with the bytes, once it has nothing left to lose.

use policy::Reason;

use crate::{
    failure::Failure,
    measure,
    trust::{self, Trusted},
    workshop::{Approved, Measured, Task, Verdict},
};

/// Verifies the policy and the bundle from zero and decides.
pub fn decide(task: &Task<'_>) -> Result<Verdict, Failure> {
    let authority = trust::authority(task.authority)?;
    let _trusted = Trusted::verify(task.document, &authority)?;
    Err(Failure::refused(
        Reason::Unsupported,
        "bundles cannot be verified yet",
    ))
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
