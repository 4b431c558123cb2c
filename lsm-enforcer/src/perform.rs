//! One function for every request, whether the daemon or the command itself performs it.

use policy::Reason;
use serde_json::{Value, to_value};

use crate::{
    control::Request, enforcer::Enforcer, failure::Failure, listing, status::Status,
    suggest::suggest,
};

/// Performs a request. `daemon` tells whether the daemon does.
pub fn perform(
    enforcer: &mut Enforcer,
    request: Request,
    body: &[u8],
    daemon: bool,
) -> Result<Value, Failure> {
    enforcer.settle()?;
    // What happened before belongs into the log before what happens now.
    enforcer.drain(std::time::Duration::ZERO)?;
    let performed = answer(enforcer, request, body, daemon);
    enforcer.drain(std::time::Duration::ZERO)?;
    performed
}

fn answer(
    enforcer: &mut Enforcer,
    request: Request,
    body: &[u8],
    daemon: bool,
) -> Result<Value, Failure> {
    let value = match request {
        Request::Arm(request) => to_value(enforcer.arm(*request)?),
        Request::Confirm => to_value(enforcer.confirm()?),
        Request::Disarm { permit, authority } => {
            to_value(enforcer.disarm(permit.as_deref(), authority.as_deref())?)
        }
        Request::Reload { permit } => to_value(enforcer.reload(permit.as_deref())?),
        Request::Admit { scope, .. } => to_value(enforcer.admit(body, scope.as_deref())?),
        Request::Withdraw { what } => to_value(enforcer.withdraw(&what)?),
        Request::Status => to_value(Status::measure(enforcer, daemon)?),
        Request::Inventory => to_value(listing::list(enforcer)?),
        Request::Events { since, .. } => to_value(read_log(enforcer, since)?),
        Request::Suggest => {
            let keys: Vec<String> = enforcer
                .policy()
                .map(|trusted| trusted.policy().keys().keys().cloned().collect())
                .unwrap_or_default();
            to_value(suggest(&read_log(enforcer, None)?, &keys))
        }
        Request::Selftest => {
            let test = enforcer.selftest()?;
            if !test.proves() {
                let detail = test
                    .first_failure()
                    .map(|check| format!("the self test failed: {}: {}", check.name, check.detail));
                return Err(Failure::refused(
                    Reason::CannotEnforce,
                    detail.unwrap_or_default(),
                ));
            }
            to_value(test)
        }
    };
    value.map_err(|error| Failure::internal(error.to_string()))
}

fn read_log(
    enforcer: &Enforcer,
    since: Option<jiff::Timestamp>,
) -> Result<Vec<crate::record::Record>, Failure> {
    enforcer
        .journal()
        .read(since)
        .map_err(|error| Failure::usage(format!("the event log: {error}")))
}
