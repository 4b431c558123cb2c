//! Attaching admitted programs elsewhere than their rule says, and probes anywhere.
#![expect(unsafe_code, reason = "the bpf() system call with hostile arguments")]

use std::{
    ffi::CString,
    fs,
    io::{self, Write as _},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use enforcer::{
    gate::{Class, Entry, Gate, GateError},
    kernel::BpfGate,
};
use policy::Reason;

use super::{
    Attr, EXIT, LINK_CREATE, Load, RAW_TRACEPOINT, RAW_TRACEPOINT_OPEN, XDP, admissions, arm_with,
    check, entry, judged, probe, r0, works,
};

const KPROBE: u32 = 2;
const SCHED_CLS: u32 = 3;
const SCHED_ACT: u32 = 4;
const TRACEPOINT: u32 = 5;

const TRACE_KPROBE_MULTI: u32 = 42;
const PERF_EVENT: u32 = 41;
const XDP_ATTACH: u32 = 37;
const SET_BPF: libc::c_ulong = 0x4004_2408;
/// The loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// A program of its own for each rule: the number only tells them apart.
fn program(name: &'static str, prog_type: u32, number: u32) -> Load {
    Load::new(name, prog_type, &[r0(number), r0(2), EXIT])
}

const LIVE_FRAMES: u32 = 2;

fn unlink() -> Load {
    program("on_unlink", KPROBE, 0x71)
}
fn exec() -> Load {
    program("on_exec", TRACEPOINT, 0x72)
}
fn enter() -> Load {
    program("on_enter", RAW_TRACEPOINT, 0x73)
}
fn on_lo() -> Load {
    program("on_lo", XDP, 0x74)
}
fn on_eth() -> Load {
    program("on_eth", XDP, 0x75)
}
fn classify() -> Load {
    program("classify", SCHED_CLS, 0x76)
}
fn action() -> Load {
    program("action", SCHED_ACT, 0x78)
}
fn anywhere() -> Load {
    program("anywhere", XDP, 0x7a)
}
fn enter_anywhere() -> Load {
    program("enter_anywhere", RAW_TRACEPOINT, 0x7b)
}
fn probe_of(prog_type: u32) -> Load {
    program("probe", prog_type, 0x79)
}
fn several() -> Load {
    Load {
        attach_type: TRACE_KPROBE_MULTI,
        ..program("several", KPROBE, 0x77)
    }
}

fn entries() -> Vec<Entry> {
    let mut all: Vec<Entry> = [XDP, SCHED_CLS]
        .map(|prog_type| entry(&probe_of(prog_type), vec![], Class::Probe))
        .into();
    all.extend([anywhere(), enter_anywhere()].map(|load| entry(&load, vec![], Class::Signed)));
    let placed = [
        (unlink(), "vfs_unl*"),
        (exec(), "syscalls/sys_*_execve"),
        (enter(), "sys_ent*r"),
        (on_lo(), "lo"),
        (on_eth(), "eth*"),
        (classify(), "eth*"),
        (action(), "eth*"),
        (several(), "vfs_unl*"),
    ];
    all.extend(placed.map(|(load, place)| {
        let mut entry = entry(&load, vec![], Class::Signed);
        entry.image.places = vec![place.to_owned()];
        entry
    }));
    all
}

/// On the first processor, whoever runs there.
pub fn perf_event(kind: u32, config: u64, first: u64, second: u64) -> io::Result<OwnedFd> {
    perf_event_of((-1, 0), kind, config, first, second)
}

/// `struct perf_event_attr` up to the fields that are needed here; of which process, and on which processor, or -1.
pub fn perf_event_of(
    (process, processor): (i32, i32),
    kind: u32,
    config: u64,
    first: u64,
    second: u64,
) -> io::Result<OwnedFd> {
    let mut attr = [0u64; 14];
    attr[0] = u64::from(kind) | (size_of_val(&attr) as u64) << 32;
    attr[1] = config;
    attr[7] = first;
    attr[8] = second;
    // SAFETY: the kernel reads 112 bytes; the result is a new descriptor that nobody owns.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_perf_event_open,
            attr.as_ptr(),
            process,
            processor,
            -1,
            8,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

fn number_in(path: &str) -> io::Result<u64> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

fn function(name: &str, offset: u64) -> io::Result<OwnedFd> {
    let kind = number_in("/sys/bus/event_source/devices/kprobe/type")?;
    let name = CString::new(name)?;
    perf_event(kind as u32, 0, name.as_ptr() as u64, offset)
}

pub fn event(name: &str) -> io::Result<OwnedFd> {
    let id = number_in(&format!("/sys/kernel/tracing/events/{name}/id"))?;
    perf_event(2, id, 0, 0)
}

/// Where in this executable's file a function of it is.
fn offset_of(address: u64) -> io::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let found = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let offset = number(words.nth(1)?)?;
        let start = number(start)?;
        (start <= address && address < number(end)?).then_some(address - start + offset)
    });
    found.ok_or_else(|| io::Error::other("the function is nowhere"))
}

/// A breakpoint at an offset of a file, in one process alone, as long as this is open.
pub fn breakpoint(file: &str, offset: u64, process: i32) -> io::Result<OwnedFd> {
    let kind = number_in("/sys/bus/event_source/devices/uprobe/type")?;
    let file = CString::new(file).map_err(io::Error::other)?;
    perf_event_of(
        (process, -1),
        kind as u32,
        0,
        file.as_ptr().addr() as u64,
        offset,
    )
}

/// A place in a file of user space, under a name that a rule of the kernel's functions fits.
fn user_function() -> io::Result<OwnedFd> {
    const NAME: &str = "vfs_unlinked/here";
    if number_in(&format!("/sys/kernel/tracing/events/{NAME}/id")).is_err() {
        // In a copy: whoever arms is the daemon no more once his own code has breakpoints.
        const COPY: &str = "/run/user-function";
        fs::copy("/proc/self/exe", COPY)?;
        let line = format!(
            "p:{NAME} {COPY}:{:#x}\n",
            offset_of(user_function as *const () as u64)?
        );
        fs::OpenOptions::new()
            .append(true)
            .open("/sys/kernel/tracing/uprobe_events")?
            .write_all(line.as_bytes())?;
    }
    event(NAME)
}

fn link(program: &OwnedFd, target: u32, attach_type: u32, flags: u32) -> io::Result<()> {
    Attr::new()
        .u32(0, program.as_raw_fd() as u32)
        .u32(4, target)
        .u32(8, attach_type)
        .u32(12, flags)
        .open(LINK_CREATE)
        .map(drop)
}

pub fn by_link(program: &OwnedFd, event: io::Result<OwnedFd>) -> io::Result<()> {
    link(program, event?.as_raw_fd() as u32, PERF_EVENT, 0)
}

pub fn by_ioctl(program: &OwnedFd, event: io::Result<OwnedFd>) -> io::Result<()> {
    set_program(&event?, program)
}

pub fn set_program(event: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    // SAFETY: two descriptors that are open.
    match unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF, program.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn by_name(program: &OwnedFd, name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    Attr::new()
        .u64(0, name.as_ptr() as u64)
        .u32(8, program.as_raw_fd() as u32)
        .open(RAW_TRACEPOINT_OPEN)
        .map(drop)
}

/// In SKB mode, which every device has.
fn by_device_link(program: &OwnedFd) -> io::Result<()> {
    link(program, LOOPBACK, XDP_ATTACH, 2)
}

pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub fn message(kind: u16, header: &[u32], attributes: &[u8]) -> Vec<u8> {
    let length = 16 + 4 * header.len() + attributes.len();
    let mut bytes = (length as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(5u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_ACK
    bytes.extend([0; 8]);
    bytes.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(attributes);
    bytes
}

/// RTM_SETLINK with IFLA_XDP, in SKB mode; -1 takes the program off again.
fn set_xdp(fd: i32) -> Vec<u8> {
    let inside = [
        attribute(1, &fd.to_ne_bytes()),
        attribute(3, &2u32.to_ne_bytes()),
    ];
    message(
        19,
        &[0, LOOPBACK, 0, 0],
        &attribute(43 | 0x8000, &inside.concat()),
    )
}

/// RTM_SETLINK that changes nothing.
fn set_nothing() -> Vec<u8> {
    message(19, &[0, LOOPBACK, 0, 0], &[])
}

/// The same, of which nobody wants to know how it went.
fn set_nothing_quietly() -> Vec<u8> {
    let mut message = set_nothing();
    message[6] = 1; // NLM_F_REQUEST
    message
}

/// RTM_NEWTFILTER with a program.
fn add_filter(fd: i32) -> Vec<u8> {
    let options = attribute(2, &attribute(6, &fd.to_ne_bytes()));
    let attributes = [attribute(1, b"bpf\0"), options];
    message(
        44,
        &[0, LOOPBACK, 0, 0xffff_fff2, 0x0300_0100],
        &attributes.concat(),
    )
}

/// RTM_NEWTFILTER with an action of the `matchall` filter.
fn add_action(program: &OwnedFd) -> Vec<u8> {
    let first = attribute(1 | 0x8000, &super::routes::act(program));
    let options = attribute(2 | 0x8000, &attribute(2 | 0x8000, &first)); // TCA_MATCHALL_ACT
    let attributes = [attribute(1, b"matchall\0"), options];
    message(
        44,
        &[0, LOOPBACK, 0, 0xffff_fff2, 0x0300_0100],
        &attributes.concat(),
    )
}

/// Sends one datagram, and reads the answers; that to the last message counts.
pub fn by_netlink(messages: &[Vec<u8>]) -> io::Result<()> {
    let bytes = messages.concat();
    // SAFETY: sizes are those of the buffers; the descriptor is new and nobody owns it.
    let answers = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let sent = libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0);
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answers = Vec::new();
        let wants_answer = |message: &&Vec<u8>| message[6] & 4 != 0; // NLM_F_ACK
        for _ in messages.iter().filter(wants_answer) {
            let mut answer = [0u32; 1024];
            let length = libc::recv(
                socket.as_raw_fd(),
                answer.as_mut_ptr().cast(),
                size_of_val(&answer),
                0,
            );
            if length < 0 {
                return Err(io::Error::last_os_error());
            }
            answers.push(answer[4] as i32);
        }
        answers
    };
    match answers.last() {
        Some(0) | None => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn by_device_netlink(program: &OwnedFd, before: Vec<Vec<u8>>) -> io::Result<()> {
    let mut messages = before;
    messages.push(set_xdp(program.as_raw_fd()));
    let result = by_netlink(&messages);
    if result.is_ok() {
        by_netlink(&[set_xdp(-1)])?;
    }
    result
}

/// `BPF_PROG_TEST_RUN`.
fn run_on(program: &OwnedFd, packet: &[u8], flags: u32) -> io::Result<()> {
    const TEST_RUN: u32 = 10;
    let mut attr = Attr::new()
        .u32(0, program.as_raw_fd().cast_unsigned())
        .u32(64, flags);
    if !packet.is_empty() {
        attr = attr
            .u32(8, packet.len() as u32)
            .u64(16, packet.as_ptr() as u64);
    }
    attr.call(TEST_RUN).map(drop)
}

type Way = Box<dyn Fn(&OwnedFd) -> io::Result<()>>;

struct Try {
    what: &'static str,
    load: Load,
    way: Way,
    /// `None`: it must work.
    reason: Option<Reason>,
    /// Without a gate it works.
    works: bool,
}

fn attempt(
    what: &'static str,
    load: Load,
    reason: Option<Reason>,
    way: impl Fn(&OwnedFd) -> io::Result<()> + 'static,
) -> Try {
    Try {
        what,
        load,
        way: Box::new(way),
        reason,
        works: true,
    }
}

fn tries() -> Vec<Try> {
    let elsewhere = Some(Reason::AttachPlace);
    let never = Some(Reason::ProbeAttach);
    let mut all = vec![
        attempt("a kprobe by link", unlink(), None, |program| {
            by_link(program, function("vfs_unlink", 0))
        }),
        attempt("a kprobe by ioctl", unlink(), None, |program| {
            by_ioctl(program, function("vfs_unlink", 0))
        }),
        attempt("a tracepoint by link", exec(), None, |program| {
            by_link(program, event("syscalls/sys_enter_execve"))
        }),
        attempt("a raw tracepoint", enter(), None, |program| {
            by_name(program, "sys_enter")
        }),
        attempt("XDP by link", on_lo(), None, by_device_link),
        attempt("XDP by netlink", on_lo(), None, |program| {
            by_device_netlink(program, vec![])
        }),
        attempt(
            "a test run of XDP without places",
            anywhere(),
            None,
            |program| run_on(program, &[0; 64], 0),
        ),
        attempt(
            "a test run on live frames",
            anywhere(),
            elsewhere,
            |program| run_on(program, &[0; 64], LIVE_FRAMES),
        ),
        attempt(
            "a test run of XDP with a place",
            on_lo(),
            elsewhere,
            |program| run_on(program, &[0; 64], 0),
        ),
        attempt(
            "a test run of a raw tracepoint",
            enter_anywhere(),
            elsewhere,
            |program| run_on(program, &[], 0),
        ),
        attempt(
            "a kprobe elsewhere by link",
            unlink(),
            elsewhere,
            |program| by_link(program, function("vfs_mkdir", 0)),
        ),
        attempt(
            "a kprobe elsewhere by ioctl",
            unlink(),
            elsewhere,
            |program| by_ioctl(program, function("vfs_mkdir", 0)),
        ),
        attempt(
            "a uprobe with such a name by link",
            unlink(),
            elsewhere,
            |program| by_link(program, user_function()),
        ),
        attempt(
            "a uprobe with such a name by ioctl",
            unlink(),
            elsewhere,
            |program| by_ioctl(program, user_function()),
        ),
        attempt(
            "a tracepoint elsewhere by link",
            exec(),
            elsewhere,
            |program| by_link(program, event("syscalls/sys_enter_openat")),
        ),
        attempt(
            "a tracepoint elsewhere by ioctl",
            exec(),
            elsewhere,
            |program| by_ioctl(program, event("sched/sched_switch")),
        ),
        attempt(
            "a raw tracepoint elsewhere",
            enter(),
            elsewhere,
            |program| by_name(program, "sched_switch"),
        ),
        attempt("XDP elsewhere by link", on_eth(), elsewhere, by_device_link),
        attempt("XDP elsewhere by netlink", on_eth(), elsewhere, |program| {
            by_device_netlink(program, vec![])
        }),
        attempt(
            "XDP elsewhere after two thousand messages",
            on_eth(),
            elsewhere,
            |program| by_device_netlink(program, vec![set_nothing_quietly(); 2000]),
        ),
        attempt(
            "XDP elsewhere by the third message of a datagram",
            on_eth(),
            elsewhere,
            |program| by_device_netlink(program, vec![set_nothing(), set_nothing()]),
        ),
    ];
    let mut more = vec![
        attempt(
            "a classifier elsewhere by netlink",
            classify(),
            elsewhere,
            |program| by_netlink(&[add_filter(program.as_raw_fd())]),
        ),
        attempt(
            "an action of a filter by netlink",
            action(),
            elsewhere,
            |program| by_netlink(&[add_action(program)]),
        ),
        attempt(
            "many functions in one link",
            several(),
            elsewhere,
            |program| link(program, 0, TRACE_KPROBE_MULTI, 0),
        ),
        attempt("a probe by the ioctl of perf", probe(), never, |program| {
            by_ioctl(program, perf_event(1, 0, 0, 0))
        }),
        attempt(
            "a probe as XDP by netlink",
            probe_of(XDP),
            never,
            |program| by_device_netlink(program, vec![]),
        ),
        attempt(
            "a probe by a socket option",
            probe(),
            never,
            super::options::socket,
        ),
        attempt(
            "a probe as a classifier by netlink",
            probe_of(SCHED_CLS),
            never,
            |program| by_netlink(&[add_filter(program.as_raw_fd())]),
        ),
    ];
    // The kernel itself has reasons to refuse these.
    more.iter_mut().for_each(|one| one.works = false);
    all.extend(more);
    all
}

/// Everything works without a gate; with one, only what the rules name.
pub fn run() -> Result<bool, GateError> {
    let mut fine = true;
    for one in tries().iter().filter(|one| one.works) {
        let program = one.load.load();
        let result = program.and_then(|program| (one.way)(&program));
        fine &= works(&format!("{} is attached without a gate", one.what), result);
    }
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    all.entries.extend(entries());
    arm_with(&mut gate, &all)?;
    for one in tries() {
        let program = match one.load.load() {
            Ok(program) => program,
            Err(error) => {
                fine &= check(&format!("{} loads", one.what), Err(error.to_string()));
                continue;
            }
        };
        let how = match one.reason {
            None => "is attached where its rule says",
            Some(_) => "is refused",
        };
        let want = one.reason.map(|reason| (3, reason));
        let name = format!("{} {how}", one.what);
        fine &= judged(&mut gate, &name, want, || (one.way)(&program));
    }
    gate.disarm()?;
    Ok(fine)
}
