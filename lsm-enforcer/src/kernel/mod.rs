//! The real gate: what runs in the kernel, and the only code here that talks to it.

mod arming;
mod event;
mod generators;
mod hooks;
mod keeper;
mod ladder;
mod loaded;
mod object;
mod pins;
mod place;
mod probe;
mod rows;
mod shared;
pub mod shield;
mod store;
mod successor;
mod volumes;
pub(crate) mod ways;

pub use arming::{BpfGate, stranger};
pub use pins::{PINS, Pins};
pub(crate) use place::identity;
pub use store::ANY_TARGET;
