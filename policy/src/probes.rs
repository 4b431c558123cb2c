//! Lists of probe programs: how loaders ask a kernel what it can do, in words that are newer than
//! the enforcer.
//!
//! A list is TOML, complete in itself, with a version that rises: each list replaces the one
//! before. It travels as one file, a DSSE envelope whose payload is the TOML text, signed by one of
//! the keys that `[probes]` of the policy names:
//!
//! ```toml
//! version = 3
//! issued = "2026-11-22T08:00:00Z"
//! [[probe]]
//! name = "libbpf 1.9: timers"
//! program_type = "socket_filter"
//! words = ["0000002a000000b7", "0000000000000095"]
//! reason = "loads before each object"
//! ```
//!
//! What it names may load, exactly, by anybody, and is never attached.

use std::collections::BTreeSet;

use bundle::{image, kernel};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Reason, Refusal,
    dsse::Envelope,
    generator::FORBIDDEN,
    language::TrustedKey,
    signed_list::{self, List, Signed, bad},
    vocabulary,
};

/// Largest list.
pub const MAX_BYTES: usize = 256 << 10;
/// Most probes: libbpf, cilium/ebpf and aya together ask two dozen questions.
pub const MOST: usize = 256;
/// Most instructions: a question, no program. An event of a refusal shows as many.
pub const MAX_WORDS: usize = 64;
/// Most maps.
pub const MAX_MAPS: usize = 4;
/// Kinds of maps that hold nobody's but the loader's own data.
pub const MAP_TYPES: &[&str] = &["array", "hash", "percpu_array", "percpu_hash", "ringbuf"];
/// Types whose programs have an effect without being attached (`syscall`), or are attached by
/// being loaded (`ext`, `struct_ops`).
pub const NEVER: &[&str] = &["ext", "struct_ops", "syscall"];

/// A list that a key of the policy signed. Only [`SignedProbes::verify`] makes one.
pub type SignedProbes = Signed<Probes>;

/// What a list says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probes {
    /// Rises with each list.
    pub version: u64,
    /// When it was made.
    pub issued: Timestamp,
    /// Its programs, in order.
    pub probes: Vec<Probe>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    /// Who asks what, for people.
    pub name: String,
    /// Why it is let in, for people.
    pub reason: String,
    /// Program type, not one of [`NEVER`].
    pub program_type: String,
    /// `enum bpf_attach_type` at load.
    pub attach_type: u32,
    /// It names a function of the kernel, whichever.
    pub any_target: bool,
    /// Its instructions, from 1 to [`MAX_WORDS`]; the immediate of a reference to a map is
    /// [`image::MAP_INDEX`] and the number of one of `maps`.
    pub words: Vec<u64>,
    /// Its maps, at most [`MAX_MAPS`], each referred to.
    pub maps: Vec<ProbeMap>,
}

/// A map of a probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeMap {
    /// Out of [`MAP_TYPES`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of a key.
    #[serde(default = "four")]
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    #[serde(default = "one")]
    pub max_entries: u32,
}

const fn four() -> u32 {
    4
}

const fn one() -> u32 {
    1
}

impl SignedProbes {
    /// Verifies that one of `keys` signed the file, then reads the list in it.
    ///
    /// # Errors
    /// [`Reason::UntrustedSigner`] where none of them is named as its signer,
    /// [`Reason::BadSignature`] where one is and its signature does not fit,
    /// [`Reason::MalformedSignature`] where it is no envelope, [`Reason::BadPolicy`] where the
    /// list, though signed, cannot be used.
    pub fn verify<'a>(
        file: &str,
        keys: impl IntoIterator<Item = &'a TrustedKey>,
    ) -> Result<Self, Refusal> {
        let envelope = Envelope::parse(file.as_bytes())
            .map_err(|detail| Refusal::new(Reason::MalformedSignature, detail))?;
        let mut named = Vec::new();
        for trusted in keys {
            let Ok(payload) = envelope.open(Probes::PAYLOAD_TYPE, &trusted.key) else {
                named.push(trusted);
                continue;
            };
            return Self::read(&payload, trusted.name.clone());
        }
        let claims = |trusted: &&&TrustedKey| envelope.names(&trusted.key);
        Err(match named.iter().find(claims) {
            Some(trusted) => Refusal::new(
                Reason::BadSignature,
                format!(
                    "it is not what {:?} signed as a list of probe programs",
                    trusted.name
                ),
            ),
            None => Refusal::new(
                Reason::UntrustedSigner,
                match named.is_empty() {
                    true => "the policy has no `[probes]`".to_owned(),
                    false => "no key of the policy's `[probes]` signed it".to_owned(),
                },
            ),
        })
    }
}

impl List for Probes {
    const PAYLOAD_TYPE: &'static str = "application/vnd.bpfseal.probes.v1+toml";
    const OLDER: Reason = Reason::OlderProbes;

    fn parse(text: &str) -> Result<Self, Refusal> {
        let file: File = signed_list::read_toml(text, MAX_BYTES)?;
        signed_list::check_version(file.version)?;
        if file.probe.len() > MOST {
            let got = file.probe.len();
            return Err(bad(format!("{got} probes; at most {MOST} are allowed")));
        }
        let rows = file.probe.into_iter().enumerate();
        let probes = rows.map(|(index, row)| {
            row.read()
                .map_err(|why| bad(format!("[[probe]] number {}: {why}", index + 1)))
        });
        Ok(Self {
            version: file.version,
            issued: file.issued,
            probes: probes.collect::<Result<_, _>>()?,
        })
    }

    fn version(&self) -> u64 {
        self.version
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    issued: Timestamp,
    #[serde(default)]
    probe: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    reason: String,
    program_type: String,
    #[serde(default)]
    attach_type: u32,
    #[serde(default)]
    any_target: bool,
    words: Vec<String>,
    #[serde(default)]
    maps: Vec<ProbeMap>,
}

impl Row {
    fn read(self) -> Result<Probe, String> {
        for (key, text) in [("name", &self.name), ("reason", &self.reason)] {
            if text.is_empty() || text.chars().count() > 100 || text.chars().any(char::is_control) {
                return Err(format!(
                    "`{key}` has 1 to 100 characters and no control characters"
                ));
            }
        }
        let kind = self.program_type.as_str();
        if NEVER.contains(&kind) {
            return Err(format!("a {kind} program is no probe"));
        }
        if !vocabulary::is_program_type(kind) {
            return Err(format!("unknown program type {kind:?}"));
        }
        if self.words.is_empty() || self.words.len() > MAX_WORDS {
            let got = self.words.len();
            return Err(format!("{got} words; a probe has 1 to {MAX_WORDS}"));
        }
        if self.maps.len() > MAX_MAPS {
            let got = self.maps.len();
            return Err(format!("{got} maps; a probe has at most {MAX_MAPS}"));
        }
        for map in &self.maps {
            if !MAP_TYPES.contains(&map.kind.as_str()) || kernel::map_type(&map.kind).is_none() {
                let all = MAP_TYPES.join(", ");
                return Err(format!("map type {:?}: only {all}", map.kind));
            }
        }
        let words = self.words.iter().map(|word| read_word(word));
        let words: Vec<u64> = words.collect::<Result<_, _>>()?;
        words.iter().try_for_each(|word| check_call(*word))?;
        let words = refer(words, self.maps.len())?;
        Ok(Probe {
            name: self.name,
            reason: self.reason,
            program_type: self.program_type,
            attach_type: self.attach_type,
            any_target: self.any_target,
            words,
            maps: self.maps,
        })
    }
}

/// Sixteen hexadecimal digits, as events show an instruction.
fn read_word(text: &str) -> Result<u64, String> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .ok_or_else(|| format!("{text:?} is not an instruction: want 16 hexadecimal digits"))
}

/// A question may be about any helper but those that change others; what kernel functions do is
/// not known here.
fn check_call(word: u64) -> Result<(), String> {
    const CALL: u64 = 0x85;
    if word & 0xff != CALL {
        return Ok(());
    }
    let number = (word >> 32) as u32;
    match (word >> 12) & 0xf {
        0 => match kernel::helper_name(number).filter(|name| FORBIDDEN.contains(name)) {
            Some(name) => Err(format!("a probe does not call {name}")),
            None => Ok(()),
        },
        1 => Ok(()), // a function of its own
        _ => Err("a probe does not call functions of the kernel".to_owned()),
    }
}

/// The immediate of a reference to a map is the map's number; events show 0 there.
fn refer(mut words: Vec<u64>, maps: usize) -> Result<Vec<u64>, String> {
    let mut used = BTreeSet::new();
    for (at, word) in words.iter_mut().enumerate() {
        if image::is_index_reference(*word) {
            return Err(format!("word {at} names a map by index: descriptors alone"));
        }
        if !image::is_map_reference(*word) {
            continue;
        }
        let number = (*word >> 32) as u32;
        if number as usize >= maps {
            return Err(format!("word {at} refers to map {number} of {maps}"));
        }
        // In order of first appearance, as the gate counts them.
        if number as usize > used.len() {
            return Err(format!(
                "word {at} refers to map {number} before {}",
                used.len()
            ));
        }
        used.insert(number);
        *word = image::mask(*word) | u64::from(image::MAP_INDEX | number) << 32;
    }
    match used.len() == maps {
        true => Ok(words),
        false => Err(format!("{maps} maps, and {} referred to", used.len())),
    }
}

#[cfg(test)]
mod tests;
