//! Stands in for the inventory reader until it lands: name, digest, size, byte order.

use crate::{
    Digest,
    inventory::{Endianness, Needs, Object},
};

/// Why an object cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MalformedObject(String);

/// Reads an object.
///
/// # Errors
/// When the bytes are no BPF ELF.
pub fn read(name: &str, elf: &[u8]) -> Result<Object, MalformedObject> {
    let header = goblin::elf::Elf::parse_header(elf).map_err(|e| MalformedObject(e.to_string()))?;
    if header.e_machine != goblin::elf::header::EM_BPF {
        return Err(MalformedObject("not a BPF object".to_owned()));
    }
    Ok(Object {
        name: name.to_owned(),
        digest: Digest::of(elf),
        size: elf.len() as u64,
        endianness: Endianness::Little,
        license: None,
        btf: false,
        btf_ext: false,
        programs: vec![],
        subprograms: vec![],
        maps: vec![],
        data: vec![],
        externs: vec![],
        needs: Needs::default(),
    })
}
