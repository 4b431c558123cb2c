use super::*;

#[test]
fn one_process_at_a_time_changes_the_gate() {
    let scene = Scene::armed();
    let hold = |patience| scene.start().hold(Role::Command, patience);
    let held_by = |role| scene.world.change(|state| state.holders = vec![(7, role)]);
    held_by(Role::Command);
    hold(Duration::from_secs(60)).expect("a command ends");
    held_by(Role::Command);
    let failure = hold(Duration::ZERO).unwrap_err();
    assert!(
        failure.message.starts_with("process 7, a command"),
        "{failure:?}"
    );
    assert!(failure.remedy.unwrap().contains("kill -9 7"));
    held_by(Role::Daemon);
    let failure = hold(Duration::from_secs(60)).unwrap_err();
    assert!(
        failure.message.starts_with("the daemon, process 7,"),
        "{failure:?}"
    );
}

/// Whoever waited for another one does not go on with what was in force before.
#[test]
fn what_is_in_force_is_read_when_nobody_else_can_change_it() {
    let scene = Scene::armed();
    let mut late = scene.start();
    let mut other = scene.start();
    other.arm(request(policy(4, "enforce", "tool"))).unwrap();
    assert_eq!(late.policy().map(Trusted::version), Some(3));
    late.hold(Role::Command, Duration::ZERO).unwrap();
    assert_eq!(late.policy().map(Trusted::version), Some(4));
}
