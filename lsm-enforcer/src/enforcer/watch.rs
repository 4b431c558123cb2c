//! What the daemon does by itself: deadlines, and proving again and again that the gate bites.

use super::{Accepted, Confirmed, Enforcer, state};
use crate::{
    failure::Failure,
    gate::{Armed, Mode},
    record::Level,
    store::Intent,
};

impl Enforcer {
    /// Falls back to audit when a provisional arming was not confirmed in time. Every
    /// command does this first, so that the deadline holds without a daemon as well.
    pub fn settle(&mut self) -> Result<bool, Failure> {
        if self.observes {
            return Ok(false);
        }
        let Some(mut armed) = self.armed()? else {
            return Ok(false);
        };
        // What the calendar once showed is not forgotten when somebody sets it back.
        let ahead = self.ahead();
        if ahead > armed.clock.saturating_add(CLOCK_STEP) {
            armed.clock = ahead;
            self.tools.gate.amend(&armed)?;
        }
        let due = armed
            .confirm_by
            .is_some_and(|by| self.host().since_boot() >= by);
        if !due {
            return Ok(false);
        }
        armed.mode = Mode::Audit;
        armed.confirm_by = None;
        self.tools.gate.amend(&armed)?;
        self.note(
            Level::Alarm,
            "arming",
            "nobody confirmed the arming in time: fell back to audit; `bpfseal-enforcer arm` enforces again",
        );
        Ok(true)
    }

    /// Makes a provisional arming final.
    pub fn confirm(&mut self) -> Result<Confirmed, Failure> {
        self.settle()?;
        let mut armed = self.must_be_armed()?;
        if armed.confirm_by.take().is_none() {
            return Err(Failure::usage("there is nothing to confirm")
                .with_remedy("`bpfseal-enforcer status` says what is in force."));
        }
        self.store
            .put_intent(Some(Intent { audit_only: false }))
            .map_err(|e| state(&self.store, &e))?;
        self.tools.gate.amend(&armed)?;
        self.note(Level::Info, "arming", "confirmed");
        Ok(Confirmed {
            confirmed: true,
            standing: self.standing()?,
        })
    }

    /// Tries whether the gate still bites, and raises the alarm if it does not.
    pub fn watch(&mut self) -> Result<bool, Failure> {
        let Some(armed) = self.armed()? else {
            return Ok(true);
        };
        let check = self.check_refusal(armed.mode)?;
        let mut test = self.selftest.take().unwrap_or_else(|| super::SelfTest {
            time: self.host().now(),
            mode: armed.mode,
            checks: Vec::new(),
        });
        test.time = self.host().now();
        test.mode = armed.mode;
        test.checks.retain(|old| !old.vital);
        test.checks.insert(0, check.clone());
        self.selftest = Some(test);
        // Our own attempt must not wait for whoever drains next: it would look like theirs.
        self.drain(std::time::Duration::ZERO)?;
        if !self.observes {
            self.tools.gate.sweep()?;
            self.decide_what_time_changes(&armed)?;
            self.look_after_generators()?;
            self.reach()?;
            self.look_for_strays()?;
            self.follow_modules()?;
            self.complain_of_an_old_list(&armed);
        }
        if !check.passed {
            self.note(
                Level::Alarm,
                "gate",
                format!("NOT enforcing: {} failed: {}", check.name, check.detail),
            );
        }
        Ok(check.passed)
    }

    /// Takes out what an exception let in, once its time is over, and looks again at what was refused when somebody
    /// has set the calendar since, as after a boot without a clock: everything is decided anew.
    fn decide_what_time_changes(&mut self, armed: &Armed) -> Result<(), Failure> {
        let now = self.time(armed);
        let is_over = |known: &Accepted| known.verdict.until.is_some_and(|until| until <= now);
        let is_set = self.ahead().abs_diff(self.decided) > CLOCK_STEP.unsigned_abs();
        let may_pass = is_set && !self.rejected.is_empty();
        if !may_pass && !self.known_bundles()?.iter().any(is_over) {
            return Ok(());
        }
        let policy = self.must_have_policy()?;
        let (accepted, rejected) = self.decide_all(&policy)?;
        let admissions = self.admissions(&policy, &accepted);
        self.replace(armed, &admissions)?;
        self.in_force(&policy, accepted, rejected);
        Ok(())
    }

    /// A list that should have come and did not may be one that somebody keeps back.
    fn complain_of_an_old_list(&mut self, armed: &Armed) {
        let next = self
            .revocations
            .as_ref()
            .and_then(|signed| signed.list().next);
        if let Some(next) = next.filter(|next| self.time(armed) > *next) {
            let line = format!("a newer list was due at {next} and did not come");
            self.note(Level::Alarm, "revocation", line);
        }
    }
}

/// Seconds that the calendar may run ahead before that is pinned: the gate's set is copied
/// for it.
const CLOCK_STEP: i64 = 60;
