//! How a stream differs from what was signed, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::insn;

/// Where and how a stream differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The program that it was compared with.
    pub program: String,
    /// Slot of the stream; `None` where the stream as such does not fit.
    pub at: Option<u32>,
    /// Function that has this slot, and the slot within it.
    pub function: Option<(String, u32)>,
    /// What differs there.
    pub what: What,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The object has no such program.
    NoSuchProgram,
    /// It uses a function or a map that was never measured on this kernel.
    NotMeasured,
    /// An instruction that no relocation may change.
    Instruction {
        /// As signed.
        want: u64,
        /// As loaded.
        got: u64,
    },
    /// A value that this kernel does not give here.
    Relocation {
        /// The one that it gives, where known.
        want: Option<u64>,
        /// As loaded.
        got: u64,
    },
    /// A call, or an address taken, leads elsewhere.
    Callee {
        /// The function that is meant.
        want: String,
        /// Where it leads, if a function is there.
        got: Option<String>,
    },
    /// Another map.
    Map {
        /// The map that is meant.
        want: String,
        /// The one whose descriptor it is; `None`: another one than before.
        got: Option<String>,
    },
    /// Another place in global data.
    Variable {
        /// The section.
        section: String,
        /// Byte offset as signed.
        want: u32,
        /// As loaded.
        got: u32,
    },
    /// The stream ends within a function.
    Cut {
        /// Which.
        function: String,
    },
    /// Instructions that belong to no function that the program calls.
    Extra {
        /// How many.
        count: usize,
    },
}

impl Difference {
    pub(super) fn nowhere(program: &str, what: What) -> Self {
        Self {
            program: program.to_owned(),
            at: None,
            function: None,
            what,
        }
    }
}

/// `instruction 12 (number 3 of function "probe"): the constant is 7, signed is 5`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "instruction {at}")?;
            if let Some((function, slot)) = &self.function {
                write!(f, " (number {slot} of function {function:?})")?;
            }
            f.write_str(": ")?;
        }
        match &self.what {
            What::NoSuchProgram => write!(f, "the object has no program {:?}", self.program),
            What::NotMeasured => f.write_str("it was not measured on this kernel"),
            What::Instruction { want, got } => f.write_str(&compare(*want, *got)),
            What::Relocation {
                want: Some(want),
                got,
            } => write!(
                f,
                "a relocation has a value that this kernel does not give: {}",
                compare(*want, *got)
            ),
            What::Relocation { want: None, got } => write!(
                f,
                "a relocation has the value {}, and nothing is known about it on this kernel",
                insn(*got).imm
            ),
            What::Callee {
                want,
                got: Some(got),
            } => {
                write!(f, "it calls the function {got:?}, signed is {want:?}")
            }
            What::Callee { want, got: None } => {
                write!(f, "it does not lead to the start of the function {want:?}")
            }
            What::Map {
                want,
                got: Some(got),
            } => {
                write!(f, "it uses the map {got:?}, signed is {want:?}")
            }
            What::Map { want, got: None } => write!(
                f,
                "it uses another map than before in the place of {want:?}"
            ),
            What::Variable { section, want, got } => write!(
                f,
                "it refers to byte {got} of {section}, signed is byte {want}"
            ),
            What::Cut { function } => {
                write!(f, "the program ends within the function {function:?}")
            }
            What::Extra { count } => write!(
                f,
                "{count} instructions that belong to no function which the program calls"
            ),
        }
    }
}

/// Two instructions, by the field that differs where it is only one.
fn compare(want: u64, got: u64) -> String {
    let (signed, loaded) = (insn(want), insn(got));
    let mut only = signed;
    only.imm = loaded.imm;
    if only == loaded {
        return match signed.call() {
            Some(_) => format!("it calls number {}, signed is {}", loaded.imm, signed.imm),
            None => format!("the constant is {}, signed is {}", loaded.imm, signed.imm),
        };
    }
    only = signed;
    only.off = loaded.off;
    if only == loaded {
        return format!("the offset is {}, signed is {}", loaded.off, signed.off);
    }
    only = signed;
    (only.dst, only.src) = (loaded.dst, loaded.src);
    if only == loaded {
        return format!(
            "the registers are r{}, r{}, signed are r{}, r{}",
            loaded.dst, loaded.src, signed.dst, signed.src
        );
    }
    format!("another instruction: {got:016x}, signed is {want:016x}")
}
