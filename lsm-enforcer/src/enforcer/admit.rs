//! Admitting and withdrawing bundles.

use std::collections::BTreeMap;

use bundle::{Digest, image::Image};
use policy::Reason;
use serde::{Deserialize, Serialize};

use super::{Accepted, Enforcer, state};
use crate::{
    failure::Failure,
    gate::{Armed, MAX_MARKS},
    record::Level,
    trust::Trusted,
    workshop::Measured,
};

/// What `admit` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Digest of the bundle's manifest.
    pub bundle: Digest,
    /// Package name.
    pub name: Option<String>,
    /// Package version.
    pub version: Option<String>,
    /// The rule that admitted it.
    pub rule: String,
    /// Who signed it.
    pub signers: Vec<String>,
    /// Each program.
    pub programs: Vec<Outcome>,
}

/// What became of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub program: String,
    /// May it load now?
    pub admitted: bool,
    /// Instructions, where measured.
    pub insns: Option<usize>,
    /// In how many layouts it may load: one, or two where cilium/ebpf orders functions otherwise.
    #[serde(default)]
    pub layouts: usize,
    /// How the measurement differs from the object, if it does.
    #[serde(default)]
    pub unchecked: Option<String>,
    /// Digest of its instructions as measured, by which a revocation list can name it.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Why not.
    pub why: Option<String>,
}

impl Admission {
    /// `revoked` knows an image that a list names by itself, and says which entry does.
    fn of(accepted: &Accepted, revoked: &dyn Fn(&Image) -> Option<String>) -> Self {
        let outcome = |measured: &Measured| {
            let image = measured.image.as_ref().ok();
            let unmeasured = measured.image.as_ref().err().cloned();
            let gone = || {
                image
                    .and_then(revoked)
                    .map(|entry| format!("revoked: {entry}"))
            };
            let why = unmeasured.or_else(gone);
            Outcome {
                program: measured.program.clone(),
                admitted: why.is_none(),
                insns: image.map(|image| image.words.len()),
                layouts: match why {
                    None => 1 + measured.others.len(),
                    Some(_) => 0,
                },
                unchecked: measured.unchecked.clone(),
                digest: image.map(Image::digest),
                why,
            }
        };
        let programs = accepted.programs.iter().map(outcome).collect();
        let verdict = &accepted.verdict;
        Self {
            bundle: verdict.bundle,
            name: verdict.name.clone(),
            version: verdict.version.clone(),
            rule: verdict.rule.clone(),
            signers: verdict.signers.clone(),
            programs,
        }
    }
}

impl Enforcer {
    /// Verifies a bundle from zero, measures it, stores it, admits its programs.
    pub fn admit(&mut self, bytes: &[u8], scope: Option<&str>) -> Result<Admission, Failure> {
        self.settle()?;
        let mut armed = self.must_be_armed()?;
        let policy = self.must_have_policy()?;
        self.must_know_what_is_revoked(&armed)?;
        let accepted = self.decide(bytes, scope, &policy)?;
        self.must_not_fall_back(&accepted)?;
        if let Some(failure) = self.revoked(&accepted.verdict) {
            return Err(failure);
        }
        let revoked = |image: &Image| self.revoked_program(image).map(ToString::to_string);
        let admission = Admission::of(&accepted, &revoked);
        if !admission.programs.iter().any(|program| program.admitted) {
            if let Some(entry) = accepted
                .layouts()
                .find_map(|image| self.revoked_program(image))
            {
                return Err(Failure::refused(Reason::Revoked, entry.to_string()));
            }
            let why = admission
                .programs
                .iter()
                .find_map(|program| program.why.clone())
                .unwrap_or_else(|| "it holds no program".to_owned());
            return Err(Failure::kernel(format!(
                "no program could be measured on this kernel: {why}"
            ))
            .with_remedy("Nothing was admitted; use a bundle built for this kernel."));
        }
        let bundle = accepted.verdict.bundle;
        let mut bundles = self.known_bundles()?;
        bundles.retain(|known| known.verdict.bundle != bundle);
        bundles.push(accepted);
        self.modules.forget(Some(bundle));
        self.modules.keep(&mut bundles);
        bundles.sort_by_key(|known| known.verdict.bundle);
        self.store
            .put_bundle(&bundle, scope, bytes)
            .map_err(|e| state(&self.store, &e))?;
        armed.policy_version = policy.version();
        armed.policy = policy.digest();
        armed.revocation = self.revocation_version(&armed);
        let (old_marks, marks) = self.marks_with(&armed, &admission)?;
        armed.marks = marks;
        self.store
            .put_marks(&armed.marks)
            .map_err(|e| state(&self.store, &e))?;
        let admissions = self.admissions(&policy, &bundles);
        if let Err(failure) = self.replace(&armed, &admissions) {
            // The gate did not take it; then the next start must not find it either.
            let io = |e| state(&self.store, &e);
            self.store.remove_bundle(&bundle).map_err(io)?;
            self.store.put_marks(&old_marks).map_err(io)?;
            return Err(failure);
        }
        self.bundles = Some(bundles);
        self.rejected.retain(|rejected| rejected.bundle != bundle);
        let count = admission
            .programs
            .iter()
            .filter(|program| program.admitted)
            .count();
        self.note(
            Level::Info,
            "bundle",
            format!(
                "admitted {bundle}, {count} programs, {}, signed by {}",
                admission.rule,
                admission.signers.join(", ")
            ),
        );
        Ok(admission)
    }

    /// Withdraws a bundle by digest (or the start of one), or by package name. What it
    /// already loaded stays loaded; nothing new loads.
    pub fn withdraw(&mut self, what: &str) -> Result<Vec<Digest>, Failure> {
        self.settle()?;
        let armed = self.must_be_armed()?;
        let policy = self.must_have_policy()?;
        self.must_know_what_is_revoked(&armed)?;
        let bundles = self.known_bundles()?;
        let hex = what.strip_prefix("sha256:").unwrap_or(what);
        let names = |digest: &Digest, name: Option<&str>| {
            name == Some(what) || (hex.len() >= 8 && digest.to_hex().starts_with(hex))
        };
        let mut gone: Vec<Digest> = bundles
            .iter()
            .filter(|known| names(&known.verdict.bundle, known.verdict.name.as_deref()))
            .map(|known| known.verdict.bundle)
            .collect();
        gone.extend(
            self.rejected
                .iter()
                .map(|r| r.bundle)
                .filter(|digest| names(digest, None)),
        );
        if gone.is_empty() {
            return Err(
                Failure::not_found(format!("no admitted bundle is called {what:?}"))
                    .with_remedy("`bpfseal-enforcer status` lists them."),
            );
        }
        // First the file: a crash then leaves less admitted after the next start, not more.
        for digest in &gone {
            self.store
                .remove_bundle(digest)
                .map_err(|e| state(&self.store, &e))?;
        }
        let left: Vec<Accepted> = bundles
            .into_iter()
            .filter(|known| !gone.contains(&known.verdict.bundle))
            .collect();
        let admissions = self.admissions(&policy, &left);
        self.replace(&armed, &admissions)?;
        self.bundles = Some(left);
        self.rejected
            .retain(|rejected| !gone.contains(&rejected.bundle));
        for digest in &gone {
            self.note(Level::Info, "bundle", format!("withdrew {digest}"));
        }
        Ok(gone)
    }

    pub(super) fn must_have_policy(&self) -> Result<Trusted, Failure> {
        if let Some(policy) = &self.policy {
            return Ok(policy.clone());
        }
        let mut failure = self.trouble.clone().unwrap_or_else(|| {
            Failure::refused(
                Reason::BadAuthority,
                "there is no policy in the state folder",
            )
        });
        failure.message = format!("no policy to decide by: {}", failure.message);
        Err(failure.with_remedy(
            "Bring the signed policy back: `bpfseal-enforcer arm --policy FILE --authority PUB`.",
        ))
    }

    /// A package's version never goes down on this host, even where the rule names no
    /// lowest one: an old version with a known hole is still well signed. An exception is the
    /// authority's own word for these very bytes, for a while.
    pub(super) fn must_not_fall_back(&self, accepted: &Accepted) -> Result<(), Failure> {
        if accepted.verdict.until.is_some() {
            return Ok(());
        }
        let (Some(name), Some(version)) = (&accepted.verdict.name, &accepted.verdict.version)
        else {
            return Ok(());
        };
        let pinned = self.armed()?.map(|armed| armed.marks).unwrap_or_default();
        let marks = highest(self.stored_marks()?, &pinned);
        let Some(mark) = marks.get(name) else {
            return Ok(());
        };
        if is_lower(version, mark) {
            let detail = format!(
                "version {mark} of {name:?} was admitted on this host before, this is {version}"
            );
            return Err(Failure::refused(Reason::MinVersion, detail));
        }
        Ok(())
    }

    /// The highest versions known, without and with this admission.
    fn marks_with(&self, armed: &Armed, admission: &Admission) -> Result<(Marks, Marks), Failure> {
        let old = highest(self.stored_marks()?, &armed.marks);
        let mut new = old.clone();
        if let (Some(name), Some(version)) = (&admission.name, &admission.version) {
            new = highest(new, &Marks::from([(name.clone(), version.clone())]));
        }
        let bytes = serde_json::to_vec(&new).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > MAX_MARKS {
            return Err(Failure::usage(format!(
                "the names and versions of all packages ever admitted take {bytes} bytes; at most \
                 {MAX_MARKS} are pinned"
            )));
        }
        Ok((old, new))
    }

    fn stored_marks(&self) -> Result<Marks, Failure> {
        self.store.marks().map_err(|e| state(&self.store, &e))
    }

    /// What is known when the gate is armed for the first time.
    pub(super) fn first_marks(&self) -> Marks {
        // An unreadable file is one that root may as well have deleted.
        self.store.marks().unwrap_or_default()
    }
}

/// Versions by package name.
type Marks = BTreeMap<String, String>;

/// The higher version of each package.
fn highest(mut marks: Marks, others: &Marks) -> Marks {
    for (name, version) in others {
        if marks.get(name).is_none_or(|mark| is_lower(mark, version)) {
            marks.insert(name.clone(), version.clone());
        }
    }
    marks
}

/// Is the one version lower than the other? What is no version is never lower.
fn is_lower(one: &str, other: &str) -> bool {
    use policy::version::Version;
    matches!((Version::parse(one), Version::parse(other)), (Some(one), Some(other)) if one < other)
}
