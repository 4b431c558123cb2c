use super::{revocation::loaded, *};
use crate::{
    gate::{Class, Loaded},
    links::Spot,
};

#[test]
fn what_is_attached_elsewhere_is_named_once_and_stays() {
    let scene = Scene::armed();
    let spot = |program: u32, place: &str, names: &[&str]| Spot {
        program,
        place: place.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    scene.world.change(|state| {
        let places = vec!["eth*".to_owned()];
        let placed = |id| Loaded {
            places: places.clone(),
            ..loaded(id, "open")
        };
        state.loaded = vec![
            placed(1),
            placed(2),
            placed(3),
            placed(4),
            loaded(5, "open"),
            Loaded {
                class: Some(Class::Probe),
                ..loaded(6, "probe")
            },
        ];
        state.spots = vec![
            spot(1, "interface eth0 (xdp)", &["eth0"]),
            spot(2, "interface lo (xdp)", &["lo"]),
            spot(3, "link 7 (perfevent)", &["sched/exec", "eth/exec"]),
            spot(4, "link 8 (netns)", &[]),
            spot(5, "interface lo (xdp)", &["lo"]),
            spot(6, "link 9 (netns)", &[]),
        ];
    });
    let mut enforcer = scene.start();
    enforcer.watch().unwrap();
    enforcer.watch().unwrap();
    let stray = "xdp program 2 \"open\" is attached at lo, interface lo (xdp), and its rule allows eth*: \
                 detach it, or name the place in the rule";
    let probe = "xdp program 6 \"probe\" is a loader's probe and is attached, link 9 (netns): detach it, and treat it \
                 as an attack";
    assert_eq!(enforcer.strays(), [stray, probe]);
    let said = enforcer.take_fresh();
    let alarms = said.iter().filter(|record| record.line().ends_with(stray));
    assert_eq!(alarms.count(), 1);
    scene.world.change(|state| state.spots.clear());
    enforcer.watch().unwrap();
    assert!(enforcer.strays().is_empty());
}
