//! Where commands print: text for people, one JSON document for machines.

use std::io::Write as _;

use serde::Serialize;

use crate::Failure;

/// The chosen form of output.
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON if asked for, else text.
    pub const fn new(json: bool) -> Self {
        Self { json }
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
        let mut stdout = anstream::stdout().lock();
        let _ = stdout.write_all(rendered.as_bytes());
        if !rendered.ends_with('\n') {
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
            anstream::println!("{document}");
            return;
        }
        for detail in &failure.details {
            anstream::eprintln!("{}", printable(detail));
        }
        let red = anstyle::AnsiColor::Red.on_default().bold();
        let line = match failure.reason {
            Some(reason) if failure.message.is_empty() => reason.to_string(),
            Some(reason) => format!(
                "E{} {}: {}",
                reason.number(),
                reason.code(),
                failure.message
            ),
            None => failure.message.clone(),
        };
        anstream::eprintln!("{red}error{red:#}: {}", printable(&line));
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
