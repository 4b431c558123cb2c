//! All rows of a hash map, many at a time: with a hundred thousand of them, one call a row takes
//! seconds. libbpf-rs has an iterator for it, which takes a batch that is not full for the last one;
//! the kernel fills batches by whole buckets, so most are not full.
#![expect(
    unsafe_code,
    reason = "libbpf-rs ends at the first batch that is not full"
)]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use libbpf_rs::{MapCore as _, MapHandle, libbpf_sys};

/// Reads every row that stays while this reads: key and value.
pub fn all(map: &MapHandle) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let mut rows = Vec::new();
    let mut keys = vec![0u8; key_size * BATCH as usize];
    let mut values = vec![0u8; value_size * BATCH as usize];
    // Where a hash map goes on is the number of a bucket.
    let (mut from, mut next) = (0u32, 0u32);
    let mut first = true;
    loop {
        let mut count = BATCH;
        let start = match first {
            true => ptr::null_mut(),
            false => ptr::from_mut(&mut from).cast(),
        };
        // SAFETY: the buffers have room for `count` keys and values of the map's sizes, and the
        // places for buckets are four bytes, which is what the kernel reads and writes for hashes.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                start,
                ptr::from_mut(&mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                ptr::null(),
            )
        };
        match result {
            0 => {}
            error if -error == libc::EINTR => continue,
            error if -error == libc::ENOENT => {}
            error => return Err(io::Error::from_raw_os_error(-error)),
        }
        let read = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size))
            .take(count as usize);
        rows.extend(read.map(|(key, value)| (key.to_vec(), value.to_vec())));
        if result != 0 {
            return Ok(rows);
        }
        (from, first) = (next, false);
    }
}

/// Rows of one call: a few megabytes at most.
const BATCH: u32 = 8192;
