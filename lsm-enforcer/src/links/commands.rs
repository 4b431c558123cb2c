//! Programs that were attached by a command (`BPF_PROG_ATTACH`) and not by a link: to control
//! groups, and to devices by tcx and netkit. Whoever has the place may take them off again.
#![expect(unsafe_code, reason = "libbpf-rs has no attachments by command")]

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    ptr,
};

use libbpf_rs::libbpf_sys::{
    self, BPF_CGROUP_DEVICE, BPF_CGROUP_GETSOCKOPT, BPF_CGROUP_INET_EGRESS,
    BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET_SOCK_CREATE, BPF_CGROUP_INET_SOCK_RELEASE,
    BPF_CGROUP_INET4_BIND, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET4_GETPEERNAME,
    BPF_CGROUP_INET4_GETSOCKNAME, BPF_CGROUP_INET4_POST_BIND, BPF_CGROUP_INET6_BIND,
    BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_INET6_GETPEERNAME, BPF_CGROUP_INET6_GETSOCKNAME,
    BPF_CGROUP_INET6_POST_BIND, BPF_CGROUP_SETSOCKOPT, BPF_CGROUP_SOCK_OPS, BPF_CGROUP_SYSCTL,
    BPF_CGROUP_UDP4_RECVMSG, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_RECVMSG,
    BPF_CGROUP_UDP6_SENDMSG, BPF_CGROUP_UNIX_CONNECT, BPF_CGROUP_UNIX_GETPEERNAME,
    BPF_CGROUP_UNIX_GETSOCKNAME, BPF_CGROUP_UNIX_RECVMSG, BPF_CGROUP_UNIX_SENDMSG, BPF_NETKIT_PEER,
    BPF_NETKIT_PRIMARY, BPF_TCX_EGRESS, BPF_TCX_INGRESS,
};

use super::{Show, Spot, mounts};

/// Shows every control group that has one of these programs, by a command or a link.
pub fn at_groups(programs: &[u32], show: &mut Show<'_>) {
    // The hierarchy of version 2, the only one that programs are attached to; one mount shows all that others do.
    for mount in mounts::of_type("cgroup2").into_iter().take(1) {
        let root = mount.point;
        for folder in folders_below(&root) {
            let Ok(group) = File::open(&folder) else {
                continue;
            };
            let name = format!(
                "/{}",
                folder.strip_prefix(&root).unwrap_or(&folder).display()
            );
            let place = format!("control group {name}");
            for &kind in GROUP_TYPES {
                at(group.as_raw_fd(), kind, (&place, &name), programs, show);
            }
        }
    }
}

/// Shows every device of this thread's network namespace that has one, by a command or a link.
pub fn at_devices(programs: &[u32], interfaces: &[(String, i32)], show: &mut Show<'_>) {
    for (name, index) in interfaces {
        let place = format!("interface {name} (tcx or netkit)");
        for &kind in DEVICE_TYPES {
            at(*index, kind, (&place, name), programs, show);
        }
    }
}

/// `target` is a descriptor or a device's number. A kernel that does not know the type has nothing.
fn at(target: i32, kind: u32, (place, name): (&str, &str), programs: &[u32], show: &mut Show<'_>) {
    for program in attached(target, kind) {
        if programs.contains(&program) {
            let spot = Spot {
                program,
                place: place.to_owned(),
                names: vec![name.to_owned()],
            };
            show(spot, &|| detach_one(program, target, kind));
        }
    }
}

fn attached(target: i32, kind: u32) -> Vec<u32> {
    let mut ids = [0; MOST];
    let mut count = ids.len() as u32;
    // SAFETY: libbpf writes at most `count` numbers, and the count.
    let result = unsafe {
        libbpf_sys::bpf_prog_query(
            target,
            kind,
            0,
            ptr::null_mut(),
            ids.as_mut_ptr(),
            &raw mut count,
        )
    };
    match result {
        0 => ids[..MOST.min(count as usize)].to_vec(),
        _ => Vec::new(),
    }
}

fn detach_one(id: u32, target: i32, kind: u32) -> io::Result<()> {
    // SAFETY: the call takes a number and returns a new descriptor or an error.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor was made by the line above and is nobody else's.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: both descriptors are open for the length of the call.
    match unsafe { libbpf_sys::bpf_prog_detach2(program.as_raw_fd(), target, kind) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn folders_below(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        all.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    all
}

/// `BPF_CGROUP_MAX_PROGS`, and the kernel's limit for tcx.
const MOST: usize = 64;

/// What is attached to control groups; LSM programs only by links.
const GROUP_TYPES: &[u32] = &[
    BPF_CGROUP_INET_INGRESS,
    BPF_CGROUP_INET_EGRESS,
    BPF_CGROUP_INET_SOCK_CREATE,
    BPF_CGROUP_SOCK_OPS,
    BPF_CGROUP_DEVICE,
    BPF_CGROUP_INET4_BIND,
    BPF_CGROUP_INET6_BIND,
    BPF_CGROUP_INET4_CONNECT,
    BPF_CGROUP_INET6_CONNECT,
    BPF_CGROUP_INET4_POST_BIND,
    BPF_CGROUP_INET6_POST_BIND,
    BPF_CGROUP_UDP4_SENDMSG,
    BPF_CGROUP_UDP6_SENDMSG,
    BPF_CGROUP_SYSCTL,
    BPF_CGROUP_UDP4_RECVMSG,
    BPF_CGROUP_UDP6_RECVMSG,
    BPF_CGROUP_GETSOCKOPT,
    BPF_CGROUP_SETSOCKOPT,
    BPF_CGROUP_INET4_GETPEERNAME,
    BPF_CGROUP_INET6_GETPEERNAME,
    BPF_CGROUP_INET4_GETSOCKNAME,
    BPF_CGROUP_INET6_GETSOCKNAME,
    BPF_CGROUP_INET_SOCK_RELEASE,
    BPF_CGROUP_UNIX_CONNECT,
    BPF_CGROUP_UNIX_SENDMSG,
    BPF_CGROUP_UNIX_RECVMSG,
    BPF_CGROUP_UNIX_GETPEERNAME,
    BPF_CGROUP_UNIX_GETSOCKNAME,
];

const DEVICE_TYPES: &[u32] = &[
    BPF_TCX_INGRESS,
    BPF_TCX_EGRESS,
    BPF_NETKIT_PRIMARY,
    BPF_NETKIT_PEER,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_below_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("cgroup.procs"), "").unwrap();
        let want = ["", "a", "a/b"].map(|name| tree.join(name));
        let mut found = folders_below(&tree);
        found.sort();
        assert_eq!(
            found,
            want.map(|path| path.components().collect::<PathBuf>())
        );
    }
}
