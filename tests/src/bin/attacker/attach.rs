//! Attaches a pinned program, as the scripts of revocation need it: by a link or perf event that is held, or
//! by a command, which holds nothing.
#![expect(unsafe_code, reason = "libc knows the numbers of devices")]

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::{Attr, LINK_CREATE, OBJ_GET, PROG_ATTACH, place};

const XDP: u32 = 37;
const TCX_INGRESS: u32 = 46;
const NETKIT_PRIMARY: u32 = 54;

/// `HOW PIN DEVICE`, or a tracepoint for the device. What must be held is returned: it lives as long as its holder.
fn attach(how: &str, pin: &str, at: &str) -> io::Result<Option<OwnedFd>> {
    let pin = CString::new(pin)?;
    let program = Attr::new().u64(0, pin.as_ptr() as u64).open(OBJ_GET)?;
    let fd = program.as_raw_fd() as u32;
    if how == "event-ioctl" {
        let event = place::event(at)?;
        place::set_program(&event, &program)?;
        return Ok(Some(event));
    }
    let index = number_of(at)?;
    let link = |attach_type| {
        Attr::new()
            .u32(0, fd)
            .u32(4, index)
            .u32(8, attach_type)
            .open(LINK_CREATE)
            .map(Some)
    };
    let command = |attach_type| {
        Attr::new()
            .u32(0, index)
            .u32(4, fd)
            .u32(8, attach_type)
            .call(PROG_ATTACH)
            .map(|_| None)
    };
    match how {
        "xdp-link" => link(XDP),
        "tcx-link" => link(TCX_INGRESS),
        "tcx-command" => command(TCX_INGRESS),
        "netkit-link" => link(NETKIT_PRIMARY),
        "netkit-command" => command(NETKIT_PRIMARY),
        _ => Err(io::Error::other(format!("{how} is no way to attach"))),
    }
}

/// In this network namespace, whichever one /sys shows.
fn number_of(device: &str) -> io::Result<u32> {
    let name = CString::new(device)?;
    // SAFETY: the name ends with zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// Says that it is attached, and holds what must be held until its input ends.
pub fn run(words: &[String]) -> io::Result<()> {
    let [how, pin, at] = words else {
        return Err(io::Error::other("want HOW PIN DEVICE"));
    };
    let held = attach(how, pin, at)?;
    println!("attached");
    if held.is_some() {
        io::copy(&mut io::stdin(), &mut io::sink())?;
    }
    Ok(())
}
