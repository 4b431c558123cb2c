//! Trust and decisions, pure and offline: who may be believed, what a rule allows,
//! and the numbered reasons for refusing.

pub mod key;
pub mod language;
pub mod reason;
pub mod refusal;
pub mod rule;
pub mod scope;
pub mod shape;
pub mod signer;
mod spelling;
pub mod target;
pub mod version;
pub mod vocabulary;

pub use language::{Fault, Mode, Policy, PolicyError};
pub use reason::Reason;
pub use refusal::{Refusal, RuleRef};
