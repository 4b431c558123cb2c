//! Every program in the kernel, and where it came from.

use bundle::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    enforcer::Enforcer,
    failure::Failure,
    gate::{Class, Loaded},
    record::type_name,
};

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Kernel's id.
    pub id: u32,
    /// Program type, or its number where nobody named it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Kernel's tag.
    pub tag: String,
    /// User who loaded it.
    pub uid: u32,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// How it came in: `signed`, `probe`, `shape`, `audited`, `before`, `own` (the gate's) or
    /// `unknown`.
    pub class: String,
    /// Process that loaded it, where recorded.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Bundle that holds it.
    pub bundle: Option<Digest>,
    /// Package name of the bundle.
    pub package: Option<String>,
    /// Who signed the bundle.
    pub signers: Vec<String>,
}

/// Lists them, by id.
pub fn list(enforcer: &mut Enforcer) -> Result<Vec<Listed>, Failure> {
    let armed = enforcer.armed()?.is_some();
    let bundles = enforcer.accepted()?;
    let (now, since_boot) = (enforcer.host().now(), enforcer.host().since_boot());
    let mut programs = enforcer.gate().loaded()?;
    programs.sort_by_key(|program| program.id);
    let listed = programs.into_iter().map(|program| {
        let known = bundles
            .iter()
            .find(|known| program.bundle == Some(known.verdict.bundle));
        let ago = since_boot.saturating_sub(program.at);
        Listed {
            kind: type_name(program.prog_type)
                .map_or_else(|| program.prog_type.to_string(), str::to_owned),
            loaded_at: now.checked_sub(ago).unwrap_or(now),
            class: class(&program, armed).to_owned(),
            package: known.and_then(|known| known.verdict.name.clone()),
            signers: known
                .map(|known| known.verdict.signers.clone())
                .unwrap_or_default(),
            id: program.id,
            name: program.name,
            tag: program.tag,
            uid: program.uid,
            pid: program.pid,
            comm: program.comm,
            bundle: program.bundle,
        }
    });
    Ok(listed.collect())
}

const fn class(program: &Loaded, armed: bool) -> &'static str {
    match program.class {
        _ if program.own => "own",
        Some(Class::Signed) => "signed",
        Some(Class::Probe) => "probe",
        Some(Class::Shape) => "shape",
        Some(Class::Known) => "known",
        Some(Class::Audited) => "audited",
        Some(Class::Generated) => "generated",
        Some(Class::Native) => "native",
        Some(Class::Before) => "before",
        // Without a gate there are no records, and nothing to wonder about.
        None if !armed => "before",
        None => "unknown",
    }
}

/// For people.
pub fn text(programs: &[Listed]) -> String {
    let mut rows = vec![
        [
            "ID",
            "TYPE",
            "NAME",
            "TAG",
            "UID",
            "BY",
            "CLASS",
            "BUNDLE",
            "SIGNED BY",
        ]
        .map(str::to_owned),
    ];
    for program in programs {
        let by = match (&program.comm, program.pid) {
            (Some(comm), Some(pid)) => format!("{comm} ({pid})"),
            (Some(comm), None) => comm.clone(),
            (None, _) => "-".to_owned(),
        };
        let class = match program.class.as_str() {
            "before" => "present before",
            "own" => "the gate's own",
            "unknown" => "UNKNOWN",
            other => other,
        };
        let bundle = match (&program.package, &program.bundle) {
            (Some(package), Some(bundle)) => format!("{package} {}", &bundle.to_hex()[..12]),
            (None, Some(bundle)) => bundle.to_hex()[..12].to_owned(),
            (_, None) => "-".to_owned(),
        };
        let signers = if program.signers.is_empty() {
            "-".to_owned()
        } else {
            program.signers.join(", ")
        };
        rows.push([
            program.id.to_string(),
            program.kind.clone(),
            program.name.clone(),
            program.tag.clone(),
            program.uid.to_string(),
            by,
            class.to_owned(),
            bundle,
            signers,
        ]);
    }
    let widths: [usize; 9] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{:width$}", crate::output::printable(cell)))
                .collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fake::{World, policy, request};

    #[test]
    fn every_program_has_an_origin() {
        let (world, state) = (World::new(), tempfile::tempdir().unwrap());
        let mut enforcer = world.enforcer(state.path());
        enforcer.arm(request(policy(1, "enforce", "tool"))).unwrap();
        let bundle = enforcer
            .admit(b"name=tool version=1 programs=open", None)
            .unwrap()
            .bundle;
        let loaded = |id, class, bundle| Loaded {
            id,
            prog_type: 5,
            name: "open".to_owned(),
            tag: "00".to_owned(),
            uid: 0,
            at: Duration::from_secs(86_390),
            own: id == 6,
            class,
            bundle,
            admitted: None,
            pid: Some(7),
            comm: Some("opensnoop".to_owned()),
            instead_at: None,
            places: Vec::new(),
        };
        world.change(|state| {
            state.loaded = vec![
                loaded(9, None, None),
                loaded(8, Some(Class::Signed), Some(bundle)),
                loaded(7, Some(Class::Before), None),
                loaded(6, Some(Class::Before), None),
            ];
        });
        let listed = list(&mut enforcer).unwrap();
        let short: Vec<_> = listed
            .iter()
            .map(|p| (p.id, p.class.as_str(), p.signers.join(",")))
            .collect();
        assert_eq!(
            short,
            [
                (6, "own", String::new()),
                (7, "before", String::new()),
                (8, "signed", "release".to_owned()),
                (9, "unknown", String::new()),
            ]
        );
        assert_eq!(listed[0].loaded_at.to_string(), "2026-11-21T23:59:50Z");
        let text = text(&listed);
        assert!(
            text.contains("present before") && text.contains("UNKNOWN"),
            "{text}"
        );
    }
}
