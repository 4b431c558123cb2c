//! What is wrong with a policy file, and where.

use std::{fmt, ops::Range};

use serde::Serialize;

use crate::Reason;

/// One mistake in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// [`Reason::Unsupported`] for what a later version will know, else
    /// [`Reason::BadPolicy`].
    pub reason: Reason,
    /// One lower-case clause.
    pub message: String,
}

/// `line 3, column 5: unknown key …`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

/// A policy file that cannot be used: every mistake found, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyError {
    /// The mistakes; never empty.
    pub faults: Vec<Fault>,
}

impl PolicyError {
    /// [`Reason::Unsupported`] where nothing else is wrong, else [`Reason::BadPolicy`].
    pub fn reason(&self) -> Reason {
        let is_later = |fault: &Fault| fault.reason == Reason::Unsupported;
        match self.faults.iter().all(is_later) {
            true => Reason::Unsupported,
            false => Reason::BadPolicy,
        }
    }
}

/// The first mistake, and how many more there are.
impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [] => f.write_str(Reason::BadPolicy.what()),
            [only] => only.fmt(f),
            [first, rest @ ..] => write!(f, "{first} (and {} more)", rest.len()),
        }
    }
}

impl std::error::Error for PolicyError {}

/// Collects mistakes while a policy is read.
pub(super) struct Faults<'t> {
    text: &'t str,
    found: Vec<(usize, Fault)>,
}

/// More than that nobody reads; it bounds the work on a hostile file.
const MOST: usize = 100;

impl<'t> Faults<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    /// A mistake at `span`.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.push(span, Reason::BadPolicy, message.into());
    }

    /// A mistake so many characters into the string at `span`, whose value is `value`. In a
    /// string with escapes it is where the string begins.
    pub(super) fn add_within(
        &mut self,
        span: Range<usize>,
        value: &str,
        offset: usize,
        message: impl Into<String>,
    ) {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let quotes = match raw.starts_with("\"\"\"") || raw.starts_with("'''") {
            true if raw[3..].starts_with('\n') => 4,
            true => 3,
            false => 1,
        };
        let is_verbatim = raw.get(quotes..).is_some_and(|raw| raw.starts_with(value));
        let bytes: usize = value.chars().take(offset).map(char::len_utf8).sum();
        let start = match is_verbatim {
            true => span.start + quotes + bytes,
            false => span.start,
        };
        self.add(start..span.end, message);
    }

    /// Something known that this version cannot check, at `span`.
    pub(super) fn unsupported(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.push(span, Reason::Unsupported, message.into());
    }

    fn push(&mut self, span: Range<usize>, reason: Reason, message: String) {
        if self.found.len() >= MOST {
            return;
        }
        let (line, column) = position(self.text, span.start);
        let fault = Fault {
            line,
            column,
            reason,
            message,
        };
        self.found.push((span.start, fault));
    }

    /// No mistake so far?
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All mistakes in the order of the file.
    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, fault)| fault).collect()
    }
}

/// Line and column, both from 1, of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
