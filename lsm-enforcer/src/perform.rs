//! One function for every request, whether the daemon or the command itself performs it.

use std::time::Duration;

use serde_json::{Value, to_value};

use crate::{
    control::{Request, Runtime},
    enforcer::Enforcer,
    failure::Failure,
    gate::Role,
    listing,
    status::Status,
    suggest::suggest,
};

/// Performs a request where no daemon runs. `open` opens the enforcer.
///
/// What changes nothing takes no lock for longer than a moment: verifying and measuring all
/// bundles for `status` takes seconds, and a daemon that starts meanwhile waits for the lock.
pub fn perform_alone(
    runtime: &Runtime,
    request: Request,
    body: &[u8],
    open: impl Fn() -> Result<Enforcer, Failure>,
) -> Result<Value, Failure> {
    let only_looks = matches!(
        request,
        Request::Status
            | Request::Inventory
            | Request::Preflight { .. }
            | Request::Explain { admit: false, .. }
    );
    if !only_looks {
        let _lock = runtime.lock(PATIENCE)?;
        let mut enforcer = open()?;
        enforcer.hold(Role::Command, PATIENCE)?;
        return perform(&mut enforcer, request, body, false);
    }
    // Whoever has the lock sees to deadlines and events.
    if let Ok(_lock) = runtime.lock(Duration::ZERO) {
        let mut enforcer = open()?;
        if enforcer.hold(Role::Command, Duration::ZERO).is_ok() {
            enforcer.settle()?;
            enforcer.drain(Duration::ZERO)?;
        }
    }
    perform(&mut open()?.observing(), request, body, false)
}

/// Another command may be measuring a large bundle.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Performs a request. `daemon` tells whether the daemon does.
pub fn perform(
    enforcer: &mut Enforcer,
    request: Request,
    body: &[u8],
    daemon: bool,
) -> Result<Value, Failure> {
    enforcer.settle()?;
    // What happened before belongs into the log before what happens now.
    enforcer.drain(Duration::ZERO)?;
    let performed = answer(enforcer, request, body, daemon);
    enforcer.drain(Duration::ZERO)?;
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
        Request::Enable { name, permit } => to_value(enforcer.enable(&name, permit.as_deref())?),
        Request::Disarm { permit, authority } => {
            to_value(enforcer.disarm(permit.as_deref(), authority.as_deref())?)
        }
        Request::Reload { permit } => to_value(enforcer.reload(permit.as_deref())?),
        Request::Admit { scope, .. } => to_value(enforcer.admit(body, scope.as_deref())?),
        Request::Withdraw { what } => to_value(enforcer.withdraw(&what)?),
        Request::Explain {
            stream,
            program,
            what,
            admit,
            ..
        } => {
            to_value(enforcer.explain(stream, program.as_deref(), what.as_deref(), body, admit)?)
        }
        Request::Preflight { btf } => to_value(enforcer.preflight(&btf)?),
        Request::Revoke { list } => to_value(enforcer.revoke(&list)?),
        Request::Probes { list } => to_value(enforcer.take_probes(&list)?),
        Request::Upgrade { file, at_boot } => to_value(enforcer.upgrade(&file, at_boot)?),
        Request::Status => to_value(Status::measure(enforcer, daemon)?),
        Request::Inventory => to_value(listing::list(enforcer)?),
        Request::Events { since, .. } => to_value(read_log(enforcer, since)?),
        Request::Suggest => {
            let keys: Vec<String> = enforcer
                .policy()
                .map(|trusted| {
                    trusted
                        .policy()
                        .trusted()
                        .map(|(name, _)| name.to_owned())
                        .collect()
                })
                .unwrap_or_default();
            to_value(suggest(&read_log(enforcer, None)?, &keys))
        }
        Request::Selftest => {
            let test = enforcer.selftest()?;
            if let Some(failure) = test.failure().filter(|_| !test.proves()) {
                return Err(failure);
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::fake::{World, policy, request};

    /// A daemon that starts while `status` measures must find the lock free.
    #[test]
    fn status_without_a_daemon_does_not_keep_the_lock() {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let state = folder.path().join("state");
        let runtime = Runtime::open(&folder.path().join("run")).unwrap();
        let arm = request(policy(1, "enforce", "tool"));
        world.enforcer(&state).arm(arm).unwrap();
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            if opened.get() == 2 {
                // The enforcer that measures.
                runtime.lock(Duration::ZERO)?;
            }
            Ok(world.enforcer(&state))
        };
        let status = perform_alone(&runtime, Request::Status, &[], open).unwrap();
        assert_eq!((opened.get(), &status["enforcing"]), (2, &true.into()));
        // And it does not wait for one who has the lock.
        let _daemon = runtime.lock(Duration::ZERO).unwrap();
        let open = || Ok(world.enforcer(&state));
        perform_alone(&runtime, Request::Status, &[], open).unwrap();
    }

    #[test]
    fn one_who_only_looks_leaves_events_and_log_alone() {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let arm = request(policy(1, "enforce", "tool"));
        world.enforcer(folder.path()).arm(arm).unwrap();
        assert!(!world.load("evil"));
        let mut observer = world.enforcer(folder.path()).observing();
        perform(&mut observer, Request::Status, &[], false).unwrap();
        assert_eq!(world.change(|state| state.events.len()), 1);
        let log = world.enforcer(folder.path()).journal().read(None).unwrap();
        assert!(
            !log.iter().any(|record| record.line().contains("evil")),
            "{log:?}"
        );
    }
}
