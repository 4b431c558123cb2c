//! Small programs that others generate at run time, as they generate them.
//!
//! systemd asks the kernel once whether device filters work and, if refused, runs every
//! unit without them for the life of PID 1; so a gate that refused these would take
//! protection away. The self test loads them the way their makers do.
#![expect(unsafe_code, reason = "loads through bpf_prog_load of libbpf")]

use std::{
    ffi::CString,
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// A program that somebody else makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Who makes it, and what for.
    pub name: &'static str,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// Instructions.
    pub words: &'static [u64],
}

/// One instruction as the kernel's `struct bpf_insn` lays it out on a little-endian machine.
const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    (code as u64)
        | ((dst as u64) << 8)
        | ((src as u64) << 12)
        | ((off as u16 as u64) << 16)
        | ((imm as u32 as u64) << 32)
}

const EXIT: u64 = insn(0x95, 0, 0, 0, 0);
const CGROUP_DEVICE: u32 = libbpf_sys::BPF_PROG_TYPE_CGROUP_DEVICE;

/// `r0 = 1; exit`: systemd's `bpf_devices_supported`.
const SYSTEMD: &[u64] = &[insn(0xb7, 0, 0, 0, 1), EXIT];

/// The prologue of runc's `devicefilter`, then "allow character device 1:3, else deny".
const RUNC: &[u64] = &[
    insn(0x61, 2, 1, 0, 0),      // r2 = ctx->access_type
    insn(0x54, 2, 0, 0, 0xffff), // w2 &= 0xffff: the device's type
    insn(0x61, 3, 1, 0, 0),      // r3 = ctx->access_type
    insn(0x74, 3, 0, 0, 16),     // w3 >>= 16: read, write, mknod
    insn(0x61, 4, 1, 4, 0),      // r4 = ctx->major
    insn(0x61, 5, 1, 8, 0),      // r5 = ctx->minor
    insn(0x55, 2, 0, 4, 2),      // if r2 != BPF_DEVCG_DEV_CHAR skip
    insn(0x55, 4, 0, 3, 1),      // if r4 != 1 skip
    insn(0x55, 5, 0, 2, 3),      // if r5 != 3 skip
    insn(0xb7, 0, 0, 0, 1),      // r0 = 1
    EXIT,
    insn(0xb7, 0, 0, 0, 0), // r0 = 0
    EXIT,
];

/// crun's: 64-bit masks, and a check of the access bits.
const CRUN: &[u64] = &[
    insn(0x61, 2, 1, 0, 0),      // r2 = ctx->access_type
    insn(0x57, 2, 0, 0, 0xffff), // r2 &= 0xffff
    insn(0x61, 3, 1, 0, 0),      // r3 = ctx->access_type
    insn(0x77, 3, 0, 0, 16),     // r3 >>= 16
    insn(0x61, 4, 1, 4, 0),      // r4 = ctx->major
    insn(0x61, 5, 1, 8, 0),      // r5 = ctx->minor
    insn(0xbf, 1, 3, 0, 0),      // r1 = r3
    insn(0x57, 1, 0, 0, 6),      // r1 &= BPF_DEVCG_ACC_READ | _WRITE
    insn(0x5d, 1, 3, 2, 0),      // if r1 != r3 skip
    insn(0xb7, 0, 0, 0, 1),      // r0 = 1
    EXIT,
    insn(0xb7, 0, 0, 0, 0), // r0 = 0
    EXIT,
];

/// What must load on a host with systemd or containers.
pub const SAMPLES: &[Sample] = &[
    Sample {
        name: "systemd's device filter probe",
        prog_type: CGROUP_DEVICE,
        words: SYSTEMD,
    },
    Sample {
        name: "runc's device filter",
        prog_type: CGROUP_DEVICE,
        words: RUNC,
    },
    Sample {
        name: "crun's device filter",
        prog_type: CGROUP_DEVICE,
        words: CRUN,
    },
];

/// Loads `sample` as its maker would and unloads it again.
///
/// # Errors
/// The kernel's answer; `EPERM` is a refusal of the gate.
pub fn load(sample: &Sample) -> io::Result<()> {
    let licence = CString::from(c"GPL");
    // SAFETY: name and licence are NUL-terminated and live; `words` has the layout of
    // `struct bpf_insn` and its length is given; no options are passed.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            sample.prog_type,
            std::ptr::null(),
            licence.as_ptr(),
            sample.words.as_ptr().cast(),
            sample.words.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call returned a descriptor that is ours alone; dropping it unloads.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_fit_the_shape_without_calls() {
        for sample in SAMPLES {
            assert_eq!(sample.prog_type, 15, "{}", sample.name);
            let calls = sample
                .words
                .iter()
                .filter(|word| *word & 0xff == 0x85)
                .count();
            assert_eq!(
                (calls, sample.words.last()),
                (0, Some(&EXIT)),
                "{}",
                sample.name
            );
        }
    }

    #[test]
    fn words_are_laid_out_as_the_kernel_has_them() {
        assert_eq!(
            insn(0xb7, 0, 0, 0, 1).to_le_bytes(),
            [0xb7, 0, 0, 0, 1, 0, 0, 0]
        );
        assert_eq!(
            insn(0x61, 4, 1, 8, 0).to_le_bytes(),
            [0x61, 0x14, 8, 0, 0, 0, 0, 0]
        );
    }
}
