//! Trampolines come and go on other functions while unsigned programs knock at the gate.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use enforcer::{
    gate::{Class, Gate, GateError},
    kernel::BpfGate,
};
use libbpf_rs::btf::{Btf, types::Func};

use super::{Attr, EXIT, Load, RAW_TRACEPOINT_OPEN, admissions, arm_with, check, entry, evil, r0};

const TRACING: u32 = 26;
const TRACE_FENTRY: u32 = 24;

fn tracer() -> Option<Load> {
    let btf = Btf::from_vmlinux().ok()?;
    let function = btf.type_by_name::<Func<'_>>("vfs_statx")?;
    Some(Load {
        attach_type: TRACE_FENTRY,
        btf_id: u32::from(function.type_id()),
        ..Load::new("tracer", TRACING, &[r0(0), EXIT])
    })
}

fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    Attr::new()
        .u32(8, program.as_raw_fd() as u32)
        .open(RAW_TRACEPOINT_OPEN)
}

/// Attaches and detaches an admitted tracer `rounds` times beside a thread that tries to load.
pub fn run(rounds: usize) -> Result<bool, GateError> {
    let Some(tracer) = tracer() else {
        return Ok(check("a function to trace is there", Err(String::new())));
    };
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries.push(entry(&tracer, vec![], Class::Signed));
    arm_with(&mut gate, &all)?;
    let stop = Arc::new(AtomicBool::new(false));
    let loaded = Arc::new(AtomicUsize::new(0));
    let knocker = {
        let (stop, loaded) = (Arc::clone(&stop), Arc::clone(&loaded));
        thread::spawn(move || {
            let mut tries = 0;
            while !stop.load(Ordering::Relaxed) {
                tries += 1;
                loaded.fetch_add(usize::from(evil().load().is_ok()), Ordering::Relaxed);
            }
            tries
        })
    };
    let mut attached = 0;
    for _ in 0..rounds {
        match tracer.load().and_then(|program| attach(&program)) {
            Ok(_link) => attached += 1,
            Err(error) => {
                check("an admitted tracer attaches", Err(error.to_string()));
                break;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let tries: usize = knocker.join().expect("the thread only knocks");
    let loaded = loaded.load(Ordering::Relaxed);
    let fine = check(
        "nothing slips in while trampolines come and go",
        if loaded == 0 && attached == rounds {
            Ok(format!(
                "{tries} tries, {attached} times attached and detached"
            ))
        } else {
            Err(format!(
                "{loaded} of {tries} loaded, {attached} times attached"
            ))
        },
    );
    gate.disarm()?;
    Ok(fine)
}
