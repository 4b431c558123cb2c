//! What a kernel must have for an object, and since when it has it.

use std::collections::BTreeMap;

use super::{Linkage, Needs, Object};
use crate::{
    insn::Extension,
    kernel::{self, Release},
    section::convention,
};

/// Adds features and keeps the newest.
#[derive(Default)]
struct Features {
    found: BTreeMap<String, Release>,
}

impl Features {
    fn add(&mut self, name: impl Into<String>, release: Option<Release>) {
        if let Some(release) = release {
            self.found.insert(name.into(), release);
        }
    }
}

/// What `object` needs. `extensions` are the bits of the instructions it uses, `typed`
/// says that externs are found by type.
pub(super) fn needs(object: &Object, extensions: u8, typed: bool) -> Needs {
    let mut features = Features::default();
    let mut kernel_btf = typed;
    for program in &object.programs {
        let convention = convention(&program.section);
        let kind = &program.kind;
        features.add(
            format!("program:{kind}"),
            kernel::program_type_release(kind),
        );
        if let Some(attach) = &program.attach_type {
            features.add(
                format!("attach:{attach}"),
                kernel::attach_type_release(attach),
            );
        }
        for helper in &program.helpers {
            let release = kernel::helper_id(helper).and_then(kernel::helper_release);
            features.add(format!("helper:{helper}"), release);
        }
        if program.sleepable && kind != "syscall" {
            features.add("sleepable programs", Some(Release(5, 10)));
        }
        if convention.fragments {
            features.add("xdp fragments", Some(Release(5, 18)));
        }
        if !program.kfuncs.is_empty() {
            features.add("kernel functions", Some(Release(5, 13)));
        }
        if program.loops {
            features.add("bounded loops", Some(Release(5, 3)));
        }
        if !program.calls.is_empty() {
            features.add("calls between functions", Some(Release(4, 16)));
        }
        let by_btf = convention.by_btf && kind != "ext" || kind == "struct_ops";
        kernel_btf |= by_btf || program.core_relocations > 0;
    }
    if object
        .subprograms
        .iter()
        .any(|function| function.linkage != Linkage::Static)
    {
        features.add("global functions", Some(Release(5, 6)));
    }
    for map in object
        .maps
        .iter()
        .flat_map(|map| [Some(map), map.inner.as_deref()])
        .flatten()
    {
        let kind = &map.kind;
        features.add(format!("map:{kind}"), kernel::map_type_release(kind));
        if kind == "struct_ops" {
            kernel_btf = true;
            if object
                .maps
                .iter()
                .any(|map| map.kind == "struct_ops" && map.flags != 0)
            {
                features.add("struct_ops links", Some(Release(6, 4)));
            }
        }
    }
    if !object.data.is_empty() {
        features.add("global data", Some(Release(5, 2)));
    }
    for (extension, name, release) in EXTENSIONS {
        if extensions & (1 << *extension as u8) != 0 {
            features.add(format!("instructions:{name}"), Some(*release));
        }
    }
    Needs {
        oldest_kernel: features.found.values().max().map(Release::to_string),
        features: features
            .found
            .into_iter()
            .map(|(name, release)| (name, release.to_string()))
            .collect(),
        kernel_btf,
    }
}

/// Since when a kernel's verifier and JITs on x86-64 take an extension.
const EXTENSIONS: &[(Extension, &str, Release)] = &[
    (Extension::Jump32, "jmp32", Release(5, 1)),
    (Extension::AtomicFetch, "atomic", Release(5, 12)),
    (Extension::V4, "v4", Release(6, 6)),
    (Extension::MayGoto, "may_goto", Release(6, 9)),
    (
        Extension::AddressSpaceCast,
        "addr_space_cast",
        Release(6, 9),
    ),
    (Extension::AcquireRelease, "load_acquire", Release(6, 15)),
    (Extension::IndirectJump, "indirect_jump", Release(6, 19)),
];
