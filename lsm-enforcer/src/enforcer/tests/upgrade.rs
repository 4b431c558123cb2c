use super::*;

/// Armed by a policy that names these files.
fn armed_for(files: &[&[u8]]) -> Scene {
    let scene = Scene::armed();
    let sums: Vec<String> = files
        .iter()
        .map(|file| format!("{:?}", Digest::of(file).to_hex()))
        .collect();
    let more = format!("\n[daemon]\nsha256 = [{}]\n", sums.join(", "));
    let text = fake::policy_text(4, "enforce", "tool") + &more;
    let document = fake::signed(fake::authority(), &text);
    scene.start().arm(request(document)).unwrap();
    scene
}

#[test]
fn only_a_file_of_the_policy_takes_the_daemons_place() {
    let scene = armed_for(&[b"next", b"strange"]);
    let file = scene.state.path().join("candidate");
    let upgrade = |content: &str, at_boot: bool| {
        std::fs::write(&file, content).unwrap();
        scene.start().upgrade(&file, at_boot)
    };
    let refused = upgrade("other", true).unwrap_err();
    assert_eq!(refused.reason, Some(Reason::NextDaemon));
    assert!(
        refused.message.ends_with("in force, version 4"),
        "{}",
        refused.message
    );
    // One that cannot continue waits for the next boot.
    let refused = upgrade("strange", false).unwrap_err();
    assert_eq!(refused.reason, Some(Reason::NextDaemon));
    assert!(refused.remedy.unwrap().contains("--at-boot"));
    assert!(scene.world.change(|state| state.adopted.is_empty()));
    assert!(!upgrade("next", true).unwrap().at_boot);
    assert!(upgrade("strange", true).unwrap().at_boot);
    let adopted = scene.world.change(|state| state.adopted.clone());
    let contents: Vec<&[u8]> = adopted.iter().map(|(_, content)| &content[..]).collect();
    assert_eq!(contents, [&b"next"[..], b"strange"]);
}

#[test]
fn without_daemons_in_the_policy_or_a_gate_nothing_takes_its_place() {
    let scene = Scene::armed();
    let file = scene.state.path().join("candidate");
    std::fs::write(&file, "next").unwrap();
    let refused = scene.start().upgrade(&file, false).unwrap_err();
    assert_eq!(refused.reason, Some(Reason::NextDaemon));
    let refused = scene
        .start()
        .upgrade(scene.state.path(), false)
        .unwrap_err();
    assert!(
        refused.message.ends_with("not a regular file"),
        "{}",
        refused.message
    );
    assert!(Scene::new().start().upgrade(&file, false).is_err());
}

#[test]
fn the_next_build_brings_its_programs_or_says_that_it_could_not() {
    let said = |programs: fake::Programs| {
        let scene = Scene::armed();
        scene.world.change(|state| state.programs = programs);
        let mut enforcer = scene.start();
        enforcer.take_over().unwrap().unwrap();
        let lines = enforcer.take_fresh().into_iter().filter_map(|r| match r {
            Record::Notice(notice) if notice.about == "daemon" => Some(notice),
            _ => None,
        });
        let mut lines: Vec<_> = lines.collect();
        assert_eq!(lines.remove(0).message, "took over the armed gate");
        lines
    };
    assert_eq!(said(fake::Programs::Own), []);
    let lines = said(fake::Programs::Others);
    assert_eq!(lines[0].level, Level::Info);
    assert_eq!(
        lines[0].message,
        "the gate's programs are those of this build now"
    );
    let lines = said(fake::Programs::Stuck);
    assert_eq!(lines[0].level, Level::Alarm);
    assert!(
        lines[0].message.starts_with("the gate goes on as it is: ")
            && lines[0].message.contains("the verifier says no"),
        "{}",
        lines[0].message
    );
}
