//! What the tests of the workspace share: virtual machines with Debian's kernels, the tools
//! fetched for them, and the BPF fixtures.

pub mod e2e;
pub mod fixtures;
pub mod lab;
pub mod sigstore;
pub mod tuf;
