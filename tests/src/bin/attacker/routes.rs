//! Attaching programs by netlink where they have no device: routes and actions of tc.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::place::{attribute, by_netlink, message};

// include/uapi/linux/rtnetlink.h
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const NEWACTION: u16 = 48;
const CREATE: u16 = 0x400;
const LOOPBACK: u32 = 1;
/// 10.77.0.1, only on the way to this machine itself.
const DESTINATION: [u8; 4] = [10, 77, 0, 1];

fn descriptor(program: &OwnedFd) -> [u8; 4] {
    program.as_raw_fd().to_ne_bytes()
}

/// `RTA_ENCAP_TYPE` and `RTA_ENCAP`: packets go through the program on their way out.
fn encapsulation(program: &OwnedFd) -> Vec<u8> {
    let inside = [
        attribute(1, &descriptor(program)), // LWT_BPF_PROG_FD
        attribute(2, b"way\0"),
    ];
    let out = attribute(2 | 0x8000, &inside.concat()); // LWT_BPF_OUT
    let kind = attribute(21, &6u16.to_ne_bytes()); // LWTUNNEL_ENCAP_BPF
    [kind, attribute(22 | 0x8000, &out)].concat()
}

/// A static route of the main table, made or taken away.
fn change(kind: u16, attributes: &[u8]) -> io::Result<()> {
    let family_and_length = libc::AF_INET as u32 | 32 << 8;
    let table_protocol_scope_type = 254 | 4 << 8 | 253 << 16 | 1 << 24;
    let header = [family_and_length, table_protocol_scope_type, 0];
    let destination = attribute(1, &DESTINATION);
    let mut message = message(kind, &header, &[&destination, attributes].concat());
    if kind == NEWROUTE {
        let flags = u16::from_ne_bytes([message[6], message[7]]) | CREATE;
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
    }
    by_netlink(&[message])
}

pub fn route(program: &OwnedFd) -> io::Result<()> {
    let device = attribute(4, &LOOPBACK.to_ne_bytes());
    change(NEWROUTE, &[device, encapsulation(program)].concat())?;
    change(DELROUTE, &[])
}

/// The program stands in a list of next hops.
pub fn next_hops(program: &OwnedFd) -> io::Result<()> {
    let encapsulation = encapsulation(program);
    let mut hop = (8 + encapsulation.len() as u16).to_ne_bytes().to_vec();
    hop.extend([0, 0]);
    hop.extend(LOOPBACK.to_ne_bytes());
    hop.extend(encapsulation);
    change(NEWROUTE, &attribute(9, &hop))?;
    change(DELROUTE, &[])
}

/// `TCA_ACT_KIND` and `TCA_ACT_OPTIONS`.
pub fn act(program: &OwnedFd) -> Vec<u8> {
    let options = [
        attribute(2, &[0; 20]), // TCA_ACT_BPF_PARMS
        attribute(5, &descriptor(program)),
        attribute(6, b"way\0"),
    ];
    let options = attribute(2 | 0x8000, &options.concat());
    [attribute(1, b"bpf\0"), options].concat()
}

pub fn action(program: &OwnedFd) -> io::Result<()> {
    let first = attribute(1 | 0x8000, &act(program));
    by_netlink(&[message(NEWACTION, &[0], &attribute(1 | 0x8000, &first))])
}
