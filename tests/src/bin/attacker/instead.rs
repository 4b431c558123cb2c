//! A program from before arming that answers at a hook in the gate's place: to whoever loaded it alone, or to
//! everybody from some moment on.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use libbpf_rs::btf::{Btf, types::Func};
use rustix::time::{ClockId, clock_gettime};

use super::{Attr, EXIT, Load, RAW_TRACEPOINT_OPEN, TRACING, evil, r0};

const LSM: u32 = 29;
/// `BPF_LSM_MAC`, `BPF_MODIFY_RETURN`
const LSM_MAC: u32 = 27;
const MODIFY_RETURN: u32 = 26;

/// `r0 = bpf_get_current_pid_tgid() >> 32`
const WHO: [u64; 2] = [0x85 | 14 << 32, 0x77 | 32 << 32];
/// `if r0 != imm goto +2`
const fn unless(imm: u32) -> u64 {
    0x55 | 2 << 16 | (imm as u64) << 32
}

/// 1 for this process, 0 for all others.
fn to_me() -> Vec<u64> {
    let [call, shift] = WHO;
    vec![
        call,
        shift,
        unless(std::process::id()),
        r0(1),
        EXIT,
        r0(0),
        EXIT,
    ]
}

/// 1 for everybody from then on, by the clock that stands still while the machine sleeps.
fn to_all_after(nanos: u64) -> Vec<u64> {
    // r0 = bpf_ktime_get_ns(); r1 = nanos; if r0 > r1 goto +2
    const NOW: u64 = 0x85 | 5 << 32;
    const IF_LATER: u64 = 0x2d | 1 << 12 | 2 << 16;
    let low = 0x18 | 1 << 8 | nanos << 32;
    let high = nanos >> 32 << 32;
    vec![NOW, low, high, IF_LATER, r0(0), EXIT, r0(1), EXIT]
}

/// Attached to a function `security_*` or `bpf_lsm_*` of the kernel.
fn answering(function: &str, words: &[u64]) -> io::Result<[OwnedFd; 2]> {
    let btf = Btf::from_vmlinux().map_err(io::Error::other)?;
    let found = btf
        .type_by_name::<Func<'_>>(function)
        .ok_or_else(|| io::Error::other("no such function"))?;
    let (prog_type, attach_type) = match function.starts_with("bpf_lsm_") {
        true => (LSM, LSM_MAC),
        false => (TRACING, MODIFY_RETURN),
    };
    let mut load = Load::new("instead", prog_type, words);
    load.attach_type = attach_type;
    load.btf_id = u32::from(found.type_id());
    let program = load.load()?;
    let link = Attr::new()
        .u32(8, program.as_raw_fd() as u32)
        .open(RAW_TRACEPOINT_OPEN)?;
    Ok([program, link])
}

/// Puts it there, waits for a line, writes to a file whether an unsigned program loads then, and waits for the end.
pub fn run(function: &str, file: &str) -> io::Result<()> {
    let held = answering(function, &to_me())?;
    println!("it is there");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let said = match evil().load() {
        Ok(_) => "loaded".to_owned(),
        Err(error) => error.to_string(),
    };
    fs::write(file, format!("unsigned: {said}\n"))?;
    io::stdin().read_line(&mut line)?;
    drop(held);
    Ok(())
}

/// Puts one there that answers to everybody in so many seconds, and waits for the end.
pub fn later(function: &str, seconds: u64) -> io::Result<()> {
    let now = clock_gettime(ClockId::Monotonic);
    let then = (now.tv_sec as u64 + seconds) * 1_000_000_000;
    let held = answering(function, &to_all_after(then))?;
    println!("it is there");
    io::stdin().read_line(&mut String::new())?;
    drop(held);
    Ok(())
}
