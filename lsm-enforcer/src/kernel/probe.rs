//! Loading a harmless program that nobody signed.
#![expect(unsafe_code, reason = "libbpf-rs loads programs only from objects")]

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    ptr,
};

use libbpf_rs::libbpf_sys::{
    BPF_PROG_TYPE_SOCKET_FILTER, bpf_insn, bpf_prog_load, bpf_prog_load_opts,
};

/// `r0 = 0x5ea1`: no loader's probe returns that, so no list admits it by accident.
const UNSIGNED: i32 = 0x5ea1;

/// Loads and drops it.
pub fn load_unsigned() -> io::Result<()> {
    let instruction = |code: u8, imm: i32| bpf_insn {
        code,
        imm,
        ..bpf_insn::default()
    };
    let program = [instruction(0xb7, UNSIGNED), instruction(0x95, 0)];
    let mut options = bpf_prog_load_opts {
        sz: size_of::<bpf_prog_load_opts>() as _,
        attempts: 1,
        ..bpf_prog_load_opts::default()
    };
    // SAFETY: the name and licence end with NUL, the instructions and options outlive the
    // call, and a non-negative result is a descriptor that nobody else owns.
    let fd = unsafe {
        let fd = bpf_prog_load(
            BPF_PROG_TYPE_SOCKET_FILTER,
            c"bpfseal_probe".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as _,
            ptr::from_mut(&mut options),
        );
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        OwnedFd::from_raw_fd(fd)
    };
    drop(fd);
    Ok(())
}
