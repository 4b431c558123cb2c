//! Somebody takes every place of a hook before the gate is armed: arming says so, leaves nothing
//! behind, and works once there is room.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use enforcer::{
    failure::Failure,
    gate::{Gate, GateError},
    kernel::BpfGate,
};
use libbpf_rs::btf::{Btf, types::Func};

use super::{Attr, EXIT, Load, RAW_TRACEPOINT_OPEN, arm, check, comes, evil, own::grace, r0};

const LSM: u32 = 29;
const LSM_MAC: u32 = 27;
/// `BPF_MAX_TRAMP_LINKS` is 38 today, and was 27.
const MORE_THAN_THERE_ARE: usize = 100;

/// Programs that allow everything, attached to a hook until there is no place left.
fn occupy(hook: &str) -> std::io::Result<Vec<(OwnedFd, OwnedFd)>> {
    let btf = Btf::from_vmlinux().map_err(std::io::Error::other)?;
    let function = btf
        .type_by_name::<Func<'_>>(&format!("bpf_lsm_{hook}"))
        .ok_or_else(|| std::io::Error::other("no such hook"))?;
    let mut load = Load::new("occupy", LSM, &[r0(0), EXIT]);
    load.attach_type = LSM_MAC;
    load.btf_id = u32::from(function.type_id());
    let mut held = Vec::new();
    for _ in 0..MORE_THAN_THERE_ARE {
        let program = load.load()?;
        let attached = Attr::new()
            .u32(8, program.as_raw_fd() as u32)
            .open(RAW_TRACEPOINT_OPEN);
        match attached {
            Ok(link) => held.push((program, link)),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return Ok(held),
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other("the hook never became full"))
}

pub fn run() -> Result<bool, GateError> {
    let mut fine = true;
    for hook in ["bpf_prog", "file_open"] {
        let held = occupy(hook);
        fine &= check(
            &format!("every place of {hook} can be taken before arming"),
            held.as_ref()
                .map(|held| format!("{} places", held.len()))
                .map_err(ToString::to_string),
        );
        let said = arm(&mut BpfGate::open()?).map_err(|error| Failure::from(error).line());
        let want = format!("E705 cannot-enforce: all places of the hook {hook} are taken");
        fine &= check(
            &format!("arming says that {hook} is full"),
            match &said {
                Err(said) if said.starts_with(&want) => Ok(said.clone()),
                other => Err(format!("{other:?}")),
            },
        );
        fine &= check(
            "and leaves nothing behind",
            match (Path::new("/sys/fs/bpf/bpfseal").exists(), evil().load()) {
                (false, Ok(_)) => Ok(String::new()),
                other => Err(format!("{other:?}")),
            },
        );
    }
    // The kernel gives places back some time after the last descriptor was closed.
    let mut gate = BpfGate::open()?;
    let name = "when there is room again, arming works";
    fine &= comes(name, 200, "grace periods", || {
        grace().is_ok() && arm(&mut gate).is_ok()
    });
    gate.disarm()?;
    Ok(fine)
}
