//! Trust and decisions, pure and offline: who may be believed, what a rule allows,
//! and the numbered reasons for refusing.

pub mod admit;
pub mod anchor;
pub mod attached;
mod base32;
pub mod condition;
mod cosign_key;
pub mod decision;
pub mod document;
pub mod dsse;
pub mod effective;
pub mod exception;
pub mod explain;
pub mod generator;
pub mod kernel_signature;
pub mod key;
pub mod language;
pub mod pattern;
pub mod permit;
pub mod predicate;
pub mod protect;
pub mod reason;
pub mod refusal;
mod required;
pub mod revocation;
pub mod rule;
pub mod schema;
pub mod scope;
pub mod shape;
pub mod signature;
pub mod signer;
pub mod signers;
pub mod sigstore;
mod spelling;
pub mod statement;
pub mod target;
pub mod verify;
pub mod version;
pub mod vocabulary;
pub mod x509;

pub use admit::{Admitted, admit};
pub use decision::Context;
pub use language::{Fault, Mode, Policy, PolicyError};
pub use reason::Reason;
pub use refusal::{Refusal, RuleRef};
pub use verify::{VerifiedBundle, verify, verify_at};
