use super::*;
use crate::{
    enforcer::ArmRequest,
    fake::{self, World, policy, request},
    gate::{Class, Loaded},
};

/// A program that others loaded; number 1 is the gate's own.
fn loaded(id: u32, prog_type: u32, class: Option<Class>) -> Loaded {
    Loaded {
        id,
        prog_type,
        name: "old".to_owned(),
        tag: String::new(),
        uid: 0,
        at: std::time::Duration::ZERO,
        own: id == 1,
        class,
        bundle: None,
        admitted: None,
        pid: None,
        comm: None,
        instead_at: None,
        places: Vec::new(),
    }
}

/// Arming with a policy that wants nothing in the kernel that nobody judged.
fn strict(version: u64) -> ArmRequest {
    let text = fake::policy_text(version, "enforce", "tool");
    let text = text.replace("mode =", "strict = true\nmode =");
    request(fake::signed(fake::authority(), &text))
}

fn headline(world: &World, state: &std::path::Path) -> String {
    Status::measure(&mut world.enforcer(state), true)
        .unwrap()
        .headline
}

#[test]
fn the_headline_says_what_was_measured() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    assert_eq!(
        headline(&world, state.path()),
        "NOT enforcing: the gate is not armed, so every BPF program loads"
    );
    world
        .enforcer(state.path())
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap();
    assert_eq!(
        headline(&world, state.path()),
        "Enforcing: unsigned BPF programs are refused, one was just now; left open by the policy: unsigned_modules"
    );
    world.change(|state| state.toothless = true);
    assert_eq!(
        headline(&world, state.path()),
        "NOT enforcing: the gate is armed but does not bite: an unsigned program loaded a moment ago"
    );
    // The gate counts what it refuses: this was another one, or the process has not the rights.
    world.change(|state| (state.toothless, state.others_refuse) = (false, true));
    let status = Status::measure(&mut world.enforcer(state.path()), true).unwrap();
    assert!(
        status
            .headline
            .starts_with("NOT enforcing: the gate is armed but does not bite")
    );
    assert!(
        status
            .text()
            .contains("FAILED: an unsigned program is refused: EPERM, but not by the gate")
    );
}

#[test]
fn what_remains_is_in_the_headline_and_in_a_field() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world
        .enforcer(state.path())
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap();
    world.change(|state| {
        let mut armed = state.armed.clone().unwrap();
        armed.protect = armed.protect.with(Switch::Kexec, false);
        state.armed = Some(armed);
        state.loaded = vec![loaded(7, 5, Some(Class::Before))];
    });
    let status = Status::measure(&mut world.enforcer(state.path()), true).unwrap();
    let want = [
        "1 program from before arming",
        "left open by the policy: kexec, unsigned_modules",
    ];
    assert_eq!(status.remaining, want);
    assert!(status.headline.ends_with(&want.join("; ")));
}

#[test]
fn what_remains_is_in_the_headline_of_a_provisional_arming() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    let provisional = ArmRequest {
        confirm_within: Some(std::time::Duration::from_secs(60)),
        ..request(policy(1, "enforce", "tool"))
    };
    world.enforcer(state.path()).arm(provisional).unwrap();
    assert_eq!(
        headline(&world, state.path()),
        "Enforcing, but not confirmed: falls back to audit in 60 s unless `bpfseal-enforcer arm --confirm` comes; left \
         open by the policy: unsigned_modules"
    );
}

#[test]
fn a_daemon_that_does_not_answer_is_said() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world
        .enforcer(state.path())
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap();
    let mut status = Status::measure(&mut world.enforcer(state.path()), true).unwrap();
    assert!(status.text().contains("daemon       running;"));
    assert!(
        status
            .text()
            .contains("0 events lost; 0 programs on record\n")
    );
    status.daemon_silent = true;
    assert!(
        status.text().contains(
            "daemon       does NOT answer: it is stopped, frozen or busy; the gate holds"
        )
    );
}

#[test]
fn audit_never_looks_like_enforcing() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world
        .enforcer(state.path())
        .arm(request(policy(1, "audit", "tool")))
        .unwrap();
    let status = Status::measure(&mut world.enforcer(state.path()), false).unwrap();
    assert_eq!(
        (status.enforcing, status.headline.as_str()),
        (
            false,
            "Audit only, because the policy says mode = \"audit\": unsigned BPF programs load and are reported, nothing \
             is refused"
        )
    );
    assert!(
        status.text().contains("NOT running: the gate holds"),
        "{}",
        status.text()
    );
}

#[test]
fn what_was_done_in_an_emergency_is_said() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world.change(|state| state.audit_at_boot = true);
    let status = || Status::measure(&mut world.enforcer(state.path()), true).unwrap();
    let arm = || {
        world
            .enforcer(state.path())
            .arm(request(policy(1, "enforce", "tool")))
    };
    arm().unwrap();
    assert!(
        status()
            .headline
            .starts_with("Audit only, because the kernel's command line says bpfseal=audit: "),
        "{}",
        status().headline
    );
    assert_eq!(status().permits_used, 0);
    world.change(|state| state.audit_at_boot = false);
    arm().unwrap();
    let permit = fake::permit(policy::permit::Action::Audit, 1);
    let mut request = request(policy(2, "enforce", "tool"));
    (request.audit_only, request.permit) = (true, Some(permit));
    world.enforcer(state.path()).arm(request).unwrap();
    assert!(
        status()
            .headline
            .starts_with("Audit only, because `--audit-only` was asked for")
    );
    assert_eq!(status().permits_used, 1);
    assert!(status().text().contains("1 used since arming"));
}

#[test]
fn a_policy_that_was_not_taken_is_said() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world
        .enforcer(state.path())
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap();
    std::fs::write(state.path().join("policy.toml"), "version = 2").unwrap();
    let status = Status::measure(&mut world.enforcer(state.path()), true).unwrap();
    assert!(status.enforcing);
    let why = status.policy.unwrap().on_disk.unwrap();
    assert!(
        why.starts_with("E701 bad-authority: the policy was changed"),
        "{why}"
    );
}

#[test]
fn strict_does_not_say_enforcing_while_anything_unjudged_remains() {
    let own = || loaded(1, 29, Some(Class::Before));
    let table = [
        (
            vec![own()],
            true,
            "Enforcing: unsigned BPF programs are refused, one was just now; left open by the policy: unsigned_modules",
        ),
        (
            vec![
                own(),
                loaded(2, 5, Some(Class::Signed)),
                loaded(3, 15, Some(Class::Shape)),
            ],
            true,
            "Enforcing: unsigned BPF programs are refused, one was just now; left open by the policy: unsigned_modules",
        ),
        (
            vec![own(), loaded(2, 5, Some(Class::Before))],
            false,
            "NOT enforcing strictly: 1 program that nobody judged is in the kernel: tracepoint 2 \"old\" (`inventory` lists all)",
        ),
        (
            vec![loaded(2, 31, Some(Class::Before)), loaded(3, 5, None)],
            false,
            "NOT enforcing strictly: 2 programs that nobody judged are in the kernel: syscall 2 \"old\", tracepoint 3 \"old\" (`inventory` lists all)",
        ),
        (
            vec![loaded(2, 5, Some(Class::Audited))],
            false,
            "NOT enforcing strictly: 1 program that nobody judged is in the kernel: tracepoint 2 \"old\" (`inventory` lists all)",
        ),
    ];
    for (programs, enforcing, want) in table {
        let (world, state) = (World::new(), tempfile::tempdir().unwrap());
        world.enforcer(state.path()).arm(strict(1)).unwrap();
        world.change(|state| state.loaded = programs);
        let status = Status::measure(&mut world.enforcer(state.path()), true).unwrap();
        assert_eq!(
            (status.enforcing, status.headline.as_str()),
            (enforcing, want)
        );
    }
}

#[test]
fn who_may_answer_before_the_gate_is_said() {
    let first = |class| Loaded {
        instead_at: Some("security_bpf_prog".to_owned()),
        ..loaded(7, 26, class)
    };
    let line = "NOT enforcing: tracing 7 \"old\" may answer at security_bpf_prog before the gate is asked, and nobody \
                judged it: end whoever holds it, or load it from a signed bundle (`inventory` lists all)";
    let classes = [Class::Before, Class::Audited, Class::Generated].map(Some);
    for class in classes.into_iter().chain([None]) {
        let (world, state) = (World::new(), tempfile::tempdir().unwrap());
        world.change(|state| state.loaded = vec![first(class)]);
        let mut enforcer = world.enforcer(state.path());
        let policy = fake::signed(fake::authority(), &fake::policy_text(1, "enforce", "tool"));
        let arming = enforcer.arm(request(policy)).unwrap();
        assert_eq!(arming.text().lines().next(), Some(line));
        let status = Status::measure(&mut enforcer, true).unwrap();
        assert_eq!((status.enforcing, status.headline.as_str()), (false, line));
        let said = enforcer.take_fresh();
        let in_force = "arming: armed, NOT enforcing, policy version 1";
        assert!(
            said.iter().any(|record| record.line().ends_with(in_force)),
            "{said:?}"
        );
    }
}

#[test]
fn a_program_of_the_gate_that_is_not_on_its_hook_is_said() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world.change(|state| state.taken = vec!["guard_trace".to_owned()]);
    let mut enforcer = world.enforcer(state.path());
    let policy = fake::signed(fake::authority(), &fake::policy_text(1, "enforce", "tool"));
    enforcer.arm(request(policy)).unwrap();
    let status = Status::measure(&mut enforcer, true).unwrap();
    let line = "NOT enforcing: somebody took programs of the gate off their hooks: guard_trace;";
    assert!(
        !status.enforcing && status.headline.starts_with(line),
        "{}",
        status.headline
    );
}

#[test]
fn whatever_arms_says_of_strict_what_status_says() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world.change(|state| state.loaded = vec![loaded(7, 5, Some(Class::Before))]);
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let falls_short = "NOT enforcing strictly: 1 program that nobody judged is in the kernel: tracepoint 7 \"old\" \
                       (`inventory` lists all)";
    let mut enforcer = world.enforcer(state.path());
    let provisional = ArmRequest {
        confirm_within: Some(std::time::Duration::from_secs(60)),
        ..strict(1)
    };
    let arming = enforcer.arm(provisional).unwrap();
    assert!(
        arming.text().contains("1 from before arming\n"),
        "{}",
        arming.text()
    );
    let json = serde_json::to_value(&arming).unwrap();
    assert_eq!(
        (&json["mode"], &json["strict"], &json["falls_short"]),
        (&"enforce".into(), &true.into(), &falls_short.into())
    );
    let confirmed = enforcer.confirm().unwrap();
    assert_eq!(confirmed.text(), format!("Confirmed: {falls_short}"));
    let reloaded = enforcer.reload(None).unwrap();
    for text in [arming.text(), reloaded.text()] {
        assert_eq!(first_line(text), falls_short);
    }
    assert_eq!(headline(&world, state.path()), falls_short);
    let said = enforcer.take_fresh();
    let in_force = "policy: version 1 is in force, NOT enforcing strictly";
    assert!(
        said.iter().any(|record| record.line().ends_with(in_force)),
        "{said:?}"
    );

    // Without such programs, and without `strict`, it enforces.
    let lenient = enforcer.arm(request(policy(2, "enforce", "tool"))).unwrap();
    world.change(|state| state.loaded.clear());
    let clean = enforcer.arm(strict(3)).unwrap();
    for text in [lenient.text(), clean.text()] {
        assert_eq!(first_line(text), "Enforcing, with the new policy.");
    }
}

#[test]
fn loaders_from_before_are_named_loudly() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    world.change(|state| state.loaded = vec![loaded(7, 31, Some(Class::Before))]);
    let mut enforcer = world.enforcer(state.path());
    let arming = enforcer.arm(request(policy(1, "enforce", "tool"))).unwrap();
    let warning = "programs that can load programs (type syscall) are in the kernel and nobody judged them: syscall 7 \"old\"";
    let alarm = format!("ALARM: programs: {warning}");
    let said = enforcer.take_fresh();
    assert!(
        said.iter().any(|record| record.line().ends_with(&alarm)),
        "{said:?}"
    );
    let status = Status::measure(&mut enforcer, true).unwrap();
    assert!(status.enforcing);
    assert_eq!(status.warnings, [warning]);
    assert_eq!(arming.standing.warnings, status.warnings);
    let line = format!("\n  WARNING      {warning}\n");
    for text in [status.text(), arming.text()] {
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn each_gate_is_told_with_its_programs() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    let mut enforcer = world.enforcer(state.path());
    let gates = |enforcer: &mut Enforcer| -> Vec<_> {
        let status = Status::measure(enforcer, true).unwrap();
        status
            .gates
            .into_iter()
            .map(|gate| (gate.number, gate.hooks.join(" ")))
            .collect()
    };
    let none = [1, 2, 3, 0].map(|number| (number, String::new()));
    assert_eq!(gates(&mut enforcer), none);
    enforcer.arm(request(policy(1, "enforce", "tool"))).unwrap();
    let want = [
        (1, "gate1_load"),
        (2, "gate2_prog"),
        (3, "gate_bpf"),
        (0, "guard_map"),
    ];
    assert_eq!(
        gates(&mut enforcer),
        want.map(|(number, hooks)| (number, hooks.to_owned()))
    );
}

#[test]
fn what_no_gate_covers_is_said_on_every_kernel() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    let status = Status::measure(&mut world.enforcer(state.path()), false).unwrap();
    assert_eq!(status.not_covered, NOT_COVERED);
    assert_eq!(status.protect, None);
    assert!(
        status
            .not_covered
            .iter()
            .any(|limit| limit.starts_with("the kernel's own memory"))
    );
}

#[test]
fn ways_into_kernel_memory_that_the_policy_leaves_open_are_said() {
    let (world, state) = (World::new(), tempfile::tempdir().unwrap());
    let text = fake::policy_text(1, "enforce", "tool") + "[protect]\nkexec = false\n";
    let document = fake::signed(fake::authority(), &text);
    let mut enforcer = world.enforcer(state.path());
    enforcer.arm(request(document)).unwrap();
    let status = Status::measure(&mut enforcer, true).unwrap();
    let protect = status.protect.clone().unwrap();
    let open: Vec<&str> = protect
        .iter()
        .filter(|(_, closed)| !**closed)
        .map(|(word, _)| word.as_str())
        .collect();
    assert_eq!(open, ["kexec", "unsigned_modules"]);
    assert_eq!(
        status.not_covered[NOT_COVERED.len()..],
        [
            "modules without a valid signature: left open by the policy (`unsigned_modules` in [protect])",
            "another kernel by kexec: left open by the policy (`kexec` in [protect])",
        ]
    );
    assert!(
        status
            .text()
            .contains("closed ways  acpi_tables, debugger, dev_mem"),
        "{}",
        status.text()
    );
}
