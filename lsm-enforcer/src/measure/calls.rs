//! Functions of kernel modules that a program calls. libbpf numbers the modules in the order in which
//! it meets them, writes that number (`off`) and the function's BTF id into each call, and gives the
//! kernel a table of the modules' types.

use std::collections::{BTreeMap, BTreeSet};

use bundle::image::ModuleBtf;
use libbpf_rs::btf::{Btf, BtfKind, types::Func};

use super::named::named;
use crate::modules;

/// `BPF_JMP | BPF_CALL`, `BPF_PSEUDO_KFUNC_CALL`
const CALL: u64 = 0x85;
const KERNEL_FUNCTION: u64 = 2;
/// `BPF_LD | BPF_IMM | BPF_DW`, `BPF_PSEUDO_BTF_ID`
const WIDE: u64 = 0x18;
const TYPE_ID: u64 = 3;

/// Ids of functions by the number of their module.
type Called = BTreeMap<u16, BTreeSet<u32>>;

/// The modules that `words` call, by number; `names` are all functions of the kernel and of modules that
/// the object calls.
///
/// # Errors
///
/// A clause, if it cannot be told which modules these are.
pub fn modules(words: &[u64], names: &BTreeSet<&str>) -> Result<BTreeMap<u16, ModuleBtf>, String> {
    let called = called(words)?;
    if called.is_empty() {
        return Ok(BTreeMap::new());
    }
    let kernel = Btf::from_vmlinux().map_err(|error| format!("this kernel's types: {error}"))?;
    let found: Vec<(u32, ModuleBtf)> = names
        .iter()
        .map(|name| without_flavour(name))
        .filter(|name| named::<Func<'_>>(&kernel, name, BtfKind::Func).is_none())
        .filter_map(|name| modules::find(name, "", BtfKind::Func).ok())
        .collect();
    assign(called, &found)
}

/// Does it call functions of any module?
pub fn any(words: &[u64]) -> bool {
    called(words).is_ok_and(|called| !called.is_empty())
}

fn called(words: &[u64]) -> Result<Called, String> {
    let mut called = Called::new();
    let mut after_type = false;
    for &word in words {
        let (code, source) = (word & 0xff, word >> 12 & 0xf);
        let (number, id) = ((word >> 16) as u16, (word >> 32) as u32);
        if after_type && id != 0 {
            return Err("it uses a variable of a kernel module, which is not supported".into());
        }
        after_type = code == WIDE && source == TYPE_ID;
        if code == CALL && source == KERNEL_FUNCTION && number != 0 {
            called.entry(number).or_default().insert(id);
        }
    }
    Ok(called)
}

/// Each number is that of the one module that has all its functions.
fn assign(called: Called, found: &[(u32, ModuleBtf)]) -> Result<BTreeMap<u16, ModuleBtf>, String> {
    let mut numbered = BTreeMap::new();
    for (number, ids) in called {
        let has_all = |module: &ModuleBtf| {
            let has = |id: &u32| found.iter().any(|(of, known)| of == id && known == module);
            ids.iter().all(has)
        };
        let fitting: BTreeSet<&ModuleBtf> = found
            .iter()
            .map(|(_, module)| module)
            .filter(|module| has_all(module))
            .collect();
        let mut fitting = fitting.into_iter();
        let module = match (fitting.next(), fitting.next()) {
            (Some(module), None) => module.clone(),
            (None, _) => return Err("no loaded module has a function that it calls".into()),
            (Some(one), Some(other)) => {
                return Err(format!(
                    "the modules {} and {} have functions that it calls under one number",
                    one.name, other.name
                ));
            }
        };
        numbered.insert(number, module);
    }
    Ok(numbered)
}

/// What follows three underscores libbpf leaves out.
fn without_flavour(name: &str) -> &str {
    name.split_once("___").map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use bundle::Digest;

    use super::*;

    fn module(name: &str) -> ModuleBtf {
        ModuleBtf {
            name: name.to_owned(),
            content: Digest::of(name.as_bytes()),
        }
    }

    fn call(number: u16, id: u32) -> u64 {
        CALL | KERNEL_FUNCTION << 12 | u64::from(number) << 16 | u64::from(id) << 32
    }

    #[test]
    fn modules_are_told_by_the_functions_that_they_have() {
        let words = [call(0, 5), call(1, 70), call(2, 70), call(1, 71), 0x95];
        let called = called(&words).unwrap();
        assert_eq!(
            called,
            Called::from([(1, [70, 71].into()), (2, [70].into())])
        );
        let mut found = vec![
            (70, module("one")),
            (71, module("one")),
            (72, module("other")),
        ];
        let want = BTreeMap::from([(1, module("one")), (2, module("one"))]);
        assert_eq!(assign(called.clone(), &found), Ok(want));
        // Now the second number may be that of either.
        found.push((70, module("other")));
        assert_eq!(
            assign(called.clone(), &found),
            Err("the modules one and other have functions that it calls under one number".into())
        );
        assert_eq!(
            assign(called, &found[2..]),
            Err("no loaded module has a function that it calls".into())
        );
    }

    #[test]
    fn variables_of_modules_are_refused_and_the_kernel_s_own_functions_are_no_module_s() {
        assert!(!any(&[call(0, 5), 0x95]));
        assert!(any(&[call(3, 5), 0x95]));
        let variable = [WIDE | TYPE_ID << 12, 9 << 32, 0x95];
        assert!(called(&variable).is_err());
        assert_eq!(called(&[WIDE | TYPE_ID << 12, 0, 0x95]), Ok(Called::new()));
    }

    #[test]
    fn flavours_do_not_count() {
        assert_eq!(without_flavour("f___older"), "f");
        assert_eq!(without_flavour("f__x"), "f__x");
    }
}
