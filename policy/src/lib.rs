//! Trust and decisions, pure and offline: who may be believed, what a rule allows,
//! and the numbered reasons for refusing.

pub mod reason;

pub use reason::Reason;
