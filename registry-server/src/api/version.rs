//! `/v2/`: the server speaks the protocol.

use http::{HeaderName, Response, StatusCode};

use super::reply;
use crate::body::Body;

/// Older Docker clients look for this header.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

pub fn read() -> Response<Body> {
    reply(StatusCode::OK)
        .with(API_VERSION, "registry/2.0")
        .json("application/json", "{}".to_owned())
}
