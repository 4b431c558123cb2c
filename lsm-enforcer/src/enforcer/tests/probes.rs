//! Signed lists of probe programs.

use super::*;
use crate::{fake::probes_by, gate::Class};

fn policy_with_probes(version: u64) -> crate::store::Document {
    let text = fake::policy_text(version, "enforce", "tool");
    let text = format!("{text}[probes]\nsigned_by = [\"release\"]\n");
    fake::signed(fake::authority(), &text)
}

fn asked(scene: &Scene) -> bool {
    scene.world.load("newer: asks")
}

#[test]
fn a_list_adds_probes_until_another_one_replaces_it() {
    let scene = Scene::armed();
    let list = |version| probes_by(fake::somebody(), version, "newer: asks");
    assert!(!asked(&scene));
    let nobody_named = scene.start().take_probes(&list(2));
    assert_eq!(reason(nobody_named), Some(Reason::UntrustedSigner));
    scene.start().arm(request(policy_with_probes(4))).unwrap();
    let stranger = probes_by(fake::authority(), 9, "newer: asks");
    let refused = scene.start().take_probes(&stranger);
    assert_eq!(reason(refused), Some(Reason::UntrustedSigner));
    assert!(!asked(&scene));
    let probing = scene.start().take_probes(&list(2)).unwrap();
    assert_eq!(
        (probing.version, probing.signer.as_str(), probing.probes),
        (2, "release", vec!["newer: asks".to_owned()])
    );
    assert!(asked(&scene));
    let classes = scene.world.change(|state| {
        let entries = state.admissions.entries.iter();
        let listed = entries.filter(|entry| entry.image.name == "newer: asks");
        listed.map(|entry| entry.class).collect::<Vec<_>>()
    });
    assert_eq!(classes, [Class::Probe]);
    scene.start().take_over().unwrap().unwrap();
    assert!(asked(&scene));
    let refused = scene.start().take_probes(&list(1));
    assert_eq!(reason(refused), Some(Reason::OlderProbes));
    let other = probes_by(fake::somebody(), 3, "newer: asks otherwise");
    scene.start().take_probes(&other).unwrap();
    assert!(!asked(&scene));
    scene.assert_shut();
}

/// Whoever brings another state folder, without the revocation list, gets nothing of it back in.
#[test]
fn a_list_is_not_taken_where_nobody_knows_what_is_revoked() {
    let scene = Scene::armed();
    let list = probes_by(fake::somebody(), 2, "newer: asks");
    scene.start().arm(request(policy_with_probes(4))).unwrap();
    scene.start().take_probes(&list).unwrap();
    let rows = "[[revoke]]\npackage = \"tool\"\nreason = \"CVE\"";
    scene.start().revoke(&fake::revocations(1, rows)).unwrap();
    assert!(!scene.world.load("open"));
    let folder = scene.state.path().join("revocations");
    std::fs::remove_dir_all(&folder).unwrap();
    let refused = scene.start().take_probes(&list);
    assert_eq!(reason(refused), Some(Reason::OlderRevocation));
    assert!(!scene.world.load("open"));
}

#[test]
fn a_revoked_key_lists_no_probes_any_more() {
    let scene = Scene::armed();
    scene.start().arm(request(policy_with_probes(4))).unwrap();
    let list = |version| probes_by(fake::somebody(), version, "newer: asks");
    scene.start().take_probes(&list(2)).unwrap();
    assert!(asked(&scene));
    let key = fake::somebody().public.id();
    let rows = format!("[[revoke]]\nkey = \"{key}\"\nreason = \"stolen\"");
    scene.start().revoke(&fake::revocations(1, &rows)).unwrap();
    assert!(!asked(&scene));
    let refused = scene.start().take_probes(&list(3));
    assert_eq!(reason(refused), Some(Reason::UntrustedSigner));
}

#[test]
fn a_list_that_is_older_lost_or_not_the_policys_adds_nothing() {
    let scene = Scene::armed();
    let list = |version| probes_by(fake::somebody(), version, "newer: asks");
    scene.start().arm(request(policy_with_probes(4))).unwrap();
    for old in [Some(list(1)), None] {
        scene.start().take_probes(&list(2)).unwrap();
        assert!(asked(&scene));
        match old {
            Some(old) => scene.edit("probes.json", &old),
            None => std::fs::remove_file(scene.state.path().join("probes.json")).unwrap(),
        }
        let mut enforcer = scene.start();
        enforcer.take_over().unwrap().unwrap();
        assert!(!asked(&scene));
        let armed = enforcer.armed().unwrap();
        let status = enforcer.probe_status(armed.as_ref()).unwrap();
        assert_eq!((status.version, status.probes), (2, 0));
        assert!(status.trouble.unwrap().starts_with("E708 older-probes"));
        // Everything else goes on.
        scene.assert_shut();
    }
    scene.start().take_probes(&list(2)).unwrap();
    let without = policy(5, "enforce", "tool");
    scene.start().arm(request(without)).unwrap();
    assert!(!asked(&scene));
}
