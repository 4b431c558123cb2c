//! Permits: the authority's word for what would weaken the gate.

use bundle::Digest;
use policy::{
    Reason,
    permit::{Action, Permit, SignedPermit, Terms},
};

use super::{Enforcer, pinned, state};
use crate::{
    failure::Failure,
    gate::{Armed, MAX_SPENT},
    record::Level,
    trust,
};

impl Enforcer {
    /// Checks that `text` permits `action` here and now, and marks it as used: in the state
    /// folder at once, and in `armed`, which the caller pins with the change itself.
    ///
    /// `authority` is for the case that the state folder lost its copy of the key.
    pub(super) fn redeem(
        &mut self,
        text: Option<&str>,
        authority: Option<&str>,
        action: Action,
        what: &str,
        armed: &mut Armed,
    ) -> Result<Terms, Failure> {
        let Some(text) = text else {
            return Err(
                Failure::refused(Reason::NeedsPermit, what).with_remedy(format!(
                    "Ask the authority's holder for a permit: action {action}, host {}.",
                    self.host().id(),
                )),
            );
        };
        let authority = match authority {
            Some(pem) => pinned(pem, armed)?,
            None => self.pinned_authority(armed)?,
        };
        let signed = trust::permit(text, &authority)?;
        if let Some(name) = &signed.terms().generator
            && what != format!("the generator {name:?}")
        {
            let detail = format!("the permit is for the generator {name:?}, not for {what}");
            return Err(Failure::refused(Reason::PermitScope, detail));
        }
        let permit = self.fitting(signed, action, armed)?;
        self.spend(&permit, action, armed)?;
        let terms = permit.terms().clone();
        let reason = terms.reason.clone();
        self.note(
            Level::Alarm,
            "permit",
            format!("{what}: permitted until {}: {reason}", terms.not_after),
        );
        Ok(terms)
    }

    /// The host's id is compared with the one of the arming: the file that says it is root's.
    fn fitting(
        &self,
        permit: SignedPermit,
        action: Action,
        armed: &Armed,
    ) -> Result<Permit, Failure> {
        let host = permit.terms().host.clone();
        if Digest::of(host.as_bytes()) != armed.host {
            let id = self.host().id();
            let detail = format!("the permit is for host {host:?}, the gate was armed on {id:?}");
            return Err(Failure::refused(Reason::PermitScope, detail));
        }
        let spent = self.store.spent().map_err(|e| state(&self.store, &e))?;
        Ok(permit.allow(action, &host, self.time(armed), &spent)?)
    }

    fn spend(&self, permit: &Permit, action: Action, armed: &mut Armed) -> Result<(), Failure> {
        let short = short(&permit.digest());
        if armed.spent.contains(&short) {
            return Err(Failure::refused(
                Reason::PermitScope,
                "the permit was used already",
            ));
        }
        if armed.spent.len() >= MAX_SPENT && action != Action::Disarm {
            let detail = format!("{MAX_SPENT} permits were used since the gate was armed");
            return Err(Failure::refused(Reason::PermitScope, detail)
                .with_remedy("Disarm with a permit and arm again."));
        }
        let mut spent = self.store.spent().map_err(|e| state(&self.store, &e))?;
        spent.push(permit.digest());
        self.store
            .put_spent(&spent)
            .map_err(|e| state(&self.store, &e))?;
        if armed.spent.len() < MAX_SPENT {
            armed.spent.push(short);
        }
        Ok(())
    }
}

/// What is pinned of a permit.
fn short(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
