//! What a policy and a revocation list say about one artifact, computed from its bytes and
//! from what is attached to it.

use std::sync::Arc;

use bundle::{Layout, media};
use jiff::{SignedDuration, Timestamp};
use policy::{Context, Policy, Reason, Refusal, attached, decision::SignedBy};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{
    digest::Digest,
    error::OciError,
    revocation::{Artifact, Revoked},
};

/// What a policy says about one artifact.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whether readers see it.
    pub state: State,
    /// Why not.
    pub refusal: Option<Refusal>,
    /// Names of the keys of the rule that signed.
    pub signers: Vec<String>,
    /// SHA-256 of the policy that says so.
    pub policy: String,
    /// SHA-256 of the revocation list that was asked.
    pub revocations: Option<String>,
    pub(super) epoch: u64,
    /// From when to when it counts, by this machine's clock.
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// How long a verdict is believed: signatures grow too old and certificates end by themselves,
/// which a host notices within a minute too.
const LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// Who sees an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Whoever may pull.
    Released,
    /// Who may push or sign: signatures are missing.
    Quarantined,
    /// The same, and no signature will help.
    Refused,
}

impl State {
    /// In headers and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }
}

/// What decides.
#[derive(Clone)]
pub struct Law {
    /// The repository's policy.
    pub policy: Arc<Policy>,
    /// The revocation list in force.
    pub revoked: Option<Arc<Revoked>>,
    /// What the policy calls the repository.
    pub scope: String,
}

/// Decides about `digest`. Nothing in `layout`: a part of it is missing.
pub async fn judge(
    layout: Option<Layout>,
    digest: bundle::Digest,
    is_bundle: bool,
    law: Law,
) -> Result<Verdict, OciError> {
    // Signatures and instructions are checked: that is work for another thread.
    let judged = spawn_blocking(move || {
        let now = Timestamp::now();
        let decided = match layout {
            None => Err((State::Quarantined, incomplete())),
            Some(layout) if is_bundle => law.judge_bundle(&layout, now),
            Some(layout) => law.judge_artifact(&layout, digest, now),
        };
        law.verdict(decided, digest, now)
    });
    judged.await.map_err(OciError::internal)
}

fn incomplete() -> Refusal {
    let what = "parts of it are not in the repository";
    Refusal::new(Reason::MalformedBundle, what)
}

/// Whether a manifest is a bundle of ours: then everything that a policy says is checked.
pub fn is_bundle(document: &Value) -> bool {
    document["artifactType"] == media::BUNDLE || document["config"]["mediaType"] == media::INVENTORY
}

type Decided = Result<Vec<SignedBy>, (State, Refusal)>;

impl Law {
    fn judge_artifact(&self, layout: &Layout, digest: bundle::Digest, now: Timestamp) -> Decided {
        let artifact = Artifact::of(digest);
        self.ask(&artifact)?;
        let referrers = layout.referrers(&digest);
        let signed = attached::signed_by(digest, &referrers, &self.policy, &self.scope, now);
        let signed = signed.map_err(|refusal| match refusal.reason {
            // Signatures can mend everything but a policy that says nothing.
            Reason::NoRule => (State::Refused, refusal),
            _ => (State::Quarantined, refusal),
        })?;
        self.ask_about_signers(&artifact, &signed)?;
        Ok(signed)
    }

    fn judge_bundle(&self, layout: &Layout, now: Timestamp) -> Decided {
        let (policy, scope) = (&*self.policy, &*self.scope);
        let context = Context::of(scope);
        let refused = |refusal| (State::Refused, refusal);
        let bundle = || {
            layout
                .bundle()
                .map_err(|error| Refusal::new(policy::verify::reason_of(&error), error.to_string()))
        };
        let mut unsigned = bundle().map_err(refused)?;
        attached::foresee(&mut unsigned, policy, &context, now).map_err(refused)?;
        let artifact = Artifact::of_bundle(&unsigned);
        self.ask(&artifact)?;
        let verified = policy::verify(bundle().map_err(refused)?, policy, scope, now);
        let verified = verified.map_err(|refusal| (State::Quarantined, refusal))?;
        let admitted = policy::admit(verified, policy, &context).map_err(refused)?;
        let signed = admitted.signed_by().to_vec();
        self.ask_about_signers(&artifact, &signed)?;
        Ok(signed)
    }

    /// What is itself on the list comes back by no signature.
    fn ask(&self, artifact: &Artifact) -> Result<(), (State, Refusal)> {
        let found = self.revoked.as_ref().and_then(|list| list.find(artifact));
        found.map_or(Ok(()), |refusal| Err((State::Refused, refusal)))
    }

    /// Signatures of others can stand in for those that do not count any more.
    fn ask_about_signers(
        &self,
        artifact: &Artifact,
        signed: &[SignedBy],
    ) -> Result<(), (State, Refusal)> {
        let rule = self.policy.rule_for(&self.scope);
        let at_least = rule.map_or(usize::MAX, |rule| rule.signed_by.at_least);
        let list = self.revoked.as_ref();
        let found = list.and_then(|list| list.find_signer(artifact, signed, at_least));
        found.map_or(Ok(()), |refusal| Err((State::Quarantined, refusal)))
    }

    fn verdict(&self, decided: Decided, digest: bundle::Digest, now: Timestamp) -> Verdict {
        let (state, refusal, signed) = match decided {
            Ok(signed) => (State::Released, None, signed),
            Err((state, refusal)) => (state, Some(refusal), Vec::new()),
        };
        let names = signed.iter().map(|signed| signed.names.join("="));
        let mut signers: Vec<String> = names.collect();
        // They come in the order of their keys, which says nothing to a reader.
        signers.sort();
        Verdict {
            state,
            refusal,
            signers,
            policy: self.policy.digest().to_string(),
            revocations: self.revocations(),
            epoch: 0,
            since: now,
            until: self.until(digest, now),
        }
    }

    /// When a verdict of `now` is to be taken anew: an exception ends to the second.
    fn until(&self, digest: bundle::Digest, now: Timestamp) -> Timestamp {
        let latest = now.saturating_add(LIFETIME).unwrap_or(now);
        let exception = self.policy.exception_for(digest);
        let end = exception.map(|exception| exception.until);
        end.filter(|end| (now..latest).contains(end))
            .unwrap_or(latest)
    }

    /// Which list is asked.
    pub fn revocations(&self) -> Option<String> {
        self.revoked.as_ref().map(|list| list.digest().to_string())
    }
}

impl Verdict {
    /// Does it count at this moment? A clock that was set back proves nothing.
    pub(super) fn counts(&self, now: Timestamp) -> bool {
        (self.since..self.until).contains(&now)
    }

    /// For the API.
    pub fn document(&self, digest: &Digest) -> Value {
        let refusal = self.refusal.as_ref();
        serde_json::json!({
            "digest": digest.to_string(),
            "state": self.state.as_str(),
            "signed_by": self.signers,
            "policy": self.policy,
            "revocations": self.revocations,
            "reason": refusal.map(|refusal| refusal.reason.code()),
            "number": refusal.map(|refusal| refusal.reason.number()),
            "message": refusal.map(ToString::to_string),
        })
    }
}
