//! The kernel's numbers for members of structs of functions (`struct_ops`): the struct's BTF id and
//! the member's place in it, which the kernel binds at load, as libbpf computes them from names.

use std::collections::BTreeMap;

use bundle::inventory::Object;
use libbpf_rs::btf::{Btf, BtfKind, types::Struct};

use super::named::named;

/// What a program of an object is loaded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// BTF id of the struct, in the kernel's own BTF.
    pub of: u32,
    /// Which of its members, from 0.
    pub index: u32,
}

/// By program, for all of an object that are of this type; else why a kernel cannot have it.
pub type Members = BTreeMap<String, Result<Member, String>>;

/// Finds every member of an object's programs in the BTF of a kernel; `None`: the running one.
pub fn resolve(inventory: &Object, kernel: Option<&Btf<'_>>) -> Members {
    let programs = inventory.programs.iter();
    let mut programs = programs
        .filter(|program| program.kind == "struct_ops")
        .peekable();
    if programs.peek().is_none() {
        return Members::new();
    }
    let running = match kernel {
        Some(_) => None,
        None => Btf::from_vmlinux().ok(),
    };
    let btf = kernel.or(running.as_ref());
    programs
        .map(|program| {
            let found = match (program.members.as_slice(), btf) {
                ([name], Some(btf)) => find(name, btf),
                (_, None) => Err("this kernel has no BTF".to_owned()),
                ([], _) => Err("no struct of functions of its object has it".to_owned()),
                (several, _) => Err(format!("it is {} at once", several.join(" and "))),
            };
            (program.name.clone(), found)
        })
        .collect()
}

/// The member that `TYPE:MEMBER` names, as libbpf's `find_struct_ops_kern_types` and
/// `find_member_by_name` find it, without modules.
///
/// # Errors
///
/// A lower-case clause where the kernel has no such struct or member.
pub fn find(name: &str, btf: &Btf<'_>) -> Result<Member, String> {
    let (of, member) = name.split_once(':').ok_or("it names no member")?;
    let absent = || format!("this kernel itself has no struct_ops {of}");
    let named = |name: &str| named::<Struct<'_>>(btf, name, BtfKind::Struct);
    let found = named(of).ok_or_else(absent)?;
    let value = named(&format!("bpf_struct_ops_{of}")).ok_or_else(absent)?;
    if !value.iter().any(|part| part.ty == found.type_id()) {
        return Err(absent());
    }
    let index = found
        .iter()
        .position(|one| one.name.is_some_and(|name| name == member))
        .ok_or_else(|| format!("this kernel's {of} has no {member}"))?;
    Ok(Member {
        of: found.type_id().into(),
        index: index as u32,
    })
}

#[cfg(test)]
mod tests {
    use bundle::{fixture::Types, inventory::Endianness};

    use super::*;

    #[test]
    fn a_member_has_the_structs_id_and_its_place() {
        let mut types = Types::new(Endianness::Little);
        let pointer = types.pointer(0);
        let names = ["first", "second", "data"].map(|name| types.string(name));
        let body = [names[0], pointer, 0, names[1], pointer, 64];
        let ops = types.add("ops", (4, 2), 16, &body);
        types.add("bpf_struct_ops_ops", (4, 1), 16, &[names[2], ops, 0]);
        types.add("plain", (4, 2), 16, &body);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("btf");
        std::fs::write(&file, types.build()).unwrap();
        let btf = Btf::from_path(&file).unwrap();
        assert_eq!(find("ops:second", &btf), Ok(Member { of: ops, index: 1 }));
        for (name, why) in [
            ("ops:third", "this kernel's ops has no third"),
            ("plain:first", "this kernel itself has no struct_ops plain"),
            (
                "absent:first",
                "this kernel itself has no struct_ops absent",
            ),
            ("second", "it names no member"),
        ] {
            assert_eq!(find(name, &btf), Err(why.to_owned()));
        }
    }
}
