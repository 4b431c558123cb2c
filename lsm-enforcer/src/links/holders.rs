//! Who keeps programs in the kernel: processes by descriptors of a program, of a link or of a perf event of it.
#![expect(unsafe_code, reason = "libbpf-rs asks about all processes at once")]

use std::{collections::BTreeMap, fs, path::Path, ptr};

use libbpf_rs::libbpf_sys;
use serde::{Deserialize, Serialize};

/// A process that holds a program or a link of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Path of its executable, or its name.
    pub exe: String,
}

/// Which processes hold these programs, by program id: descriptors of the program itself and
/// of links to it say its id in `/proc/PID/fdinfo`. Perf events do not: the kernel is asked about each.
pub fn holders(programs: &[u32]) -> BTreeMap<u32, Vec<Holder>> {
    holders_below(Path::new("/proc"), programs, &program_of_event)
}

fn holders_below(
    proc: &Path,
    programs: &[u32],
    of_event: &dyn Fn(u32, u32) -> Option<u32>,
) -> BTreeMap<u32, Vec<Holder>> {
    let mut found: BTreeMap<u32, Vec<Holder>> = BTreeMap::new();
    let Ok(processes) = fs::read_dir(proc) else {
        return found;
    };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fdinfo")) else {
            continue;
        };
        let mut held: Vec<u32> = files
            .flatten()
            .filter_map(|file| {
                let number: u32 = file.file_name().to_str()?.parse().ok()?;
                let text = fs::read_to_string(file.path()).ok()?;
                program_of(&text).or_else(|| {
                    let target = fs::read_link(process.path().join(format!("fd/{number}"))).ok()?;
                    let is_event = target == Path::new("anon_inode:[perf_event]");
                    is_event.then(|| of_event(pid, number)).flatten()
                })
            })
            .filter(|id| programs.contains(id))
            .collect();
        held.sort_unstable();
        held.dedup();
        for id in held {
            let holder = Holder {
                pid,
                exe: name(&process.path()),
            };
            found.entry(id).or_default().push(holder);
        }
    }
    found
}

/// The program that a descriptor is of, or that its link attaches.
pub fn program_of(fdinfo: &str) -> Option<u32> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))
        .and_then(|id| id.trim().parse().ok())
}

/// `BPF_TASK_FD_QUERY`: the program that `PERF_EVENT_IOC_SET_BPF` put on an event. Of samples
/// (`BPF_PROG_TYPE_PERF_EVENT`) the kernel does not say.
fn program_of_event(pid: u32, fd: u32) -> Option<u32> {
    let (mut length, mut program, mut kind) = (0, 0, 0);
    let (mut offset, mut address) = (0, 0);
    // SAFETY: libbpf writes five numbers; there is no room for a name, so none is written.
    let result = unsafe {
        libbpf_sys::bpf_task_fd_query(
            pid as i32,
            fd as i32,
            0,
            ptr::null_mut(),
            &raw mut length,
            &raw mut program,
            &raw mut kind,
            &raw mut offset,
            &raw mut address,
        )
    };
    (result == 0 && program != 0).then_some(program)
}

fn name(process: &Path) -> String {
    let exe = fs::read_link(process.join("exe")).map(|path| path.display().to_string());
    exe.or_else(|_| fs::read_to_string(process.join("comm")).map(|name| name.trim().to_owned()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn who_holds_a_program_is_read_from_fdinfo() {
        let proc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = proc.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("7/comm", "agent\n");
        write("7/fdinfo/3", "pos:\t0\nlink_type:\ttracing\nprog_id:\t12\n");
        write("7/fdinfo/4", "pos:\t0\nprog_type:\t5\nprog_id:\t12\n");
        write("8/comm", "other\n");
        write("8/fdinfo/3", "pos:\t0\nprog_id:\t13\n");
        write("net/fdinfo/3", "prog_id:\t12\n");
        let holder = Holder {
            pid: 7,
            exe: "agent".to_owned(),
        };
        let want = BTreeMap::from([(12, vec![holder])]);
        let found = holders_below(proc.path(), &[12, 14], &|_, _| None);
        assert_eq!(found, want);
    }

    #[test]
    fn the_kernel_is_asked_about_perf_events_alone() {
        let proc = tempfile::tempdir().unwrap();
        let process = proc.path().join("7");
        for folder in ["fd", "fdinfo"] {
            fs::create_dir_all(process.join(folder)).unwrap();
        }
        fs::write(process.join("comm"), "agent\n").unwrap();
        for (number, target) in [
            ("3", "anon_inode:[perf_event]"),
            ("4", "/dev/null"),
            ("5", "anon_inode:[perf_event]"),
        ] {
            fs::write(process.join("fdinfo").join(number), "pos:\t0\n").unwrap();
            symlink(target, process.join("fd").join(number)).unwrap();
        }
        let of_event = |pid, fd| match (pid, fd) {
            (7, 3) => Some(12),
            (7, 5) => None,
            other => panic!("{other:?} is no perf event"),
        };
        let found = holders_below(proc.path(), &[12], &of_event);
        let holder = Holder {
            pid: 7,
            exe: "agent".to_owned(),
        };
        assert_eq!(found, BTreeMap::from([(12, vec![holder])]));
    }
}
