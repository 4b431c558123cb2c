//! How a command fails: an exit code that scripts may rely on, a reason, and one remedy.

use std::process::ExitCode;

/// Exit codes, the same as those of `bpfseal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A check found something wrong.
    Refused = 1,
    /// The command line or a folder given on it is unusable.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The network refused an address.
    Network = 4,
    /// A bug of ours, or the machine's.
    Internal = 70,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    /// What went wrong: one lower-case clause, with its causes after colons.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            remedy: None,
        }
    }

    /// The same from an error and everything that caused it.
    pub fn from_error(exit: Exit, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let clauses: Vec<String> = causes.map(ToString::to_string).collect();
        Self::new(exit, clauses.join(": "))
    }

    /// What to do about it, one sentence.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// Tells standard error.
    pub fn print(&self, json: bool) {
        if json {
            let document = serde_json::json!({
                "error": self.message, "remedy": self.remedy, "exit": self.exit as u8,
            });
            eprintln!("{document}");
            return;
        }
        eprintln!("error: {}", self.message);
        if let Some(remedy) = &self.remedy {
            eprintln!("help: {remedy}");
        }
    }
}
