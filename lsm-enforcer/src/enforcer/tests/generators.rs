//! Generators that work only for the time of a permit.

use super::*;

fn policy_with_generator(version: u64) -> crate::store::Document {
    let sum = "a".repeat(64);
    let text = format!(
        "{}[[generator]]\nname = \"maker\"\nexe = {{ path = \"/x\", sha256 = \"{sum}\" }}\n\
         program_types = [\"xdp\"]\npermit = true\n",
        fake::policy_text(version, "enforce", "tool")
    );
    fake::signed(fake::authority(), &text)
}

#[test]
fn a_generator_works_for_the_time_of_its_own_permit() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let permit = |generator: Option<&str>, nonce| {
        let action = match generator {
            Some(_) => Action::Generator,
            None => Action::Audit,
        };
        fake::permit_for(generator, action, nonce)
    };
    let not_found = enforcer.enable("maker", Some(&permit(Some("maker"), 1)));
    assert_eq!(reason(not_found), None);
    enforcer.arm(request(policy_with_generator(9))).unwrap();
    let stands = |enforcer: &mut Enforcer| -> Vec<_> {
        let states = enforcer.generators().unwrap();
        states
            .into_iter()
            .map(|state| state.why_not.is_none())
            .collect()
    };
    assert_eq!(stands(&mut enforcer), [false]);
    for (text, want) in [
        (None, Reason::NeedsPermit),
        (Some(permit(None, 2)), Reason::PermitScope),
        (Some(permit(Some("other"), 3)), Reason::PermitScope),
    ] {
        assert_eq!(
            reason(enforcer.enable("maker", text.as_deref())),
            Some(want)
        );
    }
    let text = permit(Some("maker"), 4);
    let state = enforcer.enable("maker", Some(&text)).unwrap();
    assert_eq!((state.why_not, state.until.is_some()), (None, true));
    // It is pinned: another process finds it, and it ends with the permit.
    let mut enforcer = scene.start();
    enforcer.take_over().unwrap();
    assert_eq!(stands(&mut enforcer), [true]);
    assert_eq!(
        reason(enforcer.enable("maker", Some(&text))),
        Some(Reason::PermitScope)
    );
    scene.world.change(|state| state.since_boot += 2 * 3600);
    assert_eq!(stands(&mut enforcer), [false]);
}
