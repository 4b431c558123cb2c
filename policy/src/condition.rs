//! Conditions (CEL) over what a bundle's inventory and its attestations say.
//!
//! An expression is bounded in length and in steps, knows no clock and no regular
//! expressions, and either gives true or false or cannot be evaluated; the last is never a
//! yes. `docs/policy.md` explains the language to its users.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{Context, Env, Value, common::ast::IdedExpr};
use serde::{Serialize, Serializer};

mod check;
mod facts;
mod steps;
mod trial;

pub use check::Flaw;
pub use facts::{Facts, TooLarge};
use steps::Steps;

/// A condition that is well-formed: it names only what exists.
#[derive(Clone)]
pub struct Condition {
    text: String,
    expression: Arc<IdedExpr>,
    uses: Vec<&'static str>,
}

/// Longest expression, in bytes: what a person can still read, and what nests too little for
/// any stack.
pub const MAX_BYTES: usize = 1_000;

/// What an expression may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// The inventory alone.
    Inventory,
    /// An attestation with a predicate of this type (a URI), and the inventory.
    Predicate(&'a str),
}

/// Why a condition has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEvaluated(pub String);

impl std::fmt::Display for NotEvaluated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Condition {
    /// Reads an expression about `about`.
    ///
    /// # Errors
    /// What is wrong with it, and where in it.
    pub fn parse(text: &str, about: About<'_>) -> Result<Self, Flaw> {
        let checked = check::parse(text, about)?;
        let condition = Self {
            text: text.to_owned(),
            expression: Arc::new(steps::counted(checked.expression)?),
            uses: checked.uses,
        };
        trial::run(&condition, about)?;
        Ok(condition)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does it look at the variable `name`?
    pub(crate) fn looks_at(&self, name: &str) -> bool {
        self.uses.contains(&name)
    }

    /// Does it hold?
    ///
    /// # Errors
    /// When it asks for what is not there, compares what cannot be compared, or takes too
    /// many steps.
    pub fn holds(&self, facts: &Facts) -> Result<bool, NotEvaluated> {
        match self.value(facts)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(NotEvaluated(format!(
                "it is {}, neither true nor false",
                check::kind(&other)
            ))),
        }
    }

    fn value(&self, facts: &Facts) -> Result<Value, NotEvaluated> {
        self.resolve(facts)
            .map_err(|error| NotEvaluated(check::clause(&error)))
    }

    fn resolve(&self, facts: &Facts) -> Result<Value, cel::ExecutionError> {
        let steps = Steps::for_values(facts.count());
        let mut context = Context::with_env(Arc::clone(&ENV));
        for &name in &self.uses {
            if let Some(value) = facts.value(name) {
                context.add_variable_from_value(name, value);
            }
        }
        context.set_variable_resolver(&steps);
        // The evaluator has no known way to panic; should one exist, it is a refusal.
        let result = catch_unwind(AssertUnwindSafe(|| {
            Value::resolve(&self.expression, &context)
        }));
        if steps.are_exhausted() {
            return Err(cel::ExecutionError::function_error("all", steps::EXHAUSTED));
        }
        result.unwrap_or_else(|_| {
            let message = "the evaluator failed".to_owned();
            Err(cel::ExecutionError::InternalError(message))
        })
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

/// By its text: equal texts mean the same.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

/// As written.
impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// The standard functions and macros, without regular expressions, clocks and time.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

#[cfg(test)]
mod tests;
