use std::collections::BTreeMap;

use super::*;
use crate::{
    fake::{revocations, revocations_by},
    gate::{Class, Loaded},
    links::{Attachment, Holder, Pin},
};

fn by_package(versions: &str) -> String {
    format!("[[revoke]]\npackage = \"tool\"\nversions = {versions:?}\nreason = \"CVE\"")
}

pub(super) fn loaded(id: u32, name: &str) -> Loaded {
    Loaded {
        id,
        prog_type: 6,
        name: name.to_owned(),
        tag: "00".to_owned(),
        uid: 0,
        at: Duration::ZERO,
        own: false,
        class: Some(Class::Signed),
        bundle: Some(Digest::of(TOOL)),
        admitted: Some(name.to_owned()),
        pid: Some(7),
        comm: Some("agent".to_owned()),
        instead_at: None,
        places: Vec::new(),
    }
}

#[test]
fn what_is_revoked_loads_no_more() {
    let key = fake::somebody().public.id();
    let image = fake::image("open").digest();
    for rows in [
        by_package("<1.5"),
        format!(
            "[[revoke]]\nbundle = \"{}\"\nreason = \"x\"",
            Digest::of(TOOL)
        ),
        format!("[[revoke]]\nkey = \"{key}\"\nreason = \"stolen\""),
        format!(
            "[[revoke]]\nobject = \"{}\"\nreason = \"x\"",
            Digest::of(b"")
        ),
        // The pretended programs all have the same instructions.
        format!("[[revoke]]\nprogram = \"{image}\"\nreason = \"x\""),
    ] {
        let scene = Scene::armed();
        scene.start().revoke(&revocations(1, &rows)).unwrap();
        assert!(!scene.world.load("open"), "{rows}");
        assert!(!scene.world.load("evil"));
        // Not after a restart, not under a new policy.
        scene.start().take_over().unwrap().unwrap();
        assert!(!scene.world.load("open"), "{rows}");
        scene
            .start()
            .arm(request(policy(4, "enforce", "tool")))
            .unwrap();
        assert!(!scene.world.load("open"), "{rows}");
    }
}

#[test]
fn a_revoked_bundle_is_not_admitted_and_its_successor_is() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let revoking = enforcer
        .revoke(&revocations(1, &by_package("<1.5")))
        .unwrap();
    let why = "package \"tool\", versions <1.5: CVE";
    assert_eq!(revoking.bundles, [(Digest::of(TOOL), why.to_owned())]);
    let failure = enforcer.admit(TOOL, None).unwrap_err();
    assert_eq!(
        (failure.reason, failure.message.as_str()),
        (Some(Reason::Revoked), why)
    );
    enforcer
        .admit(b"name=tool version=1.5 programs=open", None)
        .unwrap();
    scene.assert_shut();
}

#[test]
fn what_the_list_does_not_name_stays() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let revoking = enforcer
        .revoke(&revocations(1, &by_package("<1.4")))
        .unwrap();
    assert_eq!(
        (revoking.bundles, revoking.reached),
        (Vec::new(), Vec::new())
    );
    scene.assert_shut();
}

#[test]
fn a_list_by_anybody_else_changes_nothing() {
    let scene = Scene::armed();
    let foreign = revocations_by(fake::somebody(), 9, &by_package("<9"));
    assert_eq!(
        reason(scene.start().revoke(&foreign)),
        Some(Reason::BadAuthority)
    );
    scene.edit("revocations/foreign.json", &foreign);
    let mut enforcer = scene.start();
    assert_eq!(
        reason(enforcer.look_for_revocations()),
        Some(Reason::BadAuthority)
    );
    enforcer.take_over().unwrap().unwrap();
    scene.assert_shut();
}

#[test]
fn an_older_list_is_refused_even_if_the_state_folder_forgets() {
    let scene = Scene::armed();
    scene
        .start()
        .revoke(&revocations(2, &by_package("<1.5")))
        .unwrap();
    let older = revocations(1, "");
    assert_eq!(
        reason(scene.start().revoke(&older)),
        Some(Reason::OlderRevocation)
    );
    // The newer list deleted, and then the older one in its place.
    std::fs::remove_dir_all(scene.state.path().join("revocations")).unwrap();
    for file in [None, Some(older)] {
        if let Some(file) = file {
            scene.edit("revocations/old.json", &file);
        }
        let mut enforcer = scene.start();
        assert_eq!(enforcer.take_over().unwrap(), None);
        assert_eq!(reason(enforcer.reload(None)), Some(Reason::OlderRevocation));
        assert_eq!(
            reason(enforcer.admit(TOOL, None)),
            Some(Reason::OlderRevocation)
        );
        assert!(!scene.world.load("open"));
        let status = enforcer.revocation_status().unwrap().unwrap();
        assert_eq!(status.version, 2);
        assert!(status.trouble.unwrap().starts_with("E706 older-revocation"));
    }
    // The right one brought back, all is well.
    scene
        .start()
        .revoke(&revocations(2, &by_package("<1.5")))
        .unwrap();
    let newer = b"name=tool version=1.5 programs=open";
    scene.start().admit(newer, None).unwrap();
    scene.assert_shut();
}

#[test]
fn a_list_in_the_folder_is_found() {
    let scene = Scene::armed();
    let mut daemon = scene.start();
    assert_eq!(daemon.look_for_revocations().unwrap(), None);
    scene.edit(
        "revocations/from-the-registry.json",
        &revocations(1, &by_package("<1.5")),
    );
    assert_eq!(daemon.look_for_revocations().unwrap().unwrap().version, 1);
    assert!(!scene.world.load("open"));
    assert_eq!(daemon.look_for_revocations().unwrap(), None);
    // Put there while no daemon ran.
    let scene = Scene::armed();
    scene.edit(
        "revocations/from-the-registry.json",
        &revocations(1, &by_package("<1.5")),
    );
    scene.start().take_over().unwrap();
    assert!(!scene.world.load("open"));
}

/// The daemon was down when it came: it counts, and so does the policy that came with it.
#[test]
fn a_newer_list_is_found_at_the_start() {
    let scene = Scene::armed();
    let list = |version, versions| revocations(version, &by_package(versions));
    scene.start().revoke(&list(1, "<1.0")).unwrap();
    scene.edit(
        "revocations/list-00000000000000000002.json",
        &list(2, "<1.5"),
    );
    let mut enforcer = scene.start();
    enforcer
        .take_over()
        .unwrap()
        .expect("the policy is decided anew");
    assert!(!scene.world.load("open"));
    assert_eq!(enforcer.trouble(), None);
}

#[test]
fn a_boot_takes_the_list_along() {
    let scene = Scene::armed();
    scene
        .start()
        .revoke(&revocations(3, &by_package("<1.5")))
        .unwrap();
    scene.world.change(|state| {
        state.armed = None;
        state.admissions = Default::default();
    });
    scene.start().take_over().unwrap().unwrap();
    assert!(!scene.world.load("open"));
    let pinned = scene
        .world
        .change(|state| state.armed.as_ref().unwrap().revocation);
    assert_eq!(pinned, 3);
}

#[test]
fn loaded_programs_are_taken_off_their_hooks_or_named() {
    let scene = Scene::armed();
    let attachment = |program, place: &str, detached| Attachment {
        program,
        place: place.to_owned(),
        detached,
        why: (!detached).then(|| "not supported".to_owned()),
    };
    let (xdp, tracing) = (
        attachment(11, "link 1 (xdp)", true),
        attachment(12, "link 2 (tracing)", false),
    );
    let other = attachment(13, "link 3 (xdp)", true);
    let pin = |path: &str, is_link| Pin {
        path: path.to_owned(),
        is_link,
    };
    let pins = vec![pin("/sys/fs/bpf/a", false), pin("/sys/fs/bpf/b", true)];
    scene.world.change(|state| {
        state.loaded = vec![loaded(11, "open"), loaded(12, "close")];
        state.loaded.push(Loaded {
            bundle: None,
            ..loaded(13, "other")
        });
        state.attached = vec![xdp.clone(), tracing.clone(), other.clone()];
        state.pins = BTreeMap::from([(12, pins.clone()), (13, pins.clone())]);
    });
    let mut enforcer = scene.start();
    let reached = enforcer
        .revoke(&revocations(1, &by_package("<1.5")))
        .unwrap()
        .reached;
    let holders = vec![Holder {
        pid: 7,
        exe: "/usr/sbin/agent".to_owned(),
    }];
    let want = |id, name: &str, attachment: &Attachment, pins: &[Pin]| Reached {
        id,
        name: name.to_owned(),
        kind: "xdp".to_owned(),
        bundle: Digest::of(TOOL),
        loaded_by: Some("agent (pid 7, uid 0)".to_owned()),
        attachments: vec![attachment.clone()],
        holders: holders.clone(),
        pins: pins.to_owned(),
    };
    assert_eq!(
        reached,
        [
            want(11, "open", &xdp, &[]),
            want(12, "close", &tracing, &pins)
        ]
    );
    // Nothing but what was revoked lost its place.
    assert_eq!(
        scene.world.change(|state| state.attached.clone()),
        [tracing.clone(), other]
    );
    let status = enforcer.revocation_status().unwrap().unwrap();
    assert_eq!(status.still_loaded, 2);
    // Attached again, it is detached again.
    scene.world.change(|state| state.attached.push(xdp.clone()));
    enforcer.watch().unwrap();
    assert!(!scene.world.change(|state| state.attached.contains(&xdp)));
    let said: Vec<String> = enforcer.take_fresh().iter().map(Record::line).collect();
    let owner = "still attached by link 2 (tracing) (not supported), is revoked and loaded; \
                 loaded by agent (pid 7, uid 0); held by /usr/sbin/agent (pid 7): end it; \
                 pinned at /sys/fs/bpf/a, /sys/fs/bpf/b (link): remove that";
    assert!(said.iter().any(|line| line.ends_with(owner)), "{said:?}");
}

#[test]
fn each_owner_is_named_with_what_to_do() {
    let process = Holder {
        pid: 7,
        exe: "agent".to_owned(),
    };
    let pin = Pin {
        path: "/sys/fs/bpf/a".to_owned(),
        is_link: false,
    };
    let nobody = "; nobody was found who holds it: if it stays (`status` counts it), a socket, an action of tc, \
                  sampling by a perf event, a pin in another mount namespace or a device in a hidden network \
                  namespace may: restart its owner, or reboot";
    for (holders, pins, want) in [
        (vec![], vec![], nobody),
        (vec![process], vec![], "; held by agent (pid 7): end it"),
        (vec![], vec![pin], "; pinned at /sys/fs/bpf/a: remove that"),
    ] {
        let reached = Reached {
            id: 11,
            name: "open".to_owned(),
            kind: "xdp".to_owned(),
            bundle: Digest::of(TOOL),
            loaded_by: None,
            attachments: Vec::new(),
            holders,
            pins,
        };
        let line = reached.line();
        let owner = line.split_once("is revoked and loaded").unwrap().1;
        assert_eq!(owner, want);
    }
}

#[test]
fn a_list_that_is_overdue_is_said() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    // The fake's clock stands at this list's `issued`.
    let list = revocations(1, "next = \"2026-11-22T00:10:00Z\"");
    enforcer.revoke(&list).unwrap();
    assert!(!enforcer.revocation_status().unwrap().unwrap().overdue);
    scene.world.change(|state| state.since_boot += 601);
    assert!(enforcer.revocation_status().unwrap().unwrap().overdue);
    enforcer.take_fresh();
    enforcer.watch().unwrap();
    let last = enforcer.take_fresh().pop().unwrap();
    assert!(
        last.line()
            .contains("ALARM: revocation: a newer list was due"),
        "{}",
        last.line()
    );
}

#[test]
fn what_is_revoked_loads_no_more_even_where_the_set_cannot_be_written() {
    let image = fake::image("open").digest();
    for rows in [
        by_package("<1.5"),
        format!("[[revoke]]\nprogram = \"{image}\"\nreason = \"x\""),
    ] {
        let scene = Scene::armed();
        scene.world.change(|state| state.replace_fails = true);
        let failure = scene.start().revoke(&revocations(1, &rows)).unwrap_err();
        assert_eq!(failure.exit as u8, 5);
        assert!(!scene.world.load("open"), "{rows}");
        assert!(!scene.world.load("evil"));
    }
}

#[test]
fn nothing_is_said_to_be_admitted_that_a_list_names() {
    let image = fake::image("open").digest();
    let rows = format!("[[revoke]]\nprogram = \"{image}\"\nreason = \"x\"");
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    enforcer.revoke(&revocations(1, &rows)).unwrap();
    let failure = enforcer.admit(TOOL, None).unwrap_err();
    assert_eq!(failure.reason, Some(Reason::Revoked));
    let named = failure.message.contains(&image.to_string());
    assert!(named, "{}", failure.message);
}

#[test]
fn a_name_that_the_loader_chose_hides_nothing() {
    let image = fake::image("open").digest();
    let rows = format!("[[revoke]]\nprogram = \"{image}\"\nreason = \"x\"");
    let scene = Scene::armed();
    scene.world.change(|state| {
        state.loaded = vec![Loaded {
            name: "harmless".to_owned(),
            ..loaded(11, "open")
        }];
    });
    let reached = scene
        .start()
        .revoke(&revocations(1, &rows))
        .unwrap()
        .reached;
    assert_eq!(reached.iter().map(|r| r.id).collect::<Vec<_>>(), [11]);
}

#[test]
fn what_was_withdrawn_is_named_while_it_is_loaded() {
    let scene = Scene::armed();
    scene
        .world
        .change(|state| state.loaded = vec![loaded(11, "open")]);
    let mut enforcer = scene.start();
    enforcer.accepted().unwrap();
    assert!(enforcer.left_behind().unwrap().is_empty());
    enforcer.withdraw("tool").unwrap();
    let ids = |programs: Vec<Loaded>| programs.iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!(ids(enforcer.left_behind().unwrap()), [11]);
    let status = crate::status::Status::measure(&mut enforcer, true).unwrap();
    let warning = |line: &&String| line.starts_with("open (id 11) of sha256:");
    assert_eq!(
        status.warnings.iter().filter(warning).count(),
        1,
        "{:?}",
        status.warnings
    );
    // Nobody knows any more who signed it: the digest alone reaches it, and the gate is told.
    let by_digest = format!(
        "[[revoke]]\nbundle = \"{}\"\nreason = \"x\"",
        Digest::of(TOOL)
    );
    let reached = enforcer
        .revoke(&revocations(1, &by_digest))
        .unwrap()
        .reached;
    assert_eq!(reached.iter().map(|r| r.id).collect::<Vec<_>>(), [11]);
    assert!(enforcer.left_behind().unwrap().is_empty());
    assert!(
        scene
            .world
            .change(|state| state.revoked.contains(&Digest::of(TOOL)))
    );
}
