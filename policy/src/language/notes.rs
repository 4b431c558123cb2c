//! What a policy may say but probably does not mean.

use serde::Serialize;

use super::Policy;
use crate::{shape::Shape, target::TargetPattern};

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Line, from 1.
    pub line: usize,
    /// One lower-case clause.
    pub message: String,
}

/// Notes in the order of the file.
pub(super) fn of(policy: &Policy) -> Vec<Note> {
    let mut notes = Vec::new();
    if policy.rules.is_empty() {
        notes.push(note(1, "no [[rule]]: every bundle is refused".to_owned()));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let earlier = policy.rules[..index]
            .iter()
            .find(|earlier| earlier.scope.includes(&rule.scope));
        if let Some(earlier) = earlier {
            let message = format!(
                "rule {:?} is never reached: {} covers its whole scope",
                rule.name,
                earlier.reference()
            );
            notes.push(note(rule.line, message));
        }
        if rule.attach != [TargetPattern::any()] {
            let message = format!(
                "rule {:?}: `attach` is compared when a program is attached to a function, a \
                 tracepoint or a network device; elsewhere such a program is refused",
                rule.name
            );
            notes.push(note(rule.line, message));
        }
    }
    for exception in &policy.exceptions {
        let message = format!(
            "exception {:?}: until {} this bundle needs no signature",
            exception.reason, exception.until
        );
        notes.push(note(exception.line, message));
    }
    for generator in &policy.generators {
        let message = format!(
            "generator {:?}: what it makes is not attested: whoever may run {} chooses the programs",
            generator.name, generator.exe.path
        );
        notes.push(note(generator.line, message));
    }
    for trusted in &policy.kernel_keyrings {
        let message = format!(
            "kernel_keyring {:?}: whatever loader the kernel verifies by the {} keyring may load; \
             what it loads is judged as always",
            trusted.name,
            trusted.keyring.word()
        );
        notes.push(note(trusted.line, message));
    }
    let filters = |shape: &Shape| shape.program_types.contains("cgroup_device");
    if !policy.shapes.iter().any(filters) {
        let message = "no [[shape]] admits cgroup_device: armed with this policy, systemd runs \
                       every unit without its DevicePolicy=";
        let line = policy.shapes.first().map_or(1, |shape| shape.line);
        notes.push(note(line, message.to_owned()));
    }
    for (name, line) in policy.trusted() {
        let is_used = |rule: &crate::rule::Rule| rule.signed_by.of.iter().any(|of| of == name);
        let is_named = policy.probe_signers.iter().any(|signer| signer == name);
        if !is_named && !policy.rules.iter().any(is_used) {
            let what = match policy.keys.contains_key(name) {
                true => "key",
                false => "signer",
            };
            notes.push(note(line, format!("{what} {name:?} is used by no rule")));
        }
    }
    notes.sort_by_key(|note| note.line);
    notes
}

const fn note(line: usize, message: String) -> Note {
    Note { line, message }
}
