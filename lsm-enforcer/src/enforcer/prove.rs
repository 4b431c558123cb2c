//! Other layouts of admitted programs, found by themselves: a loader whose program was refused
//! because it orders functions otherwise than libbpf loads it at the next try.
//!
//! Only where the gate names an admitted program of the same name and type, and the event has every
//! instruction. What is proved is the signed object's own, so nothing else gets in by it; but a
//! proof costs a second or two, and anybody may cause refusals, so they are bounded.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use bundle::Digest;
use policy::Reason;

use super::Enforcer;
use crate::{failure::Failure, gate::Event, workshop::Stream};

/// Refused streams to look at, and those that were looked at.
#[derive(Default)]
pub(super) struct Unproven {
    pub(super) waiting: VecDeque<(Digest, Stream)>,
    seen: BTreeSet<Digest>,
    /// Boot-time clock before which no other is looked at.
    rests_until: Duration,
}

impl Unproven {
    /// Keeps an event's stream if it may be another layout of what the gate compared it with.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(bundle) = event.bundle else {
            return;
        };
        let differs = event.gate == 1 && event.reason == Some(Reason::InstructionDiffers);
        let whole = event.words.len() == event.insns as usize && !event.words.is_empty();
        if !differs || !whole || self.waiting.len() == MAX_WAITING {
            return;
        }
        let bytes: Vec<u8> = event.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        if self.seen.len() == MAX_SEEN {
            self.seen.clear();
        }
        if self
            .seen
            .insert(Digest::of(&[bundle.as_bytes(), &bytes[..]].concat()))
        {
            let stream = Stream {
                words: event.words.clone(),
                length: event.insns as usize,
            };
            self.waiting.push_back((bundle, stream));
        }
    }
}

impl Enforcer {
    /// Looks at one refusal that waits, if any: is it another layout of an admitted program? Then it
    /// may load from now on, until the daemon starts anew. After a failure others wait a while.
    pub fn prove_next(&mut self) -> Result<bool, Failure> {
        let now = self.host().since_boot();
        if now < self.unproven.rests_until {
            return Ok(false);
        }
        let Some((bundle, stream)) = self.unproven.waiting.pop_front() else {
            return Ok(false);
        };
        let explained = self.explain(Some(stream), None, Some(&bundle.to_hex()), &[], true);
        let admitted = explained.map(|explanation| explanation.admitted);
        if !matches!(admitted, Ok(true)) {
            self.unproven.rests_until = now + REST;
        }
        admitted
    }
}

/// Streams that wait.
pub(super) const MAX_WAITING: usize = 16;
/// Digests of streams that are not looked at again: 64 kB.
const MAX_SEEN: usize = 2048;
/// After a proof that failed.
const REST: Duration = Duration::from_secs(10);
