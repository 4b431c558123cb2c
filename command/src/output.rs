//! Where commands print: text for people, one JSON document for machines.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;

use crate::Failure;

/// The chosen form of output.
pub struct Output {
    json: bool,
    /// Has a result been printed?
    told: AtomicBool,
}

impl Output {
    /// JSON if asked for, else text.
    pub const fn new(json: bool) -> Self {
        Self {
            json,
            told: AtomicBool::new(false),
        }
    }

    /// Was `--json` given?
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `value` as JSON, or else what `text` says.
    ///
    /// A closed pipe (`| head`) is not an error.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        let rendered = if self.json {
            serde_json::to_string_pretty(value)
                .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            text()
        };
        self.told.store(true, Ordering::Relaxed);
        let mut stdout = anstream::stdout().lock();
        let _ = stdout.write_all(rendered.as_bytes());
        if !rendered.is_empty() && !rendered.ends_with('\n') {
            let _ = stdout.write_all(b"\n");
        }
    }

    /// Says on standard error what is being done; silent with `--json`.
    pub fn note(&self, message: &str) {
        if !self.json {
            anstream::eprintln!("{}", printable(message));
        }
    }

    /// Prints a failure once: one line that says what, one that says what to do.
    ///
    /// With `--json`, standard output holds one document: the failure, unless a result that says
    /// more of it is there already.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let document = serde_json::json!({
                "error": {
                    "exit": failure.exit as u8,
                    "reason": failure.reason.map(|reason| reason.code()),
                    "number": failure.reason.map(|reason| reason.number()),
                    "message": failure.message,
                    "remedy": failure.remedy,
                    "details": failure.details,
                }
            });
            if self.told.load(Ordering::Relaxed) {
                anstream::eprintln!("{document}");
            } else {
                anstream::println!("{document}");
            }
            return;
        }
        for detail in &failure.details {
            anstream::eprintln!("{}", printable(detail));
        }
        let red = anstyle::AnsiColor::Red.on_default().bold();
        anstream::eprintln!("{red}error{red:#}: {}", printable(&failure.line()));
        if let Some(remedy) = &failure.remedy {
            anstream::eprintln!("  help: {}", printable(remedy));
        }
    }
}

/// `1 map`, `2 maps`: so many of a word that takes an s.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// The same for text of several lines.
pub fn printable_lines(text: &str) -> String {
    text.split('\n')
        .map(printable)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Replaces control characters, which input may carry to fool a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_bytes_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
