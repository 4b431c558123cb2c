//! What `bpfseal-enforcer` is made of: the gate in the kernel and the daemon that feeds it.

pub mod clock;
pub mod control;
pub mod daemon;
pub mod decision;
pub mod enforcer;
pub mod filters;
pub mod gate;
pub mod host;
pub mod journal;
pub mod kernel;
pub mod limits;
pub mod links;
pub mod listing;
pub mod load;
pub mod measure;
pub mod modules;
pub mod notify;
pub mod observe;
pub mod ourselves;
pub mod own_data;
pub mod perform;
pub mod preflight;
pub mod probes;
pub mod record;
pub mod sample;
pub mod sandbox;
pub mod signals;
pub mod status;
pub mod store;
pub mod suggest;
pub mod tools;
pub mod trial;
pub mod trust;
mod vmlinux;
pub mod worker;
pub mod workshop;

pub use command::{failure, output};

#[cfg(test)]
mod fake;
