//! Programs for functions of kernel modules, and those that call them, follow the modules, which come and go: a module that is
//! loaded anew has other numbers, and one that comes later has functions that were not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bundle::{Digest, image::ModuleBtf};
use policy::Reason;

use super::{Accepted, Enforcer};
use crate::{failure::Failure, gate::Event, record::Level, workshop::Measured};

/// What is known of modules.
#[derive(Default)]
pub(super) struct Followed {
    /// As they were when programs were measured for them; `None`: nobody looked.
    loaded: Option<BTreeMap<ModuleBtf, u32>>,
    /// For which modules a program, by its bundle and name, was measured first.
    meant: BTreeMap<(Digest, String), Vec<ModuleBtf>>,
    /// An admitted program was refused because of its module.
    refused: bool,
    /// Boot-time clock before which nobody looks because of a refusal.
    rests_until: Duration,
}

impl Followed {
    pub(super) fn note(&mut self, event: &Event) {
        self.refused |= event.reason == Some(Reason::ModuleBtf) && event.bundle.is_some();
    }

    /// The operator has asked to measure this bundle anew, or all, for the modules that are loaded.
    pub(super) fn forget(&mut self, bundle: Option<Digest>) {
        self.meant
            .retain(|(of, _), _| bundle.is_some_and(|bundle| *of != bundle));
    }

    /// What was measured for one module is not for another, nor for the same one with other types:
    /// that is for the operator to say.
    pub(super) fn keep(&mut self, bundles: &mut [Accepted]) {
        for known in bundles {
            for program in &mut known.programs {
                let Ok(image) = &program.image else {
                    continue;
                };
                let modules: Vec<ModuleBtf> = image.modules().cloned().collect();
                if modules.is_empty() {
                    continue;
                }
                let key = (known.verdict.bundle, program.program.clone());
                let meant = self.meant.entry(key).or_insert_with(|| modules.clone());
                if *meant != modules {
                    let gone = meant.iter().filter(|module| !modules.contains(module));
                    let names: Vec<&str> = gone.map(|module| module.name.as_str()).collect();
                    program.image = Err(format!(
                        "the module {} is another than before; `bpfseal-enforcer reload` measures for it",
                        names.join(", ")
                    ));
                    program.others.clear();
                }
            }
        }
    }
}

impl Enforcer {
    /// After a refusal because of a module: looks whether that is loaded otherwise than before.
    /// Anybody may cause refusals, so that it is not done often.
    pub fn follow_refused_module(&mut self) -> Result<bool, Failure> {
        let now = self.host().since_boot();
        if !self.modules.refused || now < self.modules.rests_until {
            return Ok(false);
        }
        self.modules.refused = false;
        self.modules.rests_until = now + REST;
        self.follow_modules()
    }

    /// Where other modules are loaded than at the last look: decides and measures everything anew if
    /// an admitted program is for a module, or could not be measured.
    pub fn follow_modules(&mut self) -> Result<bool, Failure> {
        let (Some(armed), Some(policy)) = (self.armed()?, self.policy.clone()) else {
            return Ok(false);
        };
        let follows = |measured: &Measured| match &measured.image {
            Ok(image) => image.modules().next().is_some(),
            Err(_) => true,
        };
        let bundles = self.known_bundles()?;
        let mut programs = bundles.iter().flat_map(|known| &known.programs);
        if self.observes || !programs.any(follows) {
            return Ok(false);
        }
        let loaded = self.host().modules();
        if self.modules.loaded.as_ref() == Some(&loaded) {
            return Ok(false);
        }
        self.must_know_what_is_revoked(&armed)?;
        let (accepted, rejected) = self.decide_all(&policy)?;
        let admissions = self.admissions(&policy, &accepted);
        self.replace(&armed, &admissions)?;
        let entries = admissions.entries.iter();
        let modules = entries.flat_map(|entry| entry.image.modules());
        let names: BTreeSet<&str> = modules.map(|module| module.name.as_str()).collect();
        let line = match names.is_empty() {
            true => "kernel modules came or went: no program for one may load".to_owned(),
            false => {
                let names: Vec<_> = names.into_iter().collect();
                format!(
                    "kernel modules came or went: programs for {} may load",
                    names.join(", ")
                )
            }
        };
        self.bundles = Some(accepted);
        self.rejected = rejected;
        self.modules.loaded = Some(loaded);
        self.note(Level::Info, "bundle", line);
        Ok(true)
    }
}

/// Between two looks because of refusals.
const REST: Duration = Duration::from_secs(1);
