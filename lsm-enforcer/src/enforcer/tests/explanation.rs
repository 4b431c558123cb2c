use super::*;
use crate::workshop::Stream;

fn stream(words: &[u64]) -> Stream {
    Stream {
        words: words.to_vec(),
        length: words.len(),
    }
}

fn told(explanation: &Explanation) -> Vec<(&str, bool)> {
    let compared = explanation.compared.iter();
    compared.map(|c| (c.program.as_str(), c.same)).collect()
}

#[test]
fn a_stream_is_compared_with_what_is_admitted() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let explain = |enforcer: &mut Enforcer, words: &[u64]| {
        enforcer
            .explain(Some(stream(words)), None, None, b"", false)
            .unwrap()
    };
    let same = explain(&mut enforcer, &[0xb7, 0x95]);
    assert_eq!(told(&same), [("open", true), ("close", true)]);
    let other = explain(&mut enforcer, &[0xb7, 0xb7]);
    assert_eq!(told(&other), [("open", false), ("close", false)]);
    assert!(
        other.text().contains("Nearest is \"open\" of tool"),
        "{}",
        other.text()
    );
    assert!(!other.admitted);
    scene.assert_shut();
}

#[test]
fn a_proven_layout_is_admitted_only_on_request() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let entries = || scene.world.change(|state| state.admissions.entries.len());
    let before = entries();
    let theirs = || Some(stream(&[0xbf, 0x95]));
    assert!(
        !enforcer
            .explain(theirs(), None, None, b"", false)
            .unwrap()
            .admitted
    );
    assert_eq!(entries(), before);
    assert!(
        enforcer
            .explain(theirs(), None, None, b"", true)
            .unwrap()
            .admitted
    );
    assert_eq!(entries(), before + 1);
    // Once is enough, and what is no program of the bundle's never is.
    assert!(
        !enforcer
            .explain(theirs(), None, None, b"", true)
            .unwrap()
            .admitted
    );
    let foreign = Some(stream(&[0xbf, 0xb7]));
    assert!(
        !enforcer
            .explain(foreign, None, None, b"", true)
            .unwrap()
            .admitted
    );
    assert_eq!(entries(), before + 1);
}

#[test]
fn the_last_refusal_of_the_log_is_explained() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let missing = enforcer.explain(None, None, None, b"", false).unwrap_err();
    assert_eq!(missing.exit as u8, 3);
    assert!(!scene.world.load("evil"));
    enforcer.drain(Duration::ZERO).unwrap();
    let explanation = enforcer
        .explain(None, Some("evil"), Some("tool"), b"", false)
        .unwrap();
    // The pretended event has one word of twelve.
    assert_eq!((explanation.known, explanation.length), (1, 12));
    assert!(explanation.attempt.unwrap().contains("E401 unsigned"));
    let other = enforcer
        .explain(None, Some("other"), None, b"", false)
        .unwrap_err();
    assert_eq!(other.exit as u8, 3);
}

#[test]
fn other_loaders_layouts_are_admitted_with_the_first_one_and_revoked_with_it() {
    let scene = Scene::armed();
    let laid_out = b"name=tool version=1.5 programs=laidout";
    let admission = scene.start().admit(laid_out, None).unwrap();
    assert_eq!(admission.programs[0].layouts, 2);
    let layouts = || {
        scene.world.change(|state| {
            let entries = state.admissions.entries.iter();
            entries
                .filter(|entry| entry.image.name == "laidout")
                .count()
        })
    };
    assert_eq!(layouts(), 2);
    let row = "[[revoke]]\npackage = \"tool\"\nversions = \">=1.5\"\nreason = \"x\"";
    scene.start().revoke(&fake::revocations(1, row)).unwrap();
    assert_eq!(layouts(), 0);
}
