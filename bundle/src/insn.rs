//! One BPF instruction (RFC 9669), in either byte order.

use crate::inventory::Endianness;

/// Bytes of one instruction slot; a 64-bit load takes two slots.
pub const SLOT: usize = 8;

/// One 8-byte slot, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation code.
    pub code: u8,
    /// Destination register.
    pub dst: u8,
    /// Source register; for some operations what kind of operand the immediate is.
    pub src: u8,
    /// Signed 16-bit offset.
    pub off: i16,
    /// Signed 32-bit immediate.
    pub imm: i32,
}

/// What an instruction calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A helper by number.
    Helper(i32),
    /// A function of the object, relative to the next instruction unless relocated.
    Function(i32),
    /// A kernel function by BTF id.
    Kernel(i32),
    /// A function in a register.
    Register,
}

/// An instruction-set extension that older kernels reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Extension {
    /// 32-bit jumps (`-mcpu=v3`).
    Jump32,
    /// Atomic operations that return a value or do more than add (`-mcpu=v3`).
    AtomicFetch,
    /// Long jumps, sign-extending loads and moves, signed division, byte swap (`-mcpu=v4`).
    V4,
    /// `may_goto`.
    MayGoto,
    /// Casts between address spaces (arena).
    AddressSpaceCast,
    /// Load-acquire and store-release.
    AcquireRelease,
    /// Jumps through a register.
    IndirectJump,
}

impl Insn {
    /// Reads one slot.
    pub fn read(slot: &[u8; SLOT], endianness: Endianness) -> Self {
        let [code, registers, o0, o1, i0, i1, i2, i3] = *slot;
        match endianness {
            Endianness::Little => Self {
                code,
                dst: registers & 0x0f,
                src: registers >> 4,
                off: i16::from_le_bytes([o0, o1]),
                imm: i32::from_le_bytes([i0, i1, i2, i3]),
            },
            Endianness::Big => Self {
                code,
                dst: registers >> 4,
                src: registers & 0x0f,
                off: i16::from_be_bytes([o0, o1]),
                imm: i32::from_be_bytes([i0, i1, i2, i3]),
            },
        }
    }

    /// Is this the first slot of a 64-bit load?
    pub const fn is_wide(&self) -> bool {
        self.code == LOAD_64
    }

    /// Is this a 64-bit load whose immediate is a function's address?
    pub const fn loads_function(&self) -> bool {
        self.is_wide() && self.src == PSEUDO_FUNC
    }

    /// What it calls, if it is a call.
    pub const fn call(&self) -> Option<Call> {
        match (self.code, self.src) {
            (CALL, 0) => Some(Call::Helper(self.imm)),
            (CALL, PSEUDO_CALL) => Some(Call::Function(self.imm)),
            (CALL, PSEUDO_KFUNC) => Some(Call::Kernel(self.imm)),
            (CALL_REGISTER, _) => Some(Call::Register),
            _ => None,
        }
    }

    /// Does it jump to an earlier instruction?
    pub const fn jumps_back(&self) -> bool {
        let class = self.code & 0x07;
        let operation = self.code & 0xf0;
        match (class, operation) {
            (JMP | JMP32, OP_CALL | OP_EXIT) => false,
            (JMP32, OP_JA) => self.imm < 0,
            (JMP, OP_JA) if self.code & FROM_REGISTER != 0 => false,
            (JMP | JMP32, _) => self.off < 0,
            _ => false,
        }
    }

    /// Which extension of the instruction set it belongs to, if any.
    pub const fn extension(&self) -> Option<Extension> {
        let class = self.code & 0x07;
        let operation = self.code & 0xf0;
        match class {
            JMP32 if operation == OP_JA => Some(Extension::V4),
            JMP32 => Some(Extension::Jump32),
            JMP if operation == OP_JCOND => Some(Extension::MayGoto),
            JMP if operation == OP_JA && self.code & FROM_REGISTER != 0 => {
                Some(Extension::IndirectJump)
            }
            LDX if self.code & 0xe0 == MODE_SIGNED => Some(Extension::V4),
            STX if self.code & 0xe0 == MODE_ATOMIC => match self.imm {
                0 => None,
                0x100 | 0x110 => Some(Extension::AcquireRelease),
                _ => Some(Extension::AtomicFetch),
            },
            ALU | ALU64 => self.arithmetic_extension(class, operation),
            _ => None,
        }
    }

    const fn arithmetic_extension(&self, class: u8, operation: u8) -> Option<Extension> {
        match (operation, self.off) {
            (OP_MOV, 8 | 16 | 32) if self.code & FROM_REGISTER != 0 => Some(Extension::V4),
            (OP_MOV, 1) if class == ALU64 && self.code & FROM_REGISTER != 0 => {
                Some(Extension::AddressSpaceCast)
            }
            (OP_DIV | OP_MOD, 1) => Some(Extension::V4),
            (OP_END, _) if class == ALU64 => Some(Extension::V4),
            _ => None,
        }
    }
}

const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;

const OP_JA: u8 = 0x00;
const OP_DIV: u8 = 0x30;
const OP_CALL: u8 = 0x80;
const OP_EXIT: u8 = 0x90;
const OP_MOD: u8 = 0x90;
const OP_MOV: u8 = 0xb0;
const OP_END: u8 = 0xd0;
const OP_JCOND: u8 = 0xe0;

const FROM_REGISTER: u8 = 0x08;
const MODE_SIGNED: u8 = 0x80;
const MODE_ATOMIC: u8 = 0xc0;

const LOAD_64: u8 = 0x18;
const CALL: u8 = 0x85;
const CALL_REGISTER: u8 = 0x8d;

const PSEUDO_CALL: u8 = 1;
const PSEUDO_KFUNC: u8 = 2;
const PSEUDO_FUNC: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_byte_orders_read_the_same() {
        let want = Insn {
            code: 0x61,
            dst: 1,
            src: 10,
            off: -8,
            imm: 0x0102_0304,
        };
        let little = [0x61, 0xa1, 0xf8, 0xff, 4, 3, 2, 1];
        let big = [0x61, 0x1a, 0xff, 0xf8, 1, 2, 3, 4];
        assert_eq!(Insn::read(&little, Endianness::Little), want);
        assert_eq!(Insn::read(&big, Endianness::Big), want);
    }

    #[test]
    fn calls_jumps_and_extensions() {
        let insn = |code, src, off, imm| Insn {
            code,
            dst: 0,
            src,
            off,
            imm,
        };
        for (insn, call, back, extension) in [
            (insn(0x85, 0, 0, 6), Some(Call::Helper(6)), false, None),
            (insn(0x85, 1, 0, -1), Some(Call::Function(-1)), false, None),
            (insn(0x85, 2, -1, 77), Some(Call::Kernel(77)), false, None),
            (insn(0x8d, 0, 0, 0), Some(Call::Register), false, None),
            (insn(0x05, 0, -3, 0), None, true, None),
            (insn(0x15, 0, 3, 0), None, false, None),
            (insn(0x06, 0, 0, -3), None, true, Some(Extension::V4)),
            (insn(0x16, 0, -3, 0), None, true, Some(Extension::Jump32)),
            (insn(0x95, 0, 0, 0), None, false, None),
            (insn(0xe5, 0, 2, 0), None, false, Some(Extension::MayGoto)),
            (insn(0xdb, 0, 8, 0), None, false, None),
            (
                insn(0xdb, 0, 8, 1),
                None,
                false,
                Some(Extension::AtomicFetch),
            ),
            (
                insn(0xdb, 0, 8, 0x100),
                None,
                false,
                Some(Extension::AcquireRelease),
            ),
            (insn(0x91, 0, 0, 0), None, false, Some(Extension::V4)),
            (insn(0xbf, 0, 8, 0), None, false, Some(Extension::V4)),
            (
                insn(0xbf, 0, 1, 0),
                None,
                false,
                Some(Extension::AddressSpaceCast),
            ),
            (insn(0x37, 0, 1, 9), None, false, Some(Extension::V4)),
            (insn(0xd7, 0, 0, 16), None, false, Some(Extension::V4)),
            (insn(0xd4, 0, 0, 16), None, false, None),
            (
                insn(0x0d, 0, 0, 0),
                None,
                false,
                Some(Extension::IndirectJump),
            ),
        ] {
            let got = (insn.call(), insn.jumps_back(), insn.extension());
            assert_eq!(got, (call, back, extension), "{insn:?}");
        }
    }
}
