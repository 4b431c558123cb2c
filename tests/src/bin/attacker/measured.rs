//! The gate with what real objects measure to.

use std::fs;

use bundle::Digest;
use enforcer::{
    gate::{Admissions, Class, Entry},
    kernel::BpfGate,
};

use super::arm_with;

/// Arms with what the given objects, or objects inside executables, measure to.
pub fn admit(files: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let admissions = measured(files)?;
    let started = std::time::Instant::now();
    arm_with(&mut BpfGate::open()?, &admissions)?;
    println!("armed in {:?}", started.elapsed());
    Ok(())
}

/// What the given objects, or objects inside executables, measure to, and loaders' probes.
pub fn measured(files: &[String]) -> Result<Admissions, Box<dyn std::error::Error>> {
    let mut admissions = Admissions {
        entries: enforcer::probes::entries(),
        ..Admissions::default()
    };
    for file in files {
        let bytes = fs::read(file)?;
        let objects = if bundle::embedded::is_object(&bytes) {
            vec![bytes]
        } else if bundle::light::is_skeleton(&bytes) {
            vec![bundle::light::read(&bytes)?.to_object()]
        } else {
            bundle::embedded::find_in(file, &bytes)
                .iter()
                .map(|found| bytes[found.range.clone()].to_vec())
                .collect()
        };
        for elf in objects {
            let mut object = bundle::inventory::read(file, &elf)?;
            let variables = object
                .data
                .iter_mut()
                .filter(|data| data.readonly)
                .flat_map(|data| &mut data.variables);
            // As `pack --tunable-volatile` would.
            variables.for_each(|variable| variable.tunable = variable.volatile);
            let measured = enforcer::measure::measure(&elf, &object)?;
            for program in &measured.unmeasured {
                println!("unmeasured {file} {}: {}", program.name, program.why);
            }
            let light = measured.others.len();
            println!(
                "measured {file}: {}, and {light} other layouts",
                measured.images.len()
            );
            admissions
                .entries
                .extend(
                    measured
                        .images
                        .into_iter()
                        .chain(measured.others)
                        .map(|image| Entry {
                            image,
                            class: Class::Signed,
                            bundle: Some(Digest::of(file.as_bytes())),
                        }),
                );
        }
    }
    Ok(admissions)
}
