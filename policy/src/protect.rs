//! Switches of self-protection: ways into kernel memory that the gate refuses while it is armed.
//!
//! Whoever writes kernel memory can take any gate away, so these doors are closed unless the
//! policy opens one. Each is a switch of its own, because each has its honest users.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer, ser::SerializeMap};

/// One door to kernel memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Switch {
    /// Modules without a valid signature.
    UnsignedModules = 0,
    /// Another kernel, started from this one.
    Kexec = 1,
    /// `/dev/mem`, `/dev/port`, tracing of memory-mapped input and output.
    DevMem = 2,
    /// `iopl`, `ioperm`, and serial ports' addresses.
    IoPorts = 3,
    /// Writing model-specific registers.
    Msr = 4,
    /// Writing the configuration of PCI devices, and their memory.
    Pci = 5,
    /// Reading `/proc/kcore`.
    Kcore = 6,
    /// The kernel's debugger.
    Debugger = 7,
    /// ACPI tables and methods from user space.
    AcpiTables = 8,
    /// Hibernation: whoever writes the image writes the kernel.
    Hibernation = 9,
    /// Hardware addresses as parameters of modules.
    HardwareParameters = 10,
}

impl Switch {
    /// Every switch, by number; the kernel side has the same numbers.
    pub const ALL: &[Self] = &[
        Self::UnsignedModules,
        Self::Kexec,
        Self::DevMem,
        Self::IoPorts,
        Self::Msr,
        Self::Pci,
        Self::Kcore,
        Self::Debugger,
        Self::AcpiTables,
        Self::Hibernation,
        Self::HardwareParameters,
    ];

    /// The key in `[protect]`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::UnsignedModules => "unsigned_modules",
            Self::Kexec => "kexec",
            Self::DevMem => "dev_mem",
            Self::IoPorts => "io_ports",
            Self::Msr => "msr",
            Self::Pci => "pci",
            Self::Kcore => "kcore",
            Self::Debugger => "debugger",
            Self::AcpiTables => "acpi_tables",
            Self::Hibernation => "hibernation",
            Self::HardwareParameters => "hardware_parameters",
        }
    }

    /// What it refuses, a clause.
    pub const fn refuses(self) -> &'static str {
        match self {
            Self::UnsignedModules => "modules without a valid signature",
            Self::Kexec => "another kernel by kexec",
            Self::DevMem => "kernel memory through /dev/mem, /dev/port and mmiotrace",
            Self::IoPorts => "input and output ports (iopl, ioperm, serial ports' addresses)",
            Self::Msr => "writing model-specific registers",
            Self::Pci => "writing PCI configuration and device memory",
            Self::Kcore => "reading kernel memory through /proc/kcore",
            Self::Debugger => "the kernel debugger",
            Self::AcpiTables => "ACPI tables and methods, and device trees, from user space",
            Self::Hibernation => "hibernation, whose image is kernel memory",
            Self::HardwareParameters => "hardware addresses as parameters of modules",
        }
    }

    /// Off, unless the policy says otherwise: out-of-tree modules (DKMS) are rarely signed.
    pub const fn is_on_by_default(self) -> bool {
        !matches!(self, Self::UnsignedModules)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Which doors are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches(u32);

impl Switches {
    /// None closed.
    pub const NONE: Self = Self(0);

    /// As the kernel side has it: bit N is switch N.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Read back; bits of unknown switches are dropped.
    pub fn from_bits(bits: u32) -> Self {
        Self(
            Switch::ALL
                .iter()
                .fold(0, |all, switch| all | bits & switch.bit()),
        )
    }

    /// With one of them set.
    #[must_use]
    pub const fn with(self, switch: Switch, on: bool) -> Self {
        match on {
            true => Self(self.0 | switch.bit()),
            false => Self(self.0 & !switch.bit()),
        }
    }

    /// Is this one closed?
    pub const fn is_on(self, switch: Switch) -> bool {
        self.0 & switch.bit() != 0
    }

    /// Those that are open.
    pub fn off(self) -> BTreeSet<Switch> {
        let is_off = |switch: &Switch| !self.is_on(*switch);
        Switch::ALL.iter().copied().filter(is_off).collect()
    }
}

/// What a policy without `[protect]` says.
impl Default for Switches {
    fn default() -> Self {
        Switch::ALL.iter().fold(Self::NONE, |all, &switch| {
            all.with(switch, switch.is_on_by_default())
        })
    }
}

/// `{"unsigned_modules": false, "kexec": true, …}`.
impl Serialize for Switches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Switch::ALL.len()))?;
        for &switch in Switch::ALL {
            map.serialize_entry(switch.word(), &self.is_on(switch))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unsigned_modules_are_let_in_by_default() {
        assert_eq!(
            Switches::default().off(),
            BTreeSet::from([Switch::UnsignedModules])
        );
    }

    #[test]
    fn numbers_are_the_kernel_sides() {
        for (number, &switch) in Switch::ALL.iter().enumerate() {
            assert_eq!(switch as usize, number);
            let only = Switches::NONE.with(switch, true);
            assert_eq!(only.bits(), 1 << number);
            assert_eq!(Switches::from_bits(only.bits()), only);
        }
        assert_eq!(Switches::from_bits(u32::MAX).off(), BTreeSet::new());
    }
}
