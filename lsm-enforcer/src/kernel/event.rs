//! Decoding what the kernel side reports.

use std::{collections::HashMap, time::Duration};

use bundle::image::{self, Identity};
use policy::{Reason, protect::Switch};

use super::shared::{EVENT_WORDS, Origin, Reader, class_of};
use crate::gate::Event;

/// Reads `struct event`; a short one has no words.
pub fn read(bytes: &[u8], origins: &HashMap<u32, Origin>) -> Event {
    let mut reader = Reader(bytes);
    let at = Duration::from_nanos(reader.u64());
    let detail = reader.u64();
    let cgroup = reader.u64();
    let gate = reader.u32() as u8;
    let reason = Reason::from_number(reader.u32());
    let refused = reader.u32() != 0;
    let class = class_of(reader.u32());
    let prog_type = reader.u32();
    let expected_attach_type = reader.u32();
    let attach_btf_id = reader.u32();
    let flags = reader.u32();
    let insns = reader.u32();
    let prog_id = reader.u32();
    let origin = origins.get(&reader.u32());
    let count = (reader.u32() as usize).min(EVENT_WORDS);
    let pid = reader.u32();
    let tid = reader.u32();
    let uid = reader.u32();
    let _spare = reader.u32();
    let comm = reader.text::<16>();
    let given = reader.text::<16>();
    let mut name = match (reason, Switch::ALL.get(detail as usize)) {
        (Some(Reason::KernelMemory), Some(switch)) => switch.word().to_owned(),
        _ => given,
    };
    let mut words: Vec<u64> = (0..count).map(|_| image::mask(reader.u64())).collect();
    if gate == 2 && !words.is_empty() {
        // Not instructions, but what was to be replaced.
        let text: Vec<u8> = words.drain(..).flat_map(u64::to_ne_bytes).collect();
        let target = Reader(&text).text::<64>();
        let target = if target.is_empty() {
            "a program that nobody admitted"
        } else {
            &target
        };
        name = format!("{name} for {target}");
    }
    Event {
        at,
        refused,
        reason,
        gate,
        class,
        name,
        identity: Identity {
            prog_type,
            expected_attach_type,
            attach_btf_id,
            flags,
        },
        insns,
        detail,
        prog_id,
        bundle: origin.and_then(|origin| origin.bundle),
        admitted: origin.map(|origin| origin.name.clone()),
        words,
        pid,
        tid,
        uid,
        comm,
        cgroup,
    }
}
