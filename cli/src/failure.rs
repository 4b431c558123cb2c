//! How a command fails: an exit code that scripts may rely on, a reason, and one remedy.

use std::{path::Path, process::ExitCode};

use policy::Reason;

/// Exit codes are part of the interface (documented in `docs/cli.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Verification or policy refused it, or the input is malformed.
    Refused = 1,
    /// The command line or a file given on it is unusable.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The network or a server failed.
    Network = 4,
    /// A kernel, or a machine for one, failed.
    Kernel = 5,
    /// A bug of ours.
    Internal = 70,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// The numbered reason, where a check refused.
    pub reason: Option<Reason>,
    /// What went wrong, one lower-case clause with its causes after colons.
    pub message: String,
    /// What to do, one sentence.
    pub remedy: Option<String>,
    /// Lines that stand before the message: each of several mistakes.
    pub details: Vec<String>,
}

impl Failure {
    /// A check refused something.
    pub fn refused(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            exit: Exit::Refused,
            reason: Some(reason),
            message: detail.into(),
            remedy: Some(reason.remedy().to_owned()),
            details: Vec::new(),
        }
    }

    /// Something on the command line cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            reason: None,
            message: message.into(),
            remedy: None,
            details: Vec::new(),
        }
    }

    /// Something named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::NotFound,
            reason: None,
            message: message.into(),
            remedy: None,
            details: Vec::new(),
        }
    }

    /// The network or a server failed.
    pub fn network(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Network,
            reason: None,
            message: message.into(),
            remedy: None,
            details: Vec::new(),
        }
    }

    /// A kernel, or a machine for one, failed.
    pub fn kernel(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Kernel,
            reason: None,
            message: message.into(),
            remedy: None,
            details: Vec::new(),
        }
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Internal,
            reason: None,
            message: message.into(),
            remedy: None,
            details: Vec::new(),
        }
    }

    /// A file operation failed; a missing file is `NotFound`, all else `Usage`.
    pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Usage,
        };
        let message = format!("{doing} {}: {error}", path.display());
        Self {
            exit,
            reason: None,
            message,
            remedy: None,
            details: Vec::new(),
        }
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
}
