//! The two clocks: the calendar, which root can set, and the time since boot, which nobody can.
#![expect(unsafe_code, reason = "std has no boot-time clock")]

use std::time::Duration;

/// Time since boot, suspend included (`CLOCK_BOOTTIME`).
pub fn since_boot() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec that the call fills; the clock exists since Linux 2.6.39.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if code != 0 {
        return Duration::ZERO;
    }
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_since_boot_does_not_run_backwards() {
        let first = super::since_boot();
        let second = super::since_boot();
        assert!(
            first > std::time::Duration::ZERO && second >= first,
            "{first:?} {second:?}"
        );
    }
}
