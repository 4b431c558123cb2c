//! What is proved, once and again and again.

use super::*;

#[test]
fn the_watchdog_raises_the_alarm() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    assert!(enforcer.watch().unwrap());
    assert_eq!(scene.world.change(|state| state.sweeps), 1);
    scene.world.change(|state| state.toothless = true);
    assert!(!enforcer.watch().unwrap());
    assert!(!enforcer.last_selftest().unwrap().proves());
    let last = enforcer.take_fresh().pop().unwrap();
    assert!(
        last.line().ends_with(
            "ALARM: gate: NOT enforcing: an unsigned program is refused failed: it loaded"
        ),
        "{}",
        last.line()
    );
}

#[test]
fn the_self_test_proves_refusal_and_shapes() {
    let scene = Scene::armed();
    let checks: Vec<_> = scene
        .start()
        .selftest()
        .unwrap()
        .checks
        .into_iter()
        .map(|check| (check.name, check.passed))
        .collect();
    assert_eq!(
        checks,
        [
            ("an unsigned program is refused".to_owned(), true),
            ("systemd's device filter probe loads".to_owned(), true),
            ("runc's device filter loads".to_owned(), true),
            ("crun's device filter loads".to_owned(), true),
        ]
    );
}

#[test]
fn the_self_test_tries_the_ways_into_kernel_memory() {
    use policy::protect::Switch;
    let scene = Scene::armed();
    scene.world.change(|state| {
        state.ways = [
            (Switch::UnsignedModules, fake::Way::Guarded),
            (Switch::Kexec, fake::Way::Guarded),
            (Switch::DevMem, fake::Way::NoRight),
            (Switch::IoPorts, fake::Way::Absent),
            (Switch::Kcore, fake::Way::Open),
        ]
        .into();
    });
    let test = scene.start().selftest().unwrap();
    let tried: Vec<_> = test.checks[4..]
        .iter()
        .map(|check| (check.name.as_str(), check.passed, check.detail.as_str()))
        .collect();
    let no_right = "not proved: this process has not the rights with which it would be tried";
    // Unsigned modules are open unless the policy closes them.
    assert_eq!(
        tried,
        [
            ("kexec is closed", true, "EPERM"),
            ("dev_mem is closed", true, no_right),
            ("io_ports is closed", true, "this kernel has none"),
            ("kcore is closed", false, "it is open"),
        ]
    );
    assert!(test.proves());
    let failure = test.failure().unwrap();
    assert_eq!(
        (failure.exit as u8, failure.message.as_str()),
        (5, "the self test failed: kcore is closed: it is open")
    );
}

#[test]
fn a_self_test_fails_for_whatever_failed() {
    let scene = Scene::new();
    let text = fake::policy_text(1, "enforce", "tool").replace("mode =", "shape = []\nmode =");
    let arm = request(fake::signed(fake::authority(), &text));
    let mut enforcer = scene.start();
    enforcer.arm(arm).unwrap();
    let test = enforcer.selftest().unwrap();
    assert!(test.proves());
    let failure = test.failure().unwrap();
    assert_eq!(
        (failure.exit as u8, failure.reason),
        (5, Some(Reason::CannotEnforce))
    );
    assert_eq!(
        failure.message,
        "the self test failed: systemd's device filter probe loads: it is refused: units and containers would run \
         without their device policy, and 2 more"
    );
    let armed = Scene::armed();
    assert_eq!(armed.start().selftest().unwrap().failure(), None);
}
