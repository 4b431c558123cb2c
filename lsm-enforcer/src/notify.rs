//! Tells systemd when the gate is taken over (`Type=notify`), so that units ordered after
//! ours start behind a gate that is shut.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::{
        ffi::OsStrExt as _,
        net::{SocketAddr, UnixDatagram},
    },
};

/// The gate is as it should be and the socket listens.
pub fn ready() {
    say("READY=1");
}

/// The end begins.
pub fn stopping() {
    say("STOPPING=1");
}

/// sd_notify(3): one datagram to the socket in `NOTIFY_SOCKET`; `@` stands for a NUL.
fn say(text: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    // Without a listener there is nobody to tell.
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(text.as_bytes(), &address);
    }
}
