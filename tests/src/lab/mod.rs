//! Virtual machines that boot Debian's own kernels under software emulation.
//!
//! An [`Initramfs`] is filled with programs and files, a [`Machine`] boots it, and what the
//! guest prints becomes a [`Report`]. Nothing is green by default: a guest that dies, hangs
//! or prints nothing is a failure with the path of its console log.

mod archive;
mod cache;
mod checks;
mod initramfs;
mod machine;
mod report;

pub use cache::{Cache, FetchError, Kernel};
pub use checks::{GuestError, Script, guest, scripts};
pub use initramfs::{Initramfs, InitramfsError};
pub use machine::{Machine, MachineError};
pub use report::{Check, Outcome, Report};

use std::path::{Path, PathBuf};

/// The workspace's top folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("/"))
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
