//! SIGTERM and SIGINT end the daemon, SIGHUP reloads the policy. Neither opens the gate.
#![expect(unsafe_code, reason = "std installs no signal handlers")]

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static RELOAD: AtomicBool = AtomicBool::new(false);

extern "C" fn on_stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

extern "C" fn on_reload(_: libc::c_int) {
    RELOAD.store(true, Ordering::Relaxed);
}

/// Installs the handlers.
pub fn install() {
    type Handler = extern "C" fn(libc::c_int);
    let handlers: [(libc::c_int, Handler); 3] = [
        (libc::SIGTERM, on_stop),
        (libc::SIGINT, on_stop),
        (libc::SIGHUP, on_reload),
    ];
    for (signal, handler) in handlers {
        // SAFETY: the handlers only store to atomics, which is async-signal-safe, and live
        // as long as the process.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
}

/// Was the end asked for?
pub fn stop() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Was a reload asked for since the last call?
pub fn take_reload() -> bool {
    RELOAD.swap(false, Ordering::Relaxed)
}
