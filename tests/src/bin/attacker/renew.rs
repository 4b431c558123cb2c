//! The gate's programs are exchanged while threads load, and while whoever does it is killed.

use std::{
    collections::BTreeSet,
    env,
    ffi::CString,
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, OwnedFd},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use enforcer::{
    gate::{Gate, GateError},
    kernel::BpfGate,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{
        AtFlags, CWD, Timespec, Timestamps,
        inotify::{self, CreateFlags, ReadFlags, WatchFlags},
        utimensat,
    },
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    Attr, MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, OBJ_GET, PINS, arm, check, evil, explain,
    must_refuse,
    own::{self, grace},
    simple,
};

/// What a thread saw.
#[derive(Debug, Default)]
struct Seen {
    loads: usize,
    /// Of programs that nobody admitted.
    loaded: usize,
    /// Of admitted ones.
    refused: Vec<io::Error>,
}

/// Exchanges them: nobody who loads notices.
pub fn run() -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    arm(&mut gate)?;
    let programs = |gate: &BpfGate| -> Result<BTreeSet<u32>, GateError> {
        let loaded = gate.loaded()?.into_iter();
        Ok(loaded.filter(|p| p.own).map(|p| p.id).collect())
    };
    let first = programs(&gate)?;
    let ended = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                // Those who exchange come first, or it takes long.
                own::give_way();
                while !ended.load(Ordering::Relaxed) {
                    if number == 2 {
                        seen.refused.extend(allocate_per_processor().err());
                    } else if number == 0 {
                        // The verifier gives up where a signal waits: of a child that has ended.
                        let interrupted =
                            |error: &io::Error| error.raw_os_error() == Some(libc::EAGAIN);
                        let result = simple().load().err();
                        seen.refused
                            .extend(result.filter(|error| !interrupted(error)));
                    } else {
                        seen.loaded += usize::from(evil().load().is_ok());
                    }
                    seen.loads += 1;
                }
                seen
            })
        })
        .collect();
    let started = Instant::now();
    let exchanged = exchanging().and_then(|mut child| child.wait());
    let took = started.elapsed();
    let killed = killed_while_exchanging();
    ended.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = threads
        .into_iter()
        .map(|thread| thread.join().expect("threads only count"))
        .collect();
    let again = exchanging().and_then(|mut child| child.wait());
    let said = |result: io::Result<ExitStatus>| match result {
        Ok(status) if status.success() => Ok(format!("{} ms", took.as_millis())),
        other => Err(format!("{other:?}")),
    };
    let mut fine = check("the gate's programs are exchanged", said(exchanged));
    fine &= check("whoever does it is killed meanwhile", killed);
    fine &= check("then it is done from the beginning", said(again));
    let fair = |seen: &Seen| seen.loads > 0 && seen.loaded == 0 && seen.refused.is_empty();
    let verdict = |fine: bool, line: String| if fine { Ok(line) } else { Err(line) };
    fine &= check(
        "no program is let in meanwhile, and none refused that is admitted",
        verdict(seen.iter().all(fair), format!("{seen:?}")),
    );
    fine &= check("unsigned is refused", must_refuse(&evil()));
    fine &= check(
        "what may be running still is kept, and not for ever",
        kept(&gate),
    );
    let gone = let_go(|| programs(&gate), &first);
    fine &= check("then they are as many as before, and all others", gone);
    fine &= check(
        "an exchange takes the last word where nobody has it",
        taken_again().map_err(|error| error.to_string()),
    );
    gate.disarm()?;
    Ok(fine)
}

/// As a build would leave it that died while it exchanged them, or that had none.
fn taken_again() -> io::Result<String> {
    // The last number of `struct guard`, in bytes, and `LAST_WORD_REFUSES`.
    const SIZE: usize = 168;
    const REFUSES: [u8; 4] = [2, 0, 0, 0];
    let path = CString::new(format!("{PINS}/map_guards")).map_err(io::Error::other)?;
    let guards = Attr::new().u64(0, path.as_ptr() as u64).open(OBJ_GET)?;
    let (zero, mut guard) = (0u32, [0u8; SIZE]);
    let call = |command, guard: &mut [u8; SIZE]| {
        Attr::new()
            .u32(0, guards.as_raw_fd() as u32)
            .u64(8, (&raw const zero) as u64)
            .u64(16, guard.as_mut_ptr() as u64)
            .call(command)
    };
    let has_it = |guard: &mut [u8; SIZE]| -> io::Result<bool> {
        call(MAP_LOOKUP_ELEM, guard)?;
        Ok(guard[SIZE - 4..] == REFUSES)
    };
    if !has_it(&mut guard)? {
        return Err(io::Error::other("nobody had it before"));
    }
    guard[SIZE - 4..].fill(0);
    call(MAP_UPDATE_ELEM, &mut guard)?;
    if has_it(&mut guard)? {
        return Err(io::Error::other("it cannot be given up"));
    }
    let status = exchanging()?.wait()?;
    match has_it(&mut guard)? && status.success() {
        true => Ok(String::new()),
        false => Err(io::Error::other(format!("nobody has it; {status}"))),
    }
}

/// Keeps the kernel's lock on memory per processor busy, without which it takes no program off a hook.
fn allocate_per_processor() -> io::Result<()> {
    const PERCPU_ARRAY: u32 = 6;
    let map = Attr::new().u32(0, PERCPU_ARRAY).u32(4, 4).u32(8, 8);
    map.u32(12, 5000).open(MAP_CREATE).map(drop)
}

/// The kernel detaches programs one by one, so each of them has a hundred grace periods to go in.
fn let_go(
    programs: impl Fn() -> Result<BTreeSet<u32>, GateError>,
    first: &BTreeSet<u32>,
) -> Result<String, String> {
    let look = || -> Result<BTreeSet<u32>, String> {
        grace().map_err(|error| error.to_string())?;
        programs().map_err(|error| explain(&error))
    };
    let (mut fewest, mut since, mut all) = (usize::MAX, 0, 0);
    while since < 100 {
        let now = look()?;
        (since, all) = (since + 1, all + 1);
        if now.len() == first.len() && now.is_disjoint(first) {
            return Ok(format!("after {all} grace periods"));
        }
        if now.len() < fewest {
            (fewest, since) = (now.len(), 0);
        }
    }
    Err(format!(
        "still {fewest}, and none went in 100 grace periods"
    ))
}

/// Programs that were exchanged stay until nobody can be about to call them.
fn kept(gate: &BpfGate) -> Result<String, String> {
    let pins = || -> io::Result<Vec<_>> {
        let entries = fs::read_dir(PINS)?.collect::<io::Result<Vec<_>>>()?;
        let is_kept = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("kept_");
        let paths = entries
            .into_iter()
            .filter(|entry| is_kept(&entry.file_name()));
        Ok(paths.map(|entry| entry.path()).collect())
    };
    let look = || -> io::Result<[usize; 3]> {
        let first = pins()?;
        gate.sweep().map_err(io::Error::other)?;
        let second = pins()?.len();
        for path in &first {
            let long_ago = Timestamps {
                last_access: Timespec::default(),
                last_modification: Timespec::default(),
            };
            utimensat(CWD, path, &long_ago, AtFlags::empty())?;
        }
        gate.sweep().map_err(io::Error::other)?;
        Ok([first.len(), second, pins()?.len()])
    };
    match look() {
        Ok([first, second, 0]) if first > 0 && first == second => Ok(format!("{first} programs")),
        other => Err(format!("{other:?}")),
    }
}

/// Somebody who exchanges the gate's programs.
fn exchanging() -> io::Result<Child> {
    Command::new(env::current_exe()?).arg("exchange").spawn()
}

/// What the kernel tells of somebody who exchanges the gate's programs.
struct Moment {
    what: &'static str,
    file: &'static str,
    event: ReadFlags,
    /// It is come with so many of these.
    count: usize,
}

const BTF: &str = "/sys/kernel/btf/vmlinux";

const MOMENTS: [Moment; 5] = [
    // First it looks what the kernel has, then it relocates by the same file.
    Moment {
        what: "about to load",
        file: BTF,
        event: ReadFlags::OPEN,
        count: 2,
    },
    Moment {
        what: "the first link is pinned",
        file: PINS,
        event: ReadFlags::CREATE,
        count: 1,
    },
    Moment {
        what: "half of them are",
        file: PINS,
        event: ReadFlags::CREATE,
        count: 16,
    },
    Moment {
        what: "the first has its place",
        file: PINS,
        event: ReadFlags::MOVED_TO,
        count: 1,
    },
    Moment {
        what: "some have theirs",
        file: PINS,
        event: ReadFlags::MOVED_TO,
        count: 4,
    },
];

impl Moment {
    /// Kills somebody who exchanges the programs then; `false`: he was done before.
    fn kill(&self) -> io::Result<bool> {
        let watch = inotify::init(CreateFlags::CLOEXEC)?;
        // With what ends an opening: two of a kind in a row would be told as one.
        let wanted = WatchFlags::OPEN
            | WatchFlags::CLOSE_NOWRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, self.file, wanted)?;
        let mut left = self.count;
        kill_when(&watch, exchanging()?, |event| {
            left -= usize::from(event.events().contains(self.event));
            Ok(left == 0)
        })
    }
}

/// Kills a process when its moment has come; `false`: it was done before.
fn kill_when(
    watch: &OwnedFd,
    mut child: Child,
    has_come: impl FnMut(&inotify::Event<'_>) -> io::Result<bool>,
) -> io::Result<bool> {
    until(watch, &child, has_come)?;
    child.kill()?;
    Ok(!child.wait()?.success())
}

/// Waits for a process's moment, or for its end.
pub fn until(
    watch: &OwnedFd,
    child: &Child,
    mut has_come: impl FnMut(&inotify::Event<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    loop {
        if events.is_buffer_empty() {
            let mut both = [
                PollFd::new(watch, PollFlags::IN),
                PollFd::new(&ended, PollFlags::IN),
            ];
            poll(&mut both, None)?;
            if both[0].revents().is_empty() {
                return Ok(());
            }
        }
        if has_come(&events.next()?)? {
            return Ok(());
        }
    }
}

/// Kills a command that arms the gate, when it has pinned so many things with names that begin so.
pub fn cut_off(words: &[String]) -> Result<String, String> {
    let [kind, count, program, arguments @ ..] = words else {
        return Err("want a beginning, a number and a command".to_owned());
    };
    let kill = || -> io::Result<bool> {
        let mut left: usize = count.parse().map_err(io::Error::other)?;
        let watch = inotify::init(CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, "/sys/fs/bpf", WatchFlags::CREATE)?;
        own::go_first_on_one_processor()?;
        let child = Command::new(program).args(arguments).spawn()?;
        kill_when(&watch, child, |event| {
            let name = event.file_name().unwrap_or_default().to_string_lossy();
            if name == "bpfseal" {
                // It loads its programs before it pins anything.
                inotify::add_watch(&watch, PINS, WatchFlags::CREATE)?;
            }
            left -= usize::from(name.starts_with(kind.as_str()));
            Ok(left == 0)
        })
    };
    match kill() {
        Ok(true) => Ok(format!("{count} of {kind}")),
        Ok(false) => Err("it was done before".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Kills those who exchange the gate's programs, each one later than the one before.
fn killed_while_exchanging() -> Result<String, String> {
    let mut said = Vec::new();
    for moment in &MOMENTS {
        match moment.kill() {
            Ok(true) => said.push(moment.what),
            Ok(false) => return Err(format!("done before: {}", moment.what)),
            Err(error) => return Err(format!("{}: {error}", moment.what)),
        }
    }
    Ok(said.join(", "))
}
