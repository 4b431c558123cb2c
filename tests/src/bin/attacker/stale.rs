//! Loads that fail before they are judged, beside loads that get their memory.
//!
//! Up to 6.8 the gate learns a program's attributes in one hook and judges it in another. What a
//! failed load left must not speak for a program at the same address, nor for its thread's next.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use enforcer::{
    gate::{Gate, GateError},
    kernel::BpfGate,
};

use super::{ARRAY, Attr, PROG_LOAD, SOCKET_FILTER, arm, check, evil, map, simple};

/// The kernel makes the program, then cannot read the instructions.
fn fail() -> io::Result<i32> {
    const NOWHERE: u64 = 8;
    Attr::new()
        .u32(0, SOCKET_FILTER)
        .u32(4, 2)
        .u64(8, NOWHERE)
        .u64(16, c"GPL".as_ptr() as u64)
        .u32(44, 1) // BPF_F_STRICT_ALIGNMENT, which no admitted program has
        .call(PROG_LOAD)
}

pub fn run(rounds: usize) -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let stop = Arc::new(AtomicBool::new(false));
    let failing: Vec<_> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut wrong = 0;
                while !stop.load(Ordering::Relaxed) {
                    let error = fail().map_err(|error| error.raw_os_error());
                    wrong += usize::from(error != Err(Some(libc::EFAULT)));
                    // The kernel asks for the thread's capabilities again.
                    drop(map(ARRAY, 8, 0));
                }
                wrong
            })
        })
        .collect();
    let (mut wrongly_loaded, mut wrongly_refused) = (0, 0);
    for _ in 0..rounds {
        wrongly_refused += usize::from(simple().load().is_err());
        wrongly_loaded += usize::from(evil().load().is_ok());
        // In this thread too.
        let _efault = fail();
    }
    stop.store(true, Ordering::Relaxed);
    let odd: usize = failing
        .into_iter()
        .map(|thread| thread.join().expect("threads only fail"))
        .sum();
    let fine = check(
        "what a failed load left speaks for no other",
        if (wrongly_loaded, wrongly_refused, odd) == (0, 0, 0) {
            Ok(format!("{rounds} loads of each kind"))
        } else {
            Err(format!(
                "{wrongly_loaded} wrongly loaded, {wrongly_refused} wrongly refused, \
                 {odd} failed otherwise"
            ))
        },
    );
    gate.disarm()?;
    Ok(fine)
}
