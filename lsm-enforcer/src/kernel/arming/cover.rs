//! What the gate sees on this kernel, and what is not as it should be.

use std::fs;

use super::{BpfGate, object};
use crate::{
    gate::{Coverage, Gate as _},
    kernel::{
        ladder::{LAST, Ladder},
        pins::Pins,
        place,
        shared::Guard,
    },
};

/// At 2 the kernel blinds constants of programs that root loads, too.
const JIT_HARDEN: &str = "/proc/sys/net/core/bpf_jit_harden";
/// 1: a kernel is loaded that `reboot` or a crash starts, without asking any hook.
const KEXEC_LOADED: &str = "/sys/kernel/kexec_loaded";
const CRASH_LOADED: &str = "/sys/kernel/kexec_crash_loaded";

impl BpfGate {
    /// Those of another build may be others.
    fn taken(&self, ladder: &Ladder) -> Vec<String> {
        let is_whole = |guard: Guard| guard.complete && guard.build == object::build();
        if !self.guard().is_ok_and(is_whole) {
            return Vec::new();
        }
        let last = LAST.iter().map(|(name, _, _)| name);
        let wanted = object::ORDER
            .iter()
            .chain(last)
            .filter(|name| ladder.has(name));
        match self.hooks() {
            Ok(there) => wanted
                .filter(|name| !there.iter().any(|found| found == *name))
                .map(|&name| name.to_owned())
                .collect(),
            Err(error) => vec![format!("(nobody knows which: {error})")],
        }
    }

    /// For `status`; works unarmed.
    pub(super) fn cover(&self) -> Coverage {
        let ladder = Ladder::detect();
        let mut coverage = ladder.coverage();
        coverage.taken = self.taken(&ladder);
        if let Some(cover) = Pins::find().cover() {
            coverage.warnings.push(format!(
                "somebody mounted something over the gate's pins, at {cover}: the gate holds, and \
                 `umount {cover}` shows them again"
            ));
        }
        let is_loaded = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
        if is_loaded(KEXEC_LOADED) {
            coverage.warnings.push(
                "somebody has loaded a kernel that the next `reboot` may start (kexec), and nobody looks at that: \
                 `kexec -u` unloads it"
                    .into(),
            );
        }
        if is_loaded(CRASH_LOADED) {
            coverage
                .blind
                .push("the kernel that is started when this one crashes (kdump)".into());
        }
        if fs::read_to_string(JIT_HARDEN).is_ok_and(|level| level.trim() == "2") {
            coverage.blind.push(
                "which map each instruction uses, as the kernel blinds constants: loaders with threads \
                 are refused programs with two or more maps and no functions of their own (E411) until \
                 net.core.bpf_jit_harden is 1"
                    .into(),
            );
        }
        let guard = self.guard();
        if guard
            .as_ref()
            .is_ok_and(|guard| guard.build != object::build())
        {
            coverage.warnings.push(
                "the gate's programs are those of another build: they are exchanged when the daemon starts"
                    .into(),
            );
        }
        if guard.is_ok() && !place::is_verified() {
            coverage.blind.push(
                "writes to the disk below the daemon's file, which its file system does not verify (fs-verity \
                 or dm-verity do)"
                    .into(),
            );
        }
        if guard.is_ok() && !place::is_on_root() {
            coverage.blind.push(
                "another device in the place of the one that the daemon's file is on, once that is unmounted, which \
                 the root file system cannot be"
                    .into(),
            );
        }
        if guard.is_ok_and(|guard| !guard.static_exe) {
            coverage.blind.push(
                "libraries that are loaded into the daemon, which is not linked statically".into(),
            );
        }
        coverage
    }
}
