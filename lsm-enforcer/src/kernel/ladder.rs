//! Which rung of the kernel ladder this host stands on, from BTF and by probing,
//! never from version strings.

use std::{fs, io};

use libbpf_rs::{
    btf::{
        Btf, BtfKind,
        types::{Enum, Func},
    },
    libbpf_sys::{BPF_CGROUP_SYSCTL, BPF_LSM_CGROUP},
};

use super::hooks;
use crate::{gate::Coverage, measure::named::named, vmlinux};

/// Where a load is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// `lsm/bpf_prog_load`, before the verifier (6.9, kernel commit 1b67772e4e3f).
    Load,
    /// `lsm/capable` as called by the verifier's first lines; denied after it (6.1 to 6.8).
    Capable,
}

/// Hooks without which nothing can be enforced, with either rung's own.
const COMMON: &[&str] = &["bpf", "bpf_prog", "bpf_map"];
const LOAD: &[&str] = &["bpf_prog_load", "bpf_prog_free"];
const CAPABLE: &[&str] = &[
    "bpf_prog_alloc_security",
    "bpf_prog_free_security",
    "capable",
];

/// Programs of `gate.bpf.c` by rung; those of neither list run on both.
const LOAD_PROGRAMS: &[&str] = &["gate1_load", "gate_bpf", "forget_prog"];
const CAPABLE_PROGRAMS: &[&str] = &[
    "gate_bpf_pending",
    "gate1_alloc",
    "gate1_capable",
    "forget_aux",
];

/// Programs on functions of the kernel that are no hooks, and which function.
const ON_FUNCTIONS: &[(&str, &str)] = &[
    // A program's references to maps, before dead code is taken away.
    ("see_references_1", SEE_FUNCTION),
    ("see_references_2", SEE_FUNCTION),
    ("see_references_3", SEE_FUNCTION),
    ("see_references_4", SEE_FUNCTION),
    // Breakpoints that were hit.
    ("note_trap_1", "uprobe_pre_sstep_notifier"),
    ("note_trap_2", "uprobe_pre_sstep_notifier"),
    ("note_trap_3", "uprobe_pre_sstep_notifier"),
    // The same where the kernel made calls of them (6.18).
    ("note_call_1", "handle_syscall_uprobe"),
    ("note_call_2", "handle_syscall_uprobe"),
    ("note_call_3", "handle_syscall_uprobe"),
];
/// The program of the gate that has the last word when its pins are gone.
pub const LAST_WORD: &str = "last_word";
/// Programs that stay then: how they are attached, and which function of the kernel runs them (LSM programs of
/// control groups: 6.0).
pub const LAST: [(&str, u32, &str); 7] = [
    (LAST_WORD, BPF_LSM_CGROUP, "__cgroup_bpf_run_lsm_current"),
    ("last_prog", BPF_LSM_CGROUP, "__cgroup_bpf_run_lsm_current"),
    ("last_map", BPF_LSM_CGROUP, "__cgroup_bpf_run_lsm_current"),
    (
        "last_lockdown",
        BPF_LSM_CGROUP,
        "__cgroup_bpf_run_lsm_current",
    ),
    (
        "last_load_data",
        BPF_LSM_CGROUP,
        "__cgroup_bpf_run_lsm_current",
    ),
    (
        "last_read_file",
        BPF_LSM_CGROUP,
        "__cgroup_bpf_run_lsm_current",
    ),
    (
        "last_sysctl",
        BPF_CGROUP_SYSCTL,
        "__cgroup_bpf_run_filter_sysctl",
    ),
];
const SEE_FUNCTION: &str = "bpf_remove_insns";
/// What programs on functions are entered by since LSM programs are not (commit 271de525e1d7, 6.2; 6.1.54): before,
/// one was left out on a processor where it had been interrupted.
const NEVER_SKIPPED: &str = "__bpf_prog_enter_recur";
/// Programs for hooks that not every kernel has. Kernels without `file_ioctl_compat` ask
/// `file_ioctl` for 32-bit programs too; those without `file_truncate` ask `path_truncate`.
/// Without `bdev_setintegrity` (6.12) no file is known by its dm-verity volume.
const OPTIONAL: &[(&str, &str)] = &[
    ("gate_ioctl_compat", "file_ioctl_compat"),
    ("gate_option", "socket_setsockopt"),
    ("guard_truncate_file", "file_truncate"),
    ("note_volume", "bdev_setintegrity"),
];

/// What is so when the gate has lost its pins.
pub const LOST: &str = "every call of bpf() is refused, as somebody took the gate's pins away: that lasts until the \
                        machine is started anew";

/// Does the last word refuse what needs no more than a capability that this process has? Whoever opens the pins has
/// asked before whether there are any.
pub fn has_lost_its_pins() -> bool {
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    hooks::next_program(0).is_err_and(is_refused) && vmlinux::may_load()
}

/// The value of an enumerator of the kernel, by its name; 0: the kernel has none.
fn enumerator(btf: &Btf<'_>, name: &str) -> u32 {
    (1..btf.len() as u32)
        .filter_map(|id| btf.type_by_id::<Enum<'_>>(id.into()))
        .find_map(|found| {
            (0..found.len())
                .filter_map(|index| found.get(index))
                .find(|member| member.name.is_some_and(|known| known == name))
                .map(|member| member.value as u32)
        })
        .unwrap_or(0)
}

/// What was found.
pub struct Ladder {
    /// The rung, where there is one.
    pub rung: Option<Rung>,
    /// Why this kernel cannot enforce; empty if it can.
    pub missing: Vec<String>,
    /// Programs of `gate.bpf.c` that this kernel has no place for, and that can be done without.
    pub lacks: Vec<&'static str>,
    /// `TRACE_EVENT_FL_KPROBE` and `TRACE_EVENT_FL_TRACEPOINT`, which differ between kernels.
    pub kprobes: u32,
    /// See `kprobes`.
    pub tracepoints: u32,
    /// `TRACE_EVENT_FL_UPROBE`.
    pub uprobes: u32,
}

impl Ladder {
    /// Looks at the running kernel.
    pub fn detect() -> Self {
        let mut missing = Vec::new();
        if has_lost_its_pins() {
            missing.push(LOST.into());
        }
        match fs::read_to_string("/sys/kernel/security/lsm") {
            Ok(list) if list.trim().split(',').any(|name| name == "bpf") => {}
            Ok(list) => missing.push(format!(
                "bpf is not among the active security modules ({}); boot with lsm={},bpf",
                list.trim(),
                list.trim().trim_start_matches("capability,")
            )),
            Err(error) => missing.push(format!(
                "/sys/kernel/security/lsm cannot be read ({error}); mount securityfs there, \
                 or the kernel has no BPF LSM"
            )),
        }
        if fs::read_to_string("/sys/kernel/security/lockdown")
            .is_ok_and(|modes| modes.contains("[confidentiality]"))
        {
            missing.push(
                "lockdown=confidentiality keeps BPF from reading kernel memory, so the gate \
                 would be blind; lockdown=integrity is enough"
                    .into(),
            );
        }
        let mut lacks = Vec::new();
        let (mut kprobes, mut tracepoints, mut uprobes) = (0, 0, 0);
        let rung = match Btf::from_vmlinux() {
            Ok(btf) => {
                let is_there =
                    |function: &str| named::<Func<'_>>(&btf, function, BtfKind::Func).is_some();
                kprobes = enumerator(&btf, "TRACE_EVENT_FL_KPROBE");
                uprobes = enumerator(&btf, "TRACE_EVENT_FL_UPROBE");
                tracepoints = enumerator(&btf, "TRACE_EVENT_FL_TRACEPOINT");
                let has = |hook: &&str| is_there(&format!("bpf_lsm_{hook}"));
                let optional = OPTIONAL.iter().filter(|(_, hook)| !has(hook));
                let functions = ON_FUNCTIONS.iter().filter(|(_, name)| !is_there(name));
                lacks.extend(optional.chain(functions).map(|(program, _)| program));
                let last = LAST.iter().filter(|(_, _, name)| !is_there(name));
                lacks.extend(last.map(|(program, _, _)| program));
                let rung = if LOAD.iter().all(has) {
                    Some(Rung::Load)
                } else if CAPABLE.iter().all(has) {
                    Some(Rung::Capable)
                } else {
                    missing.push(
                        "neither the hook bpf_prog_load (6.9 and later) nor \
                         bpf_prog_alloc_security with capable (6.1 to 6.8) is there"
                            .into(),
                    );
                    None
                };
                if !is_there(NEVER_SKIPPED) {
                    missing.push(
                        "this kernel leaves out LSM programs that were interrupted (6.1 before 6.1.54)"
                            .into(),
                    );
                }
                missing.extend(
                    COMMON
                        .iter()
                        .filter(|hook| !has(hook))
                        .map(|hook| format!("the hook {hook} is not there")),
                );
                rung
            }
            Err(error) => {
                missing.push(format!("the kernel has no BTF: {error}"));
                None
            }
        };
        if cfg!(target_endian = "big") {
            missing.push("big-endian machines are not supported".into());
        }
        Self {
            rung,
            missing,
            lacks,
            kprobes,
            tracepoints,
            uprobes,
        }
    }

    /// Does this program of `gate.bpf.c` run here?
    pub fn has(&self, program: &str) -> bool {
        let absent = match self.rung {
            None => return false,
            Some(Rung::Load) => CAPABLE_PROGRAMS,
            Some(Rung::Capable) => LOAD_PROGRAMS,
        };
        !absent.contains(&program) && !self.lacks.contains(&program)
    }

    /// As a report.
    pub fn coverage(&self) -> Coverage {
        let mut blind: Vec<String> = [
            "programs attached by the bpf match of iptables",
            "which of several maps of one kind and size a program is given: contents of maps that \
             can change are its input",
            "a thread that exchanges the descriptor of a program, or the names of functions, while it is being \
             attached, put into a map or run for a test; where it ends up is looked at afterwards, and named here as a WARNING, \
             for control groups, devices of this network namespace, tracepoints and kprobes",
            "which program a loader with threads puts a replacement (BPF_PROG_TYPE_EXT) into, other than that for which \
             it was loaded: it is refused that (E413)",
            "classic BPF (seccomp, SO_ATTACH_FILTER, filters of io_uring), which the kernel makes itself",
            "programs made by kernel modules",
        ]
        .map(String::from)
        .to_vec();
        if !cfg!(target_arch = "x86_64") {
            blind.push("which program is attached to a socket by an option (SO_ATTACH_BPF)".into());
        }
        if !self.has("see_references_1") {
            blind.push(format!(
                "which map each instruction of a program with dead code uses, as {SEE_FUNCTION} is \
                 not there: loaders with threads are refused such programs"
            ));
        }
        if !self.has(LAST_WORD) {
            blind.push(
                "anything once somebody took the gate's pins away, as this kernel has no LSM programs of control groups"
                    .into(),
            );
        }
        let rung = match self.rung {
            Some(Rung::Load) => "bpf_prog_load hook (6.9 and later): refused before the verifier",
            Some(Rung::Capable) => {
                blind.push(
                    "the verifier runs on a refused program before the refusal takes effect".into(),
                );
                "capable hook in the verifier (6.1 to 6.8): judged before, refused after the verifier"
            }
            None => "none",
        };
        Coverage {
            rung: rung.into(),
            missing: self.missing.clone(),
            blind,
            warnings: Vec::new(),
            taken: Vec::new(),
        }
    }
}
