//! Why a program was refused, in words: its instructions against every program that is admitted.

use bundle::Digest;
use serde::{Deserialize, Serialize};

use super::{Accepted, Enforcer, state};
use crate::{
    failure::Failure,
    record::{Attempt, Level, Outcome, Record},
    workshop::{Finding, Stream, Task},
};

/// What was compared, best match first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// How many instructions were loaded.
    pub length: usize,
    /// How many of them are known.
    pub known: usize,
    /// The log's line about it, where it is from there.
    pub attempt: Option<String>,
    /// Each program that it was compared with.
    pub compared: Vec<Compared>,
    /// Was another layout of the first one admitted by this?
    pub admitted: bool,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The bundle.
    pub bundle: Digest,
    /// Its package name.
    pub package: Option<String>,
    /// The object.
    pub object: String,
    /// The program.
    pub program: String,
    /// Is it this program, as far as the instructions are known?
    pub same: bool,
    /// Instructions up to the first difference.
    pub agrees: usize,
    /// The first difference, in words.
    pub difference: Option<String>,
    /// The functions in the stream with their first instructions, where it is this program.
    pub functions: Vec<(String, u32)>,
}

impl Enforcer {
    /// Compares instructions with everything that is admitted, or with the bundles that `what`
    /// names (digest, start of one, package), or with the bundle in `bytes`. `stream`: those of
    /// the last refused attempt of the log, if there is one by the name `program`.
    pub fn explain(
        &mut self,
        stream: Option<Stream>,
        program: Option<&str>,
        what: Option<&str>,
        bytes: &[u8],
        admit: bool,
    ) -> Result<Explanation, Failure> {
        self.must_be_armed()?;
        let (stream, attempt) = match stream {
            Some(stream) => (stream, None),
            None => {
                let attempt = self.last_refused(program)?;
                (stream_of(&attempt), Some(attempt.message))
            }
        };
        let mut found: Vec<(Compared, Finding)> = Vec::new();
        if bytes.is_empty() {
            for known in self.known_bundles()? {
                if what.is_none_or(|what| known.is_called(what)) {
                    let bytes = self
                        .store()
                        .bundle(&known.verdict.bundle)
                        .map_err(|e| state(self.store(), &e))?;
                    let scope = Some(known.verdict.scope.as_str());
                    found.extend(self.compare(&bytes, scope, &stream)?);
                }
            }
        } else {
            found = self.compare(bytes, None, &stream)?;
        }
        if found.is_empty() {
            return Err(
                Failure::not_found("there is no admitted program to compare with")
                    .with_remedy("Name the signed bundle: `bpfseal-enforcer explain BUNDLE.tar`."),
            );
        }
        found.sort_by_key(|(compared, _)| (!compared.same, std::cmp::Reverse(compared.agrees)));
        let best = found.first().filter(|(compared, _)| compared.same && admit);
        let admitted = match best.cloned() {
            Some((compared, finding)) => self.admit_layout(&compared, finding)?,
            None => false,
        };
        Ok(Explanation {
            length: stream.length,
            known: stream.words.len(),
            attempt,
            compared: found.into_iter().map(|(compared, _)| compared).collect(),
            admitted,
        })
    }

    fn compare(
        &self,
        bytes: &[u8],
        scope: Option<&str>,
        stream: &Stream,
    ) -> Result<Vec<(Compared, Finding)>, Failure> {
        let policy = self.must_have_policy()?;
        let verdict = self.tools.workshop.verify(&Task {
            bundle: bytes,
            scope,
            document: policy.document(),
            authority: policy.authority(),
            now: self.host().now(),
        })?;
        let mut found = Vec::new();
        for object in &verdict.objects {
            let measured = self.tools.workshop.measure(object)?;
            for finding in self.tools.workshop.explain(object, &measured, stream)? {
                let at = finding
                    .difference
                    .as_ref()
                    .map(|d| d.at.unwrap_or(0) as usize);
                let compared = Compared {
                    bundle: verdict.bundle,
                    package: verdict.name.clone(),
                    object: finding.object.clone(),
                    program: finding.program.clone(),
                    same: finding.difference.is_none(),
                    agrees: at.unwrap_or(stream.words.len()),
                    difference: finding.difference.as_ref().map(ToString::to_string),
                    functions: finding.functions.clone(),
                };
                // The rule's limits belong to what may be admitted.
                let mut finding = finding;
                if let Some(image) = &mut finding.image {
                    object.limits.apply(image);
                }
                found.push((compared, finding));
            }
        }
        Ok(found)
    }

    /// A proven layout of an admitted program may load as well, until the daemon's next start.
    fn admit_layout(&mut self, compared: &Compared, finding: Finding) -> Result<bool, Failure> {
        let (Some(image), armed) = (finding.image, self.must_be_armed()?) else {
            return Ok(false);
        };
        let policy = self.must_have_policy()?;
        let mut bundles = self.known_bundles()?;
        let program = bundles
            .iter_mut()
            .filter(|known| known.verdict.bundle == compared.bundle)
            .flat_map(|known| &mut known.programs)
            .find(|measured| {
                let identity = measured.image.as_ref().ok().map(|image| image.identity);
                measured.program == compared.program && identity == Some(image.identity)
            });
        let Some(measured) = program else {
            return Ok(false);
        };
        let known = measured.image.iter().chain(&measured.others);
        if known.clone().any(|known| known.words == image.words) || known.count() > MAX_LAYOUTS {
            return Ok(false);
        }
        measured.others.push(image);
        let admissions = self.admissions(&policy, &bundles);
        self.replace(&armed, &admissions)?;
        self.bundles = Some(bundles);
        let (program, bundle) = (&compared.program, compared.bundle);
        let line = format!("another layout of {program:?} of {bundle} was proved and may load");
        self.note(Level::Info, "bundle", line);
        Ok(true)
    }

    fn last_refused(&self, program: Option<&str>) -> Result<Attempt, Failure> {
        let records = self
            .journal()
            .read(None)
            .map_err(|error| Failure::usage(format!("the event log: {error}")))?;
        let attempts = records.into_iter().rev().filter_map(|record| match record {
            Record::Attempt(attempt) => Some(*attempt),
            Record::Notice(_) => None,
        });
        let fits = |attempt: &Attempt| {
            attempt.outcome != Outcome::Passed
                && !attempt.words.is_empty()
                && program.is_none_or(|name| attempt.name == name)
        };
        attempts.into_iter().find(fits).ok_or_else(|| {
            Failure::not_found("the event log has no refused program that fits")
                .with_remedy("`bpfseal-enforcer events` lists them; or give `--stream FILE`.")
        })
    }
}

impl Accepted {
    /// By package name, digest or the start of one.
    fn is_called(&self, what: &str) -> bool {
        let hex = what.strip_prefix("sha256:").unwrap_or(what);
        self.verdict.name.as_deref() == Some(what)
            || hex.len() >= 8 && self.verdict.bundle.to_hex().starts_with(hex)
    }
}

fn stream_of(attempt: &Attempt) -> Stream {
    Stream {
        words: attempt
            .words
            .iter()
            .filter_map(|word| u64::from_str_radix(word, 16).ok())
            .collect(),
        length: attempt.insns as usize,
    }
}

impl Explanation {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(attempt) = &self.attempt {
            text += &format!("{attempt}\n");
        }
        let Some(best) = self.compared.first() else {
            return text;
        };
        let package = best.package.as_deref().unwrap_or("(no name)");
        let whose = format!(
            "{:?} of {package}, {}, {}",
            best.program, best.object, best.bundle
        );
        if best.same && self.known == self.length {
            text += &format!("It is the program {whose}: its functions, laid out as");
            let functions: Vec<String> = best
                .functions
                .iter()
                .map(|(name, start)| format!("{name} at {start}"))
                .collect();
            text += &format!(" {}.", functions.join(", "));
            text += match self.admitted {
                true => " This layout may load from now on, until the daemon starts anew.",
                false => {
                    " Refused all the same: its type, target, flags or maps differ, or this \
                          layout is not admitted (`explain --admit`)."
                }
            };
        } else if best.same {
            text += &format!(
                "The first {} of {} instructions are those of {whose}; the others are not known. \
                 Give them: `--stream FILE`.",
                self.known, self.length
            );
        } else {
            let difference = best.difference.as_deref().unwrap_or_default();
            text += &format!("Nearest is {whose}.\n{difference}.");
        }
        text += &format!("\nCompared with {} programs.", self.compared.len());
        text
    }
}

/// Most layouts of one program: each costs kernel memory.
const MAX_LAYOUTS: usize = 8;
