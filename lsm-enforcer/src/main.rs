//! `bpfseal-enforcer`: refuses BPF programs nobody signed.

use enforcer as _;

fn main() {}
