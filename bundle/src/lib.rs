//! The bpfseal bundle: what a package of BPF objects is, on disk and on the wire.
//!
//! Everything here is pure: bytes in, values out. There is no clock, network,
//! environment variable or file system in this crate, so that the registry, the
//! command line and the privileged enforcer share exactly one reading of a bundle.

pub mod derive;
pub mod digest;
pub mod image;
pub mod inventory;
pub mod layout;
pub mod manifest;
pub mod media;
pub mod pack;
pub mod unverified;

pub use digest::Digest;
pub use layout::{Layout, MalformedBundle};
pub use unverified::UnverifiedBundle;
