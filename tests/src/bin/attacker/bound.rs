//! Programs that are bound to a target when they are loaded, and the same instructions for another target:
//! what is signed for one hook is not signed for the next one.

use policy::Reason;

use super::{Attempt, EXIT, Load, TRACING, attempt, entry, loads::Good, r0, ways::function_id};
use enforcer::gate::{Class, Entry};

const LSM: u32 = 29;
const CGROUP_SKB: u32 = 8;

// enum bpf_attach_type
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const FENTRY: u32 = 24;
const FEXIT: u32 = 25;
const LSM_MAC: u32 = 27;

/// A program of each kind has a constant of its own, and returns what the kernel wants of the kind.
fn bound(name: &'static str, prog_type: u32, attach_type: u32, target: &str) -> Load {
    let returned = u32::from(prog_type == CGROUP_SKB);
    Load {
        attach_type,
        btf_id: function_id(target).unwrap_or_default(),
        ..Load::new(
            name,
            prog_type,
            &[r0(0xb0d + prog_type), r0(returned), EXIT],
        )
    }
}

fn tracer(attach_type: u32, function: &str) -> Load {
    bound("tracer", TRACING, attach_type, function)
}

fn judge(hook: &str) -> Load {
    bound("judge", LSM, LSM_MAC, &format!("bpf_lsm_{hook}"))
}

fn filter(attach_type: u32) -> Load {
    bound("filter", CGROUP_SKB, attach_type, "")
}

fn admitted() -> [(&'static str, Load); 3] {
    [
        (
            "a tracer of a function's entry",
            tracer(FENTRY, "vfs_unlink"),
        ),
        ("a program for a hook of LSM", judge("file_open")),
        ("a filter of what comes in", filter(INGRESS)),
    ]
}

pub fn entries() -> Vec<Entry> {
    admitted()
        .iter()
        .map(|(_, load)| entry(load, vec![], Class::Signed))
        .collect()
}

pub fn good() -> Vec<Good> {
    let load =
        |(what, load): (&'static str, Load)| -> Good { (what, Box::new(move || load.load())) };
    admitted().map(load).into()
}

pub fn bad() -> Vec<Attempt> {
    [
        ("a tracer of another function", tracer(FENTRY, "vfs_mkdir")),
        ("a tracer of a function's exit", tracer(FEXIT, "vfs_unlink")),
        ("a program for another hook of LSM", judge("inode_unlink")),
        ("a filter of what goes out", filter(EGRESS)),
    ]
    .map(|(what, load)| attempt(what, Reason::AttachTarget, move || load.load()))
    .into()
}
