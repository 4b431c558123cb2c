//! The answer no, as a value: which numbered reason, in which words, by which rule.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::Reason;

/// Where in the policy a decision was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// The rule's name, or the exception's reason.
    pub name: String,
    /// Line of the policy on which the rule starts, from 1.
    pub line: usize,
    /// When the exception ends; `None`: it is a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// `rule "tracing tools", line 16`, or `exception "INC-4711" until 2026-12-01T00:00:00Z, line 9`.
impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, line, until } = self;
        match until {
            None => write!(f, "rule {name:?}, line {line}"),
            Some(until) => write!(f, "exception {name:?} until {until}, line {line}"),
        }
    }
}

/// A refusal: the only other outcome than a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The numbered reason.
    pub reason: Reason,
    /// One lower-case clause with both values, what the policy wants and what there is.
    pub detail: String,
    /// The rule that decided; `None` where none was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
}

impl Refusal {
    /// A refusal that no rule decided.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            rule: None,
        }
    }

    /// The same refusal, decided by `rule`.
    #[must_use]
    pub fn by(mut self, rule: RuleRef) -> Self {
        self.rule = Some(rule);
        self
    }
}

/// `rule "tracing tools", line 16: want 2 distinct signers of release, security; got release`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = &self.rule {
            write!(f, "{rule}: ")?;
        }
        if self.detail.is_empty() {
            return f.write_str(self.reason.what());
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}
