//! How long an expression may run: each element that a loop visits is one step.

use std::sync::atomic::{AtomicU32, Ordering};

use cel::{
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators},
        types::CelBool,
        value::CowVal,
    },
    context::VariableResolver,
};

use super::Flaw;

/// Most elements that all loops of one evaluation visit together.
const MOST_STEPS: u64 = 100_000;
/// A step may look at every value (`x in list`), so many values leave fewer steps: together
/// at most so many comparisons, some seconds of work.
const MOST_WORK: u64 = 1_000_000_000;

/// What is said when no step is left.
pub(super) const EXHAUSTED: &str = "it takes too many steps";

/// The steps that are left.
pub(super) struct Steps {
    left: AtomicU32,
    go_on: CelBool,
}

impl Steps {
    /// For an expression over so many values.
    pub(super) fn for_values(values: usize) -> Self {
        let values = u64::try_from(values).unwrap_or(u64::MAX).max(1);
        let steps = (MOST_WORK / values).min(MOST_STEPS);
        Self {
            left: AtomicU32::new(u32::try_from(steps).unwrap_or(u32::MAX)),
            go_on: CelBool::from(true),
        }
    }

    pub(super) fn are_exhausted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// Each look at [`STEP`] takes one; when none is left, there is no such variable.
impl VariableResolver for Steps {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if variable != STEP {
            return None;
        }
        let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
        self.left.store(left, Ordering::Relaxed);
        (left > 0).then_some(CowVal::Borrowed(&self.go_on))
    }
}

/// No expression can write that.
const STEP: &str = "@step";

/// The expression with a step in the body of each of its loops.
pub(super) fn counted(mut expression: IdedExpr) -> Result<IdedExpr, Flaw> {
    count(&mut expression)?;
    Ok(expression)
}

fn count(expression: &mut IdedExpr) -> Result<(), Flaw> {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        Expr::Select(select) => count(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().try_for_each(count),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    count(&mut entry.key)?;
                    count(&mut entry.value)
                }
                EntryExpr::StructField(field) => count(&mut field.value),
            }),
        Expr::Struct(_) => Err(Flaw::whole("it makes a message, and there are none")),
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                count(target)?;
            }
            call.args.iter_mut().try_for_each(count)
        }
        Expr::Comprehension(comprehension) => {
            count(&mut comprehension.iter_range)?;
            count(&mut comprehension.loop_step)?;
            body(&mut comprehension.loop_step).map(with_step)
        }
    }
}

/// What a loop evaluates first for each element, by the shapes that the macros make.
fn body(step: &mut IdedExpr) -> Result<&mut IdedExpr, Flaw> {
    let unknown = || Flaw::whole("it has a loop of an unknown kind");
    let Expr::Call(call) = &mut step.expr else {
        return Err(unknown());
    };
    let inner = match (call.func_name.as_str(), call.args.as_mut_slice()) {
        // all, exists: `@result && BODY`.
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [_, body]) => Some(body),
        // filter, exists_one, map with a filter: `BODY ? … : @result`.
        (operators::CONDITIONAL, [body, _, _]) => Some(body),
        // map: `@result + [BODY]`.
        (operators::ADD, [_, list]) => match &mut list.expr {
            Expr::List(list) => list.elements.first_mut(),
            _ => None,
        },
        _ => None,
    };
    inner.ok_or_else(unknown)
}

/// `BODY` becomes `@step ? BODY : false`.
fn with_step(body: &mut IdedExpr) {
    let node = |id: u64, expr: Expr| IdedExpr { id, expr };
    let id = body.id;
    let inner = std::mem::take(body);
    *body = node(
        id,
        Expr::Call(CallExpr {
            func_name: operators::CONDITIONAL.to_owned(),
            target: None,
            args: vec![
                node(id, Expr::Ident(STEP.to_owned())),
                inner,
                node(id, Expr::Literal(LiteralValue::Boolean(false.into()))),
            ],
        }),
    );
}
