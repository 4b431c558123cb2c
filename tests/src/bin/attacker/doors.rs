//! Ways into kernel memory: open without a gate, closed by the policy's switches, each with an
//! event that names the switch, and open again where the policy opens them. What was opened
//! before the gate was armed is of no use after it.

#![expect(
    unsafe_code,
    reason = "system calls that would open the kernel's memory"
)]

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::AsRawFd,
};

use bundle::Digest;
use enforcer::{
    gate::{Armed, Gate, GateError, Mode},
    kernel::BpfGate,
};
use policy::{
    Reason,
    protect::{Switch, Switches},
};

use super::{admissions, check, drain};

/// One way, and how to try it without harm.
struct Door {
    what: &'static str,
    switch: Switch,
    open: fn() -> io::Result<()>,
}

const DOORS: &[Door] = &[
    door("a module from memory", Switch::UnsignedModules, || {
        ended(unsafe {
            // SAFETY: the kernel reads 256 bytes and a string that live through the call.
            libc::syscall(
                libc::SYS_init_module,
                [0u8; 256].as_ptr(),
                256usize,
                c"".as_ptr(),
            )
        })
    }),
    door("a module from a file", Switch::UnsignedModules, || {
        let file = rubbish()?;
        ended(unsafe {
            // SAFETY: the string lives through the call.
            libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0)
        })
    }),
    door("kexec_load", Switch::Kexec, || {
        // SAFETY: no segments: takes away a kernel that was loaded, of which there is none.
        ended(unsafe { libc::syscall(libc::SYS_kexec_load, 0usize, 0usize, 0usize, 0usize) })
    }),
    door("kexec_file_load", Switch::Kexec, || {
        const NO_INITRAMFS: usize = 4;
        let file = rubbish()?;
        ended(unsafe {
            // SAFETY: the string lives through the call.
            libc::syscall(
                libc::SYS_kexec_file_load,
                file.as_raw_fd(),
                -1,
                1usize,
                c"".as_ptr(),
                NO_INITRAMFS,
            )
        })
    }),
    door("/dev/mem", Switch::DevMem, || device(1, 1).map(drop)),
    door("/dev/port", Switch::DevMem, || device(1, 4).map(drop)),
    door("ioperm", Switch::IoPorts, || {
        const POST_CODES: usize = 0x80;
        // SAFETY: rights to one port, of which nothing here makes use.
        ended(unsafe { libc::syscall(libc::SYS_ioperm, POST_CODES, 1usize, 1) })
    }),
    door("iopl", Switch::IoPorts, || {
        // Giving rights up is allowed to anybody, and makes the next call ask.
        // SAFETY: rights of which nothing here makes use.
        ended(unsafe { libc::syscall(libc::SYS_iopl, 0) })?;
        // SAFETY: as above.
        ended(unsafe { libc::syscall(libc::SYS_iopl, 3) })
    }),
    door("a model-specific register", Switch::Msr, || {
        const TSC_AUX: u64 = 0xc000_0103;
        let mut msr = device(202, 0)?;
        let mut value = [0; 8];
        msr.seek(SeekFrom::Start(TSC_AUX))?;
        msr.read_exact(&mut value)?;
        msr.seek(SeekFrom::Start(TSC_AUX))?;
        msr.write_all(&value)
    }),
    door("PCI configuration", Switch::Pci, || {
        const INTERRUPT_LINE: u64 = 0x3c;
        let mut config = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/sys/bus/pci/devices/0000:00:00.0/config")?;
        let mut value = [0; 1];
        config.seek(SeekFrom::Start(INTERRUPT_LINE))?;
        config.read_exact(&mut value)?;
        config.seek(SeekFrom::Start(INTERRUPT_LINE))?;
        config.write_all(&value)
    }),
    door("/proc/kcore", Switch::Kcore, || {
        File::open("/proc/kcore").map(drop)
    }),
    door(
        "hibernation",
        Switch::Hibernation,
        || match fs::read_to_string("/sys/power/disk")?.trim() {
            "[disabled]" => Err(io::Error::from_raw_os_error(libc::EPERM)),
            _ => Ok(()),
        },
    ),
    door("an ACPI table", Switch::AcpiTables, || {
        fs::create_dir("/sys/kernel/config/acpi/table/bpfseal")
    }),
];

const fn door(what: &'static str, switch: Switch, open: fn() -> io::Result<()>) -> Door {
    Door { what, switch, open }
}

fn ended(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel takes for neither module nor kernel.
fn rubbish() -> io::Result<File> {
    fs::write("/run/rubbish", [0; 256])?;
    File::open("/run/rubbish")
}

fn device(major: u32, minor: u32) -> io::Result<File> {
    let path = format!("/run/device-{major}-{minor}");
    let name = CString::new(path.clone())?;
    // SAFETY: the string lives through the call.
    let made = unsafe {
        libc::mknod(
            name.as_ptr(),
            libc::S_IFCHR | 0o600,
            libc::makedev(major, minor),
        )
    };
    if made < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EEXIST) {
        return Err(io::Error::last_os_error());
    }
    OpenOptions::new().read(true).write(true).open(path)
}

/// Nobody is there to open: a module that this kernel has not loaded, a system call that it
/// was built without.
fn is_absent(error: &io::Error) -> bool {
    [libc::ENOENT, libc::ENXIO, libc::ENODEV, libc::ENOSYS]
        .contains(&error.raw_os_error().unwrap_or(0))
}

fn is_closed(result: &io::Result<()>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EPERM))
}

pub fn run() -> Result<bool, GateError> {
    let mut fine = true;
    let mut doors = Vec::new();
    for door in DOORS {
        let result = (door.open)();
        match &result {
            Err(error) if is_absent(error) => skip(door.what, error),
            _ => {
                fine &= check(
                    &format!("{} is open without a gate", door.what),
                    match is_closed(&result) {
                        false => Ok(format!("{result:?}")),
                        true => Err(format!("{result:?}")),
                    },
                );
                doors.push(door);
            }
        }
    }
    let mut held: Vec<(&str, File)> = [("/dev/mem", 1), ("/dev/port", 4)]
        .into_iter()
        .filter_map(|(what, minor)| Some((what, device(1, minor).ok()?)))
        .collect();
    let ftrace = OpenOptions::new()
        .write(true)
        .open("/proc/sys/kernel/ftrace_enabled");
    held.extend(ftrace.ok().map(|file| ("ftrace_enabled", file)));

    let mut gate = BpfGate::open()?;
    let all = Switch::ALL
        .iter()
        .fold(Switches::NONE, |all, &switch| all.with(switch, true));
    let armed = Armed {
        protect: all,
        ..Armed::now(
            Digest::of(b"authority"),
            Digest::of(b"policy"),
            1,
            Mode::Enforce,
            Digest::of(b"host"),
        )
    };
    gate.arm(&armed, &admissions())?;
    for door in &doors {
        drain(&mut gate);
        let result = (door.open)();
        let event = drain(&mut gate)
            .into_iter()
            .find(|event| event.reason == Some(Reason::KernelMemory));
        let said = event
            .as_ref()
            .map(|event| (event.refused, event.name.as_str()));
        fine &= check(
            &format!("{} is closed", door.what),
            match is_closed(&result) && said == Some((true, door.switch.word())) {
                true => Ok(format!("E608 {}", door.switch.word())),
                false => Err(format!("{result:?}, event {said:?}")),
            },
        );
    }
    for (what, file) in &mut held {
        // The post code's port, the switch as it is; of memory nothing is read.
        let result = match *what {
            "/dev/port" => file
                .seek(SeekFrom::Start(0x80))
                .and_then(|_| file.read(&mut [0; 1])),
            "/dev/mem" => file.read(&mut [0; 1]),
            _ => file.write(b"1\n"),
        };
        fine &= check(
            &format!("{what}, opened before, is of no use"),
            match is_closed(&result.as_ref().map(drop).map_err(copy)) {
                true => Ok(String::new()),
                false => Err(format!("{result:?}")),
            },
        );
    }
    gate.amend(&Armed {
        mode: Mode::Audit,
        ..armed.clone()
    })?;
    drain(&mut gate);
    let kcore = File::open("/proc/kcore").map(drop);
    let events = drain(&mut gate);
    let said = events.first().map(|event| (event.refused, event.reason));
    fine &= check(
        "audit says it and lets it pass",
        match (kcore, said) {
            (Ok(()), Some((false, Some(Reason::KernelMemory)))) => Ok(String::new()),
            other => Err(format!("{other:?}")),
        },
    );
    gate.amend(&Armed {
        protect: Switches::NONE,
        ..armed
    })?;
    for door in &doors {
        let result = (door.open)();
        fine &= check(
            &format!("{} is open where the policy says so", door.what),
            match is_closed(&result) {
                false => Ok(format!("{result:?}")),
                true => Err(format!("{result:?}")),
            },
        );
    }
    gate.disarm()?;
    Ok(fine)
}

fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn skip(what: &str, error: &io::Error) {
    let script = std::env::var("SCRIPT").unwrap_or_else(|_| "attacker".into());
    println!("CHECK skip {script} {what}: this kernel has none ({error})");
}

/// Has the kernel keep one page for the next `kexec`, or forget it.
pub fn kexec(load: bool) -> io::Result<()> {
    // struct kexec_segment: what to copy, its bytes, and where to in physical memory
    const WHERE: usize = 64 << 20;
    let page = [0u8; 4096];
    let segment = [page.as_ptr().addr(), page.len(), WHERE, page.len()];
    let count = usize::from(load);
    ended(
        // SAFETY: the kernel reads `count` segments and the page, which live through the call.
        unsafe { libc::syscall(libc::SYS_kexec_load, WHERE, count, segment.as_ptr(), 0usize) },
    )
}
