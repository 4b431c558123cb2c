//! What a client is told when a request cannot be done: the specification's error document.

use std::fmt;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::digest::DigestError;
use crate::name::NameError;

/// Error codes of distribution-spec 1.1 ("Error codes"), and one for our own faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `BLOB_UNKNOWN`
    BlobUnknown,
    /// `BLOB_UPLOAD_INVALID`
    BlobUploadInvalid,
    /// `BLOB_UPLOAD_UNKNOWN`
    BlobUploadUnknown,
    /// `DIGEST_INVALID`
    DigestInvalid,
    /// `MANIFEST_BLOB_UNKNOWN`
    ManifestBlobUnknown,
    /// `MANIFEST_INVALID`
    ManifestInvalid,
    /// `MANIFEST_UNKNOWN`
    ManifestUnknown,
    /// `NAME_INVALID`
    NameInvalid,
    /// `NAME_UNKNOWN`
    NameUnknown,
    /// `SIZE_INVALID`
    SizeInvalid,
    /// `DENIED`
    Denied,
    /// `UNAUTHORIZED`
    Unauthorized,
    /// `UNSUPPORTED`
    Unsupported,
    /// `TOOMANYREQUESTS`
    TooManyRequests,
    /// `UNKNOWN`, only with a 5xx status: the fault is the server's.
    Unknown,
}

impl Code {
    /// The code's spelling in the specification.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Denied => "DENIED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status that goes with the code unless a call says otherwise.
    const fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A refused request: a status, a code and a sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct OciError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The specification's code.
    pub code: Code,
    /// One lower-case clause for a person.
    pub message: String,
    /// Headers that let the client recover, such as `Range` with a 416.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Why a policy refuses, its number and its code.
    pub reason: Option<policy::Reason>,
}

impl OciError {
    /// The code with its usual status.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            code,
            message: message.into(),
            headers: Vec::new(),
            reason: None,
        }
    }

    /// Refused by a policy: the reason stands in the message and in `detail`.
    pub fn refused(refusal: &policy::Refusal) -> Self {
        let reason = refusal.reason;
        let message = format!("E{} {}: {refusal}", reason.number(), reason.code());
        let mut error = Self::new(Code::Denied, message);
        error.reason = Some(reason);
        error
    }

    /// Answers with another status than the code's usual one.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds a header. A value that cannot be a header is left out.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    /// The server's own fault. The cause goes to the log, not to the client.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "request failed through no fault of the client");
        Self::new(
            Code::Unknown,
            "the registry could not do this, its log says why",
        )
    }

    /// Too much at once; the client may try again.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Code::TooManyRequests, message).header(header::RETRY_AFTER, "1")
    }

    /// Something behind the registry does not answer; the client may try again.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "what is behind the registry does not answer");
        Self::new(
            Code::Unknown,
            "the registry cannot reach its database or its store of blobs, try again",
        )
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .header(header::RETRY_AFTER, "2")
    }

    /// The error document of the specification.
    pub fn body(&self) -> Vec<u8> {
        let mut error = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        if let Some(reason) = self.reason {
            error["detail"] = serde_json::json!({
                "reason": format!("E{}", reason.number()),
                "code": reason.code(),
                "remedy": reason.remedy(),
            });
        }
        serde_json::json!({ "errors": [error] })
            .to_string()
            .into_bytes()
    }
}

impl fmt::Display for OciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for OciError {}

impl From<DigestError> for OciError {
    fn from(error: DigestError) -> Self {
        Self::new(Code::DigestInvalid, error.to_string())
    }
}

impl From<NameError> for OciError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Repository => Self::new(Code::NameInvalid, error.to_string()),
            NameError::Tag => Self::new(Code::ManifestInvalid, error.to_string()),
        }
    }
}

impl From<sqlx::Error> for OciError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match (code.as_deref(), &error) {
            (Some(SQLITE_FULL | POSTGRES_FULL), _) => no_room(),
            (Some(POSTGRES_NOT_TEXT), _) => Self::new(
                Code::NameInvalid,
                "a name or a type has a character that cannot be stored",
            ),
            (Some(code), _)
                if POSTGRES_UNAVAILABLE
                    .iter()
                    .any(|class| code.starts_with(class)) =>
            {
                Self::unavailable(format_args!("metadata: {error}"))
            }
            (
                None,
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
            ) => Self::unavailable(format_args!("metadata: {error}")),
            _ => Self::internal(format_args!("metadata: {error}")),
        }
    }
}

impl From<std::io::Error> for OciError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{
            FileTooLarge, NotConnected, QuotaExceeded, ResourceBusy, StorageFull, TimedOut,
        };
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => no_room(),
            ResourceBusy => Self::busy("another request is writing to this upload"),
            NotConnected | TimedOut => Self::unavailable(format_args!("storage: {error}")),
            _ => Self::internal(format_args!("storage: {error}")),
        }
    }
}

fn no_room() -> OciError {
    OciError::new(Code::Unknown, "the registry has no room left")
        .status(StatusCode::INSUFFICIENT_STORAGE)
}

/// Primary result code of SQLite.
const SQLITE_FULL: &str = "13";

/// `disk_full`, and `character_not_in_repertoire`: text with a NUL.
const POSTGRES_FULL: &str = "53100";
const POSTGRES_NOT_TEXT: &str = "22021";

/// Connections broke, resources are short, a lock took too long, the operator intervened.
const POSTGRES_UNAVAILABLE: [&str; 5] = ["08", "53", "55", "57", "25"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_shape_of_the_specification() {
        let error = OciError::new(Code::BlobUnknown, "no such \"blob\"");
        assert_eq!(
            String::from_utf8(error.body()).unwrap(),
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such \"blob\""}]}"#
        );
        assert_eq!(error.status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_full_disk_is_said_as_such() {
        let error = OciError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.status, StatusCode::INSUFFICIENT_STORAGE);
    }
}
