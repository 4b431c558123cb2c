//! A loader's question that is in no list of the enforcer's, asked and then put to use.

use std::{ffi::CStr, io, os::fd::AsRawFd};

use super::{Attr, RAW_TRACEPOINT_OPEN, probe};

const NAME: &CStr = c"sys_enter";

/// Loads the probe and attaches it to a tracepoint; prints how either ended.
pub fn run() {
    let probe = match probe().load() {
        Ok(probe) => probe,
        Err(error) => return println!("load: {}", word(&error)),
    };
    println!("load: ok");
    let number = probe.as_raw_fd() as u32;
    let raw = Attr::new()
        .u64(0, NAME.as_ptr() as u64)
        .u32(8, number)
        .open(RAW_TRACEPOINT_OPEN);
    match raw {
        Ok(_) => println!("attach: ok"),
        Err(error) => println!("attach: {}", word(&error)),
    }
}

fn word(error: &io::Error) -> String {
    format!("errno {}", error.raw_os_error().unwrap_or(0))
}
