//! Programs for many functions in one link (`fentry.multi/tcp_*`, 7.3): sections that the libbpf in
//! here does not know yet. libbpf 1.8 gives them a type and nothing else: functions are named when the
//! link is made.
#![expect(unsafe_code, reason = "libbpf-rs sets only types that it knows")]

use bundle::{kernel, section};
use libbpf_rs::{AsRawLibbpf as _, OpenProgramMut, ProgramType, libbpf_sys};

/// Gives such a program its type.
pub fn complete(program: &OpenProgramMut<'_>) {
    let section = program.section().to_string_lossy();
    let Some(attach_type) = attach_type(&section) else {
        return;
    };
    let raw = program.as_libbpf_object().as_ptr();
    // SAFETY: the program is the open object's, which nobody has loaded.
    unsafe {
        let _cannot_fail = libbpf_sys::bpf_program__set_type(raw, ProgramType::Tracing as u32);
        let _cannot_fail = libbpf_sys::bpf_program__set_expected_attach_type(raw, attach_type);
    }
}

fn attach_type(section: &str) -> Option<u32> {
    let name = section::convention(section).attach_type?;
    let is_many = matches!(
        name,
        "trace_fentry_multi" | "trace_fexit_multi" | "trace_fsession_multi"
    );
    is_many.then(|| kernel::attach_type(name))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_says_the_type() {
        for (section, want) in [
            ("fentry.multi/tcp_*", Some(59)),
            ("?fexit.multi.s/vfs_*", Some(60)),
            ("fsession.multi", Some(61)),
            ("fentry/vfs_read", None),
            ("kprobe.multi/tcp_*", None),
        ] {
            assert_eq!(attach_type(section), want, "{section}");
        }
    }
}
