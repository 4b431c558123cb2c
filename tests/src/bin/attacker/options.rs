//! Attaching programs to sockets by options: by the usual call, and by one of whose registers the
//! gate knows nothing.
#![expect(unsafe_code, reason = "system calls")]

use std::{
    arch::asm,
    io,
    net::UdpSocket,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    ptr,
};

const REUSEPORT_EBPF: i32 = 52;

/// What a call of the C library returned.
pub fn ended(result: i32) -> io::Result<i32> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

pub fn set(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option is one number, which lives through the call.
    ended(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    })
    .map(drop)
}

pub fn socket(program: &OwnedFd) -> io::Result<()> {
    let (socket, _other) = UnixDatagram::pair()?;
    set(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_BPF,
        program.as_raw_fd(),
    )
}

/// Sockets that share a port: the program chooses one of them.
pub fn group(program: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        UdpSocket::from_raw_fd(fd)
    };
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    set(
        &socket,
        libc::SOL_SOCKET,
        REUSEPORT_EBPF,
        program.as_raw_fd(),
    )
}

/// The system call of 32-bit programs, which a 64-bit one can make as well.
pub fn by_another_call(program: &OwnedFd) -> io::Result<()> {
    const SETSOCKOPT: i64 = 366;
    let (socket, _other) = UnixDatagram::pair()?;
    // SAFETY: a page of memory that this function alone uses, below 4 GB as that call needs it;
    // `rbx` is put back.
    let result = unsafe {
        let page = libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        page.cast::<i32>().write(program.as_raw_fd());
        let mut result = SETSOCKOPT;
        asm!(
            "xchg rbx, {socket}",
            "int 0x80",
            "xchg rbx, {socket}",
            socket = inout(reg) i64::from(socket.as_raw_fd()) => _,
            inout("rax") result,
            in("rcx") i64::from(libc::SOL_SOCKET),
            in("rdx") i64::from(libc::SO_ATTACH_BPF),
            in("rsi") page as i64,
            in("rdi") size_of::<i32>() as i64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
        libc::munmap(page, 4096);
        result as i32
    };
    match result {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
