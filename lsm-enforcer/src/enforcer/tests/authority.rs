//! What needs the authority: another policy, an older one, permits.

use super::*;

#[test]
fn a_policy_that_the_authority_did_not_sign_does_not_arm() {
    let scene = Scene::new();
    let result = scene
        .start()
        .arm(request(policy_by(fake::somebody(), 1, "enforce", "tool")));
    assert_eq!(reason(result), Some(Reason::BadAuthority));
    assert_eq!(scene.mode(), None);
}

#[test]
fn another_authority_does_not_take_over() {
    let scene = Scene::armed();
    let foreign = ArmRequest {
        authority: fake::somebody().pem(),
        ..request(policy_by(fake::somebody(), 9, "audit", "evil"))
    };
    assert_eq!(
        reason(scene.start().arm(foreign)),
        Some(Reason::BadAuthority)
    );
    // The same through the state folder.
    scene.edit("authority.pub", &fake::somebody().pem());
    let document = policy_by(fake::somebody(), 9, "audit", "evil");
    scene.edit("policy.toml", &document.text);
    scene.edit("policy.toml.sig", &document.signature);
    let mut enforcer = scene.start();
    assert_eq!(enforcer.take_over().unwrap(), None);
    assert_eq!(
        enforcer.trouble().unwrap().reason,
        Some(Reason::BadAuthority)
    );
    scene.assert_shut();
}

#[test]
fn an_edited_policy_changes_nothing() {
    let scene = Scene::armed();
    scene.edit("policy.toml", &fake::policy_text(4, "audit", "*"));
    let mut enforcer = scene.start();
    assert_eq!(enforcer.take_over().unwrap(), None);
    assert_eq!(reason(enforcer.reload(None)), Some(Reason::BadAuthority));
    assert_eq!(
        reason(enforcer.admit(TOOL, None)),
        Some(Reason::BadAuthority)
    );
    assert_eq!(
        enforcer.trouble().unwrap().reason,
        Some(Reason::BadAuthority)
    );
    scene.assert_shut();
    // The signed one brought back, all is well.
    enforcer.arm(request(policy(3, "enforce", "tool"))).unwrap();
    assert_eq!(enforcer.trouble(), None);
    enforcer.admit(TOOL, None).unwrap();
    scene.assert_shut();
}

#[test]
fn a_lost_state_folder_changes_nothing() {
    let scene = Scene::armed();
    std::fs::remove_dir_all(scene.state.path()).unwrap();
    let mut enforcer = scene.start();
    assert_eq!(enforcer.take_over().unwrap(), None);
    scene.assert_shut();
    let result = enforcer.disarm(Some(&permit(Action::Disarm, 1)), None);
    assert_eq!(reason(result), Some(Reason::BadAuthority));
    enforcer
        .disarm(
            Some(&permit(Action::Disarm, 1)),
            Some(&fake::authority().pem()),
        )
        .unwrap();
    assert_eq!(scene.mode(), None);
}

#[test]
fn an_older_policy_needs_a_permit() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let older = request(policy(2, "enforce", "tool"));
    assert_eq!(
        reason(enforcer.arm(older.clone())),
        Some(Reason::OlderPolicy)
    );
    scene.edit("policy.toml", &older.document.text);
    scene.edit("policy.toml.sig", &older.document.signature);
    let mut enforcer = scene.start();
    assert_eq!(enforcer.take_over().unwrap(), None);
    assert_eq!(reason(enforcer.reload(None)), Some(Reason::OlderPolicy));
    scene.assert_shut();
    let arming = enforcer
        .reload(Some(&permit(Action::Downgrade, 1)))
        .unwrap();
    assert_eq!((arming.policy_version, arming.mode), (2, Mode::Enforce));
    scene.assert_shut();
}

#[test]
fn a_downgrade_is_not_also_a_permit_for_audit() {
    let scene = Scene::armed();
    let older = |mode| ArmRequest {
        permit: Some(permit(Action::Downgrade, 1)),
        ..request(policy(2, mode, "tool"))
    };
    let refused = scene.start().arm(older("audit"));
    assert_eq!(reason(refused), Some(Reason::NeedsPermit));
    scene.assert_shut();
    // Nor is it spent by that.
    scene.start().arm(older("enforce")).unwrap();
}

#[test]
fn audit_after_enforce_needs_a_permit() {
    let scene = Scene::armed();
    let by_policy = request(policy(4, "audit", "tool"));
    let by_flag = ArmRequest {
        audit_only: true,
        ..request(policy(4, "enforce", "tool"))
    };
    for request in [by_policy, by_flag] {
        assert_eq!(
            reason(scene.start().arm(request.clone())),
            Some(Reason::NeedsPermit)
        );
        scene.assert_shut();
        let permitted = ArmRequest {
            permit: Some(permit(Action::Disarm, 1)),
            ..request
        };
        assert_eq!(
            reason(scene.start().arm(permitted)),
            Some(Reason::PermitScope)
        );
        scene.assert_shut();
    }
    let permitted = ArmRequest {
        permit: Some(permit(Action::Audit, 2)),
        ..request(policy(4, "audit", "tool"))
    };
    assert_eq!(scene.start().arm(permitted).unwrap().mode, Mode::Audit);
    assert!(scene.world.load("evil"));
}

#[test]
fn the_boot_parameter_takes_nothing_back() {
    let scene = Scene::armed();
    scene.world.change(|state| state.audit_at_boot = true);
    scene
        .start()
        .arm(request(policy(4, "enforce", "tool")))
        .unwrap();
    scene.assert_shut();
}

#[test]
fn disarming_needs_a_fitting_permit() {
    let scene = Scene::armed();
    let cases: [(Option<String>, Reason); 5] = [
        (None, Reason::NeedsPermit),
        (
            Some(permit_by(fake::somebody(), fake::HOST, Action::Disarm, 1)),
            Reason::BadAuthority,
        ),
        (
            Some(permit_by(
                fake::authority(),
                "another-host",
                Action::Disarm,
                1,
            )),
            Reason::PermitScope,
        ),
        (Some(permit(Action::Audit, 1)), Reason::PermitScope),
        (Some(permit(Action::Downgrade, 1)), Reason::PermitScope),
    ];
    for (permit, want) in cases {
        let result = scene.start().disarm(permit.as_deref(), None);
        assert_eq!(reason(result), Some(want), "{permit:?}");
        scene.assert_shut();
    }
    scene
        .start()
        .disarm(Some(&permit(Action::Disarm, 1)), None)
        .unwrap();
    assert_eq!(scene.mode(), None);
    assert!(scene.world.load("evil"));
    // The next start stays disarmed.
    assert_eq!(scene.start().take_over().unwrap(), None);
    assert_eq!(scene.mode(), None);
}

#[test]
fn a_permit_has_a_beginning_and_an_end() {
    for (shift, want) in [
        (
            -10,
            "the permit is good from 2026-11-22T00:00:00Z on, it is 2026-11-21T23:59:50Z",
        ),
        (
            3601,
            "the permit was good until 2026-11-22T01:00:00Z, it is 2026-11-22T01:00:01Z",
        ),
    ] {
        let scene = Scene::new();
        scene.world.change(|state| state.calendar_shift = shift);
        let mut enforcer = scene.start();
        enforcer.arm(request(policy(3, "enforce", "tool"))).unwrap();
        let failure = enforcer
            .disarm(Some(&permit(Action::Disarm, 1)), None)
            .unwrap_err();
        assert_eq!(
            (failure.reason, failure.message.as_str()),
            (Some(Reason::PermitScope), want)
        );
        assert_eq!(scene.mode(), Some(Mode::Enforce));
    }
}

#[test]
fn a_clock_that_is_set_back_brings_no_permit_back() {
    let scene = Scene::armed();
    let over = |shift: i64| {
        scene.world.change(|state| state.calendar_shift = shift);
        let failure = scene
            .start()
            .disarm(Some(&permit(Action::Disarm, 1)), None)
            .unwrap_err();
        assert_eq!(failure.reason, Some(Reason::PermitScope), "{shift}");
        assert!(
            failure.message.starts_with("the permit was good until"),
            "{}",
            failure.message
        );
        scene.assert_shut();
    };
    // Time passes and the permit ends, unused; then somebody sets the calendar back.
    scene.world.change(|state| state.since_boot += 3601);
    over(0);
    over(-3000);
    over(-1_000_000);
    // The same where the calendar ran ahead after the arming, as it does when the network
    // brings the time to a machine without a clock: what it once showed is pinned.
    let scene = Scene::armed();
    scene.world.change(|state| state.calendar_shift = 86_400);
    scene.start().settle().unwrap();
    scene.world.change(|state| state.calendar_shift = 0);
    let failure = scene
        .start()
        .disarm(Some(&permit(Action::Disarm, 1)), None)
        .unwrap_err();
    assert_eq!(failure.reason, Some(Reason::PermitScope));
    assert_eq!(scene.mode(), Some(Mode::Enforce));
}

#[test]
fn writing_another_hosts_id_does_not_make_its_permit_fit() {
    let scene = Scene::armed();
    scene
        .world
        .change(|state| state.machine_id = "another-host".to_owned());
    let foreign = permit_by(fake::authority(), "another-host", Action::Disarm, 1);
    let result = scene.start().disarm(Some(&foreign), None);
    assert_eq!(reason(result), Some(Reason::PermitScope));
    scene.assert_shut();
}

#[test]
fn a_permit_is_good_once_even_if_the_state_folder_forgets() {
    let scene = Scene::armed();
    let once = ArmRequest {
        permit: Some(permit(Action::Audit, 1)),
        ..request(policy(4, "audit", "tool"))
    };
    scene.start().arm(once.clone()).unwrap();
    scene
        .start()
        .arm(request(policy(5, "enforce", "tool")))
        .unwrap();
    let again = ArmRequest {
        document: policy(6, "audit", "tool"),
        ..once
    };
    for _ in 0..2 {
        let failure = scene.start().arm(again.clone()).unwrap_err();
        assert_eq!(failure.message, "the permit was used already");
        scene.assert_shut();
        std::fs::remove_file(scene.state.path().join("permits.json")).ok();
    }
}
