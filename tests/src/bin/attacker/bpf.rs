//! `bpf(2)` by hand: its commands, programs and maps with everything that can be wrong about them.

#![expect(unsafe_code, reason = "the bpf() system call with hostile arguments")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

// enum bpf_cmd
pub const MAP_CREATE: u32 = 0;
pub const MAP_LOOKUP_ELEM: u32 = 1;
pub const MAP_UPDATE_ELEM: u32 = 2;
pub const PROG_LOAD: u32 = 5;
pub const OBJ_GET: u32 = 7;
pub const PROG_ATTACH: u32 = 8;
pub const PROG_GET_FD_BY_ID: u32 = 13;
pub const MAP_GET_FD_BY_ID: u32 = 14;
pub const RAW_TRACEPOINT_OPEN: u32 = 17;
pub const MAP_FREEZE: u32 = 22;
pub const LINK_CREATE: u32 = 28;
pub const LINK_GET_FD_BY_ID: u32 = 30;

// enum bpf_prog_type, enum bpf_map_type
pub const SOCKET_FILTER: u32 = 1;
pub const XDP: u32 = 6;
pub const CGROUP_DEVICE: u32 = 15;
pub const RAW_TRACEPOINT: u32 = 17;
pub const TRACING: u32 = 26;
pub const EXT: u32 = 28;
pub const HASH: u32 = 1;
pub const ARRAY: u32 = 2;

pub const INSN_ARRAY: u32 = 34;

pub const RDONLY_PROG: u32 = 1 << 7;

/// `r0 = imm`, `exit`, `r1 = imm64` with a source register.
pub const EXIT: u64 = 0x95;
pub const fn r0(imm: u32) -> u64 {
    0xb7 | (imm as u64) << 32
}
pub const fn load64(source: u64, imm: u32) -> u64 {
    0x0118 | source << 12 | (imm as u64) << 32
}

/// `union bpf_attr`, field by field.
pub struct Attr([u8; 168]);

impl Attr {
    pub fn new() -> Self {
        Self([0; 168])
    }

    pub fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub fn bytes(mut self, at: usize, value: &[u8]) -> Self {
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }

    pub fn call(&self, command: u32) -> io::Result<i32> {
        // 6.1 knows 144 bytes, and takes more only if they are zero.
        // SAFETY: the kernel reads at most 168 bytes of it; pointers in it outlive the call,
        // as every caller keeps what it points to.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command as libc::c_long,
                self.0.as_ptr(),
                self.0.len(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(result as i32)
    }

    pub fn open(&self, command: u32) -> io::Result<OwnedFd> {
        // SAFETY: the command returns a new descriptor that nobody else owns.
        self.call(command)
            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// A program to load, with everything that can be wrong about it.
#[derive(Clone, Default)]
pub struct Load {
    pub name: &'static str,
    pub prog_type: u32,
    pub attach_type: u32,
    pub words: Vec<u64>,
    pub flags: u32,
    pub btf_id: u32,
    pub attach_fd: u32,
    pub core_relos: u32,
    pub fd_array: Vec<i32>,
    /// Says how many there are in `fd_array` (6.14): the kernel takes them all along.
    pub counted: bool,
    /// Otherwise it is "GPL".
    pub licence: Option<&'static CStr>,
}

impl Load {
    pub fn new(name: &'static str, prog_type: u32, words: &[u64]) -> Self {
        Self {
            name,
            prog_type,
            words: words.to_vec(),
            ..Self::default()
        }
    }

    pub fn load(&self) -> io::Result<OwnedFd> {
        let fds = if self.fd_array.is_empty() {
            0
        } else {
            self.fd_array.as_ptr() as u64
        };
        Attr::new()
            .u32(0, self.prog_type)
            .u32(4, self.words.len() as u32)
            .u64(8, self.words.as_ptr() as u64)
            .u64(16, self.licence.unwrap_or(c"GPL").as_ptr() as u64)
            .u32(44, self.flags)
            .bytes(48, self.name.as_bytes())
            .u32(68, self.attach_type)
            .u32(108, self.btf_id)
            .u32(112, self.attach_fd)
            .u32(116, self.core_relos)
            .u64(120, fds)
            .u32(
                148,
                if self.counted {
                    self.fd_array.len() as u32
                } else {
                    0
                },
            )
            .open(PROG_LOAD)
    }
}

pub fn map(kind: u32, value_size: u32, flags: u32) -> OwnedFd {
    Attr::new()
        .u32(0, kind)
        .u32(4, 4)
        .u32(8, value_size)
        .u32(12, 1)
        .u32(16, flags)
        .open(MAP_CREATE)
        .expect("the kernel makes maps")
}

/// A map as loaders make it for `.rodata`.
pub fn data_map(bytes: &[u8], freeze: bool) -> OwnedFd {
    let fd = map(ARRAY, bytes.len() as u32, RDONLY_PROG);
    let zero = 0u32;
    Attr::new()
        .u32(0, fd.as_raw_fd() as u32)
        .u64(8, (&raw const zero) as u64)
        .u64(16, bytes.as_ptr() as u64)
        .call(MAP_UPDATE_ELEM)
        .expect("an unfrozen map takes values");
    if freeze {
        Attr::new()
            .u32(0, fd.as_raw_fd() as u32)
            .call(MAP_FREEZE)
            .expect("an array can be frozen");
    }
    fd
}

/// Refers to `fds` one after another, through MAP_FD or MAP_VALUE.
pub fn touching(source: u64, fds: &[RawFd]) -> Vec<u64> {
    let mut words = Vec::new();
    for &fd in fds {
        words.extend([load64(source, fd as u32), 0]);
    }
    words.extend([r0(0), EXIT]);
    words
}
