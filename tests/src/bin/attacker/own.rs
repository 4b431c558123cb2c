//! The gate's own objects, its daemon and files, for somebody who is not the daemon.
#![expect(unsafe_code, reason = "the bpf() system call with hostile arguments")]

use std::{
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixListener},
    process::ExitCode,
};

use super::{
    Attr, HASH, LINK_GET_FD_BY_ID, MAP_CREATE, MAP_GET_FD_BY_ID, OBJ_GET, PINS, PROG_GET_FD_BY_ID,
    check,
};

/// Tries to get hold of the gate's own objects, from another executable.
pub fn steal() -> bool {
    let mut fine = true;
    for pin in fs::read_dir(PINS).into_iter().flatten().flatten() {
        let path = pin.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.starts_with("map_") {
            continue;
        }
        let text = std::ffi::CString::new(path.to_string_lossy().as_bytes()).unwrap_or_default();
        let result = Attr::new().u64(0, text.as_ptr() as u64).call(OBJ_GET);
        fine &= check(&format!("{name} cannot be opened"), denied(result));
    }
    for (what, command, next) in [
        ("map", MAP_GET_FD_BY_ID, 12),
        ("program", PROG_GET_FD_BY_ID, 11),
        ("link", LINK_GET_FD_BY_ID, 31),
    ] {
        let mut id = 0;
        let (mut denied, mut open) = (0, 0);
        while let Some(found) = next_id(next, id) {
            id = found;
            match Attr::new().u32(0, id).call(command) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => denied += 1,
                _ => open += 1,
            }
        }
        fine &= check(
            &format!("the gate's {what}s cannot be had by id"),
            if denied > 0 {
                Ok(format!("{denied} denied, {open} others open"))
            } else {
                Err(format!("none denied, {open} open"))
            },
        );
    }
    // A set that is being written has its name, and is on no list yet.
    let named = |name: &str| {
        Attr::new()
            .u32(0, HASH)
            .u32(4, 4)
            .u32(8, 4)
            .u32(12, 1)
            .bytes(28, name.as_bytes())
            .open(MAP_CREATE)
    };
    fine &= check(
        "whoever makes a map with a set's name gets no descriptor",
        denied(named("bpfseal_set").map(|fd| fd.as_raw_fd())),
    );
    let other = named("bpfsealset").map(|_| String::new());
    fine & check(
        "with another name he does",
        other.map_err(|e| e.to_string()),
    )
}

/// Answers one request on a socket in the daemon's place, with what the requester likes to hear.
pub fn answer(path: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream?;
        // It may have gone again without a word.
        let _all_the_same = stream.write_all(b"{\"done\":null}\n");
    }
    Ok(())
}

/// `BPF_*_GET_NEXT_ID`: the kernel writes `next_id` behind `start_id`.
pub fn next_id(command: u32, after: u32) -> Option<u32> {
    let mut attr = [0u32; 3];
    attr[0] = after;
    // SAFETY: the kernel reads and writes within these 12 bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            attr.as_mut_ptr(),
            size_of_val(&attr),
        )
    };
    (result == 0).then_some(attr[1])
}

pub fn denied(result: io::Result<i32>) -> Result<String, String> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(error.to_string()),
        other => Err(format!("{other:?}")),
    }
}

/// Attaches to a process as a debugger.
pub fn trace(pid: i32) -> bool {
    // SAFETY: PTRACE_ATTACH takes no pointers.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    let error = io::Error::last_os_error();
    check(
        "the daemon cannot be traced",
        if result < 0 && error.raw_os_error() == Some(libc::EPERM) {
            Ok(error.to_string())
        } else {
            Err(format!("{result} {error}"))
        },
    )
}

/// Opens a file for reading, and empties it by that.
pub fn truncate(path: &str) -> ExitCode {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = fs::File::options()
        .read(true)
        .custom_flags(libc::O_TRUNC)
        .open(path);
    match opened {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a file and has whoever opens it wait until this process is told to end; says when it has begun, and when
/// somebody waits.
pub fn lease(path: &str) -> io::Result<()> {
    let file = fs::File::create(path)?;
    // SAFETY: a set of signals on the stack, and calls that take numbers or point to it.
    unsafe {
        let mut somebody_opens: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut somebody_opens, libc::SIGIO);
        libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const somebody_opens,
            std::ptr::null_mut(),
        );
        if libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) < 0 {
            return Err(io::Error::last_os_error());
        }
        println!("nobody opens it");
        let mut signal = 0;
        libc::sigwait(&raw const somebody_opens, &raw mut signal);
    }
    println!("somebody waits");
    io::stdin().read_line(&mut String::new()).map(drop)
}

/// Where in a file its first instruction is.
pub fn entry(path: &str) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let elf = goblin::elf::Elf::parse(&bytes).map_err(io::Error::other)?;
    let holds =
        |part: &&goblin::elf::ProgramHeader| part.vm_range().contains(&(elf.entry as usize));
    let part = elf.program_headers.iter().find(holds);
    let part = part.ok_or(io::ErrorKind::InvalidData)?;
    println!("{:#x}", elf.entry - part.p_vaddr + part.p_offset);
    Ok(())
}

/// Waits for a grace period of the kernel's RCU.
pub fn grace() -> io::Result<()> {
    // `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu()` (kernel/sched/membarrier.c).
    // SAFETY: the call takes numbers alone.
    match unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until the control group at `path` is frozen.
pub fn frozen(path: &str) -> io::Result<()> {
    let mut events = fs::File::open(format!("{path}/cgroup.events"))?;
    loop {
        // The kernel reports what changes after this.
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.contains("frozen 1") {
            return Ok(());
        }
        let mut change = libc::pollfd {
            fd: events.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        };
        // SAFETY: one structure, which lives through the call.
        match unsafe { libc::poll(&raw mut change, 1, 60_000) } {
            1.. => {}
            0 => return Err(io::ErrorKind::TimedOut.into()),
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

/// What this process starts runs on the same processor, and gives way as soon as this one can go on.
pub fn go_first_on_one_processor() -> io::Result<()> {
    // SAFETY: a set of processors and a parameter on the stack, and calls that read them.
    let result = unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut one);
        let first = libc::sched_param { sched_priority: 1 };
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        libc::sched_setaffinity(0, size_of_val(&one), &raw const one)
            | libc::sched_setscheduler(0, policy, &raw const first)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets whatever else runs go before this thread.
pub fn give_way() {
    // SAFETY: three numbers; 0 is the calling thread. The worst is that nothing changes.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 15) };
}
