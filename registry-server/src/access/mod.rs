//! Who asks, and what they may do: users, tokens, CI identities, certificates, rights.

mod guard;
mod identity;
mod password;
mod publisher;
mod rate;
mod token;

use serde::Deserialize;

pub use guard::{Access, Credentials, Denial, Granted, ISSUED_FOR, Need};
pub use identity::{Caller, Principal};
pub use password::{hash, parse as parse_users, read as read_users, valid_name};
pub use publisher::read as read_identity_token;
pub use rate::Rates;
pub use token::Issuer;

/// What a right allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read tags, manifests, blobs and referrers.
    Pull,
    /// Attach signatures and other referrers, and see what is in quarantine.
    Sign,
    /// Push, but move no tag that exists.
    Create,
    /// Push, and move tags.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
    /// All of that, and what is the operator's: metrics, every repository's name.
    Admin,
}

impl Action {
    /// Whether a right to `self` is a right to `wanted` too.
    pub fn implies(self, wanted: Self) -> bool {
        self == wanted
            || match self {
                Self::Admin => true,
                Self::Push => matches!(wanted, Self::Create | Self::Sign),
                Self::Pull | Self::Sign | Self::Create | Self::Delete => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_push_may_create_but_not_the_other_way_round() {
        use Action::{Admin, Create, Delete, Pull, Push, Sign};
        let implied = |action: Action| -> Vec<Action> {
            let all = [Pull, Sign, Create, Push, Delete, Admin];
            all.into_iter()
                .filter(|wanted| action.implies(*wanted))
                .collect()
        };
        assert_eq!(implied(Pull), [Pull]);
        assert_eq!(implied(Create), [Create]);
        assert_eq!(implied(Push), [Sign, Create, Push]);
        assert_eq!(implied(Delete), [Delete]);
        assert_eq!(implied(Admin), [Pull, Sign, Create, Push, Delete, Admin]);
    }
}
