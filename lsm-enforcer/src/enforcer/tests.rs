//! Every path that must refuse, and every restart that must change nothing.

mod authority;
mod exceptions;
mod explanation;
mod generators;
mod hold;
mod modules;
mod probes;
mod prove;
mod revocation;
mod strays;
mod upgrade;

use std::time::Duration;

use ::policy::{Reason, permit::Action};
use tempfile::TempDir;

use super::*;
use crate::{
    fake::{self, World, permit, permit_by, policy, policy_by, request},
    gate::Mode,
    host::Obstacle,
};

const TOOL: &[u8] = b"name=tool version=1.4 programs=open,close";

struct Scene {
    world: World,
    state: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            world: World::new(),
            state: tempfile::tempdir().unwrap(),
        }
    }

    /// Armed and enforcing, policy version 3, `tool` admitted.
    fn armed() -> Self {
        let scene = Self::new();
        let mut enforcer = scene.start();
        enforcer.arm(request(policy(3, "enforce", "tool"))).unwrap();
        enforcer.admit(TOOL, None).unwrap();
        scene
    }

    fn start(&self) -> Enforcer {
        self.world.enforcer(self.state.path())
    }

    fn mode(&self) -> Option<Mode> {
        self.world
            .change(|state| state.armed.as_ref().map(|armed| armed.mode))
    }

    /// The mode, that many seconds later.
    fn assert_mode_after(&self, seconds: u64, mode: Mode) {
        self.world.change(|state| state.since_boot += seconds);
        self.start().settle().unwrap();
        assert_eq!(self.mode(), Some(mode));
    }

    fn edit(&self, name: &str, text: &str) {
        std::fs::write(self.state.path().join(name), text).unwrap();
    }

    /// The gate refuses what nobody signed and admits what was.
    fn assert_shut(&self) {
        assert_eq!(self.mode(), Some(Mode::Enforce));
        assert!(!self.world.load("evil"));
        assert!(self.world.load("open"));
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Failure>) -> Option<Reason> {
    result.unwrap_err().reason
}

#[test]
fn an_unsigned_load_succeeds_before_arming_and_is_refused_after() {
    let scene = Scene::new();
    assert!(scene.world.load("evil"));
    scene
        .start()
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap();
    assert!(!scene.world.load("evil"));
}

#[test]
fn everything_is_pinned_in_audit_before_it_enforces() {
    let scene = Scene::armed();
    let history = scene.world.change(|state| state.history.clone());
    // The probe and libvirt's filter are there from the first moment, the bundle's two programs at
    // the end.
    assert_eq!(
        history,
        [
            (Mode::Audit, 3, 2),
            (Mode::Enforce, 3, 2),
            (Mode::Enforce, 3, 4)
        ]
    );
}

#[test]
fn a_kernel_that_cannot_enforce_is_not_armed() {
    let obstacle = Obstacle {
        what: "\"bpf\" is missing from the active security modules (yama)".to_owned(),
        remedy: "Boot with `lsm=yama,bpf` on the kernel's command line.".to_owned(),
    };
    let scene = Scene::new();
    scene
        .world
        .change(|state| state.obstacles = vec![obstacle.clone()]);
    let failure = scene
        .start()
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap_err();
    assert_eq!(failure.exit as u8, 5);
    assert_eq!(
        (failure.reason, failure.message),
        (Some(Reason::CannotEnforce), obstacle.what)
    );
    assert_eq!(failure.remedy, Some(obstacle.remedy));
    assert_eq!(scene.mode(), None);
    assert_eq!(scene.start().store().intent().unwrap(), None);
}

#[test]
fn a_missing_hook_is_named() {
    let scene = Scene::new();
    scene
        .world
        .change(|state| state.missing = vec!["the hook bpf_prog is not there".to_owned()]);
    let failure = scene
        .start()
        .arm(request(policy(1, "enforce", "tool")))
        .unwrap_err();
    assert_eq!(failure.message, "the hook bpf_prog is not there");
    let status = crate::status::Status::measure(&mut scene.start(), false).unwrap();
    assert_eq!(
        status.headline,
        "NOT enforcing: the gate is not armed, and cannot be: the hook bpf_prog is not there"
    );
}

#[test]
fn a_gate_that_does_not_bite_is_taken_away_again() {
    for mode in ["enforce", "audit"] {
        let scene = Scene::new();
        scene.world.change(|state| state.toothless = true);
        let result = scene.start().arm(request(policy(1, mode, "tool")));
        assert_eq!(reason(result), Some(Reason::CannotEnforce));
        assert_eq!(scene.mode(), None);
    }
}

#[test]
fn audit_is_spelled_out_and_says_why() {
    let cases: [(&str, bool, bool, Option<&str>); 4] = [
        ("enforce", false, false, None),
        ("enforce", true, false, Some("--audit-only")),
        (
            "audit",
            false,
            false,
            Some("the policy says mode = \"audit\""),
        ),
        (
            "enforce",
            false,
            true,
            Some("the kernel's command line says bpfseal=audit"),
        ),
    ];
    for (mode, audit_only, audit_at_boot, want) in cases {
        let scene = Scene::new();
        scene
            .world
            .change(|state| state.audit_at_boot = audit_at_boot);
        let request = ArmRequest {
            audit_only,
            ..request(policy(1, mode, "tool"))
        };
        let arming = scene.start().arm(request).unwrap();
        assert_eq!(arming.why_audit.as_deref(), want);
        assert_eq!(scene.world.load("evil"), want.is_some());
    }
}

#[test]
fn a_restart_takes_over_without_a_window() {
    let scene = Scene::armed();
    let before = scene.world.change(|state| state.history.len());
    let mut enforcer = scene.start();
    let arming = enforcer.take_over().unwrap().unwrap();
    assert_eq!((arming.first, arming.mode), (false, Mode::Enforce));
    let history = scene.world.change(|state| state.history.split_off(before));
    assert_eq!(history, [(Mode::Enforce, 3, 4)]);
    scene.assert_shut();
}

#[test]
fn a_boot_arms_as_the_state_folder_says() {
    let scene = Scene::armed();
    scene.world.change(|state| {
        state.armed = None;
        state.admissions = Default::default();
        state.since_boot = 5;
    });
    let arming = scene.start().take_over().unwrap().unwrap();
    assert_eq!((arming.first, arming.mode), (true, Mode::Enforce));
    scene.assert_shut();
}

#[test]
fn a_boot_with_an_edited_policy_does_not_pretend() {
    let scene = Scene::armed();
    scene.world.change(|state| state.armed = None);
    scene.edit("policy.toml", &fake::policy_text(4, "enforce", "*"));
    assert_eq!(
        reason(scene.start().take_over()),
        Some(Reason::BadAuthority)
    );
    assert_eq!(scene.mode(), None);
}

#[test]
fn a_crash_between_store_and_gate_is_made_good() {
    let scene = Scene::armed();
    let store = scene.start().store().clone();
    let bytes = b"name=tool version=1.5 programs=stat";
    store.put_bundle(&Digest::of(bytes), None, bytes).unwrap();
    assert!(!scene.world.load("stat"));
    scene.start().take_over().unwrap();
    assert!(scene.world.load("stat"));
    // And the other way round: withdrawn from the store, still in the gate.
    store.remove_bundle(&Digest::of(bytes)).unwrap();
    scene.start().take_over().unwrap();
    assert!(!scene.world.load("stat"));
    scene.assert_shut();
}

#[test]
fn a_bundle_that_the_gate_did_not_take_is_not_stored() {
    let scene = Scene::armed();
    scene.world.change(|state| state.replace_fails = true);
    let failure = scene
        .start()
        .admit(b"name=tool version=1.5 programs=stat", None)
        .unwrap_err();
    assert_eq!(failure.exit as u8, 5);
    assert_eq!(scene.start().store().bundles().unwrap().len(), 1);
    scene.assert_shut();
}

#[test]
fn a_new_policy_decides_everything_anew_and_swaps_once() {
    let scene = Scene::armed();
    let before = scene.world.change(|state| state.history.len());
    let arming = scene
        .start()
        .arm(request(policy(4, "enforce", "other")))
        .unwrap();
    let digest = Digest::of(TOOL);
    assert_eq!(
        arming.bundles,
        Redecided {
            admitted: vec![],
            refused: vec![(digest, "E301 no-rule: no rule covers \"tool\"".to_owned())],
        }
    );
    let history = scene.world.change(|state| state.history.split_off(before));
    assert_eq!(history, [(Mode::Enforce, 4, 2)]);
    assert!(!scene.world.load("open"));
    // The bundle stays in the store; a policy that names it again brings it back.
    scene
        .start()
        .arm(request(policy(5, "enforce", "tool")))
        .unwrap();
    scene.assert_shut();
}

#[test]
fn each_program_is_told_apart() {
    let scene = Scene::armed();
    let admission = scene
        .start()
        .admit(b"name=tool version=1.5 programs=stat,unmeasurable", None)
        .unwrap();
    assert_eq!(
        admission.programs,
        [
            Outcome {
                program: "stat".to_owned(),
                admitted: true,
                insns: Some(2),
                layouts: 1,
                unchecked: None,
                digest: Some(fake::image("stat").digest()),
                why: None
            },
            Outcome {
                program: "unmeasurable".to_owned(),
                admitted: false,
                insns: None,
                layouts: 0,
                unchecked: None,
                digest: None,
                why: Some("no such function in this kernel".to_owned()),
            },
        ]
    );
    let failure = scene
        .start()
        .admit(b"name=tool version=1.6 programs=unmeasurable", None)
        .unwrap_err();
    assert_eq!(failure.exit as u8, 5);
}

#[test]
fn a_packages_version_never_falls_back() {
    let scene = Scene::armed();
    let old = b"name=tool version=1.3 programs=open";
    assert_eq!(
        reason(scene.start().admit(old, None)),
        Some(Reason::MinVersion)
    );
    scene.start().withdraw("tool").unwrap();
    assert_eq!(
        reason(scene.start().admit(old, None)),
        Some(Reason::MinVersion)
    );
    scene.start().admit(TOOL, None).unwrap();
}

#[test]
fn an_old_state_folder_brings_no_old_version_back() {
    let scene = Scene::new();
    scene
        .start()
        .arm(request(policy(3, "enforce", "tool")))
        .unwrap();
    let old = b"name=tool version=1.3 programs=old";
    scene.start().admit(old, None).unwrap();
    let (then, now) = (tempfile::tempdir().unwrap(), scene.state.path());
    copy(now, then.path());
    scene.start().admit(TOOL, None).unwrap();
    scene
        .start()
        .withdraw(&Digest::of(old).to_string())
        .unwrap();
    assert!(!scene.world.load("old"));
    // The folder of yesterday, and a daemon that starts on it.
    std::fs::remove_dir_all(now).unwrap();
    copy(then.path(), now);
    let mut enforcer = scene.start();
    enforcer.take_over().unwrap().unwrap();
    assert!(!scene.world.load("old"));
    assert_eq!(
        enforcer.rejected()[0].failure.reason,
        Some(Reason::MinVersion)
    );
    assert_eq!(reason(enforcer.admit(old, None)), Some(Reason::MinVersion));
    enforcer.admit(TOOL, None).unwrap();
    scene.assert_shut();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_refused_bundle_leaves_no_trace() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    assert_eq!(
        reason(enforcer.admit(b"name=evil programs=evil", None)),
        Some(Reason::NoRule)
    );
    assert_eq!(
        reason(enforcer.admit(b"rubbish", None)),
        Some(Reason::MalformedBundle)
    );
    assert_eq!(enforcer.store().bundles().unwrap().len(), 1);
    scene.assert_shut();
}

#[test]
fn a_withdrawn_bundle_is_refused() {
    let scene = Scene::armed();
    let digest = Digest::of(TOOL);
    for what in ["tool", &digest.to_string(), &digest.to_hex()[..12]] {
        scene.start().admit(TOOL, None).unwrap();
        assert!(scene.world.load("open"));
        assert_eq!(scene.start().withdraw(what).unwrap(), [digest]);
        assert!(!scene.world.load("open"));
    }
    let failure = scene.start().withdraw("tool").unwrap_err();
    assert_eq!(failure.exit as u8, 3);
}

#[test]
fn an_arming_that_nobody_confirms_falls_back_to_audit() {
    let provisional = ArmRequest {
        confirm_within: Some(Duration::from_secs(600)),
        ..request(policy(1, "enforce", "tool"))
    };
    let scene = Scene::new();
    scene.start().arm(provisional.clone()).unwrap();
    scene.world.change(|state| state.since_boot += 599);
    assert!(!scene.start().settle().unwrap());
    assert_eq!(scene.mode(), Some(Mode::Enforce));
    scene.world.change(|state| state.since_boot += 1);
    assert!(scene.start().settle().unwrap());
    assert_eq!(scene.mode(), Some(Mode::Audit));
    // Neither a restart nor a boot enforces what nobody confirmed.
    let restart = |scene: &Scene| {
        scene.start().take_over().unwrap().unwrap();
        scene.mode()
    };
    let boot = |scene: &Scene| {
        scene.world.change(|state| state.armed = None);
        restart(scene)
    };
    assert_eq!(restart(&scene), Some(Mode::Audit));
    assert_eq!(boot(&scene), Some(Mode::Audit));

    // Nor do they within the time.
    let scene = Scene::new();
    scene.start().arm(provisional.clone()).unwrap();
    assert_eq!(restart(&scene), Some(Mode::Enforce));
    assert_eq!(boot(&scene), Some(Mode::Audit));

    let scene = Scene::new();
    scene.start().arm(provisional.clone()).unwrap();
    scene.start().confirm().unwrap();
    assert_eq!(boot(&scene), Some(Mode::Enforce));
    scene.world.change(|state| state.since_boot += 10_000);
    assert!(!scene.start().settle().unwrap());
    assert_eq!(scene.mode(), Some(Mode::Enforce));
    assert_eq!(scene.start().confirm().unwrap_err().exit as u8, 2);
    // A gate that enforces cannot be made provisional: that would be audit without a permit.
    assert_eq!(scene.start().arm(provisional).unwrap_err().exit as u8, 2);
    scene.assert_mode_after(10_000, Mode::Enforce);
}

#[test]
fn enforcing_after_audit_can_be_provisional() {
    // However it came to audit.
    let by_flag = ArmRequest {
        audit_only: true,
        ..request(policy(1, "enforce", "tool"))
    };
    let by_policy = request(policy(1, "audit", "tool"));
    let provisional = || ArmRequest {
        confirm_within: Some(Duration::from_secs(600)),
        ..request(policy(2, "enforce", "tool"))
    };
    let boot = |scene: &Scene| {
        scene.world.change(|state| state.armed = None);
        scene.start().take_over().unwrap().unwrap().mode
    };
    for audit in [by_flag, by_policy] {
        let scene = || {
            let scene = Scene::new();
            scene.start().arm(audit.clone()).unwrap();
            let arming = scene.start().arm(provisional()).unwrap();
            assert_eq!(
                (arming.mode, arming.confirm_within_seconds),
                (Mode::Enforce, Some(600))
            );
            assert!(!scene.world.load("evil"));
            scene
        };
        // Nobody confirms: neither a restart within the time nor one after it makes it final.
        let late = scene();
        assert_eq!(
            late.start().take_over().unwrap().unwrap().mode,
            Mode::Enforce
        );
        late.assert_mode_after(599, Mode::Enforce);
        late.assert_mode_after(1, Mode::Audit);
        assert!(late.world.load("evil"));
        assert_eq!(late.start().take_over().unwrap().unwrap().mode, Mode::Audit);
        assert_eq!(boot(&late), Mode::Audit);
        // Nor does a boot within the time.
        assert_eq!(boot(&scene()), Mode::Audit);
        // Somebody does.
        let confirmed = scene();
        confirmed.start().confirm().unwrap();
        confirmed.assert_mode_after(10_000, Mode::Enforce);
        assert_eq!(boot(&confirmed), Mode::Enforce);
    }
}

#[test]
fn enforcing_that_could_not_begin_leaves_nothing_to_confirm() {
    let scene = Scene::new();
    scene
        .start()
        .arm(request(policy(1, "audit", "tool")))
        .unwrap();
    let provisional = ArmRequest {
        confirm_within: Some(Duration::from_secs(600)),
        ..request(policy(2, "enforce", "tool"))
    };
    scene.world.change(|state| state.toothless = true);
    assert_eq!(
        reason(scene.start().arm(provisional.clone())),
        Some(Reason::CannotEnforce)
    );
    let armed = scene.world.change(|state| state.armed.clone()).unwrap();
    assert_eq!((armed.mode, armed.confirm_by), (Mode::Audit, None));
    // What stays in audit is not told as provisional.
    scene.world.change(|state| state.toothless = false);
    scene.world.change(|state| state.audit_at_boot = true);
    let arming = scene.start().arm(provisional).unwrap();
    assert_eq!(
        (arming.mode, arming.confirm_within_seconds),
        (Mode::Audit, None)
    );
    assert_eq!(scene.start().confirm().unwrap_err().exit as u8, 2);
    // Nor does the next boot enforce it.
    scene.world.change(|state| {
        state.audit_at_boot = false;
        state.armed = None;
    });
    let arming = scene.start().take_over().unwrap().unwrap();
    assert_eq!(arming.mode, Mode::Audit);
}

#[test]
fn the_log_has_what_others_did_and_not_their_loaders_questions() {
    let scene = Scene::armed();
    assert!(!scene.world.load("evil"));
    let mut enforcer = scene.start();
    let probe = Event {
        name: "probe".to_owned(),
        reason: None,
        refused: false,
        class: Some(Class::Probe),
        ..fake::event()
    };
    let own = Event {
        pid: std::process::id(),
        at: Duration::from_secs(86_400),
        ..fake::event()
    };
    // It made an attempt, and then executed the enforcer.
    let before = Event {
        name: "before".to_owned(),
        at: Duration::from_secs(86_399),
        ..own.clone()
    };
    scene
        .world
        .change(|state| state.events.extend([probe, own, before]));
    enforcer.drain(Duration::ZERO).unwrap();
    let names: Vec<String> = enforcer
        .journal()
        .read(None)
        .unwrap()
        .into_iter()
        .filter_map(|record| match record {
            Record::Attempt(attempt) => Some(attempt.name),
            Record::Notice(_) => None,
        })
        .collect();
    assert_eq!(names, ["evil", "before"]);
}

#[test]
fn the_watchdog_raises_the_alarm() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    assert!(enforcer.watch().unwrap());
    assert_eq!(scene.world.change(|state| state.sweeps), 1);
    scene.world.change(|state| state.toothless = true);
    assert!(!enforcer.watch().unwrap());
    assert!(!enforcer.last_selftest().unwrap().proves());
    let last = enforcer.take_fresh().pop().unwrap();
    assert!(
        last.line().ends_with(
            "ALARM: gate: NOT enforcing: an unsigned program is refused failed: it loaded"
        ),
        "{}",
        last.line()
    );
}

#[test]
fn the_self_test_proves_refusal_and_shapes() {
    let scene = Scene::armed();
    let checks: Vec<_> = scene
        .start()
        .selftest()
        .unwrap()
        .checks
        .into_iter()
        .map(|check| (check.name, check.passed))
        .collect();
    assert_eq!(
        checks,
        [
            ("an unsigned program is refused".to_owned(), true),
            ("systemd's device filter probe loads".to_owned(), true),
            ("runc's device filter loads".to_owned(), true),
            ("crun's device filter loads".to_owned(), true),
        ]
    );
}

#[test]
fn the_self_test_tries_the_ways_into_kernel_memory() {
    use policy::protect::Switch;
    let scene = Scene::armed();
    scene.world.change(|state| {
        state.ways = [
            (Switch::UnsignedModules, fake::Way::Guarded),
            (Switch::Kexec, fake::Way::Guarded),
            (Switch::DevMem, fake::Way::NoRight),
            (Switch::IoPorts, fake::Way::Absent),
            (Switch::Kcore, fake::Way::Open),
        ]
        .into();
    });
    let test = scene.start().selftest().unwrap();
    let tried: Vec<_> = test.checks[4..]
        .iter()
        .map(|check| (check.name.as_str(), check.passed, check.detail.as_str()))
        .collect();
    let no_right = "not proved: this process has not the rights with which it would be tried";
    // Unsigned modules are open unless the policy closes them.
    assert_eq!(
        tried,
        [
            ("kexec is closed", true, "EPERM"),
            ("dev_mem is closed", true, no_right),
            ("io_ports is closed", true, "this kernel has none"),
            ("kcore is closed", false, "it is open"),
        ]
    );
    assert!(test.proves());
    let failure = test.failure().unwrap();
    assert_eq!(
        (failure.exit as u8, failure.message.as_str()),
        (5, "the self test failed: kcore is closed: it is open")
    );
}

#[test]
fn a_self_test_fails_for_whatever_failed() {
    let scene = Scene::new();
    let text = fake::policy_text(1, "enforce", "tool").replace("mode =", "shape = []\nmode =");
    let arm = request(fake::signed(fake::authority(), &text));
    let mut enforcer = scene.start();
    enforcer.arm(arm).unwrap();
    let test = enforcer.selftest().unwrap();
    assert!(test.proves());
    let failure = test.failure().unwrap();
    assert_eq!(
        (failure.exit as u8, failure.reason),
        (5, Some(Reason::CannotEnforce))
    );
    assert_eq!(
        failure.message,
        "the self test failed: systemd's device filter probe loads: it is refused: units and containers would run \
         without their device policy, and 2 more"
    );
    let armed = Scene::armed();
    assert_eq!(armed.start().selftest().unwrap().failure(), None);
}

#[test]
fn commands_for_an_unarmed_gate_say_so() {
    let scene = Scene::new();
    let mut enforcer = scene.start();
    for failure in [
        enforcer.admit(TOOL, None).unwrap_err(),
        enforcer.withdraw("tool").unwrap_err(),
        enforcer.reload(None).unwrap_err(),
        enforcer.confirm().unwrap_err(),
        enforcer.disarm(None, None).unwrap_err(),
    ] {
        assert_eq!(
            (failure.exit as u8, failure.message.as_str()),
            (3, "the gate is not armed")
        );
    }
}

#[test]
fn what_would_not_load_on_another_kernel_is_said() {
    let scene = Scene::armed();
    let mut enforcer = scene.start();
    let here = enforcer
        .preflight(std::path::Path::new("/boot/another"))
        .unwrap();
    assert!(here.ready);
    let there = enforcer
        .preflight(std::path::Path::new("/boot/close"))
        .unwrap();
    let told: Vec<_> = there
        .programs
        .iter()
        .map(|p| (p.program.as_str(), p.here, p.there, p.why.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("open", true, true, None),
            (
                "close",
                true,
                false,
                Some("no such function in that kernel")
            ),
        ]
    );
    assert!(!there.ready);
    scene.assert_shut();
}
