//! What can be said about an expression before it is evaluated.

use std::panic::catch_unwind;

use cel::{
    ExecutionError, Value,
    common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo},
};

use super::{About, ENV, MAX_BYTES};
use crate::spelling::did_you_mean;

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where it is: characters from the start of the expression.
    pub offset: usize,
    /// One lower-case clause.
    pub message: String,
}

impl Flaw {
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self::at(0, message)
    }

    fn at(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset,
            message: message.into(),
        }
    }
}

pub(super) struct Checked {
    pub(super) expression: IdedExpr,
    /// The variables that it looks at.
    pub(super) uses: Vec<&'static str>,
}

pub(super) fn parse(text: &str, about: About<'_>) -> Result<Checked, Flaw> {
    if text.len() > MAX_BYTES {
        return Err(Flaw::whole(format!(
            "a condition has at most {MAX_BYTES} bytes; got {}",
            text.len()
        )));
    }
    // The generated parser asserts what its grammar promises; a broken promise is a flaw.
    let parsed = catch_unwind(|| {
        let parser = ENV.parser().max_recursion_depth(MOST_NESTED);
        parser.parse_with_source_info(text)
    });
    let (expression, source) = parsed
        .map_err(|_| Flaw::whole("it cannot be parsed"))?
        .map_err(|errors| syntax(text, &errors))?;
    let known: &[&'static str] = match about {
        About::Inventory => &["inventory"],
        About::Predicate(_) => &["inventory", "predicate"],
    };
    let mut names = Names {
        known,
        source: &source,
        bound: Vec::new(),
        uses: Vec::new(),
    };
    names.check(&expression)?;
    let uses = names.uses;
    if uses.is_empty() {
        return Err(Flaw::whole(format!(
            "it looks at nothing; a condition is about {}",
            known.join(" or ")
        )));
    }
    Ok(Checked { expression, uses })
}

/// The parser's first complaint.
fn syntax(text: &str, errors: &cel::ParseErrors) -> Flaw {
    let Some(first) = errors.errors.first() else {
        return Flaw::whole("it cannot be parsed");
    };
    let (line, column) = first.pos;
    let number = |place: isize| usize::try_from(place).unwrap_or(0).saturating_sub(1);
    let before: usize = text
        .split_inclusive('\n')
        .take(number(line))
        .map(|line| line.chars().count())
        .sum();
    let offset = (before + number(column)).min(text.chars().count());
    let message = first.msg.trim().lines().collect::<Vec<_>>().join("; ");
    let message = message.strip_prefix("Syntax error: ").unwrap_or(&message);
    Flaw::at(offset, format!("not an expression: {message}"))
}

/// Finds names that do not exist.
struct Names<'a> {
    known: &'a [&'static str],
    source: &'a SourceInfo,
    /// Variables of the loops around.
    bound: Vec<String>,
    uses: Vec<&'static str>,
}

impl Names<'_> {
    fn check(&mut self, expression: &IdedExpr) -> Result<(), Flaw> {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(expression.id, name),
            Expr::Select(select) => self.check(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|item| self.check(item)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.check(&entry.key)?;
                    self.check(&entry.value)
                }
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Struct(message) => Err(Flaw::at(
                self.offset(expression.id),
                format!("unknown type {:?}", message.type_name),
            )),
            Expr::Call(call) => {
                self.function(expression.id, &call.func_name)?;
                if let Some(target) = &call.target {
                    self.check(target)?;
                }
                call.args.iter().try_for_each(|arg| self.check(arg))
            }
            Expr::Comprehension(comprehension) => {
                self.check(&comprehension.iter_range)?;
                let outer = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.push(comprehension.accu_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.check(&comprehension.loop_step)?;
                self.check(&comprehension.result)?;
                self.bound.truncate(outer);
                Ok(())
            }
        }
    }

    fn variable(&mut self, id: u64, name: &str) -> Result<(), Flaw> {
        if self.bound.iter().any(|bound| bound == name) || TYPES.contains(&name) {
            return Ok(());
        }
        if let Some(&known) = self.known.iter().find(|known| **known == name) {
            if !self.uses.contains(&known) {
                self.uses.push(known);
            }
            return Ok(());
        }
        let message = match name {
            "predicate" => "`predicate` is an attestation's: write the condition in \
                            `require = [{ type = …, when = … }]`"
                .to_owned(),
            _ => {
                let hint = did_you_mean(name, self.known.iter().copied());
                format!("unknown variable {name:?}{hint}")
            }
        };
        Err(Flaw::at(self.offset(id), message))
    }

    fn function(&self, id: u64, name: &str) -> Result<(), Flaw> {
        let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        let message = match name {
            "matches" => "`matches` is left out: use startsWith, endsWith or contains".to_owned(),
            "timestamp" | "duration" => {
                format!("`{name}` is left out: a rule's `max_age` limits a signature's age")
            }
            _ => {
                let hint = did_you_mean(name, FUNCTIONS.iter().copied());
                format!("unknown function {name:?}{hint}")
            }
        };
        Err(Flaw::at(self.offset(id), message))
    }

    fn offset(&self, id: u64) -> usize {
        let place = self.source.offset_for(id);
        place.map_or(0, |(start, _)| usize::try_from(start).unwrap_or(0))
    }
}

/// Functions that an expression may call: CEL's standard ones without regular expressions
/// and time. Macros are expanded before; those that stay were called in a wrong way.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

/// Names of types, as `type(x)` gives them.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// Deepest nesting of parentheses, brackets and calls.
const MOST_NESTED: u16 = 24;

/// What went wrong, as one clause without the values, which may be large.
pub(super) fn clause(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no {key:?} there; ask `has()` first"),
        ExecutionError::IndexOutOfBounds(_) => "it asks for an element that is not there".into(),
        ExecutionError::UndeclaredReference(name) if name.as_str() == "inventory" => {
            "there is no inventory: it is no bundle".into()
        }
        ExecutionError::NoSuchOverload(overload) => format!(
            "`{}` does not go with {}",
            overload.function().trim_matches('_'),
            overload.argument_types().join(" and ")
        ),
        ExecutionError::UnexpectedType { got, want } => format!("want {want}; got {got}"),
        ExecutionError::ValuesNotComparable(left, right)
        | ExecutionError::UnsupportedBinaryOperator(_, left, right) => {
            format!("{} and {} do not go together", kind(left), kind(right))
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".into()
        }
        ExecutionError::Overflow(..) => "a number becomes too large".into(),
        ExecutionError::FunctionError { message, .. } | ExecutionError::InternalError(message) => {
            message.chars().take(200).collect()
        }
        ExecutionError::UndeclaredReference(name) => format!("there is no {name:?}"),
        _ => "it cannot be evaluated".into(),
    }
}

/// `a string`.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "a list",
        Value::Map(_) => "a table",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "true or false",
        Value::Null => "null",
        _ => "something else",
    }
}
