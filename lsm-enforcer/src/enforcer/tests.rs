//! Every path that must refuse, and every restart that must change nothing.

mod authority;
mod exceptions;
mod explanation;
mod generators;
mod hold;
mod modules;
mod probes;
mod prove;
mod provisional;
mod revocation;
mod selftest;
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
fn who_could_be_held_by_somebody_does_not_arm() {
    let scene = Scene::new();
    scene.world.change(|state| state.is_traced = true);
    let result = scene.start().arm(request(policy(1, "enforce", "tool")));
    assert_eq!(reason(result), Some(Reason::CannotEnforce));
    assert_eq!(scene.mode(), None);
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
