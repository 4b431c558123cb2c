//! Programs that are no longer attached, and may be about to run all the same.
//!
//! The kernel lets go of a program when its link does, and frees it a grace period of RCU later. A thread that was
//! interrupted in the trampoline of a hook, before the lines there that begin a read-side critical section, holds up
//! no such period: it goes on in memory that is free, or another program's (kernel/bpf/trampoline.c,
//! `bpf_tramp_image_put`: only the trampoline itself waits for RCU-tasks). That takes a kernel that lets itself be
//! interrupted (`preempt=full` or `lazy`) and another program on the same hook, and ends in an oops. So programs
//! outlive their links here by far more than such a thread can take.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use libbpf_rs::{Link, ProgramHandle};

use super::{BpfGate, other};
use crate::kernel::keeper::Keeper;

/// Names of pins of such programs, followed by the program's id.
const KEPT: &str = "kept_";

/// The kernel complains of threads that hold RCU-tasks up for so long.
const LONG_ENOUGH: Duration = Duration::from_mins(10);

impl BpfGate {
    /// The pinned links of a kind.
    pub(super) fn links_of(&self, kind: &str) -> io::Result<Vec<Link>> {
        let paths = self.pinned(kind)?.into_values();
        // Somebody else may have put something else there.
        Ok(paths.filter_map(|path| Link::open(path).ok()).collect())
    }

    /// The programs of the pinned links of a kind.
    pub(super) fn programs_of(&self, kind: &str) -> io::Result<Vec<ProgramHandle>> {
        let mut programs = Vec::new();
        for link in self.links_of(kind)? {
            // What is none has another number in that place.
            let Ok(link) = link.info() else {
                continue;
            };
            match ProgramHandle::from_prog_id(link.prog_id) {
                Ok(program) => programs.push(program),
                Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => {}
                Err(error) => return Err(other(error)),
            }
        }
        Ok(programs)
    }

    /// Has pins of these links removed, of which no task lets go that somebody can kill meanwhile.
    pub(super) fn part(
        &self,
        kind: &str,
        remove: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let links = self.links_of(kind)?;
        let _until_the_pins_are_gone = Keeper::of(&links)?;
        drop(links);
        remove()
    }

    /// Keeps these programs by pins of their own.
    pub(super) fn keep_programs_of(&self, kind: &str) -> io::Result<()> {
        let kept = self.kept_programs()?;
        for program in self.programs_of(kind)? {
            if !kept.contains_key(&program.id()) {
                let path = self.pins.pin(&format!("{KEPT}{}", program.id()));
                program.pin(path).map_err(other)?;
            }
        }
        Ok(())
    }

    /// Pins of programs that are kept, by their id.
    pub(super) fn kept_programs(&self) -> io::Result<BTreeMap<u32, PathBuf>> {
        let pins = self.pinned(KEPT)?.into_iter();
        Ok(pins
            .filter_map(|(id, path)| Some((id.parse().ok()?, path)))
            .collect())
    }

    /// Lets go of programs that were kept for long enough.
    pub(super) fn let_go(&self) -> io::Result<()> {
        let mut gone = Vec::new();
        for path in self.kept_programs()?.into_values() {
            // What is no file somebody else has put there.
            let Ok(found) = fs::symlink_metadata(&path) else {
                continue;
            };
            let age = SystemTime::now().duration_since(found.modified()?);
            let is_over = age.is_ok_and(|age| age >= LONG_ENOUGH);
            gone.extend((found.is_file() && is_over).then_some(path));
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.changing_pins(&|| gone.iter().try_for_each(fs::remove_file))
    }
}
