//! One line of the event log: an attempt that the gate judged, or a notice of the daemon's.

use std::time::Duration;

use bundle::Digest;
use jiff::Timestamp;
use policy::Reason;
use serde::{Deserialize, Serialize};

use crate::{
    gate::{Class, Event},
    observe::Observed,
};

/// A line of the log, as JSON; documented in `docs/operations.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// The gate judged something.
    Attempt(Box<Attempt>),
    /// The daemon has something to say.
    Notice(Notice),
}

/// Something the gate judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When, by the calendar.
    pub time: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
    /// The reason's word.
    pub reason: Option<String>,
    /// The reason's number.
    pub number: Option<u32>,
    /// One line for a person: what, by whom, what to do.
    pub message: String,
    /// Which gate: 1 admission, 2 binding, 3 attachment, 0 self-protection.
    pub gate: u8,
    /// How it was admitted, where it was.
    pub class: Option<Class>,
    /// Program's name as its loader gave it, or what was touched.
    pub name: String,
    /// Program type.
    pub program_type: Option<String>,
    /// Expected attach type, `enum bpf_attach_type`.
    pub attach_type: u32,
    /// Kernel's id, once it has one.
    pub program_id: Option<u32>,
    /// Instructions.
    pub insns: u32,
    /// What the reason is about: index of an instruction, of a map, or another number.
    pub detail: u64,
    /// Bundle it is, or was compared with.
    pub bundle: Option<Digest>,
    /// Program of that bundle.
    pub admitted: Option<String>,
    /// The rule that admitted the bundle.
    pub rule: Option<String>,
    /// Who signed the bundle.
    pub signers: Vec<String>,
    /// First instruction words, hex, descriptors masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// User.
    pub uid: u32,
    /// Name of the thread.
    pub comm: String,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Control group's id.
    pub cgroup_id: u64,
    /// Control group's path.
    pub cgroup: Option<String>,
    /// Container.
    pub container: Option<String>,
    /// Equal attempts that were not written since the last line like this one.
    #[serde(default)]
    pub suppressed: u64,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was refused.
    Refused,
    /// It passed because the gate only audits.
    Audited,
    /// It passed.
    Passed,
}

/// Something the daemon says about itself or the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When.
    pub time: Timestamp,
    /// How grave.
    pub level: Level,
    /// What about.
    pub about: String,
    /// One clause.
    pub message: String,
}

/// How grave a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For the record.
    Info,
    /// Somebody must look at it.
    Alarm,
}

/// The bundle that an event is about, as the daemon knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its rule.
    pub rule: Option<String>,
    /// Its signers.
    pub signers: Vec<String>,
}

impl Attempt {
    /// Puts an event, its task and its bundle together. `now` and `since_boot` are two
    /// readings of the same moment.
    pub fn new(
        event: &Event,
        observed: Observed,
        origin: Origin,
        now: Timestamp,
        since_boot: Duration,
    ) -> Self {
        let ago = since_boot.saturating_sub(event.at);
        let outcome = match (event.refused, event.reason) {
            (true, _) => Outcome::Refused,
            (false, Some(_)) => Outcome::Audited,
            (false, None) => Outcome::Passed,
        };
        let mut attempt = Self {
            time: now.checked_sub(ago).unwrap_or(now),
            outcome,
            reason: event.reason.map(|reason| reason.code().to_owned()),
            number: event.reason.map(Reason::number),
            message: String::new(),
            gate: event.gate,
            class: event.class,
            name: event.name.clone(),
            program_type: type_name(event.identity.prog_type).map(str::to_owned),
            attach_type: event.identity.expected_attach_type,
            program_id: (event.prog_id != 0).then_some(event.prog_id),
            insns: event.insns,
            detail: event.detail,
            bundle: event.bundle,
            admitted: event.admitted.clone(),
            rule: origin.rule,
            signers: origin.signers,
            words: event
                .words
                .iter()
                .map(|word| format!("{word:016x}"))
                .collect(),
            pid: event.pid,
            tid: event.tid,
            uid: event.uid,
            comm: event.comm.clone(),
            exe: observed.exe,
            cgroup_id: event.cgroup,
            cgroup: observed.cgroup,
            container: observed.container,
            suppressed: 0,
        };
        attempt.message = attempt.sentence(event.reason);
        attempt
    }

    /// `refused E401 unsigned: no admitted program has these instructions: tracepoint "x", 12
    /// instructions, by /usr/bin/y (pid 7, uid 0). Admit the bundle …`
    fn sentence(&self, reason: Option<Reason>) -> String {
        let outcome = match self.outcome {
            Outcome::Refused => "refused",
            Outcome::Audited => "let pass (audit)",
            Outcome::Passed => "passed",
        };
        let why = reason
            .map(|reason| format!(" {reason}"))
            .unwrap_or_default();
        let kind = self
            .program_type
            .as_deref()
            .map(|kind| format!("{kind} "))
            .unwrap_or_default();
        let length = match self.insns {
            0 => String::new(),
            1 => ", 1 instruction".to_owned(),
            n => format!(", {n} instructions"),
        };
        let compared = match (&self.admitted, &self.bundle) {
            (Some(program), Some(bundle)) => format!(", against {program:?} of {bundle}"),
            (Some(program), None) => format!(", against {program:?}"),
            _ => String::new(),
        };
        let at = match reason {
            Some(Reason::InstructionDiffers) => format!(" at instruction {}", self.detail),
            Some(Reason::MapReference) => format!(" at instruction {}", self.detail),
            Some(Reason::GeneratorLimit) => format!(" ({})", limit(self.detail)),
            _ => String::new(),
        };
        let name = match reason {
            // BPF_PROG_TEST_RUN
            Some(Reason::AttachPlace) if self.name.is_empty() && self.detail == 10 => {
                "in a test run".to_owned()
            }
            Some(Reason::AttachPlace) if self.name.is_empty() => {
                "at a place without a name".to_owned()
            }
            _ => format!("{:?}", self.name),
        };
        let who = self.exe.as_deref().unwrap_or(&self.comm);
        let container = self
            .container
            .as_deref()
            .map(|id| format!(", container {}", &id[..12]))
            .unwrap_or_default();
        let remedy = reason
            .map(|reason| format!(" {}", reason.remedy()))
            .unwrap_or_default();
        format!(
            "{outcome}{why}{at}: {kind}{name}{length}{compared}, by {who} (pid {}, uid {}{container}).{remedy}",
            self.pid, self.uid
        )
    }

    /// Attempts that differ in nothing of this are the same attempt again.
    pub fn likeness(&self) -> impl Eq + std::hash::Hash + use<> {
        (
            self.number,
            self.gate,
            self.name.clone(),
            self.program_type.clone(),
            self.insns,
            self.uid,
            self.exe.clone().unwrap_or_else(|| self.comm.clone()),
        )
    }
}

impl Record {
    /// When.
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Attempt(attempt) => attempt.time,
            Self::Notice(notice) => notice.time,
        }
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        match self {
            Self::Attempt(attempt) => {
                let again = match attempt.suppressed {
                    0 => String::new(),
                    n => format!(" ({n} more like it)"),
                };
                format!("{:.0} {}{again}", attempt.time, attempt.message)
            }
            Self::Notice(notice) => {
                let level = match notice.level {
                    Level::Info => "notice",
                    Level::Alarm => "ALARM",
                };
                format!(
                    "{:.0} {level}: {}: {}",
                    notice.time, notice.about, notice.message
                )
            }
        }
    }
}

/// `enum limit`: which limit of a generator.
const fn limit(number: u64) -> &'static str {
    match number {
        1 => "its permit is over, or never came",
        2 => "another user",
        3 => "outside its control group",
        4 => "the program's type",
        5 => "too many instructions",
        6 => "a call that it may not make",
        7 => "its dm-verity volume was given another table after its files were looked at",
        8 => "it writes the registers of what it is attached to",
        _ => "a limit that this version does not know",
    }
}

/// The word for a number of `enum bpf_prog_type`.
pub fn type_name(number: u32) -> Option<&'static str> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    policy::vocabulary::program_types().nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::event;

    #[test]
    fn a_line_says_what_by_whom_and_what_to_do() {
        let observed = Observed {
            exe: Some("/usr/sbin/bpftool".to_owned()),
            ..Observed::default()
        };
        let now: Timestamp = "2026-11-22T00:00:10Z".parse().unwrap();
        let attempt = Attempt::new(
            &event(),
            observed,
            Origin::default(),
            now,
            Duration::from_secs(100),
        );
        assert_eq!(
            Record::Attempt(Box::new(attempt)).line(),
            "2026-11-22T00:00:00Z refused E401 unsigned: no admitted program has these \
             instructions: tracepoint \"evil\", 12 instructions, by /usr/sbin/bpftool (pid 4194305, \
             uid 0). Admit the bundle that holds it: `bpfseal-enforcer admit`; vendor's tool: \
             `bpfseal enroll` first."
        );
    }

    #[test]
    fn a_place_without_a_name_is_said_so() {
        let now: Timestamp = "2026-11-22T00:00:10Z".parse().unwrap();
        let event = Event {
            reason: Some(Reason::AttachPlace),
            gate: 3,
            name: String::new(),
            admitted: Some("filter".to_owned()),
            insns: 0,
            ..event()
        };
        let observed = Observed::default();
        let attempt = Attempt::new(&event, observed, Origin::default(), now, Duration::ZERO);
        let want = ": tracepoint at a place without a name, against \"filter\", by ";
        assert!(attempt.message.contains(want), "{}", attempt.message);
    }

    /// Also those that no test causes in a kernel: a load whose instructions cannot be read,
    /// another target, another exception callback, a verdict that is missing.
    #[test]
    fn every_reason_of_the_kernel_side_is_said_with_its_remedy() {
        let now: Timestamp = "2026-11-22T00:00:10Z".parse().unwrap();
        for &reason in Reason::ALL {
            if !(400..700).contains(&reason.number()) {
                continue;
            }
            let event = Event {
                reason: Some(reason),
                ..event()
            };
            let observed = Observed::default();
            let attempt = Attempt::new(&event, observed, Origin::default(), now, Duration::ZERO);
            assert_eq!(attempt.number, Some(reason.number()));
            assert_eq!(attempt.reason.as_deref(), Some(reason.code()));
            assert!(
                attempt.message.contains(&reason.to_string())
                    && attempt.message.ends_with(reason.remedy()),
                "{}",
                attempt.message
            );
        }
    }

    #[test]
    fn a_record_survives_the_log() {
        let now: Timestamp = "2026-11-22T00:00:10Z".parse().unwrap();
        let attempt = Attempt::new(
            &event(),
            Observed::default(),
            Origin::default(),
            now,
            Duration::from_secs(100),
        );
        for record in [
            Record::Attempt(Box::new(attempt)),
            Record::Notice(Notice {
                time: now,
                level: Level::Alarm,
                about: "policy".to_owned(),
                message: "it does not verify".to_owned(),
            }),
        ] {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn types_have_the_kernels_numbers() {
        assert_eq!(type_name(0), None);
        assert_eq!(
            (type_name(1), type_name(15)),
            (Some("socket_filter"), Some("cgroup_device"))
        );
    }
}
