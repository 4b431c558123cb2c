//! The words that a policy may use for program types and helpers.

use bundle::kernel;

/// Types that a rule allows only by name: `ext` replaces functions of other programs, and
/// `syscall` programs load further programs.
const BY_NAME_ONLY: &[&str] = &["ext", "syscall"];

/// Every program type, as the inventory writes it, in the kernel's order.
pub fn program_types() -> impl Iterator<Item = &'static str> {
    // 0 is `unspec`, which no load has.
    (1..).map_while(kernel::program_type_name)
}

/// The types that a rule without `program_types` allows: all but `ext` and `syscall`.
pub fn ordinary_types() -> impl Iterator<Item = &'static str> {
    program_types().filter(|kind| !BY_NAME_ONLY.contains(kind))
}

/// Is this a program type?
pub fn is_program_type(word: &str) -> bool {
    program_types().any(|kind| kind == word)
}

/// The number of a program type in `enum bpf_prog_type`.
pub fn program_type_number(word: &str) -> Option<u32> {
    kernel::program_type(word)
}

/// Every helper, with the prefix `bpf_`.
pub fn helpers() -> impl Iterator<Item = &'static str> {
    (1..).map_while(kernel::helper_name)
}

/// Is this a helper, with the prefix `bpf_`?
pub fn is_helper(word: &str) -> bool {
    helpers().any(|helper| helper == word)
}

/// The number of a helper in `enum bpf_func_id`.
pub fn helper_number(word: &str) -> Option<u32> {
    kernel::helper_id(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_inventory_s() {
        assert_eq!(program_types().count(), 32);
        assert_eq!(ordinary_types().count(), 30);
        assert_eq!(helpers().count(), 211);
        assert!(is_program_type("cgroup_device") && !is_program_type("unspec"));
        assert_eq!(program_type_number("cgroup_device"), Some(15));
        assert_eq!(helper_number("bpf_probe_write_user"), Some(36));
        assert!(is_helper("bpf_probe_write_user") && !is_helper("probe_write_user"));
    }
}
