//! The self test: proves on the running kernel what `status` is going to say.

use jiff::Timestamp;
use policy::{Reason, protect::Switch};
use serde::{Deserialize, Serialize};

use super::Enforcer;
use crate::{failure::Failure, gate::Mode, record::Level, sample::SAMPLES};

/// What was tried and what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// When.
    pub time: Timestamp,
    /// The mode that was in force.
    pub mode: Mode,
    /// Everything that was tried.
    pub checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What must be so.
    pub name: String,
    /// Is it?
    pub passed: bool,
    /// Does the gate fail its purpose without it?
    pub vital: bool,
    /// What was seen.
    pub detail: String,
}

impl Check {
    /// For people.
    pub fn line(&self) -> String {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        format!("{verdict}: {}: {}", self.name, self.detail)
    }
}

impl SelfTest {
    /// Did everything vital pass?
    pub fn proves(&self) -> bool {
        self.checks.iter().all(|check| check.passed || !check.vital)
    }

    /// Why the command fails: something is not so, be it vital or not.
    pub fn failure(&self) -> Option<Failure> {
        let first = self.first_failure()?;
        let count = self.checks.iter().filter(|check| !check.passed).count();
        let more = match count - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let (name, detail) = (&first.name, &first.detail);
        let message = format!("the self test failed: {name}: {detail}{more}");
        Some(Failure::refused(Reason::CannotEnforce, message).with_remedy(REMEDY))
    }

    /// The first thing that is not so.
    pub fn first_failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.passed)
    }
}

impl Enforcer {
    /// Runs the self test; it changes nothing but counters and the event log.
    pub fn selftest(&mut self) -> Result<SelfTest, Failure> {
        let armed = self.must_be_armed()?;
        let mut checks = vec![self.check_refusal(armed.mode)?];
        for sample in SAMPLES {
            let (passed, detail) = match self.host().load(sample) {
                Ok(()) => (true, "it loads".to_owned()),
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => (
                    false,
                    "it is refused: units and containers would run without their device policy"
                        .to_owned(),
                ),
                // Not the gate's doing: a kernel without CONFIG_CGROUP_BPF, no privilege.
                Err(error) => (true, format!("this kernel does not take it: {error}")),
            };
            let name = format!("{} loads", sample.name);
            checks.push(Check {
                name,
                passed,
                vital: false,
                detail,
            });
        }
        if armed.mode == Mode::Enforce {
            for &way in Switch::ALL {
                if armed.protect.is_on(way) {
                    checks.extend(self.check_way(way)?);
                }
            }
        }
        let test = SelfTest {
            time: self.host().now(),
            mode: armed.mode,
            checks,
        };
        // What it caused belongs into the log now, not into the next person's view.
        self.drain(std::time::Duration::ZERO)?;
        if let Some(check) = test.first_failure() {
            self.note(
                Level::Alarm,
                "selftest",
                format!("{}: {}", check.name, check.detail),
            );
        }
        self.selftest = Some(test.clone());
        Ok(test)
    }

    /// Closed is a way if the gate counts the attempt: without rights of its own this process
    /// is refused by others.
    fn check_way(&self, way: Switch) -> Result<Option<Check>, Failure> {
        let before = self.tools.gate.counters()?.protected;
        let Some(result) = self.host().try_way(way) else {
            return Ok(None);
        };
        let counted = self.tools.gate.counters()?.protected > before;
        let error = result.err().and_then(|error| error.raw_os_error());
        let (passed, detail) = match error {
            Some(libc::EPERM) if counted => (true, "EPERM"),
            Some(libc::EPERM) => (
                true,
                "not proved: this process has not the rights with which it would be tried",
            ),
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV | libc::ENOSYS) => {
                (true, "this kernel has none")
            }
            _ => (false, "it is open"),
        };
        Ok(Some(Check {
            name: format!("{} is closed", way.word()),
            passed,
            vital: false,
            detail: detail.to_owned(),
        }))
    }

    /// In enforce mode the load must fail; in audit mode it must at least be seen.
    pub(super) fn check_refusal(&self, mode: Mode) -> Result<Check, Failure> {
        let gate = &self.tools.gate;
        let before = gate.counters()?;
        let refused = gate.probe_refused()?;
        let after = gate.counters()?;
        Ok(match mode {
            Mode::Enforce => Check {
                name: "an unsigned program is refused".to_owned(),
                passed: refused && after.refused > before.refused,
                vital: true,
                detail: match (refused, after.refused > before.refused) {
                    (true, true) => "EPERM",
                    (true, false) => "EPERM, but not by the gate: it counted no refusal",
                    (false, _) => "it loaded",
                }
                .to_owned(),
            },
            Mode::Audit => {
                let seen = after.audited > before.audited;
                Check {
                    name: "an unsigned program is seen".to_owned(),
                    passed: seen && !refused,
                    vital: true,
                    detail: match (seen, refused) {
                        (_, true) => "it was refused although the gate only audits",
                        (true, false) => "it loaded and was counted",
                        (false, false) => "it loaded and nobody saw it",
                    }
                    .to_owned(),
                }
            }
        })
    }
}

const REMEDY: &str = "Where a shape is refused, put it into the policy's `[[shape]]`s; where a way of `[protect]` is open, report it \
                      with the kernel's version; where an unsigned program loads, see docs/operations.md.";
