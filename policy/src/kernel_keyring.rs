//! Keyrings of the kernel by which it may verify a program's signature itself.
//!
//! The kernel takes any keyring that the caller names, the caller's own as well. A policy can
//! name those to which nobody can add a key at will; a user's keyring, whose number is given out
//! again when it is gone, is not among them.

use serde::Serialize;

/// A keyring of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keyring {
    /// `.builtin_trusted_keys`: built into the kernel.
    Builtin,
    /// `.secondary_trusted_keys`: those, what they vouch for, and machine owner keys.
    Secondary,
    /// `.platform`: the firmware's.
    Platform,
}

impl Keyring {
    /// All.
    pub const ALL: [Self; 3] = [Self::Builtin, Self::Secondary, Self::Platform];

    /// As written in a policy.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Secondary => "secondary",
            Self::Platform => "platform",
        }
    }

    /// `enum bpf_sig_keyring` of Linux 7.2.
    pub const fn number(self) -> u32 {
        match self {
            Self::Builtin => 1,
            Self::Secondary => 2,
            Self::Platform => 3,
        }
    }
}

/// A keyring that the policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustedKeyring {
    /// Its name in the policy.
    pub name: String,
    /// Line on which it is named, from 1.
    pub line: usize,
    /// Which one.
    pub keyring: Keyring,
}
