//! Programs that are attached where their rule does not say.
//!
//! Gate 3 compares places when programs are attached. A thread that exchanged a descriptor between that
//! look and the kernel's own, or a device that was given another name since, shows only afterwards. It is
//! named and stays: a name may have changed with good reason, and somebody's program would be gone. The same of
//! loaders' probes, which are attached nowhere.

use policy::target::is_place;

use super::Enforcer;
use crate::{
    failure::Failure,
    gate::{Class, Loaded},
    record::{Level, type_name},
};

impl Enforcer {
    /// Looks, and says in the log what is new since the last look.
    pub(super) fn look_for_strays(&mut self) -> Result<(), Failure> {
        let mut placed = self.gate().loaded()?;
        placed.retain(|program| !program.places.is_empty() || is_probe(program));
        let ids: Vec<u32> = placed.iter().map(|program| program.id).collect();
        let spots = self.host().spots(&ids);
        let strays: Vec<String> = spots
            .iter()
            .filter_map(|spot| {
                let program = placed.iter().find(|program| program.id == spot.program)?;
                let allowed = |name: &String| is_place(&program.places, name);
                let is_elsewhere = !spot.names.is_empty() && !spot.names.iter().any(allowed);
                (is_probe(program) || is_elsewhere).then(|| line(program, &spot.place, &spot.names))
            })
            .collect();
        let before = std::mem::replace(&mut self.strays, strays.clone());
        for line in strays.into_iter().filter(|line| !before.contains(line)) {
            self.note(Level::Alarm, "attach", line);
        }
        Ok(())
    }

    /// What the last look found, for `status`.
    pub fn strays(&self) -> &[String] {
        &self.strays
    }
}

fn is_probe(program: &Loaded) -> bool {
    program.class == Some(Class::Probe)
}

fn line(program: &Loaded, place: &str, names: &[String]) -> String {
    let kind = type_name(program.prog_type).unwrap_or("unknown");
    if is_probe(program) {
        return format!(
            "{kind} program {} {:?} is a loader's probe and is attached, {place}: detach it, and treat it as an attack",
            program.id, program.name
        );
    }
    format!(
        "{kind} program {} {:?} is attached at {}, {place}, and its rule allows {}: detach it, or name the \
         place in the rule",
        program.id,
        program.name,
        names.join(" or "),
        program.places.join(", ")
    )
}
