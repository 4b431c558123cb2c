use super::*;
use crate::{
    enforcer::prove::{MAX_WAITING, Unproven},
    gate::Event,
};

/// An instruction that no pretended program has.
const WORD: u64 = 0x1234_0000_00b7;

fn refusal(last: u64) -> Event {
    Event {
        name: "open".to_owned(),
        bundle: Some(Digest::of(TOOL)),
        reason: Some(Reason::InstructionDiffers),
        refused: true,
        gate: 1,
        insns: 2,
        words: vec![WORD, last],
        ..fake::event()
    }
}

fn admits(scene: &Scene, words: &[u64]) -> bool {
    let entries = scene.world.change(|state| state.admissions.entries.clone());
    entries.iter().any(|entry| entry.image.words == words)
}

#[test]
fn a_proven_layout_may_load_at_the_next_try() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    scene.world.change(|state| state.events.push(refusal(0x95)));
    enforcer.drain(Duration::ZERO).unwrap();
    assert!(!admits(&scene, &[WORD, 0x95]));
    assert_eq!(enforcer.prove_next(), Ok(true));
    assert!(admits(&scene, &[WORD, 0x95]));
    assert_eq!(enforcer.prove_next(), Ok(false));
    scene.assert_shut();
}

#[test]
fn what_is_not_proved_is_not_admitted_and_others_wait_a_while() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let events = [refusal(0x96), refusal(0x96), refusal(0x95)];
    scene.world.change(|state| state.events.extend(events));
    enforcer.drain(Duration::ZERO).unwrap();
    assert_eq!(enforcer.unproven.waiting.len(), 2);
    assert_eq!(enforcer.prove_next(), Ok(false));
    assert_eq!(enforcer.prove_next(), Ok(false));
    assert!(!admits(&scene, &[WORD, 0x95]));
    scene.world.change(|state| state.since_boot += 10);
    assert_eq!(enforcer.prove_next(), Ok(true));
    assert!(!admits(&scene, &[WORD, 0x96]));
    scene.assert_shut();
}

#[test]
fn only_whole_streams_that_resemble_an_admitted_program_are_looked_at() {
    let mut unproven = Unproven::default();
    for event in [
        Event {
            bundle: None,
            ..refusal(0x95)
        },
        Event {
            reason: Some(Reason::Unsigned),
            ..refusal(0x95)
        },
        Event {
            insns: 65,
            ..refusal(0x95)
        },
        Event {
            gate: 2,
            ..refusal(0x95)
        },
    ] {
        unproven.note(&event);
        assert_eq!(unproven.waiting, []);
    }
    (0..40).for_each(|last| unproven.note(&refusal(last)));
    assert_eq!(unproven.waiting.len(), MAX_WAITING);
}
