//! What will load on a kernel that is to be booted.

use std::path::Path;

use bundle::Digest;
use serde::{Deserialize, Serialize};

use super::{Enforcer, state};
use crate::{failure::Failure, workshop::Task};

/// Every admitted bundle, measured for another kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// Does everything load there that loads here?
    pub ready: bool,
    /// The programs.
    pub programs: Vec<Forecast>,
}

/// One program there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// Its bundle.
    pub bundle: Digest,
    /// Package name.
    pub package: Option<String>,
    /// Its name.
    pub program: String,
    /// May it load on the running kernel?
    pub here: bool,
    /// Could it be measured for the other one?
    pub there: bool,
    /// Why not.
    pub why: Option<String>,
}

impl Enforcer {
    /// Measures everything that is admitted for the kernel whose BTF is in this file. Changes
    /// nothing; at its boot that kernel measures by itself.
    pub fn preflight(&mut self, btf: &Path) -> Result<Preflight, Failure> {
        self.must_be_armed()?;
        let policy = self.must_have_policy()?;
        let mut programs = Vec::new();
        for known in self.known_bundles()? {
            let verdict = &known.verdict;
            let bytes = self
                .store()
                .bundle(&verdict.bundle)
                .map_err(|e| state(self.store(), &e))?;
            // The bytes are root's to change between two readings.
            let again = self.tools.workshop.verify(&Task {
                bundle: &bytes,
                scope: Some(&verdict.scope),
                document: policy.document(),
                authority: policy.authority(),
                now: self.host().now(),
            })?;
            for object in &again.objects {
                for there in self.tools.workshop.measure_for(object, btf)? {
                    let is_it = |m: &&crate::workshop::Measured| m.program == there.program;
                    let here = known.programs.iter().find(is_it);
                    programs.push(Forecast {
                        bundle: verdict.bundle,
                        package: verdict.name.clone(),
                        here: here.is_some_and(|measured| measured.image.is_ok()),
                        there: there.image.is_ok(),
                        why: there.image.err(),
                        program: there.program,
                    });
                }
            }
        }
        Ok(Preflight {
            ready: programs
                .iter()
                .all(|program| program.there || !program.here),
            programs,
        })
    }
}

impl Preflight {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = match self.ready {
            true => "Ready: what loads here can be measured for that kernel.",
            false => "NOT ready: some of what loads here would be refused on that kernel.",
        }
        .to_owned();
        for program in &self.programs {
            let package = program.package.as_deref().unwrap_or("(no name)");
            let name = &program.program;
            text += &match (&program.why, program.here) {
                (None, _) => format!("\n  will load      {name} of {package}"),
                (Some(why), true) => format!("\n  will NOT load  {name} of {package}: {why}"),
                (Some(why), false) => {
                    format!("\n  neither here   {name} of {package}: {why}")
                }
            };
        }
        text
    }
}
