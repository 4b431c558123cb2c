//! The bpfseal bundle: what a package of BPF objects is, on disk and on the wire.
//!
//! Everything here is pure: bytes in, values out. There is no clock, network,
//! environment variable or file system in this crate, so that the registry, the
//! command line and the privileged enforcer share exactly one reading of a bundle.

mod blob;
mod btf;
pub mod cyclonedx;
pub mod dead;
pub mod digest;
mod elf;
pub mod embedded;
pub mod explain;
pub mod fixture;
pub mod foreign;
pub mod image;
pub mod indexed;
pub mod insn;
pub mod inventory;
pub mod kernel;
pub mod layout;
pub mod light;
pub mod loader;
pub mod malformed;
pub mod manifest;
pub mod media;
pub mod pack;
pub mod section;
pub mod unverified;
pub mod verifier;

pub use blob::Blob;
pub use digest::Digest;
pub use elf::{EM_BPF, MAX_SIZE as MAX_OBJECT_SIZE};
pub use layout::{Layout, MalformedBundle};
pub use malformed::MalformedObject;
pub use unverified::UnverifiedBundle;
