//! What `bpfseal-enforcer` is made of: the gate in the kernel and the daemon that feeds it.

pub mod gate;
pub mod kernel;
pub mod measure;
