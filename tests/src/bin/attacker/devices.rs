//! Attaching programs to devices of tun, to multiplexed connections and to groups of packet sockets.
#![expect(unsafe_code, reason = "system calls")]

use std::{
    fs::{File, OpenOptions},
    io,
    mem::offset_of,
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::options::{ended, set};

// include/uapi/linux/if_tun.h
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETSTEERINGEBPF: libc::c_ulong = 0x8004_54e0;
const TUNSETFILTEREBPF: libc::c_ulong = 0x8004_54e1;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;
/// `SIOCPROTOPRIVATE` (`include/uapi/linux/kcm.h`)
const SIOCKCMATTACH: libc::c_ulong = 0x89e0;
const AF_KCM: i32 = 41;
// include/uapi/linux/if_packet.h
const PACKET_FANOUT: i32 = 18;
const PACKET_FANOUT_DATA: i32 = 22;
const PACKET_FANOUT_EBPF: i32 = 7;

fn ioctl<T>(file: &impl AsRawFd, command: libc::c_ulong, value: &T) -> io::Result<()> {
    // SAFETY: the value lives through the call, and is what the command reads.
    ended(unsafe { libc::ioctl(file.as_raw_fd(), command, value) }).map(drop)
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new and nobody else's.
    ended(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A device that goes away with its descriptor.
fn tap() -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = [0u8; size_of::<libc::ifreq>()];
    request[..6].copy_from_slice(b"tapway");
    let at = offset_of!(libc::ifreq, ifr_ifru);
    request[at..at + 2].copy_from_slice(&(IFF_TAP | IFF_NO_PI).to_ne_bytes());
    ioctl(&file, TUNSETIFF, &request)?;
    Ok(file)
}

pub fn steer(program: &OwnedFd) -> io::Result<()> {
    ioctl(&tap()?, TUNSETSTEERINGEBPF, &program.as_raw_fd())
}

pub fn filter(program: &OwnedFd) -> io::Result<()> {
    ioctl(&tap()?, TUNSETFILTEREBPF, &program.as_raw_fd())
}

/// A kernel connection multiplexor takes a connection, and a program that finds messages in it.
pub fn multiplex(program: &OwnedFd) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connection = TcpStream::connect(listener.local_addr()?)?;
    let kcm = socket(AF_KCM, libc::SOCK_DGRAM, 0)?;
    let pair: [RawFd; 2] = [connection.as_raw_fd(), program.as_raw_fd()];
    ioctl(&kcm, SIOCKCMATTACH, &pair)
}

/// Packet sockets of a group: the program chooses one of them.
pub fn fan_out(program: &OwnedFd) -> io::Result<()> {
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    let packets = socket(libc::AF_PACKET, libc::SOCK_RAW, all)?;
    let set = |option, value| set(&packets, libc::SOL_PACKET, option, value);
    set(PACKET_FANOUT, 7 | PACKET_FANOUT_EBPF << 16)?;
    set(PACKET_FANOUT_DATA, program.as_raw_fd())
}
