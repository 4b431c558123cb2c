//! What can go wrong between us and a registry, and whose fault it is.

use bundle::Digest;
use http::StatusCode;
use policy::Reason;

use crate::Failure;

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry answers that it does not have it.
    #[error("{what} is not in {place}")]
    NotFound {
        /// A tag, digest or upload.
        what: String,
        /// The repository.
        place: String,
    },
    /// The registry wants other credentials than we have, or none would do.
    #[error("{host} refuses {what} ({status}){said}")]
    Denied {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: StatusCode,
        /// Its own words, if any, after a colon.
        said: String,
    },
    /// No connection, a broken one, or a timeout.
    #[error("cannot reach {host}: {cause}")]
    Unreachable {
        /// The server.
        host: String,
        /// The error and its causes, without addresses (which may hold tokens).
        cause: String,
        /// Was it over TLS?
        secure: bool,
    },
    /// An answer that the distribution-spec does not foresee.
    #[error("{host} answers {status} to {what}{said}")]
    Server {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
        /// Its status.
        status: StatusCode,
        /// Its own words, if any, after a colon.
        said: String,
    },
    /// The server speaks HTTP but not as a registry should.
    #[error("{host} {what}")]
    Protocol {
        /// The server.
        host: String,
        /// A clause that continues after the host's name.
        what: String,
    },
    /// Bytes do not have the digest that names them.
    #[error("{host} sends other bytes for {want}: they have digest {got}")]
    Digest {
        /// The registry.
        host: String,
        /// The name.
        want: Digest,
        /// What the bytes are.
        got: Digest,
    },
    /// Bytes are more or fewer than their descriptor says.
    #[error("{host} sends {got} bytes for {digest}, its descriptor says {want}")]
    Length {
        /// The registry.
        host: String,
        /// The name.
        digest: Digest,
        /// What the descriptor says.
        want: u64,
        /// What came; a lower bound, since reading stops there.
        got: u64,
    },
    /// More bytes or manifests than anybody needs.
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: String,
        /// How much is allowed.
        limit: u64,
    },
    /// A manifest that cannot be understood.
    #[error("{what} is not a manifest: {cause}")]
    Manifest {
        /// Its digest or tag.
        what: String,
        /// What is wrong.
        cause: String,
    },
    /// The destination was written with the digest of something else.
    #[error("the artifact has digest {got}, the destination says {want}")]
    Destination {
        /// As written.
        want: Digest,
        /// What would go there.
        got: Digest,
    },
    /// An artifact, but none that fits into a file of ours.
    #[error("{what} is no bundle: {cause}")]
    NotABundle {
        /// The reference.
        what: String,
        /// What it is instead.
        cause: String,
    },
    /// A credential helper or credential file is broken.
    #[error("cannot use {place}: {cause}")]
    Credential {
        /// The file or program.
        place: String,
        /// What is wrong; never a secret.
        cause: String,
    },
    /// A local file cannot be read or written.
    #[error("{doing}: {cause}")]
    Local {
        /// What was being done, with the path.
        doing: String,
        /// The system's error.
        cause: std::io::Error,
    },
}

impl Error {
    /// A local file operation failed.
    pub fn local(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::Local { doing, cause }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotFound { .. } => Self::not_found(message).with_remedy(
                "Check the repository and the tag; some registries hide what you may not read (`bpfseal login`).",
            ),
            Error::Denied { host, status, .. } => {
                let remedy = if status == StatusCode::UNAUTHORIZED {
                    format!("Give credentials: `bpfseal login {host}`.")
                } else {
                    format!("Ask the registry's owner for the right, or use another account: `bpfseal login {host}`.")
                };
                Self::network(message).with_remedy(remedy)
            }
            Error::Unreachable { secure, .. } => {
                let failure = Self::network(message);
                if secure {
                    failure.with_remedy(
                        "Is the name right? `--plain-http` is for registries without TLS, `--ca-file` for a private CA.",
                    )
                } else {
                    failure.with_remedy("Is the registry running, and on this port? `--ca-file` speaks HTTPS to it.")
                }
            }
            Error::Server { .. } | Error::Protocol { .. } => Self::network(message),
            Error::Destination { .. } => Self::refused(Reason::DigestMismatch, message)
                .with_remedy("Leave the digest out, or send what it names."),
            Error::Digest { .. } | Error::Length { .. } => {
                Self::refused(Reason::DigestMismatch, message)
            }
            Error::Limit { .. } => Self::refused(Reason::LimitExceeded, message),
            Error::Manifest { .. } => Self::refused(Reason::MalformedBundle, message),
            Error::NotABundle { .. } => Self::refused(Reason::NotABundle, message)
                .with_remedy("`bpfseal copy` takes any artifact from registry to registry."),
            Error::Credential { .. } | Error::Local { .. } => Self::usage(message),
        }
    }
}
