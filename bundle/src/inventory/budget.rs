//! How much work and memory one object may cost, however it is built.

use crate::malformed::{At, MalformedObject};

/// What is left to spend on one object.
///
/// A few bytes of a file can ask for a lot: fifty thousand symbols that share one long
/// name, functions that overlap, a call graph in which everything reaches everything. So
/// every string that enters the inventory and every step of work is paid for here.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    steps: usize,
}

impl Budget {
    /// The budget of one object.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: MAX_BYTES,
            steps: MAX_STEPS,
        }
    }

    /// Pays for `bytes` bytes of memory.
    pub(crate) fn hold(&mut self, bytes: usize, at: At<'_>) -> Result<(), MalformedObject> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => {
                let spent = MAX_BYTES - self.bytes;
                let got = (spent + bytes) as u64;
                Err(at.limit("the inventory's size in bytes", MAX_BYTES as u64, got))
            }
        }
    }

    /// Pays for `steps` steps of work, about ten nanoseconds each.
    pub(crate) fn work(&mut self, steps: usize, at: At<'_>) -> Result<(), MalformedObject> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                let got = (MAX_STEPS - self.steps).saturating_add(steps) as u64;
                Err(at.limit("the work to read it, in steps,", MAX_STEPS as u64, got))
            }
        }
    }

    /// Pays for a copy of `text` and makes it.
    pub(crate) fn text(&mut self, text: &str, at: At<'_>) -> Result<String, MalformedObject> {
        self.hold(text.len() + size_of::<String>(), at)?;
        Ok(text.to_owned())
    }
}

/// Most memory that one object's inventory takes: the largest object seen, with 500
/// programs, takes under 1 MiB; 200 MB is what the whole process may use.
const MAX_BYTES: usize = 24 << 20;

/// Most steps: an object of 64 MiB has 8 Mi instructions and as many relocations.
const MAX_STEPS: usize = 1 << 26;
