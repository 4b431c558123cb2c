//! What a guest said, read from its console.

use std::path::PathBuf;

/// How one guest check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Ok,
    /// It did not hold.
    Fail,
    /// It could not be tried; the detail says why.
    Skip,
}

/// One `CHECK` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// How it ended.
    pub outcome: Outcome,
    /// What was checked.
    pub name: String,
    /// What was seen.
    pub detail: String,
}

/// Everything one boot had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// Why the boot itself failed; `None` only if the guest came to its end and said so.
    pub fault: Option<String>,
    /// Everything that the guest printed.
    pub console: PathBuf,
}

impl Report {
    /// Reads a whole console.
    pub fn read(text: &str, console: PathBuf) -> Self {
        let mut report = Self {
            checks: Vec::new(),
            fault: Some("the guest ended without its last line".to_owned()),
            console,
        };
        for line in text.lines() {
            report.line(line.trim_end());
        }
        report
    }

    /// Did every check hold, to the end?
    pub fn passed(&self) -> bool {
        self.fault.is_none()
            && self
                .checks
                .iter()
                .all(|check| check.outcome != Outcome::Fail)
    }

    fn line(&mut self, line: &str) {
        if let Some(check) = line.strip_prefix("CHECK ").and_then(Check::parse) {
            self.checks.push(check);
        } else if let Some(code) = line.strip_prefix("GUEST-RC=") {
            self.fault = (code != "0").then(|| format!("the guest ended with code {code}"));
        } else if line.contains("Kernel panic") {
            self.fault = Some(line.to_owned());
        }
    }
}

impl Check {
    // `ok name: detail`, where `: detail` may be missing.
    fn parse(text: &str) -> Option<Self> {
        let (outcome, rest) = text.split_once(' ')?;
        let outcome = match outcome {
            "ok" => Outcome::Ok,
            "fail" => Outcome::Fail,
            "skip" => Outcome::Skip,
            _ => return None,
        };
        let (name, detail) = rest.split_once(": ").unwrap_or((rest, ""));
        Some(Self {
            outcome,
            name: name.to_owned(),
            detail: detail.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Report {
        Report::read(text, PathBuf::from("log"))
    }

    #[test]
    fn a_silent_guest_is_a_failure() {
        let fault = "the guest ended without its last line";
        assert_eq!(read("booting\r\n").fault.as_deref(), Some(fault));
        assert!(!read("").passed());
    }

    #[test]
    fn checks_are_read_with_and_without_details() {
        let report =
            read("CHECK ok a b: c: d\r\nnoise\nCHECK fail e\nCHECK what f\nGUEST-RC=0\r\n");
        let check = |outcome, name: &str, detail: &str| Check {
            outcome,
            name: name.to_owned(),
            detail: detail.to_owned(),
        };
        let want = Report {
            checks: vec![
                check(Outcome::Ok, "a b", "c: d"),
                check(Outcome::Fail, "e", ""),
            ],
            fault: None,
            console: PathBuf::from("log"),
        };
        assert_eq!(report, want);
        assert!(!report.passed());
    }

    #[test]
    fn a_panic_after_the_last_line_is_a_failure() {
        let report = read("GUEST-RC=0\n[    1.0] Kernel panic - not syncing: x\n");
        assert_eq!(
            report.fault.as_deref(),
            Some("[    1.0] Kernel panic - not syncing: x")
        );
    }
}
