//! Generators: looking after their files, and letting one work for the time of a permit.

use policy::permit::Action;

use super::Enforcer;
use crate::{failure::Failure, gate::GeneratorState, record::Level};

impl Enforcer {
    /// How the generators of the policy in force stand, looked at now.
    pub fn generators(&mut self) -> Result<Vec<GeneratorState>, Failure> {
        let (Some(armed), Some(policy)) = (self.armed()?, &self.policy) else {
            return Ok(Vec::new());
        };
        let rules = policy.generators();
        Ok(self.tools.gate.look_at_generators(&armed, &rules)?)
    }

    /// Looks, and says in the log what has changed since the last look.
    pub(super) fn look_after_generators(&mut self) -> Result<(), Failure> {
        let states = self.generators()?;
        for state in &states {
            let before = self.generators.iter().find(|old| old.name == state.name);
            let Some(why) = &state.why_not else { continue };
            if before.is_none_or(|before| before.why_not.as_ref() != Some(why)) {
                let line = format!("{} is not let in: {why}", state.name);
                self.note(Level::Info, "generator", line);
            }
        }
        self.generators = states;
        Ok(())
    }

    /// Lets a generator of the policy work until the permit ends.
    pub fn enable(&mut self, name: &str, permit: Option<&str>) -> Result<GeneratorState, Failure> {
        self.settle()?;
        let mut armed = self.must_be_armed()?;
        let rules = self.policy.as_ref().map(|policy| policy.generators());
        let rule = rules.into_iter().flatten().find(|rule| rule.name == name);
        let Some(rule) = rule.filter(|rule| rule.permit) else {
            let detail =
                format!("no generator of the policy in force that wants a permit is {name:?}");
            return Err(Failure::not_found(detail)
                .with_remedy("Give it `permit = true` in a [[generator]] of the policy."));
        };
        let what = format!("the generator {name:?}");
        let terms = self.redeem(permit, None, Action::Generator, &what, &mut armed)?;
        let left = terms.not_after.duration_since(self.time(&armed));
        let left = left.try_into().unwrap_or_default();
        let until = self.host().since_boot().saturating_add(left);
        armed.permitted.insert(rule.name, until);
        self.tools.gate.amend(&armed)?;
        let states = self.generators()?;
        let found = states.iter().find(|state| state.name == name).cloned();
        self.generators = states;
        found.ok_or_else(|| Failure::not_found(format!("the generator {name:?} is gone")))
    }
}
