//! The real tools: this kernel, child processes, this machine.

use crate::{enforcer::Tools, failure::Failure, host::Machine, kernel::BpfGate, worker::Workers};

/// What the daemon and the commands work with.
pub fn real() -> Result<Tools, Failure> {
    Ok(Tools {
        gate: Box::new(BpfGate::open()?),
        workshop: Box::new(Workers),
        host: Box::new(Machine),
        probes: crate::probes::entries(),
    })
}
