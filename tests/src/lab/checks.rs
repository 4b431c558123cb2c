//! The guest's scripts, and a root file system that has what they need.
//!
//! A script is one file `tests/kernel/checks/NN_name.sh`. It runs in the guest with
//! `tests/kernel/guest/lib.sh` loaded, in the order of its number, each in a process of its
//! own; what the scripts before it changed in the kernel stays changed. Comment lines at its
//! top say what it needs:
//!
//! ```text
//! # kernels: 6.12 7.3            (only these series; all if there is no such line)
//! # spare: 6.12                 (not these, unless kernels or scripts are asked for: `make soak` does)
//! # tool: bpftrace bpftrace      (a name of fetch.sh, and its programs)
//! # apart: bpftool-sid bpftool  (the same, with libraries of their own; called bpftool-sid)
//! # data: xdp-tools usr/lib/x86_64-linux-gnu/bpf   (a folder of a tool's packages)
//! # files: systemd usr/lib/systemd/systemd   (the same, files that stay where Debian has them)
//! # disk: yes                    (an empty disk, /dev/nvme0n1)
//! # modules: sch_ingress cls_bpf   (of the kernel that runs; they go to /lab/modules)
//! # boot: lsm=lockdown,yama       (a machine of their own for scripts with this line, with
//! #                                 these words on its command line)
//! # processors: 2 6.1            (the same, with so many processors; on these kernels, or on all)
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Cache, FetchError, Initramfs, InitramfsError, Kernel, workspace};
use crate::fixtures;

/// One guest script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// File name without `.sh`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Kernel series it is for; empty for all.
    pub kernels: Vec<String>,
    /// Series on which it runs only where somebody asks.
    pub spare: Vec<String>,
    /// Words for the kernel's command line; scripts that ask for the same ones share a machine.
    pub boot: String,
    /// How many processors the machine has; scripts that ask for as many share it.
    pub processors: u32,
    /// On these kernels; none: on all.
    pub processors_on: Vec<String>,
    /// Does it need a disk?
    pub disk: bool,
    /// Tools beside those that every guest has: a name of `fetch.sh`, and programs of it.
    pub tools: Vec<(String, Vec<String>)>,
    /// The same, each with its own libraries; a program is called PROGRAM-SUITE, with what the
    /// tool's name has behind the last `-`.
    pub apart: Vec<(String, Vec<String>)>,
    /// A name of `fetch.sh`, and folders of it that go to the same place in the guest.
    pub data: Vec<(String, Vec<String>)>,
    /// The same with files that must be where their package puts them, ELF with its libraries.
    pub files: Vec<(String, Vec<String>)>,
    /// Modules of the kernel: names of `fetch.sh`.
    pub modules: Vec<String>,
}

/// Programs of Debian that every guest has.
const TOOLS: &[(&str, &[&str])] = &[
    ("bpftool", &["bpftool"]),
    (
        "libbpf-tools",
        &[
            "execsnoop-libbpf",
            "opensnoop-libbpf",
            "runqlat-libbpf",
            "tcpconnect-libbpf",
            "vfsstat-libbpf",
            "bindsnoop-libbpf",
        ],
    ),
];

/// Reads the scripts of a folder that are for a kernel series, in order.
pub fn scripts(folder: &Path, series: &str) -> io::Result<Vec<Script>> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    paths.sort();
    let mut scripts = paths
        .iter()
        .map(|path| Script::read(path))
        .collect::<io::Result<Vec<_>>>()?;
    scripts.retain(|script| script.is_for(series));
    for script in &mut scripts {
        let on = &script.processors_on;
        if !on.is_empty() && !on.iter().any(|kernel| kernel == series) {
            script.processors = 1;
        }
    }
    Ok(scripts)
}

impl Script {
    /// Reads one script; it is named after its file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut script = Self {
            name,
            path: path.to_owned(),
            kernels: Vec::new(),
            spare: Vec::new(),
            boot: String::new(),
            processors: 1,
            processors_on: Vec::new(),
            disk: false,
            tools: Vec::new(),
            apart: Vec::new(),
            data: Vec::new(),
            files: Vec::new(),
            modules: Vec::new(),
        };
        for line in text.lines().take_while(|line| line.starts_with('#')) {
            let mut words = line
                .trim_start_matches('#')
                .split_whitespace()
                .map(str::to_owned);
            match words.next().as_deref() {
                Some("kernels:") => script.kernels = words.collect(),
                Some("spare:") => script.spare = words.collect(),
                Some("disk:") => script.disk = true,
                Some("modules:") => script.modules.extend(words),
                Some("processors:") => {
                    let count = words.next().and_then(|count| count.parse().ok());
                    script.processors = count.ok_or_else(|| {
                        io::Error::other(format!("{}: how many processors?", path.display()))
                    })?;
                    script.processors_on = words.collect();
                }
                Some("boot:") => script.boot = words.collect::<Vec<_>>().join(" "),
                Some(kind @ ("tool:" | "apart:" | "data:")) => {
                    let name = words.next().unwrap_or_default();
                    let list = match kind {
                        "tool:" => &mut script.tools,
                        "apart:" => &mut script.apart,
                        _ => &mut script.data,
                    };
                    list.push((name, words.collect()));
                }
                Some("files:") => {
                    let name = words.next().unwrap_or_default();
                    script.files.push((name, words.collect()));
                }
                _ => {}
            }
        }
        Ok(script)
    }

    fn is_for(&self, series: &str) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|kernel| kernel == series)
    }
}

/// A guest with Busybox, the scripts, all fixtures, Debian's loaders and our `programs`
/// (each goes to /lab/bin under its own name).
pub fn guest(
    cache: &Cache,
    kernel: &Kernel,
    scripts: &[Script],
    programs: &[PathBuf],
) -> Result<Initramfs, GuestError> {
    let busybox = cache.tool_root("busybox-static")?;
    let mut root = Initramfs::new(&find_program(&busybox, "busybox"));
    let own = workspace().join("tests/kernel/guest");
    root.host_file("init", &own.join("init"), 0o755);
    root.host_folder("lab", &own)?;
    root.host_folder("lab/dist", &workspace().join("lsm-enforcer/dist"))?;
    root.file("lab/release", format!("{}\n", kernel.release), 0o644);
    root.directory("lab/checks");
    for script in scripts {
        root.host_file(
            &format!("lab/checks/{}.sh", script.name),
            &script.path,
            0o755,
        );
    }
    for name in fixtures::NAMES {
        let guest = format!("lab/objects/{name}.bpf.o");
        root.host_file(&guest, &fixtures::object(name), 0o644);
    }
    // Libraries of Debian's tools first: programs built here run with a newer libc too.
    let mut roots = Vec::new();
    let shared = TOOLS.iter().map(|(tool, programs)| {
        let programs = programs
            .iter()
            .map(|program| (*program).to_owned())
            .collect();
        ((*tool).to_owned(), programs)
    });
    let asked = scripts.iter().flat_map(|script| script.tools.clone());
    for (tool, programs) in shared.chain(asked).collect::<Vec<(String, Vec<String>)>>() {
        let tool_root = cache.tool_root(&tool)?;
        for program in programs {
            let host = find_program(&tool_root, &program);
            root.program(
                &format!("usr/sbin/{program}"),
                &host,
                std::slice::from_ref(&tool_root),
            )?;
        }
        roots.push(tool_root);
    }
    for (tool, programs) in scripts.iter().flat_map(|script| &script.apart) {
        let tool_root = cache.tool_root(tool)?;
        let suite = tool.rsplit('-').next().unwrap_or(tool);
        for program in programs {
            let host = find_program(&tool_root, program);
            let path = format!("usr/sbin/{program}-{suite}");
            root.program_apart(&path, tool, &host, &tool_root)?;
        }
    }
    for (tool, folders) in scripts.iter().flat_map(|script| &script.data) {
        let tool_root = cache.tool_root(tool)?;
        for folder in folders {
            root.host_folder(folder, &tool_root.join(folder))?;
        }
    }
    for (tool, files) in scripts.iter().flat_map(|script| &script.files) {
        let tool_root = cache.tool_root(tool)?;
        for file in files {
            let roots = std::slice::from_ref(&tool_root);
            root.program(file, &tool_root.join(file), roots)?;
        }
    }
    for module in scripts.iter().flat_map(|script| &script.modules) {
        let file = cache.module(kernel, module)?;
        root.host_file(&format!("lab/modules/{module}.ko"), &file, 0o644);
    }
    roots.push(PathBuf::from("/"));
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        root.program(&format!("lab/bin/{name}"), program, &roots)?;
    }
    Ok(root)
}

/// A guest could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Something to fetch.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Something to put in.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
}

fn find_program(root: &Path, name: &str) -> PathBuf {
    ["usr/sbin", "usr/bin", "sbin", "bin"]
        .iter()
        .map(|folder| root.join(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| root.join("usr/sbin").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_at_the_top_says_what_a_script_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("50_trace.sh");
        let text = "# Traces.\n# kernels: 6.12 7.3\n# spare: 6.12\n# processors: 2 7.3\n# disk: yes\n# boot: lsm=yama quiet\n# tool: bpftrace bpftrace\n# apart: bpftool-sid bpftool\n# data: xdp-tools usr/lib/bpf\n# files: systemd usr/lib/x\n# modules: cls_bpf\n\n# kernels: 1.0\n";
        fs::write(&path, text).unwrap();
        fs::write(folder.path().join("README.md"), "").unwrap();
        let want = Script {
            name: "50_trace".to_owned(),
            path,
            kernels: vec!["6.12".to_owned(), "7.3".to_owned()],
            spare: vec!["6.12".to_owned()],
            boot: "lsm=yama quiet".to_owned(),
            processors: 2,
            processors_on: vec!["7.3".to_owned()],
            disk: true,
            tools: vec![("bpftrace".to_owned(), vec!["bpftrace".to_owned()])],
            apart: vec![("bpftool-sid".to_owned(), vec!["bpftool".to_owned()])],
            data: vec![("xdp-tools".to_owned(), vec!["usr/lib/bpf".to_owned()])],
            files: vec![("systemd".to_owned(), vec!["usr/lib/x".to_owned()])],
            modules: vec!["cls_bpf".to_owned()],
        };
        assert_eq!(scripts(folder.path(), "7.3").unwrap(), [want]);
        assert_eq!(scripts(folder.path(), "6.1").unwrap(), []);
    }
}
