//! The real gate: what runs in the kernel, and the only code here that talks to it.

mod arming;
mod event;
mod generators;
mod ladder;
mod loaded;
mod object;
mod place;
mod probe;
mod rows;
mod shared;
mod store;

pub use arming::BpfGate;
pub use place::PINS;
pub use store::ANY_TARGET;
