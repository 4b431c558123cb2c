//! Where programs are attached, and taking revoked ones off their hooks, where the kernel lets anybody
//! do so.
//!
//! Cgroup, XDP, tcx, netkit, netfilter, network namespace and struct_ops links can be
//! detached by whoever gets a descriptor; so can an XDP program without a link, and what a command
//! attached to a control group or a device, a classifier of tc, and what a map runs. Tracing,
//! LSM, kprobe and perf links cannot (the kernel says `EOPNOTSUPP`): those live as long as
//! some process or pin holds them, so these are named.
#![expect(unsafe_code, reason = "libbpf-rs has no link by id")]

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    ptr,
};

use libbpf_rs::{
    libbpf_sys,
    query::{LinkInfo, LinkInfoIter, LinkTypeInfo, PerfEventType},
};
use serde::{Deserialize, Serialize};

mod commands;
mod filters;
mod holders;
mod maps;
pub mod mounts;
mod networks;
mod pins;

pub use holders::{Holder, holders};
pub use pins::{Pin, pins};

/// One attachment of a program, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Kernel's program id.
    pub program: u32,
    /// `link 7 (cgroup)`, `interface eth0 (xdp)`.
    pub place: String,
    /// Is it gone?
    pub detached: bool,
    /// Why not, in the kernel's words.
    pub why: Option<String>,
}

/// A place where a program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Kernel's program id.
    pub program: u32,
    /// For people: `interface eth0 (xdp)`.
    pub place: String,
    /// The names by which rules know it; none: they know it by none, or the kernel does not say.
    pub names: Vec<String>,
}

/// Is shown each place with what takes the program off it.
type Show<'a> = dyn FnMut(Spot, &dyn Fn() -> io::Result<()>) + Send + 'a;

/// Detaches these programs wherever the kernel allows it.
pub fn detach(programs: &[u32]) -> Vec<Attachment> {
    let mut done = Vec::new();
    each(programs, &mut |spot, take_off| {
        let result = take_off();
        done.push(Attachment {
            program: spot.program,
            place: spot.place,
            detached: result.is_ok(),
            why: result.err().map(|error| error.to_string()),
        });
    });
    done
}

/// Where these programs are attached, as far as the kernel says: no function of a link to many.
pub fn spots(programs: &[u32]) -> Vec<Spot> {
    let mut found = Vec::new();
    each(programs, &mut |spot, _| found.push(spot));
    found
}

fn each(programs: &[u32], show: &mut Show<'_>) {
    if programs.is_empty() {
        return;
    }
    let interfaces = networks::interfaces();
    let xdp = Xdp::of(programs, &interfaces);
    for link in links_of(programs) {
        let names = match &link.info {
            // The program of a link shows at its interface as well.
            LinkTypeInfo::Xdp(at) => {
                let at = (link.prog_id, at.ifindex);
                let here = xdp.iter().filter(|xdp| xdp.key() == at);
                here.map(|xdp| xdp.interface.clone()).collect()
            }
            info => names(info, Path::new(EVENTS)),
        };
        let word = format!("{:?}", link.info);
        let kind: String = word.chars().take_while(|c| c.is_alphanumeric()).collect();
        let spot = Spot {
            program: link.prog_id,
            place: format!("link {} ({})", link.id, kind.to_lowercase()),
            names,
        };
        show(spot, &|| detach_link(link.id));
    }
    // A link that was detached has no interface any more: what is left of XDP there has none.
    let by_links: BTreeSet<(u32, u32)> = links_of(programs)
        .filter_map(|link| match link.info {
            LinkTypeInfo::Xdp(at) => Some((link.prog_id, at.ifindex)),
            _ => None,
        })
        .collect();
    at_devices(programs, &interfaces, &by_links, show);
    commands::at_groups(programs, show);
    maps::each(programs, show);
    networks::visit_others(&mut |network| {
        let interfaces = networks::interfaces();
        // A link has its interface's number and not the namespace: none is left out for it.
        let by_links = BTreeSet::new();
        at_devices(programs, &interfaces, &by_links, &mut |spot, take_off| {
            let place = format!("{} of network namespace {network}", spot.place);
            show(Spot { place, ..spot }, take_off);
        });
    });
}

fn links_of(programs: &[u32]) -> impl Iterator<Item = LinkInfo> {
    LinkInfoIter::default().filter(|link| programs.contains(&link.prog_id))
}

/// Devices of this thread's network namespace.
fn at_devices(
    programs: &[u32],
    interfaces: &[(String, i32)],
    by_links: &BTreeSet<(u32, u32)>,
    show: &mut Show<'_>,
) {
    for xdp in Xdp::of(programs, interfaces) {
        if by_links.contains(&xdp.key()) {
            continue;
        }
        let spot = Spot {
            program: xdp.program,
            place: format!("interface {} (xdp)", xdp.interface),
            names: vec![xdp.interface.clone()],
        };
        show(spot, &|| detach_xdp(xdp.index, xdp.mode));
    }
    commands::at_devices(programs, interfaces, show);
    filters::each(programs, interfaces, show);
}

/// An XDP program at an interface, by a link or without.
struct Xdp {
    program: u32,
    interface: String,
    index: i32,
    mode: u32,
}

impl Xdp {
    fn of(programs: &[u32], interfaces: &[(String, i32)]) -> Vec<Self> {
        let mut found = Vec::new();
        for (interface, index) in interfaces {
            for mode in [XDP_DRIVER, XDP_GENERIC, XDP_HARDWARE] {
                let program = xdp_program(*index, mode).filter(|id| programs.contains(id));
                found.extend(program.map(|program| Self {
                    program,
                    interface: interface.clone(),
                    index: *index,
                    mode,
                }));
            }
        }
        found
    }

    fn key(&self) -> (u32, u32) {
        (self.program, self.index as u32)
    }
}

/// Where tracepoints are listed, by system.
const EVENTS: &str = "/sys/kernel/tracing/events";

/// What gate 3 compared when a link of this kind was made. Links to control groups and devices
/// are found at these.
fn names(link: &LinkTypeInfo, events: &Path) -> Vec<String> {
    let text = |name: &Option<OsString>| {
        name.as_ref()
            .and_then(|name| name.to_str().map(str::to_owned))
    };
    let event = match link {
        LinkTypeInfo::RawTracepoint(point) => return vec![point.name.clone()],
        LinkTypeInfo::PerfEvent(event) => &event.event_type,
        _ => return Vec::new(),
    };
    match event {
        PerfEventType::Kprobe { func_name, .. } => text(func_name).into_iter().collect(),
        PerfEventType::Tracepoint { name, .. } => {
            let Some(name) = text(name) else {
                return Vec::new();
            };
            // The kernel does not say which system's; several may have one of that name.
            let systems = fs::read_dir(events).into_iter().flatten().flatten();
            systems
                .filter(|system| system.path().join(&name).is_dir())
                .map(|system| format!("{}/{name}", system.file_name().to_string_lossy()))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn detach_link(id: u32) -> io::Result<()> {
    // SAFETY: the call takes a number and returns a new descriptor or an error.
    let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor was made by the line above and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is open for the length of the call.
    let result = unsafe { libbpf_sys::bpf_link_detach(fd.as_raw_fd()) };
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn xdp_program(interface: i32, mode: u32) -> Option<u32> {
    let mut id = 0;
    // SAFETY: libbpf writes one number to `id`.
    let result = unsafe { libbpf_sys::bpf_xdp_query_id(interface, mode as i32, &raw mut id) };
    (result == 0 && id != 0).then_some(id)
}

fn detach_xdp(interface: i32, mode: u32) -> io::Result<()> {
    // SAFETY: null options are libbpf's "none".
    match unsafe { libbpf_sys::bpf_xdp_detach(interface, mode, ptr::null()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// `XDP_FLAGS_SKB_MODE`.
const XDP_GENERIC: u32 = 2;
/// `XDP_FLAGS_DRV_MODE`.
const XDP_DRIVER: u32 = 4;
/// `XDP_FLAGS_HW_MODE`.
const XDP_HARDWARE: u32 = 8;

#[cfg(test)]
mod tests {
    use libbpf_rs::query::{PerfEventLinkInfo, RawTracepointLinkInfo};

    use super::*;

    #[test]
    fn a_tracepoint_has_the_names_of_all_systems_that_have_it() {
        let events = tempfile::tempdir().unwrap();
        for path in ["sched/exec", "other/exec", "sched/fork"] {
            fs::create_dir_all(events.path().join(path)).unwrap();
        }
        let of = |event_type| {
            let link = LinkTypeInfo::PerfEvent(PerfEventLinkInfo {
                event_type,
                _non_exhaustive: (),
            });
            let mut found = names(&link, events.path());
            found.sort();
            found
        };
        let name = Some(OsString::from("exec"));
        let cookie = 0;
        let point = PerfEventType::Tracepoint { name, cookie };
        assert_eq!(of(point), ["other/exec", "sched/exec"]);
        assert!(of(PerfEventType::Unknown(9)).is_empty());
    }

    #[test]
    fn kprobes_and_raw_tracepoints_are_where_the_kernel_says() {
        let kprobe = |function: Option<&str>| {
            let event_type = PerfEventType::Kprobe {
                func_name: function.map(OsString::from),
                is_retprobe: false,
                addr: 1,
                offset: 0,
                missed: 0,
                cookie: 0,
            };
            LinkTypeInfo::PerfEvent(PerfEventLinkInfo {
                event_type,
                _non_exhaustive: (),
            })
        };
        let raw = LinkTypeInfo::RawTracepoint(RawTracepointLinkInfo {
            name: "sched_switch".to_owned(),
            _non_exhaustive: (),
        });
        let at = |link| names(&link, Path::new("/nowhere"));
        assert_eq!(at(kprobe(Some("do_exit"))), ["do_exit"]);
        assert!(at(kprobe(None)).is_empty());
        assert_eq!(at(raw), ["sched_switch"]);
    }
}
