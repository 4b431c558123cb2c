//! `bpfseal-enforcer`: refuses BPF programs nobody signed.

mod gate;

fn main() {}
