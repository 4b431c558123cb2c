//! Why some bytes are not a BPF object, and where.

use std::fmt;

/// Bytes that are not a BPF object which this crate reads. The publisher is at fault.
///
/// `Display` is one line without control characters, whatever the bytes hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct MalformedObject {
    /// Where in the file.
    pub place: Place,
    /// What is wrong there.
    pub fault: Fault,
}

/// A place in an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Byte offset in the file.
    Offset(u64),
    /// A section, and where known the byte offset in it.
    Section {
        /// Its name, or `#N` where the name cannot be read.
        name: String,
        /// Byte offset in the section.
        offset: Option<u64>,
    },
}

/// What is wrong with a BPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something breaks a rule of the format.
    Invalid(String),
    /// Something reaches beyond the end of what holds it.
    OutOfBounds {
        /// What it is.
        what: &'static str,
        /// Where it would end, in bytes.
        want: u64,
        /// Where what holds it ends, in bytes.
        got: u64,
    },
    /// Something is larger than any object that a kernel loads.
    LimitExceeded {
        /// What it is.
        what: &'static str,
        /// The most that is read.
        want: u64,
        /// What the file asks for; at least this much.
        got: u64,
    },
}

impl MalformedObject {
    /// Did a size or count exceed a limit, rather than break a rule?
    pub const fn is_limit(&self) -> bool {
        matches!(self.fault, Fault::LimitExceeded { .. })
    }
}

/// A place that is not yet worth allocating: most are never reported.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At<'a> {
    /// Byte offset in the file.
    File(u64),
    /// A whole section.
    Section(&'a str),
    /// A byte in a section.
    Byte(&'a str, u64),
}

impl At<'_> {
    /// The error that `why` is wrong here.
    pub(crate) fn invalid(self, why: impl Into<String>) -> MalformedObject {
        self.fault(Fault::Invalid(why.into()))
    }

    /// The error that `what` would end at `want` although everything ends at `got`.
    pub(crate) fn out_of_bounds(self, what: &'static str, want: u64, got: u64) -> MalformedObject {
        self.fault(Fault::OutOfBounds { what, want, got })
    }

    /// The error that `what` is `got`, over the limit `want`.
    pub(crate) fn limit(self, what: &'static str, want: u64, got: u64) -> MalformedObject {
        self.fault(Fault::LimitExceeded { what, want, got })
    }

    fn fault(self, fault: Fault) -> MalformedObject {
        let place = match self {
            Self::File(offset) => Place::Offset(offset),
            Self::Section(name) => Place::Section {
                name: name.to_owned(),
                offset: None,
            },
            Self::Byte(name, offset) => Place::Section {
                name: name.to_owned(),
                offset: Some(offset),
            },
        };
        MalformedObject { place, fault }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => write!(f, "offset {offset:#x}"),
            Self::Section { name, offset } => {
                write!(f, "section {}", quoted(name))?;
                match offset {
                    Some(offset) => write!(f, " offset {offset:#x}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(&printable(why)),
            Self::OutOfBounds { what, want, got } => {
                write!(f, "{what} ends at {want:#x}, beyond the end at {got:#x}")
            }
            Self::LimitExceeded { what, want, got } => {
                write!(f, "{what} is {got}, the limit is {want}")
            }
        }
    }
}

/// A name from a file as it may appear in a message: quoted, escaped, at most 64 characters.
pub(crate) fn quoted(name: &str) -> String {
    let mut short: String = name.chars().take(LONGEST_NAME).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("'{}'", printable(&short))
}

/// Escapes control characters, also those of Unicode that turn text around.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Characters of a name that a message shows: enough to find it, too few to flood a terminal.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_printable_line() {
        let name = format!("a\u{1b}[31m\n{}", "x".repeat(100));
        let error = At::Byte(&name, 16).out_of_bounds("a function", 32, 24);
        let want = format!(
            "section 'a\\u{{1b}}[31m\\n{}…' offset 0x10: a function ends at 0x20, beyond the end at 0x18",
            "x".repeat(57)
        );
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn limits_name_both_values() {
        let error = At::File(40).limit("the number of sections", 10, 11);
        assert!(error.is_limit());
        assert_eq!(
            error.to_string(),
            "offset 0x28: the number of sections is 11, the limit is 10"
        );
    }
}
