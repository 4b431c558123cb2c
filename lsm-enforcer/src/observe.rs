//! Who tried: executable, control group, container, read from `/proc` while the task lives.

use std::{fs, path::Path};

/// What `/proc` says about a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Path of its executable; `None` where it has ended.
    pub exe: Option<String>,
    /// Path of its control group (version 2).
    pub cgroup: Option<String>,
    /// Container id, where the control group's path names one.
    pub container: Option<String>,
}

/// Looks at a process.
pub fn observe(pid: u32) -> Observed {
    observe_below(Path::new("/proc"), pid)
}

fn observe_below(proc: &Path, pid: u32) -> Observed {
    let folder = proc.join(pid.to_string());
    let exe = fs::read_link(folder.join("exe"))
        .ok()
        .map(|path| path.display().to_string());
    let cgroup = fs::read_to_string(folder.join("cgroup"))
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("0::"))
                .map(str::to_owned)
        });
    let container = cgroup.as_deref().and_then(container_id);
    Observed {
        exe,
        cgroup,
        container,
    }
}

/// The container that a control group belongs to: docker, containerd, CRI-O and podman put
/// its 64 hex digits into the last segments of the path, with a prefix and `.scope` or bare.
pub fn container_id(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|segment| {
        let stem = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = stem.rsplit(['-', ':']).next().unwrap_or(stem);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_in_the_paths_of_common_runtimes() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/besteffort/pod1/{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{id}"),
        ] {
            assert_eq!(container_id(&path), Some(id.clone()), "{path}");
        }
        for path in [
            "/",
            "/system.slice/ssh.service",
            "/user.slice/user-0.slice/session-1.scope",
        ] {
            assert_eq!(container_id(path), None, "{path}");
        }
    }

    #[test]
    fn an_ended_process_has_no_facts() {
        let proc = tempfile::tempdir().unwrap();
        assert_eq!(observe_below(proc.path(), 1), Observed::default());
        fs::create_dir(proc.path().join("7")).unwrap();
        fs::write(proc.path().join("7/cgroup"), "1:cpu:/x\n0::/a.service\n").unwrap();
        let want = Observed {
            cgroup: Some("/a.service".to_owned()),
            ..Observed::default()
        };
        assert_eq!(observe_below(proc.path(), 7), want);
    }
}
