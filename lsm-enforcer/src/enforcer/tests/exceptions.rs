//! What an exception of the policy lets in, and that it is over when its time is.

use bundle::Digest;

use super::*;

/// Version 9 of the policy, with an exception for this bundle.
fn excepting(bundle: &[u8], until: Timestamp) -> crate::store::Document {
    let text = format!(
        "{}[[exception]]\nbundle = \"{}\"\nreason = \"INC-1\"\nuntil = {until}\n",
        fake::policy_text(9, "enforce", "tool"),
        Digest::of(bundle)
    );
    fake::signed(fake::authority(), &text)
}

#[test]
fn an_exception_ends_by_the_clock_that_nobody_sets_back() {
    let scene = Scene::armed();
    let other: &[u8] = b"name=other version=1.0 programs=evil";
    let mut enforcer = scene.start();
    assert_eq!(reason(enforcer.admit(other, None)), Some(Reason::NoRule));
    let until = enforcer.host().now() + Duration::from_secs(3600);
    let document = excepting(other, until);
    enforcer.arm(request(document)).unwrap();
    let admitted = enforcer.admit(other, None).unwrap();
    assert_eq!(
        admitted.rule,
        format!("exception \"INC-1\" until {until}, line 9")
    );
    assert!(enforcer.watch().unwrap());
    assert!(scene.world.load("evil"));
    scene.world.change(|state| state.since_boot += 2 * 3600);
    // The calendar says that it is an hour ago; the time since boot knows better.
    assert!(enforcer.watch().unwrap());
    scene.assert_shut();
    let refused: Vec<_> = enforcer.rejected().iter().map(|r| r.bundle).collect();
    assert_eq!(refused, [Digest::of(other)]);
}

/// The way back from a bad version, by the authority's word for the very bytes.
#[test]
fn an_exception_lets_a_package_go_back() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let (old, new): (&[u8], &[u8]) = (
        b"name=tool version=1.4 programs=good",
        b"name=tool version=1.5 programs=bad",
    );
    enforcer.admit(new, None).unwrap();
    assert_eq!(reason(enforcer.admit(old, None)), Some(Reason::MinVersion));
    let until = enforcer.host().now() + Duration::from_secs(3600);
    let document = excepting(old, until);
    enforcer.arm(request(document)).unwrap();
    enforcer.admit(old, None).unwrap();
    assert!(scene.world.load("good"));
    // It is remembered all the same.
    scene.world.change(|state| state.since_boot += 2 * 3600);
    assert!(enforcer.watch().unwrap());
    assert!(!scene.world.load("good"));
    assert_eq!(reason(enforcer.admit(old, None)), Some(Reason::MinVersion));
}

/// A machine without a clock boots in the past: what was signed since is no forgery.
#[test]
fn what_was_refused_is_looked_at_again_when_the_calendar_is_set() {
    let scene = Scene::armed();
    let since = scene.start().host().now();
    let late = format!("name=tool version=1.5 programs=late since={since}");
    scene.start().admit(late.as_bytes(), None).unwrap();
    assert!(scene.world.load("late"));
    scene.world.change(|state| {
        state.armed = None;
        state.calendar_shift = -86_400;
    });
    let mut enforcer = scene.start();
    enforcer.take_over().unwrap().unwrap();
    assert!(enforcer.watch().unwrap());
    assert!(!scene.world.load("late"));
    scene.world.change(|state| state.calendar_shift = 0);
    enforcer.settle().unwrap();
    assert!(enforcer.watch().unwrap());
    assert!(scene.world.load("late"));
}

/// The end of an exception has everything decided anew: not without the list of what is revoked.
#[test]
fn what_is_revoked_does_not_come_back_with_the_end_of_an_exception() {
    let scene = Scene::armed();
    let other: &[u8] = b"name=other version=1.0 programs=evil";
    let mut enforcer = scene.start();
    let until = enforcer.host().now() + Duration::from_secs(3600);
    let document = excepting(other, until);
    enforcer.arm(request(document)).unwrap();
    enforcer.admit(other, None).unwrap();
    let rows = "[[revoke]]\npackage = \"tool\"\nreason = \"CVE\"";
    enforcer.revoke(&fake::revocations(1, rows)).unwrap();
    std::fs::remove_dir_all(scene.state.path().join("revocations")).unwrap();
    let mut enforcer = scene.start();
    assert!(enforcer.watch().unwrap());
    scene.world.change(|state| state.since_boot += 2 * 3600);
    assert_eq!(reason(enforcer.watch()), Some(Reason::OlderRevocation));
    assert!(!scene.world.load("open"));
}
