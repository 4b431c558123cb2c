use bundle::image::ModuleBtf;

use super::*;
use crate::gate::Event;

/// `nf_probe` is for a module, and `call_nf` calls one.
const TOOL: &[u8] = b"name=tool programs=open,nf_probe,call_nf";

fn module(content: &[u8]) -> ModuleBtf {
    ModuleBtf {
        name: "nf".to_owned(),
        content: Digest::of(content),
    }
}

/// Armed, with `TOOL` admitted while these are loaded.
fn armed(loaded: &[(&[u8], u32)]) -> (Scene, Enforcer) {
    let scene = Scene::new();
    load(&scene, loaded);
    let mut enforcer = scene.start();
    enforcer.arm(request(policy(3, "enforce", "tool"))).unwrap();
    enforcer.admit(TOOL, None).unwrap();
    (scene, enforcer)
}

fn load(scene: &Scene, loaded: &[(&[u8], u32)]) {
    let loaded = loaded.iter().map(|(content, id)| (module(content), *id));
    scene.world.change(|state| state.modules = loaded.collect());
}

fn refusal() -> Event {
    Event {
        name: "nf_probe".to_owned(),
        bundle: Some(Digest::of(TOOL)),
        reason: Some(Reason::ModuleBtf),
        ..fake::event()
    }
}

#[test]
fn what_is_for_a_module_loads_while_it_is_the_one_that_was_measured() {
    let (scene, _) = armed(&[(b"types", 7)]);
    for name in ["nf_probe", "call_nf"] {
        load(&scene, &[(b"types", 7)]);
        assert!(scene.world.load(name), "{name}");
        for others in [&[(&b"types"[..], 8)][..], &[(b"other", 7)], &[]] {
            load(&scene, others);
            assert!(!scene.world.load(name), "{name} {others:?}");
            scene.assert_shut();
        }
    }
}

#[test]
fn a_module_loaded_anew_is_followed_after_a_refusal_and_another_is_not() {
    let (scene, mut enforcer) = armed(&[(b"types", 7)]);
    assert_eq!(enforcer.follow_refused_module(), Ok(false));
    let follow = |enforcer: &mut Enforcer| {
        scene.world.change(|state| {
            state.events.push(refusal());
            state.since_boot += 1;
        });
        enforcer.drain(Duration::ZERO).unwrap();
        enforcer.follow_refused_module()
    };
    load(&scene, &[(b"types", 8)]);
    assert_eq!(follow(&mut enforcer), Ok(true));
    assert!(scene.world.load("nf_probe") && scene.world.load("call_nf"));
    // Nothing came or went: nothing is done, whoever is refused.
    assert_eq!(follow(&mut enforcer), Ok(false));
    // Neither at once nor after a while without any.
    for others in [&[(&b"other"[..], 9)][..], &[], &[(b"other", 10)]] {
        load(&scene, others);
        assert_eq!(follow(&mut enforcer), Ok(true));
        assert!(!scene.world.load("nf_probe"), "{others:?}");
    }
    scene.assert_shut();
    // The operator says that it is the one.
    enforcer.reload(None).unwrap();
    assert!(scene.world.load("nf_probe"));
}

#[test]
fn refusals_make_the_daemon_look_once_a_second() {
    let (scene, mut enforcer) = armed(&[(b"types", 7)]);
    for (id, want) in [(8, true), (9, false)] {
        load(&scene, &[(b"types", id)]);
        scene.world.change(|state| state.events.push(refusal()));
        enforcer.drain(Duration::ZERO).unwrap();
        assert_eq!(enforcer.follow_refused_module(), Ok(want));
    }
    scene.world.change(|state| state.since_boot += 1);
    assert_eq!(enforcer.follow_refused_module(), Ok(true));
    assert!(scene.world.load("nf_probe"));
}

#[test]
fn a_module_that_comes_later_is_measured_at_the_next_watch() {
    let (scene, mut enforcer) = armed(&[]);
    assert!(!scene.world.load("nf_probe"));
    load(&scene, &[(b"types", 7)]);
    enforcer.watch().unwrap();
    assert!(scene.world.load("nf_probe"));
    scene.assert_shut();
}
