//! What a light skeleton would load of an object: libbpf's `gen_loader` on the same bytes.
//!
//! Generating asks nothing of the kernel and loads nothing. Only kernels that tell the digest
//! of what they verify can be trusted with CO-RE, so elsewhere there is no such layout.

use std::{collections::BTreeMap, io};

use bundle::{
    image::{Image, MapSpec},
    indexed, light,
};
use libbpf_rs::{
    MapType, OpenObject,
    btf::{
        Btf, BtfKind,
        types::{Struct, Union},
    },
};

use super::named::named;

/// An object's light skeleton: the loader program, its data, and the programs in it.
pub struct Skeleton {
    /// The loader's instructions.
    pub loader: Vec<u64>,
    /// What the loader finds in its map.
    pub data: Vec<u8>,
    /// Each program as it is before the kernel relocates it.
    pub programs: BTreeMap<String, Vec<u64>>,
}

/// Does the kernel keep SHA-256 of a program's relocated instructions (6.18, kernel commit
/// 349271568303)?
pub fn tells_digest(btf: &Btf<'_>) -> bool {
    let Some(program) = named::<Struct<'_>>(btf, "bpf_prog", BtfKind::Struct) else {
        return false;
    };
    let is_digest = |name: Option<&std::ffi::OsStr>| name.is_some_and(|name| name == "digest");
    program.iter().any(|member| {
        is_digest(member.name)
            || member.name.is_none_or(|name| name.is_empty())
                && btf
                    .type_by_id::<Union<'_>>(member.ty)
                    .is_some_and(|inner| inner.iter().any(|member| is_digest(member.name)))
    })
}

/// Generates; `object` is open and not prepared, with the programs to load chosen.
pub fn generate(object: &mut OpenObject) -> io::Result<Skeleton> {
    let loader = gen_loader::generate(object)?;
    let programs = object
        .progs()
        .filter(|program| program.autoload())
        .map(|program| {
            let name = program.name().to_string_lossy().into_owned();
            (name, program.insns().iter().map(super::word).collect())
        })
        .collect();
    Ok(Skeleton {
        loader: loader
            .insns
            .chunks_exact(8)
            .filter_map(|slot| slot.try_into().ok().map(u64::from_le_bytes))
            .collect(),
        data: loader.data,
        programs,
    })
}

/// The image of a light skeleton's loader: as signed, with one map as large as its data. What is in
/// that map is the loader's input, which it also writes to.
pub fn loader(image: Image, data: &[u8], tells: bool) -> Result<Image, String> {
    if !tells {
        return Err("this kernel does not tell what it makes of a light skeleton (6.18)".into());
    }
    if image.slots() != [0] || !image.maps.is_empty() {
        return Err("it is not a light skeleton's loader".into());
    }
    let map = MapSpec {
        name: light::MAP.into(),
        map_type: MapType::Array as u32,
        key_size: 4,
        value_size: data.len() as u32,
        max_entries: (1, 1),
        flags: 0,
        flags_free: 0,
        inner: None,
        contents: None,
    };
    Ok(indexed::as_is(Image {
        maps: vec![map],
        ..image
    }))
}

impl Skeleton {
    /// The layout of a measured program in this skeleton, where it differs from `image`.
    pub fn layout(&self, image: &Image, relocations: u32) -> Result<Option<Image>, String> {
        let Some(generated) = self.programs.get(&image.name) else {
            return Ok(None);
        };
        let layout = indexed::by_index(image, generated)?;
        Ok((relocations > 0 || layout.words != image.words).then_some(layout))
    }
}
