//! How much work and memory one object may cost, however it is built.

use crate::malformed::{At, MalformedObject};

/// What is left to spend.
///
/// A few bytes of a file can ask for a lot: fifty thousand symbols that share one long
/// name, functions that overlap, a call graph in which everything reaches everything. So
/// every string that enters the inventory and every step of work is paid for here.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: Account,
    steps: Account,
}

/// One thing that is limited.
#[derive(Clone, Copy, Debug)]
struct Account {
    limit: u64,
    spent: u64,
}

impl Budget {
    /// What all objects of one file may cost together.
    pub(crate) const fn of_file() -> Self {
        Self {
            bytes: Account::new(MAX_BYTES),
            steps: Account::new(MAX_STEPS),
        }
    }

    /// What an object of `size` bytes may cost, at most what is left of this budget.
    pub(crate) fn of_object(&self, size: usize) -> Self {
        let size = size as u64;
        Self {
            bytes: Account::new((BASE_BYTES + BYTES_PER_BYTE * size).min(self.bytes.left())),
            steps: Account::new((BASE_STEPS + STEPS_PER_BYTE * size).min(self.steps.left())),
        }
    }

    /// Takes what `object` has spent out of this budget.
    pub(crate) const fn charge(&mut self, object: &Self) {
        self.bytes.spent = self.bytes.spent.saturating_add(object.bytes.spent);
        self.steps.spent = self.steps.spent.saturating_add(object.steps.spent);
    }

    /// Pays for `bytes` bytes of memory.
    pub(crate) fn hold(&mut self, bytes: usize, at: At<'_>) -> Result<(), MalformedObject> {
        let what = "the size of its inventory in bytes";
        self.bytes.pay(bytes as u64, what, at)
    }

    /// Pays for `steps` steps of work, about ten nanoseconds each.
    pub(crate) fn work(&mut self, steps: usize, at: At<'_>) -> Result<(), MalformedObject> {
        self.steps
            .pay(steps as u64, "the work to read it in steps", at)
    }

    /// Pays for a copy of `text` and makes it.
    pub(crate) fn text(&mut self, text: &str, at: At<'_>) -> Result<String, MalformedObject> {
        self.hold(text.len() + size_of::<String>(), at)?;
        Ok(text.to_owned())
    }
}

impl Account {
    const fn new(limit: u64) -> Self {
        Self { limit, spent: 0 }
    }

    const fn left(&self) -> u64 {
        self.limit.saturating_sub(self.spent)
    }

    fn pay(&mut self, amount: u64, what: &'static str, at: At<'_>) -> Result<(), MalformedObject> {
        self.spent = self.spent.saturating_add(amount);
        if self.spent > self.limit {
            return Err(at.limit(what, self.limit, self.spent));
        }
        Ok(())
    }
}

/// Most memory that the inventory of a file takes: the largest known, of an executable with
/// 500 programs, takes 1 MiB; printing it takes some times as much, and 200 MB is what the
/// whole process may use.
const MAX_BYTES: u64 = 24 << 20;

/// Most steps for a file, about a second.
const MAX_STEPS: u64 = 1 << 27;

/// What the smallest object may cost. The kernel's own tests, full of tiny programs, stay
/// below a tenth of it.
const BASE_BYTES: u64 = 1 << 20;
const BASE_STEPS: u64 = 1 << 18;

/// What each byte of an object adds. An instruction has 8 bytes and is one step, a symbol
/// has 24 and becomes an entry of about 200.
const BYTES_PER_BYTE: u64 = 8;
const STEPS_PER_BYTE: u64 = 2;
