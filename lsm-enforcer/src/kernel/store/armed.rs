//! What user space keeps in the set beside the admissions: authority, policy, mode, used
//! permits, and what must not fall back.

use std::{collections::BTreeMap, io, time::Duration};

use bundle::Digest;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use policy::protect::Switches;

use super::other;
use crate::{
    gate::{Armed, MAX_MARKS, MAX_SPENT, Mode},
    kernel::shared::{Fields, Header, Key, Reader, Use},
};

/// What user space keeps with the set, cut into values of the set's size.
pub fn pieces(armed: &Armed) -> io::Result<Vec<(Key, Vec<u8>)>> {
    let kept = Kept {
        marks: armed.marks.clone(),
        permitted: armed.permitted.clone(),
        probes: armed.probes,
    };
    let marks = serde_json::to_vec(&kept)?;
    let fields = Fields::default()
        .bytes(armed.authority.as_bytes(), 32)
        .bytes(armed.policy.as_bytes(), 32)
        .bytes(armed.host.as_bytes(), 32)
        .u64s(&[
            armed.at.as_nanos() as u64,
            armed.policy_version,
            u64::from(armed.mode == Mode::Audit),
            armed
                .confirm_by
                .map_or(u64::MAX, |deadline| deadline.as_nanos() as u64),
            armed.spent.len() as u64,
        ])
        .u64s(&armed.spent)
        .u64s(&[
            armed.revocation,
            armed.clock as u64,
            armed.protect.bits().into(),
            marks.len() as u64,
        ]);
    let length = 96 + 40 + 8 * armed.spent.len() + 32;
    let size = (length + marks.len()).next_multiple_of(Header::SIZE);
    let pieces = fields
        .bytes(&marks, size - length)
        .done(size)
        .chunks(Header::SIZE)
        .enumerate()
        .map(|(number, piece)| {
            let key = Key {
                len: number as u32,
                ..Key::of(Use::Armed)
            };
            (key, piece.to_vec())
        })
        .collect();
    Ok(pieces)
}

/// What has no fixed size, as JSON.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    marks: BTreeMap<String, String>,
    permitted: BTreeMap<String, Duration>,
    /// A gate that an older daemon armed has none.
    #[serde(default)]
    probes: u64,
}

/// Reads it back from a set.
///
/// # Errors
/// Those of the map, and versions that cannot be read: whoever went on without them would let
/// packages fall back.
pub fn read(set: &MapHandle) -> io::Result<Option<Armed>> {
    let mut bytes = Vec::new();
    for number in 0.. {
        let key = Key {
            len: number,
            ..Key::of(Use::Armed)
        };
        match set.lookup(&key.to_bytes(), MapFlags::ANY).map_err(other)? {
            Some(piece) => bytes.extend(piece),
            None => break,
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader(&bytes);
    let authority = Digest::from_bytes(reader.bytes());
    let policy = Digest::from_bytes(reader.bytes());
    let host = Digest::from_bytes(reader.bytes());
    let at = Duration::from_nanos(reader.u64());
    let policy_version = reader.u64();
    let mode = if reader.u64() == 0 {
        Mode::Enforce
    } else {
        Mode::Audit
    };
    let confirm_by = match reader.u64() {
        u64::MAX => None,
        nanos => Some(Duration::from_nanos(nanos)),
    };
    let spent = (0..reader.u64().min(MAX_SPENT as u64))
        .map(|_| reader.u64())
        .collect();
    let revocation = reader.u64();
    let clock = reader.u64() as i64;
    let protect = Switches::from_bits(reader.u64() as u32);
    let length = (reader.u64() as usize).min(2 * MAX_MARKS);
    let marks = reader.0.get(..length).unwrap_or_default();
    let kept: Kept = serde_json::from_slice(marks)?;
    Ok(Some(Armed {
        authority,
        at,
        policy_version,
        policy,
        mode,
        confirm_by,
        host,
        spent,
        revocation,
        clock,
        marks: kept.marks,
        protect,
        permitted: kept.permitted,
        probes: kept.probes,
    }))
}
