//! Verifier evidence: which kernels accepted a bundle's programs, and what it cost them.
//!
//! The predicate of type [`crate::media::VERIFIER_PREDICATE`]; `docs/signing.md` explains it.
//! It is made by loading every program in a virtual machine; the guest tells what happened in
//! [`Line`]s on its console.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The predicate: one entry for each kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// In the order in which they were asked for.
    pub kernels: Vec<Kernel>,
}

/// A kernel, as it describes itself, and what it did with each program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`: build number and date.
    pub version: String,
    /// `uname -m`.
    pub architecture: String,
    /// The GNU build id, in hex digits, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// SHA-256 of `/proc/config.gz`, if it has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// SHA-256 of its BTF, if it has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub btf: Option<Digest>,
    /// SHA-256 of the image that was booted; the guest does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Every program of every object, in the inventory's order.
    #[serde(default)]
    pub programs: Vec<Program>,
}

/// What a kernel did with one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The object's name.
    pub object: String,
    /// The program's name.
    pub name: String,
    /// Did the kernel accept it?
    pub loaded: bool,
    /// Why not: the error and the verifier's or the loader's last words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the verifier says about its work, if it came that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifier: Option<Statistics>,
}

/// The numbers at the end of the verifier's log (`BPF_LOG_STATS`; kernel/bpf/verifier.c,
/// `print_verification_stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Instructions that it walked through, on all paths.
    pub processed_instructions: u64,
    /// The most that this kernel walks through.
    pub limit: u64,
    /// Most states kept for one instruction.
    pub max_states_per_instruction: u64,
    /// States kept.
    pub total_states: u64,
    /// Most states kept at once.
    pub peak_states: u64,
    /// Microseconds that it took, in an emulated machine.
    pub microseconds: u64,
}

/// One line of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// First: which kernel.
    Kernel(Kernel),
    /// Then each program.
    Program(Program),
    /// Last: how many there were.
    End(usize),
}

/// What a guest's lines begin with.
pub const MARK: &str = "BPFSEAL-EVIDENCE ";

impl Line {
    /// As it is printed, without a line end.
    pub fn to_text(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{MARK}{json}")
    }

    /// The line that `text` ends with, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, json) = text.split_once(MARK)?;
        serde_json::from_str(json.trim_end()).ok()
    }
}

/// What a guest said, line by line.
#[derive(Debug, Default)]
pub struct Transcript {
    kernel: Option<Kernel>,
    complete: bool,
}

impl Transcript {
    /// Takes a line of its console.
    pub fn add(&mut self, text: &str) {
        match (Line::parse(text), &mut self.kernel) {
            (Some(Line::Kernel(kernel)), None) => self.kernel = Some(kernel),
            (Some(Line::Program(program)), Some(kernel)) if !self.complete => {
                kernel.programs.push(program);
            }
            (Some(Line::End(count)), Some(kernel)) => {
                self.complete = kernel.programs.len() == count;
            }
            _ => {}
        }
    }

    /// Is everything said?
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The kernel and its programs; `None`: the guest did not come to the end.
    pub fn into_kernel(self) -> Option<Kernel> {
        self.kernel.filter(|_| self.complete)
    }
}

impl Statistics {
    /// Reads them from the end of a verifier's log.
    pub fn parse(log: &str) -> Option<Self> {
        let processed = log
            .lines()
            .rev()
            .find(|line| line.starts_with("processed "))?;
        let words: Vec<&str> = processed
            .split([' ', '(', ')'])
            .filter(|word| !word.is_empty())
            .collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse().ok()
        };
        let time = log
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("verification time "))
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        Some(Self {
            processed_instructions: after("processed")?,
            limit: after("limit").unwrap_or(0),
            max_states_per_instruction: after("max_states_per_insn").unwrap_or(0),
            total_states: after("total_states").unwrap_or(0),
            peak_states: after("peak_states").unwrap_or(0),
            microseconds: time.unwrap_or(0),
        })
    }
}

/// The verifier's last words before its numbers.
pub fn complaint(log: &str) -> Option<&str> {
    log.lines().rev().map(str::trim).find(|line| {
        let is_number = ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|start| line.starts_with(start));
        !line.is_empty() && !is_number
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "0: R1=ctx() R10=fp0\n0: (79) r0 = *(u64 *)(r9 +0)\nR9 !read_ok\n\
        verification time 123 usec\nstack depth 0+0\nprocessed 7 insns (limit 1000000) \
        max_states_per_insn 1 total_states 2 peak_states 3 mark_read 4\n";

    #[test]
    fn a_log_ends_with_numbers() {
        let want = Statistics {
            processed_instructions: 7,
            limit: 1_000_000,
            max_states_per_instruction: 1,
            total_states: 2,
            peak_states: 3,
            microseconds: 123,
        };
        assert_eq!(Statistics::parse(LOG), Some(want));
        assert_eq!(complaint(LOG), Some("R9 !read_ok"));
        for log in ["", "processed", "processed x insns", "invalid"] {
            assert_eq!(Statistics::parse(log), None, "{log}");
        }
        assert_eq!(complaint("stack depth 0\n"), None);
    }

    #[test]
    fn only_a_guest_that_came_to_the_end_is_believed() {
        let kernel = Kernel {
            release: "6.12.1".into(),
            version: "#1 SMP".into(),
            architecture: "x86_64".into(),
            build_id: Some("0a".into()),
            config: None,
            btf: None,
            image: None,
            programs: Vec::new(),
        };
        let program = Program {
            object: "probe.bpf.o".into(),
            name: "probe".into(),
            loaded: true,
            error: None,
            verifier: None,
        };
        let lines = [
            Line::Kernel(kernel.clone()).to_text(),
            format!("\r{}\r", Line::Program(program.clone()).to_text()),
            Line::End(1).to_text(),
        ];
        let read = |lines: &[String]| {
            let mut transcript = Transcript::default();
            lines.iter().for_each(|line| transcript.add(line));
            transcript.into_kernel()
        };
        let whole = Kernel {
            programs: vec![program],
            ..kernel
        };
        assert_eq!(read(&lines), Some(whole));
        assert_eq!(read(&lines[..2]), None);
        assert_eq!(read(&lines[1..]), None);
        let without = [lines[0].clone(), lines[2].clone()];
        assert_eq!(read(&without), None);
        assert_eq!(Line::parse("BPFSEAL-EVIDENCE {\"end\":"), None);
    }
}
