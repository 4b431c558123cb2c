//! `SOURCE_DATE_EPOCH`: the only time that may get into what is made here.
//!
//! A clock would give each machine other bytes (reproducible-builds.org, "SOURCE_DATE_EPOCH").

use crate::Failure;

/// Seconds since 1970, if the environment says them.
pub fn seconds() -> Result<Option<u64>, Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    if value.is_empty() {
        return Ok(None);
    }
    match value.parse::<u64>() {
        Ok(seconds) if seconds <= LATEST => Ok(Some(seconds)),
        _ => Err(Failure::usage(format!(
            "SOURCE_DATE_EPOCH is {value:?}, not a number of seconds since 1970"
        ))),
    }
}

/// The same as RFC 3339, for annotations.
pub fn created() -> Result<Option<String>, Failure> {
    let Some(seconds) = seconds()? else {
        return Ok(None);
    };
    jiff::Timestamp::from_second(seconds.cast_signed())
        .map(|instant| Some(instant.to_string()))
        .map_err(|error| Failure::usage(format!("SOURCE_DATE_EPOCH: {error}")))
}

/// The last second that a tar header's octal field holds.
const LATEST: u64 = 0o77777777777;
