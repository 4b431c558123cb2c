//! How a command fails: an exit code that scripts may rely on, a reason, and one remedy.

use std::{error::Error, path::Path, process::ExitCode};

use policy::{Reason, Refusal};
use serde::{Deserialize, Serialize};

/// Exit codes are part of the interface, the same in every program (`docs/cli.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Verification, policy or a missing permit refused it, or the input is malformed.
    Refused = 1,
    /// The command line or a file given on it is unusable.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The network or a server failed.
    Network = 4,
    /// A kernel, or a machine for one, cannot, or did not.
    Kernel = 5,
    /// A bug of ours, or the machine's.
    Internal = 70,
}

/// A failed command. The enforcer sends it through its control socket, so that the person who
/// typed the command sees what the daemon saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// The numbered reason, where a check refused.
    #[serde(with = "numbered")]
    pub reason: Option<Reason>,
    /// What went wrong, one lower-case clause with its causes after colons.
    pub message: String,
    /// What to do, one sentence.
    pub remedy: Option<String>,
    /// Lines that stand before the message: each of several mistakes.
    #[serde(default)]
    pub details: Vec<String>,
}

impl Failure {
    /// Without a reason, a remedy or details.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            reason: None,
            message: message.into(),
            remedy: None,
            details: Vec::new(),
        }
    }

    /// The same from an error and everything that caused it.
    pub fn from_error(exit: Exit, error: &dyn Error) -> Self {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        let clauses: Vec<String> = causes.map(ToString::to_string).collect();
        Self::new(exit, clauses.join(": "))
    }

    /// A check refused something.
    pub fn refused(reason: Reason, detail: impl Into<String>) -> Self {
        let exit = match reason {
            Reason::CannotEnforce => Exit::Kernel,
            _ => Exit::Refused,
        };
        Self {
            reason: Some(reason),
            remedy: Some(reason.remedy().to_owned()),
            ..Self::new(exit, detail)
        }
    }

    /// Something on the command line cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// The network or a server failed.
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(Exit::Network, message)
    }

    /// A kernel, or a machine for one, cannot, or did not.
    pub fn kernel(message: impl Into<String>) -> Self {
        Self::new(Exit::Kernel, message)
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// A file operation failed; a missing file is `NotFound`, all else `Usage`.
    pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Usage,
        };
        Self::new(exit, format!("{doing} {}: {error}", path.display()))
    }

    /// Adds or replaces the remedy.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// For `main`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// What people read, and what `status` and events quote: `E702 older-policy: …`.
    pub fn line(&self) -> String {
        match self.reason {
            Some(reason) if self.message.is_empty() => reason.to_string(),
            Some(reason) => {
                format!("E{} {}: {}", reason.number(), reason.code(), self.message)
            }
            None => self.message.clone(),
        }
    }
}

/// What the policy crate refuses, with the rule and its line.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal.reason, refusal.to_string())
    }
}

/// A reason as its number, which never changes.
mod numbered {
    use policy::Reason;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(
        reason: &Option<Reason>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        reason.map(Reason::number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Reason>, D::Error> {
        Ok(Option::<u32>::deserialize(deserializer)?.and_then(Reason::from_number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_socket() {
        let failure = Failure::refused(Reason::NeedsPermit, "audit after enforce");
        let text = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
    }

    #[test]
    fn a_kernel_that_cannot_enforce_is_exit_5() {
        let failure = Failure::refused(Reason::CannotEnforce, "no bpf");
        assert_eq!((failure.exit, failure.exit as u8), (Exit::Kernel, 5));
        assert_eq!(failure.line(), "E705 cannot-enforce: no bpf");
    }
}
