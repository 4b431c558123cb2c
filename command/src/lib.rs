//! What the command lines of the three programs share: how a command fails, and where it prints.

pub mod failure;
pub mod output;

pub use failure::{Exit, Failure};
pub use output::Output;
