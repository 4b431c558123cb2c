//! Revocation: what is on the authority's list loads no more, and what of it is loaded already
//! is taken off its hooks where the kernel allows it, and named where not.
//!
//! Nothing is verified or measured again for it: the bundles in force are sifted and the set
//! is swapped, so it takes effect while whoever called still waits.

use std::collections::{BTreeMap, BTreeSet};

use bundle::Digest;
use jiff::Timestamp;
use policy::{
    Reason,
    key::PublicKey,
    revocation::{Entry, SignedRevocations, Subject},
};
use serde::{Deserialize, Serialize};

use super::{Accepted, Enforcer, Rejected, state};
use crate::{
    failure::Failure,
    gate::{Admissions, Armed, Loaded, Revoked, kept_name},
    links::{Attachment, Holder, Pin},
    record::{Level, type_name},
    workshop::Verdict,
};

/// What a revocation list did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoking {
    /// Version of the list now in force.
    pub version: u64,
    /// How many things it names.
    pub entries: usize,
    /// Bundles that load no more because of it, each with the entry that names it.
    pub bundles: Vec<(Digest, String)>,
    /// Single programs of admitted bundles that load no more.
    pub programs: Vec<(String, String)>,
    /// What of it was loaded already.
    pub reached: Vec<Reached>,
}

/// A revoked program that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Kernel's id.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Program type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its bundle.
    pub bundle: Digest,
    /// Who loaded it, where recorded.
    pub loaded_by: Option<String>,
    /// Where it was attached, as far as the kernel shows it.
    pub attachments: Vec<Attachment>,
    /// Which processes hold it or a link of it.
    pub holders: Vec<Holder>,
    /// Where it or a link of it is pinned.
    #[serde(default)]
    pub pins: Vec<Pin>,
}

/// The list in force, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationStatus {
    /// Version that is pinned.
    pub version: u64,
    /// How many things it names.
    pub entries: usize,
    /// When it was made.
    pub issued: Option<Timestamp>,
    /// When the next one is due.
    pub next: Option<Timestamp>,
    /// Is that over?
    pub overdue: bool,
    /// Revoked programs that are still loaded.
    pub still_loaded: usize,
    /// Why the list in the state folder was not taken.
    pub trouble: Option<String>,
}

impl Enforcer {
    /// Takes a list that the authority signed: in force when this returns.
    pub fn revoke(&mut self, file: &str) -> Result<Revoking, Failure> {
        self.settle()?;
        let armed = self.must_be_armed()?;
        let authority = self.pinned_authority(&armed)?;
        let signed = SignedRevocations::verify(file, &authority)?;
        signed.check_not_older(armed.revocation)?;
        let policy = self.must_have_policy()?;
        let bundles = self.known_bundles()?;
        // The folder first: after a crash the next start finds the list and makes it good.
        self.store
            .put_revocations(signed.list().version, file)
            .map_err(|e| state(&self.store, &e))?;
        self.put_in_force(signed, bundles, &policy, armed)
    }

    /// Looks whether somebody put a newer list into the state folder. Cheap where nothing
    /// changed, so that the daemon can do it often.
    pub fn look_for_revocations(&mut self) -> Result<Option<Revoking>, Failure> {
        let Some(armed) = self.armed()? else {
            return Ok(None);
        };
        let seen = self.store.revocations_seen();
        if self.revocations_seen.as_ref() == Some(&seen) {
            return Ok(None);
        }
        self.revocations_seen = Some(seen);
        let authority = self.pinned_authority(&armed)?;
        let found = match self.stored_revocations(&authority, armed.revocation) {
            Ok(found) => {
                self.revocation_trouble = None;
                found
            }
            Err(failure) => {
                self.revocation_trouble = Some(failure.clone());
                return Err(failure);
            }
        };
        let (Some(signed), Ok(policy)) = (found, self.must_have_policy()) else {
            return Ok(None);
        };
        if signed.list().version <= armed.revocation && self.revocations.as_ref() == Some(&signed) {
            return Ok(None);
        }
        let bundles = self.known_bundles()?;
        self.put_in_force(signed, bundles, &policy, armed).map(Some)
    }

    fn put_in_force(
        &mut self,
        signed: SignedRevocations,
        bundles: Vec<Accepted>,
        policy: &crate::trust::Trusted,
        mut armed: Armed,
    ) -> Result<Revoking, Failure> {
        let (version, entries) = (signed.list().version, signed.list().entries.len());
        self.revocations = Some(signed);
        self.revocation_trouble = None;
        let before: BTreeSet<Digest> = self.rejected.iter().map(|r| r.bundle).collect();
        let (left, gone) = self.sift(bundles);
        // At once; the set itself takes long to write where a hundred thousand are admitted.
        let sifted = gone.iter().map(|rejected| rejected.bundle);
        let marked = Revoked {
            bundles: sifted.chain(self.revoked_by_digest()).collect(),
            programs: self.named_programs(&left),
        };
        self.tools.gate.revoke(&marked)?;
        armed.revocation = version;
        armed.probes = self.find_probes(policy, armed.probes);
        let admissions = self.admissions(policy, &left);
        self.replace(&armed, &admissions)?;
        let programs = self.revoked_programs(&left);
        self.bundles = Some(left);
        let bundles: Vec<(Digest, String)> = gone
            .iter()
            .filter(|r| !before.contains(&r.bundle))
            .map(|r| (r.bundle, r.failure.message.clone()))
            .collect();
        self.rejected.extend(gone);
        for (bundle, why) in &bundles {
            self.note(
                Level::Alarm,
                "revocation",
                format!("{bundle} loads no more: {why}"),
            );
        }
        for (program, why) in &programs {
            self.note(
                Level::Alarm,
                "revocation",
                format!("program {program} loads no more: {why}"),
            );
        }
        let reached = self.reach()?;
        let line = format!("list version {version} is in force, {entries} entries");
        self.note(Level::Info, "revocation", line);
        Ok(Revoking {
            version,
            entries,
            bundles,
            programs,
            reached,
        })
    }

    /// Takes what is revoked off its hooks, and says of each what became of it.
    pub(super) fn reach(&mut self) -> Result<Vec<Reached>, Failure> {
        let loaded = self.revoked_loaded()?;
        if loaded.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<u32> = loaded.iter().map(|(program, _)| program.id).collect();
        let attachments = self.host().detach(&ids);
        let mut holders = self.host().holders(&ids);
        let mut pins = self.host().pins(&ids);
        let reached: Vec<Reached> = loaded
            .into_iter()
            .map(|(program, bundle)| Reached {
                attachments: attachments
                    .iter()
                    .filter(|a| a.program == program.id)
                    .cloned()
                    .collect(),
                holders: holders.remove(&program.id).unwrap_or_default(),
                pins: pins.remove(&program.id).unwrap_or_default(),
                loaded_by: program.comm.as_ref().map(|comm| {
                    format!(
                        "{comm} (pid {}, uid {})",
                        program.pid.unwrap_or(0),
                        program.uid
                    )
                }),
                kind: type_name(program.prog_type)
                    .map_or_else(|| program.prog_type.to_string(), str::to_owned),
                id: program.id,
                name: program.name,
                bundle,
            })
            .collect();
        for program in &reached {
            // Once is enough for what cannot be helped.
            let news = program.attachments.iter().any(|a| a.detached);
            if self.named.insert(program.id) || news {
                self.note(Level::Alarm, "revocation", program.line());
            }
        }
        Ok(reached)
    }

    /// Loaded programs of revoked bundles, and revoked programs of others.
    fn revoked_loaded(&self) -> Result<Vec<(Loaded, Digest)>, Failure> {
        if self.revocations.is_none() {
            return Ok(Vec::new());
        }
        let is_revoked = self.is_revoked();
        let loaded = self.gate().loaded()?.into_iter();
        Ok(loaded
            .filter(is_revoked)
            .filter_map(|program| program.bundle.map(|bundle| (program, bundle)))
            .collect())
    }

    /// Tells revoked programs from others.
    fn is_revoked(&self) -> impl Fn(&Loaded) -> bool + use<> {
        let by_others = self
            .rejected
            .iter()
            .filter(|r| r.failure.reason == Some(Reason::Revoked))
            .map(|r| r.bundle);
        let bundles: BTreeSet<Digest> = self.revoked_by_digest().chain(by_others).collect();
        let named = self.named_programs(self.bundles.as_deref().unwrap_or_default());
        let programs: BTreeSet<(Digest, String)> = named
            .into_iter()
            .map(|(bundle, name)| (bundle, kept_name(&name).to_owned()))
            .collect();
        move |program| {
            let named = |bundle| {
                let admitted = program.admitted.clone().unwrap_or_default();
                bundles.contains(&bundle) || programs.contains(&(bundle, admitted))
            };
            !program.own && program.bundle.is_some_and(named)
        }
    }

    /// Bundles that the list names themselves, whether they are known here or not.
    fn revoked_by_digest(&self) -> impl Iterator<Item = Digest> {
        let entries = self
            .revocations
            .iter()
            .flat_map(|list| &list.list().entries);
        entries.filter_map(|entry| match entry.what {
            policy::revocation::What::Bundle(digest) => Some(digest),
            _ => None,
        })
    }

    /// Programs that are loaded of bundles that are not admitted any more: who signed those, and what they are
    /// called, is not known here, so only their digests can be revoked.
    pub fn left_behind(&self) -> Result<Vec<Loaded>, Failure> {
        let Some(bundles) = &self.bundles else {
            return Ok(Vec::new());
        };
        let admitted: BTreeSet<Digest> = bundles.iter().map(|known| known.verdict.bundle).collect();
        let is_revoked = self.is_revoked();
        let mut loaded = self.gate().loaded()?;
        loaded.retain(|program| {
            let unknown = program
                .bundle
                .is_some_and(|bundle| !admitted.contains(&bundle));
            unknown && !program.own && !is_revoked(program)
        });
        Ok(loaded)
    }

    /// For `status`.
    pub fn revocation_status(&self) -> Result<Option<RevocationStatus>, Failure> {
        let Some(armed) = self.armed()? else {
            return Ok(None);
        };
        let list = self.revocations.as_ref().map(SignedRevocations::list);
        if armed.revocation == 0 && list.is_none() && self.revocation_trouble.is_none() {
            return Ok(None);
        }
        let next = list.and_then(|list| list.next);
        Ok(Some(RevocationStatus {
            version: armed.revocation,
            entries: list.map_or(0, |list| list.entries.len()),
            issued: list.map(|list| list.issued),
            next,
            overdue: next.is_some_and(|next| self.time(&armed) > next),
            still_loaded: self.revoked_loaded()?.len(),
            trouble: self.revocation_trouble.as_ref().map(Failure::line),
        }))
    }

    /// The newest list in the state folder that the authority signed.
    pub(super) fn stored_revocations(
        &self,
        authority: &PublicKey,
        in_force: u64,
    ) -> Result<Option<SignedRevocations>, Failure> {
        let mut best: Option<SignedRevocations> = None;
        let mut first = None;
        for file in self
            .store
            .revocations()
            .map_err(|e| state(&self.store, &e))?
        {
            let version = |list: &SignedRevocations| list.list().version;
            match SignedRevocations::verify(&file, authority) {
                Ok(list) if best.as_ref().is_none_or(|b| version(b) < version(&list)) => {
                    best = Some(list);
                }
                Ok(_) => {}
                Err(refusal) => {
                    first.get_or_insert_with(|| Failure::from(refusal));
                }
            }
        }
        match (&best, first) {
            (Some(list), _) => list.check_not_older(in_force)?,
            (None, _) if in_force > 0 => {
                let detail = format!(
                    "version {in_force} is in force, and the state folder has none that the authority signed"
                );
                return Err(Failure::refused(Reason::OlderRevocation, detail));
            }
            (None, Some(failure)) => return Err(failure),
            (None, None) => {}
        }
        Ok(best)
    }

    /// Without the list in force nobody knows what is revoked, so nothing new is admitted. `replace` asks always;
    /// whoever stores or measures something before asks first.
    pub(super) fn must_know_what_is_revoked(&self, armed: &Armed) -> Result<(), Failure> {
        let known = self
            .revocations
            .as_ref()
            .map_or(0, |signed| signed.list().version);
        if known >= armed.revocation {
            return Ok(());
        }
        Err(self.revocation_trouble.clone().unwrap_or_else(|| {
            let detail = format!("version {} is in force, got {known}", armed.revocation);
            Failure::refused(Reason::OlderRevocation, detail)
        }))
    }

    /// Puts these in force: never what is revoked, so not without the list.
    pub(super) fn replace(
        &mut self,
        armed: &Armed,
        admissions: &Admissions,
    ) -> Result<(), Failure> {
        self.must_know_what_is_revoked(armed)?;
        Ok(self.tools.gate.replace(armed, admissions)?)
    }

    /// The version to be pinned with the next change.
    pub(super) fn revocation_version(&self, armed: &Armed) -> u64 {
        let known = self
            .revocations
            .as_ref()
            .map_or(0, |signed| signed.list().version);
        known.max(armed.revocation)
    }

    /// The entry that names this bundle.
    pub(super) fn revoked(&self, verdict: &Verdict) -> Option<Failure> {
        let objects: Vec<Digest> = verdict.objects.iter().map(|o| o.inventory.digest).collect();
        let subject = Subject {
            bundle: verdict.bundle,
            objects: &objects,
            name: verdict.name.as_deref(),
            version: verdict.version.as_deref(),
            signers: &verdict.signatories,
            at_least: verdict.at_least,
        };
        let entry = self.revocations.as_ref()?.list().find(&subject)?;
        Some(Failure::refused(Reason::Revoked, entry.to_string()))
    }

    /// Parts what may load from what is revoked.
    pub(super) fn sift(&self, bundles: Vec<Accepted>) -> (Vec<Accepted>, Vec<Rejected>) {
        let mut gone = Vec::new();
        let left = bundles
            .into_iter()
            .filter(|known| match self.revoked(&known.verdict) {
                None => true,
                Some(failure) => {
                    gone.push(Rejected {
                        bundle: known.verdict.bundle,
                        failure,
                    });
                    false
                }
            })
            .collect();
        (left, gone)
    }

    /// The entry that names this program by itself.
    pub(super) fn revoked_program(&self, image: &bundle::image::Image) -> Option<&Entry> {
        let list = self.revocations.as_ref()?.list();
        // Computing the digests of a hundred thousand programs takes a while.
        let named = list.names_programs();
        named.then(|| list.find_program(image.digest())).flatten()
    }

    /// Programs that the list names by themselves, with their bundles.
    fn named_programs(&self, bundles: &[Accepted]) -> BTreeSet<(Digest, String)> {
        let images = bundles
            .iter()
            .flat_map(|known| known.layouts().map(|image| (known.verdict.bundle, image)));
        images
            .filter(|(_, image)| self.revoked_program(image).is_some())
            .map(|(bundle, image)| (bundle, image.name.clone()))
            .collect()
    }

    fn revoked_programs(&self, bundles: &[Accepted]) -> Vec<(String, String)> {
        let images = bundles.iter().flat_map(Accepted::layouts);
        let named: BTreeMap<String, String> = images
            .filter_map(|image| {
                Some((image.name.clone(), self.revoked_program(image)?.to_string()))
            })
            .collect();
        named.into_iter().collect()
    }
}

impl RevocationStatus {
    /// One line for a person.
    pub fn line(&self) -> String {
        let mut line = format!("list version {}, {} entries", self.version, self.entries);
        match self.next {
            Some(next) if self.overdue => {
                line += &format!(", OVERDUE: a newer one was due at {next}")
            }
            Some(next) => line += &format!(", the next one is due at {next}"),
            None => {}
        }
        if self.still_loaded > 0 {
            line += &format!(", {} revoked programs are STILL LOADED", self.still_loaded);
        }
        if let Some(trouble) = &self.trouble {
            line += &format!("; the one on disk was NOT taken: {trouble}");
        }
        line
    }
}

impl Reached {
    /// One line for a person.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} program {} {:?} of {}",
            self.kind, self.id, self.name, self.bundle
        );
        let gone: Vec<&str> = self
            .attachments
            .iter()
            .filter(|a| a.detached)
            .map(|a| a.place.as_str())
            .collect();
        let stays: Vec<String> = self
            .attachments
            .iter()
            .filter(|a| !a.detached)
            .map(|a| format!("{} ({})", a.place, a.why.as_deref().unwrap_or("")))
            .collect();
        if !gone.is_empty() {
            line += &format!(", detached from {}", gone.join(", "));
        }
        if !stays.is_empty() {
            line += &format!(", still attached by {}", stays.join(", "));
        }
        line += ", is revoked and loaded";
        if let Some(by) = &self.loaded_by {
            line += &format!("; loaded by {by}");
        }
        line + &self.owners()
    }

    /// What keeps it in the kernel, and what to do about that.
    fn owners(&self) -> String {
        if self.holders.is_empty() && self.pins.is_empty() {
            return UNKNOWN_OWNER.to_owned();
        }
        let mut text = String::new();
        let holders = self.holders.iter();
        let holders: Vec<String> = holders
            .map(|holder| format!("{} (pid {})", holder.exe, holder.pid))
            .collect();
        if !holders.is_empty() {
            text += &format!("; held by {}: end it", holders.join(", "));
        }
        let pins = self.pins.iter();
        let pins: Vec<String> = pins
            .map(|pin| match pin.is_link {
                true => format!("{} (link)", pin.path),
                false => pin.path.clone(),
            })
            .collect();
        if !pins.is_empty() {
            text += &format!("; pinned at {}: remove that", pins.join(", "));
        }
        text
    }
}

/// What does not show to anybody, or not from here.
const UNKNOWN_OWNER: &str = "; nobody was found who holds it: if it stays (`status` counts it), a socket, an action \
                             of tc, sampling by a perf event, a pin in another mount namespace or a device in a \
                             hidden network namespace may: restart its owner, or reboot";
