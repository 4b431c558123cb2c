//! The caller of a request.

use std::{fmt, net::IpAddr, sync::Arc};

use super::{Access, Action, Granted};
use crate::name::Repository;

/// Whom a request is from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody in particular, in a registry where everybody may do everything.
    Open,
    /// Nobody in particular.
    Anonymous,
    /// A user with a password.
    User(String),
    /// A CI identity: the name in the configuration, and the subject of its token.
    Publisher(String, String),
    /// A client with a certificate.
    Certificate(String),
}

impl Principal {
    /// What access rules call it.
    pub fn name(&self) -> String {
        match self {
            Self::Open | Self::Anonymous => "anonymous".to_owned(),
            Self::User(name) => name.clone(),
            Self::Publisher(name, _) => format!("publisher:{name}"),
            Self::Certificate(name) => format!("certificate:{name}"),
        }
    }
}

/// As the audit log shows it.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publisher(name, subject) => write!(f, "publisher:{name} ({subject})"),
            _ => f.write_str(&self.name()),
        }
    }
}

/// One request's principal, with what its token is limited to.
#[derive(Clone)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// What the token grants at most; nothing where there is no token, or no limit in it.
    pub granted: Option<Vec<Granted>>,
    /// Where from.
    pub peer: IpAddr,
    /// The rights in force when the request came.
    pub access: Arc<Access>,
}

impl Caller {
    /// Whether the caller may do `action` in `repository`.
    pub fn may(&self, repository: &Repository, action: Action) -> bool {
        self.access
            .allows(&self.principal, repository.as_str(), action)
            && self.granted.as_ref().is_none_or(|granted| {
                granted
                    .iter()
                    .any(|granted| granted.covers(repository.as_str(), action))
            })
    }
}
