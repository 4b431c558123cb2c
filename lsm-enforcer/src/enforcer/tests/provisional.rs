//! Enforcing for a while, until somebody confirms.

use super::*;

#[test]
fn an_arming_that_nobody_confirms_falls_back_to_audit() {
    let provisional = ArmRequest {
        confirm_within: Some(Duration::from_secs(600)),
        ..request(policy(1, "enforce", "tool"))
    };
    let scene = Scene::new();
    scene.start().arm(provisional.clone()).unwrap();
    scene.world.change(|state| state.since_boot += 599);
    assert!(!scene.start().settle().unwrap());
    assert_eq!(scene.mode(), Some(Mode::Enforce));
    scene.world.change(|state| state.since_boot += 1);
    assert!(scene.start().settle().unwrap());
    assert_eq!(scene.mode(), Some(Mode::Audit));
    // Neither a restart nor a boot enforces what nobody confirmed.
    let restart = |scene: &Scene| {
        scene.start().take_over().unwrap().unwrap();
        scene.mode()
    };
    let boot = |scene: &Scene| {
        scene.world.change(|state| state.armed = None);
        restart(scene)
    };
    assert_eq!(restart(&scene), Some(Mode::Audit));
    assert_eq!(boot(&scene), Some(Mode::Audit));

    // Nor do they within the time.
    let scene = Scene::new();
    scene.start().arm(provisional.clone()).unwrap();
    assert_eq!(restart(&scene), Some(Mode::Enforce));
    assert_eq!(boot(&scene), Some(Mode::Audit));

    let scene = Scene::new();
    scene.start().arm(provisional.clone()).unwrap();
    scene.start().confirm().unwrap();
    assert_eq!(boot(&scene), Some(Mode::Enforce));
    scene.world.change(|state| state.since_boot += 10_000);
    assert!(!scene.start().settle().unwrap());
    assert_eq!(scene.mode(), Some(Mode::Enforce));
    assert_eq!(scene.start().confirm().unwrap_err().exit as u8, 2);
    // A gate that enforces cannot be made provisional: that would be audit without a permit.
    assert_eq!(scene.start().arm(provisional).unwrap_err().exit as u8, 2);
    scene.assert_mode_after(10_000, Mode::Enforce);
}

#[test]
fn enforcing_after_audit_can_be_provisional() {
    // However it came to audit.
    let by_flag = ArmRequest {
        audit_only: true,
        ..request(policy(1, "enforce", "tool"))
    };
    let by_policy = request(policy(1, "audit", "tool"));
    let provisional = || ArmRequest {
        confirm_within: Some(Duration::from_secs(600)),
        ..request(policy(2, "enforce", "tool"))
    };
    let boot = |scene: &Scene| {
        scene.world.change(|state| state.armed = None);
        scene.start().take_over().unwrap().unwrap().mode
    };
    for audit in [by_flag, by_policy] {
        let scene = || {
            let scene = Scene::new();
            scene.start().arm(audit.clone()).unwrap();
            let arming = scene.start().arm(provisional()).unwrap();
            assert_eq!(
                (arming.mode, arming.confirm_within_seconds),
                (Mode::Enforce, Some(600))
            );
            assert!(!scene.world.load("evil"));
            scene
        };
        // Nobody confirms: neither a restart within the time nor one after it makes it final.
        let late = scene();
        assert_eq!(
            late.start().take_over().unwrap().unwrap().mode,
            Mode::Enforce
        );
        late.assert_mode_after(599, Mode::Enforce);
        late.assert_mode_after(1, Mode::Audit);
        assert!(late.world.load("evil"));
        assert_eq!(late.start().take_over().unwrap().unwrap().mode, Mode::Audit);
        assert_eq!(boot(&late), Mode::Audit);
        // Nor does a boot within the time.
        assert_eq!(boot(&scene()), Mode::Audit);
        // Somebody does.
        let confirmed = scene();
        confirmed.start().confirm().unwrap();
        confirmed.assert_mode_after(10_000, Mode::Enforce);
        assert_eq!(boot(&confirmed), Mode::Enforce);
    }
}

#[test]
fn enforcing_that_could_not_begin_leaves_nothing_to_confirm() {
    let scene = Scene::new();
    scene
        .start()
        .arm(request(policy(1, "audit", "tool")))
        .unwrap();
    let provisional = ArmRequest {
        confirm_within: Some(Duration::from_secs(600)),
        ..request(policy(2, "enforce", "tool"))
    };
    scene.world.change(|state| state.toothless = true);
    assert_eq!(
        reason(scene.start().arm(provisional.clone())),
        Some(Reason::CannotEnforce)
    );
    let armed = scene.world.change(|state| state.armed.clone()).unwrap();
    assert_eq!((armed.mode, armed.confirm_by), (Mode::Audit, None));
    // What stays in audit is not told as provisional.
    scene.world.change(|state| state.toothless = false);
    scene.world.change(|state| state.audit_at_boot = true);
    let arming = scene.start().arm(provisional).unwrap();
    assert_eq!(
        (arming.mode, arming.confirm_within_seconds),
        (Mode::Audit, None)
    );
    assert_eq!(scene.start().confirm().unwrap_err().exit as u8, 2);
    // Nor does the next boot enforce it.
    scene.world.change(|state| {
        state.audit_at_boot = false;
        state.armed = None;
    });
    let arming = scene.start().take_over().unwrap().unwrap();
    assert_eq!(arming.mode, Mode::Audit);
}
