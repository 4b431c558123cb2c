//! The daemon's own file, started where things are not what they seem, and what it starts itself.
#![expect(
    unsafe_code,
    reason = "namespaces, fanotify, and the bpf() system call with hostile arguments"
)]

use std::{
    env,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command},
};

use bundle::Digest;
use enforcer::{
    gate::{Armed, Gate as _, GateError, Mode},
    kernel::BpfGate,
    sandbox,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{Attr, OBJ_GET, PINS, admissions, arm, check, evil, explain, grab, must_refuse};

/// `BPF_OBJ_PIN`
const OBJ_PIN: u32 = 6;
const ASIDE: &str = "/sys/fs/bpf/former";

/// A process with the daemon's mark, in the hands of somebody else.
pub fn run() -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let executable = env::current_exe().map_err(|source| GateError {
        doing: "finding this executable".into(),
        source,
    })?;
    let mut fine = true;
    let refused = |result: io::Result<()>| match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(error.to_string()),
        other => Err(format!("{other:?}")),
    };
    for (name, result) in [
        (
            "a pin is not removed",
            fs::remove_file(format!("{PINS}/link_guard_map")),
        ),
        (
            "nor the folder renamed",
            fs::rename(PINS, format!("{PINS}2")),
        ),
        ("nor its own file removed", fs::remove_file(&executable)),
        (
            "nor renamed",
            fs::rename(&executable, executable.with_extension("old")),
        ),
    ] {
        fine &= check(&format!("by the daemon itself, {name}"), refused(result));
    }
    fine &= check("unsigned is refused", must_refuse(&evil()));
    // Maps of a gate that was: they look like those of the next one in all respects.
    let kept = keep_maps().and(gate.disarm().map_err(io::Error::other));
    fine &= check("maps of a former gate are kept", said(kept));
    let other = Armed::now(
        Digest::of(b"authority"),
        Digest::of(b"another policy"),
        2,
        Mode::Enforce,
        Digest::of(b"host"),
    );
    let mut gate = BpfGate::open()?;
    gate.arm(&other, &admissions())?;
    fine &= check(
        "maps of a former gate in the place of the pins",
        said(in_their_place(&other)),
    );
    let child = |word: &str| Command::new(&executable).arg(word).output();
    let said_by = |word: &str| match child(word) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error.to_string(),
    };
    let texts = (said_by("open"), said_by("step-down"));
    let nobody = texts.0.is_empty() && texts.1.contains("start the command again");
    let verdict = if nobody {
        Ok(texts.1)
    } else {
        Err(format!("{texts:?}"))
    };
    fine &= check("whoever gives it up is the daemon no more", verdict);
    let text = said_by("keep");
    for (name, how) in [
        ("and writes no map that it has open still", "by itself"),
        ("nor puts it where programs look maps up", "in another map"),
        ("nor by many at once", "among others"),
    ] {
        let once = text.contains(&format!("{how}: done\n"))
            && text.contains(&format!("{how}: Operation not permitted"));
        let verdict = if once {
            Ok(text.clone())
        } else {
            Err(text.clone())
        };
        fine &= check(name, verdict);
    }
    gate.disarm()?;
    let _gone = fs::remove_dir_all(ASIDE);
    Ok(fine)
}

/// Writes into a map of the gate's that it got as the daemon, and puts it into another map; and again when it is the
/// daemon no more.
pub fn keep() -> io::Result<()> {
    let map = open_pin(&format!("{PINS}/map_counters"))?;
    let outer = map_of_maps(&map)?;
    let (key, value, fd) = (0u32, 0u64, map.as_raw_fd());
    let update = |map: &OwnedFd, value: u64| {
        Attr::new()
            .u32(0, map.as_raw_fd() as u32)
            .u64(8, (&raw const key).addr() as u64)
            .u64(16, value)
    };
    // struct { in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags }
    let batch = Attr::new()
        .u64(16, (&raw const key).addr() as u64)
        .u64(24, (&raw const fd).addr() as u64)
        .u32(32, 1)
        .u32(36, outer.as_raw_fd() as u32);
    let ways = [
        (
            "by itself",
            super::MAP_UPDATE_ELEM,
            update(&map, (&raw const value).addr() as u64),
        ),
        (
            "in another map",
            super::MAP_UPDATE_ELEM,
            update(&outer, (&raw const fd).addr() as u64),
        ),
        ("among others", MAP_UPDATE_BATCH, batch),
    ];
    let all = || {
        for (how, command, attr) in &ways {
            match attr.call(*command) {
                Ok(_) => println!("{how}: done"),
                Err(error) => println!("{how}: {error}"),
            }
        }
    };
    all();
    sandbox::step_down()?;
    all();
    Ok(())
}

const MAP_UPDATE_BATCH: u32 = 26;

/// Whose inner maps look like this one.
fn map_of_maps(like: &OwnedFd) -> io::Result<OwnedFd> {
    const ARRAY_OF_MAPS: u32 = 12;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", like.as_raw_fd()))?;
    let entries = info
        .lines()
        .find_map(|line| line.strip_prefix("max_entries:"))
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| io::Error::other("it has no number of entries"))?;
    let array = |kind: u32, value_size: u32, entries: u32| {
        Attr::new()
            .u32(0, kind)
            .u32(4, 4)
            .u32(8, value_size)
            .u32(12, entries)
    };
    let template = array(super::ARRAY, 8, entries).open(super::MAP_CREATE)?;
    array(ARRAY_OF_MAPS, 4, 1)
        .u32(20, template.as_raw_fd() as u32)
        .open(super::MAP_CREATE)
}

/// Opens the gate, as the daemon or after giving that up, and says why it cannot.
pub fn open(steps_down: bool) -> io::Result<()> {
    if steps_down {
        sandbox::step_down()?;
    }
    let opened = BpfGate::open().map(drop);
    opened.map_err(|error| io::Error::other(explain(&error)))
}

fn said(result: io::Result<()>) -> Result<String, String> {
    result
        .map(|()| String::new())
        .map_err(|error| error.to_string())
}

fn path_of(path: &str) -> io::Result<CString> {
    CString::new(path).map_err(io::Error::other)
}

fn open_pin(path: &str) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    Attr::new().u64(0, path.as_ptr() as u64).open(OBJ_GET)
}

fn pin(object: &OwnedFd, path: &str) -> io::Result<()> {
    let path = path_of(path)?;
    let attr = Attr::new().u64(0, path.as_ptr() as u64);
    attr.u32(8, object.as_raw_fd() as u32)
        .call(OBJ_PIN)
        .map(drop)
}

fn pins_of(folder: &str, kind: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_str().map(str::to_owned));
    }
    names.retain(|name| name.starts_with(kind));
    Ok(names)
}

fn keep_maps() -> io::Result<()> {
    fs::create_dir(ASIDE)?;
    for name in pins_of(PINS, "map_")? {
        pin(
            &open_pin(&format!("{PINS}/{name}"))?,
            &format!("{ASIDE}/{name}"),
        )?;
    }
    Ok(())
}

/// In a mount namespace of this thread's: another BPF file system with those maps and the real links.
fn in_their_place(real: &Armed) -> io::Result<()> {
    let mut objects = Vec::new();
    for (folder, kind) in [(ASIDE, "map_"), (PINS, "link_")] {
        for name in pins_of(folder, kind)? {
            objects.push((open_pin(&format!("{folder}/{name}"))?, name));
        }
    }
    let real = real.clone();
    let pretend = move || -> io::Result<()> {
        // SAFETY: this thread alone gets a namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        unmount("/sys/fs/bpf", UnmountFlags::empty())?;
        mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)?;
        fs::create_dir(PINS)?;
        for (object, name) in &objects {
            pin(object, &format!("{PINS}/{name}"))?;
        }
        match BpfGate::open() {
            Err(error) if explain(&error).contains("is no map that the gate's programs use") => {
                Ok(())
            }
            Err(error) => Err(io::Error::other(explain(&error))),
            Ok(gate) => match gate.armed() {
                Ok(Some(found)) if found.policy == real.policy => Ok(()),
                found => Err(io::Error::other(format!(
                    "they are taken for the gate: {found:?}"
                ))),
            },
        }
    };
    std::thread::spawn(pretend)
        .join()
        .expect("it returns errors")
}

/// A command in another namespace of a kind: `pid`, `user`, or `time`, in which the machine has been up for longer.
pub fn apart(kind: &str, command: &[String]) -> io::Result<i32> {
    const CLONE_NEWTIME: i32 = 0x80;
    let flag = match kind {
        "pid" => libc::CLONE_NEWPID,
        "user" => libc::CLONE_NEWUSER,
        "time" => CLONE_NEWTIME,
        _ => return Err(io::Error::other("pid, user or time")),
    };
    // SAFETY: a number; this process has one thread.
    if unsafe { libc::unshare(flag) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if flag == CLONE_NEWTIME {
        fs::write("/proc/self/timens_offsets", "boottime 100000 0\n")?;
    }
    if flag == libc::CLONE_NEWUSER {
        fs::write("/proc/self/uid_map", "0 0 1\n")?;
    }
    let mut command = {
        let (program, words) = command
            .split_first()
            .ok_or_else(|| io::Error::other("which command?"))?;
        let mut command = Command::new(program);
        command.args(words);
        command
    };
    // SAFETY: it does nothing, but keeps the standard library from vfork(), which Linux 6.1 refuses in between.
    let status = unsafe { command.pre_exec(|| Ok(())) }.status()?;
    status
        .code()
        .ok_or_else(|| io::Error::other(status.to_string()))
}

/// A command all of whose system calls are let pass by a filter.
pub fn filtered(command: &[String]) -> io::Result<i32> {
    let mut pass = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut pass,
    };
    // SAFETY: the filter lives through the call, which copies it.
    if unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    let (program, words) = command
        .split_first()
        .ok_or_else(|| io::Error::other("which command?"))?;
    let status = Command::new(program).args(words).status()?;
    status
        .code()
        .ok_or_else(|| io::Error::other(status.to_string()))
}

/// Runs a command that shares its working directory with this process.
pub fn sharing(command: &[String]) -> io::Result<i32> {
    let words = command
        .iter()
        .map(|word| CString::new(word.as_str()).map_err(io::Error::other))
        .collect::<io::Result<Vec<_>>>()?;
    let mut arguments: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    arguments.push(std::ptr::null());
    let flags = libc::CLONE_FS | libc::SIGCHLD;
    // SAFETY: like fork(), but for the working directory.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        // SAFETY: the child executes at once what was made before, or ends.
        0 => unsafe {
            libc::execvp(arguments[0], arguments.as_ptr());
            libc::_exit(127)
        },
        child if child > 0 => {
            let mut status = 0;
            // SAFETY: it writes the status, which is there.
            match unsafe { libc::waitpid(child as i32, &raw mut status, 0) } {
                waited if waited < 0 => Err(io::Error::last_os_error()),
                _ => Ok(libc::WEXITSTATUS(status)),
            }
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a command that makes the daemon start something of its own, and robs that before it has executed anything.
pub fn window(file: &str, command: &[String]) -> io::Result<bool> {
    let events = watch_executions(file)?;
    // By a shell: a child that executes the file itself would keep us waiting for our own answer.
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\"", "sh"])
        .args(command)
        .spawn()?;
    let mut robbed = 0;
    let mut fine = true;
    while let Some((event, pid)) = next_execution(&events, &child)? {
        let is_the_daemons = |pid: i32| {
            let found = fs::metadata(format!("/proc/{pid}/exe")).ok();
            let file = fs::metadata(file).ok();
            found
                .zip(file)
                .is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
        };
        if is_the_daemons(pid) {
            robbed += 1;
            fine &= grab::before_it_runs(pid);
            fine &= check("what it is asked by is no pipe", no_pipes(pid));
        }
        allow(&events, &event)?;
    }
    child.wait()?;
    let verdict = match robbed {
        0 => Err("it started nothing".to_owned()),
        _ => Ok(format!("{robbed} times")),
    };
    Ok(check("what the daemon starts is robbed before it runs", verdict) && fine)
}

/// Runs a command that starts workers, and puts a breakpoint (uprobe) at `offset` of the enforcer's `file`, which runs
/// no more, into the first of them alone, before that has read anything. Ends as the command does.
pub fn bugged(file: &str, offset: u64, command: &[String]) -> io::Result<i32> {
    let events = watch_executions(file)?;
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\"", "sh"])
        .args(command)
        .spawn()?;
    let mut bug = None;
    while let Some((event, pid)) = next_execution(&events, &child)? {
        let parent = parent(pid)?;
        let is_worker = bug.is_none() && parent == child.id() as i32;
        if is_worker {
            // Whoever asks it waits in the kernel until it runs, and asks nothing then.
            signal(parent, libc::SIGSTOP)?;
        }
        allow(&events, &event)?;
        if is_worker {
            while !fs::read_to_string(format!("/proc/{pid}/cmdline"))?.contains("worker") {
                super::own::grace()?;
            }
            bug = Some(super::place::breakpoint(file, offset, pid)?);
            signal(parent, libc::SIGCONT)?;
        }
    }
    let status = child.wait()?;
    match bug {
        Some(_breakpoint) => Ok(status.code().unwrap_or(-1)),
        None => Err(io::Error::other("it started no worker")),
    }
}

fn parent(process: i32) -> io::Result<i32> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let number = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let number = number.and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn signal(process: i32, signal: i32) -> io::Result<()> {
    // SAFETY: numbers alone.
    match unsafe { libc::kill(process, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Pipes can be opened by their names in `/proc`.
fn no_pipes(pid: i32) -> Result<String, String> {
    for number in 0..3 {
        let path = format!("/proc/{pid}/fd/{number}");
        let leads_to = fs::read_link(&path).unwrap_or_default();
        if leads_to.starts_with("/dev/null") {
            continue;
        }
        if !leads_to.to_string_lossy().starts_with("socket:")
            || fs::OpenOptions::new().write(true).open(&path).is_ok()
        {
            return Err(format!("{number}: {}", leads_to.display()));
        }
    }
    Ok(String::new())
}

/// A group that is asked before anybody executes that file.
fn watch_executions(file: &str) -> io::Result<OwnedFd> {
    let file = path_of(Path::new(file).to_str().unwrap_or_default())?;
    // SAFETY: the path lives through the call; the descriptor is new and nobody else's.
    unsafe {
        let class = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
        let group = libc::fanotify_init(class, libc::O_RDONLY as u32);
        if group < 0 {
            return Err(io::Error::last_os_error());
        }
        let group = OwnedFd::from_raw_fd(group);
        let done = libc::fanotify_mark(
            group.as_raw_fd(),
            libc::FAN_MARK_ADD,
            libc::FAN_OPEN_EXEC_PERM,
            libc::AT_FDCWD,
            file.as_ptr(),
        );
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(group)
    }
}

/// The next one, with its descriptor and who it is; `None`: the command has ended.
fn next_execution(group: &OwnedFd, child: &Child) -> io::Result<Option<(OwnedFd, i32)>> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut both = [
        PollFd::new(group, PollFlags::IN),
        PollFd::new(&ended, PollFlags::IN),
    ];
    poll(&mut both, None)?;
    if both[0].revents().is_empty() {
        return Ok(None);
    }
    // SAFETY: all zeros are valid; the kernel writes one event at most into as many bytes.
    unsafe {
        let mut event: libc::fanotify_event_metadata = std::mem::zeroed();
        let size = size_of_val(&event);
        let read = libc::read(group.as_raw_fd(), (&raw mut event).cast(), size);
        if read != size as isize {
            return Err(io::Error::last_os_error());
        }
        Ok(Some((OwnedFd::from_raw_fd(event.fd), event.pid)))
    }
}

fn allow(group: &OwnedFd, event: &OwnedFd) -> io::Result<()> {
    let answer = libc::fanotify_response {
        fd: event.as_raw_fd(),
        response: libc::FAN_ALLOW,
    };
    // SAFETY: the kernel reads the answer.
    let wrote = unsafe {
        libc::write(
            group.as_raw_fd(),
            (&raw const answer).cast(),
            size_of_val(&answer),
        )
    };
    if wrote < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
