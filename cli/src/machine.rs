//! Virtual machines that try BPF programs: one boot of one kernel, under software emulation,
//! with the static enforcer as its first process.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bundle::{
    Digest,
    verifier::{Kernel, Transcript},
};

use sha2::Digest as _;

use crate::Failure;

/// What a machine tries.
pub struct Machine<'a> {
    /// The static `bpfseal-enforcer`.
    pub enforcer: &'a [u8],
    /// Names and ELF bytes of the objects.
    pub objects: &'a [(String, Vec<u8>)],
    /// How long it may take.
    pub limit: Duration,
}

impl Machine<'_> {
    /// Boots the kernel image at `path`.
    pub fn run(&self, path: &Path) -> Result<Kernel, Failure> {
        let image = digest(path).map_err(|error| Failure::io("cannot read", path, error))?;
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::internal(format!("no folder for the machine: {error}")))?;
        let initramfs = folder.path().join("initramfs");
        fs::write(&initramfs, self.archive())
            .map_err(|error| Failure::io("cannot write", &initramfs, error))?;
        let mut child = command(path, &initramfs).spawn().map_err(|error| {
            Failure::kernel(format!("{QEMU} does not start: {error}"))
                .with_remedy("Install it (Debian: qemu-system-x86), or put it into PATH.")
        })?;
        let (transcript, last) = self.listen(&mut child);
        let _ended_or_over = child.kill();
        let _reaped = child.wait();
        let mut kernel = transcript.into_kernel().ok_or_else(|| {
            let last = last.iter().rev().take(5).rev().cloned();
            Failure::kernel(format!(
                "the machine with {} did not come to the end; its last words: {}",
                path.display(),
                last.collect::<Vec<_>>().join(" / ")
            ))
            .with_remedy(
                "The kernel must boot under QEMU with a serial console; give a slow machine \
                 more time with `--timeout`.",
            )
        })?;
        kernel.image = Some(image);
        Ok(kernel)
    }

    /// Everything that the guest says until it ends or its time is over.
    fn listen(&self, child: &mut Child) -> (Transcript, Vec<String>) {
        let (sender, lines) = mpsc::channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|out| Box::new(out) as _),
            child.stderr.take().map(|err| Box::new(err) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let started = Instant::now();
        let (mut transcript, mut words) = (Transcript::default(), Vec::new());
        while !transcript.is_complete() {
            let left = self.limit.saturating_sub(started.elapsed());
            let Ok(line) = lines.recv_timeout(left) else {
                break;
            };
            let line = String::from_utf8_lossy(&line);
            transcript.add(&line);
            let line: String = line.trim().chars().take(200).collect();
            if !line.is_empty() {
                words.push(line);
            }
        }
        (transcript, words)
    }

    /// The guest's root file system, in the `newc` form of cpio (Linux,
    /// Documentation/driver-api/early-userspace/buffer-format.rst).
    fn archive(&self) -> Vec<u8> {
        let names: Vec<&str> = self.objects.iter().map(|(name, _)| name.as_str()).collect();
        let names = serde_json::Value::from(names).to_string();
        let mut archive = Vec::new();
        for folder in ["proc", "sys", "dev", "objects"] {
            entry(&mut archive, folder, 0o040_755, &[]);
        }
        entry(&mut archive, "init", 0o100_755, self.enforcer);
        entry(&mut archive, "objects/names", 0o100_644, names.as_bytes());
        for (index, (_, elf)) in self.objects.iter().enumerate() {
            entry(&mut archive, &format!("objects/{index}"), 0o100_644, elf);
        }
        entry(&mut archive, "TRAILER!!!", 0, &[]);
        archive
    }
}

fn entry(archive: &mut Vec<u8>, path: &str, mode: u32, content: &[u8]) {
    // Names and contents start at multiples of four.
    let align = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    let inode = archive.len();
    let fields = [
        inode,
        mode as usize,
        0,
        0,
        1,
        0,
        content.len(),
        0,
        0,
        0,
        0,
        path.len() + 1,
        0,
    ];
    // Writing to a vector cannot fail.
    let _ = write!(archive, "070701");
    for field in fields {
        let _ = write!(archive, "{:08x}", field & 0xffff_ffff);
    }
    let _ = write!(archive, "{path}\0");
    align(archive);
    archive.extend_from_slice(content);
    align(archive);
}

fn command(kernel: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new(QEMU);
    // Stock kernels do not boot under every /dev/kvm; emulation of an ordinary board always
    // works, and a verdict of the verifier does not depend on speed.
    command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-M", "q35"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-no-reboot", "-serial", "stdio", "-m", "1024", "-smp", "1"]);
    command.arg("-kernel").arg(kernel);
    command.arg("-initrd").arg(initramfs);
    command
        .arg("-append")
        .arg("console=ttyS0 quiet loglevel=1 panic=-1 lockdown=none rdinit=/init -- try-programs");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The image of a kernel series in the cache that `tests/lab/fetch.sh` fills, or of an exact
/// release there or in `/boot`.
pub fn kernel(series: &str) -> Result<PathBuf, Failure> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    if series.is_empty() || series.starts_with('.') || !series.chars().all(is_word) {
        return Err(Failure::usage(format!(
            "{series:?} is no kernel release, as 6.12 is"
        )));
    }
    let cache = cache().join("kernels");
    let places = [
        cache.join(series).join("vmlinux"),
        Path::new("/boot").join(format!("vmlinuz-{series}")),
    ];
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.ok_or_else(|| {
        Failure::not_found(format!(
            "no kernel {series}: neither {} nor {} is there",
            places[0].display(),
            places[1].display()
        ))
        .with_remedy("Give its image: `--kernel FILE`.")
    })
}

/// Kernels with debug information are large.
fn digest(path: &Path) -> std::io::Result<Digest> {
    let mut hash = sha2::Sha256::new();
    std::io::copy(&mut fs::File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(Digest::from_bytes(hash.finalize().into()))
}

struct HashWriter<'h>(&'h mut sha2::Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn cache() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let home = || PathBuf::from(variable("HOME").unwrap_or_default()).join(".cache");
    variable("XDG_CACHE_HOME")
        .map_or_else(home, PathBuf::from)
        .join("bpfseal")
}

/// The enforcer that was given, or the one beside this program or in `PATH`; it must need no
/// libraries.
pub fn enforcer(given: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => find_enforcer()?,
    };
    let elf = fs::read(&path).map_err(|error| Failure::io("cannot read", &path, error))?;
    if is_static(&elf) {
        return Ok(elf);
    }
    Err(Failure::usage(format!(
        "{} is no static program, and the machine has no libraries",
        path.display()
    ))
    .with_remedy(
        "Give the static enforcer (`make build` builds it in `target/release`): `--enforcer FILE`.",
    ))
}

fn find_enforcer() -> Result<PathBuf, Failure> {
    let beside = env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    beside
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(system)
        .map(|folder| folder.join("bpfseal-enforcer"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Failure::not_found("no bpfseal-enforcer beside this program or in PATH")
                .with_remedy("Name it: `--enforcer FILE`.")
        })
}

/// Is it a 64-bit ELF program without an interpreter (elf(5), `PT_INTERP`)?
fn is_static(elf: &[u8]) -> bool {
    let half = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            *elf.get(at..)?.first_chunk()?,
        )))
    };
    let table = elf.get(32..).and_then(|bytes| bytes.first_chunk());
    let table = table.and_then(|bytes| usize::try_from(u64::from_le_bytes(*bytes)).ok());
    let (Some(table), Some(size), Some(count)) = (table, half(54), half(56)) else {
        return false;
    };
    let kind = |index: usize| {
        let at = index.checked_mul(size)?.checked_add(table)?;
        Some(u32::from_le_bytes(*elf.get(at..)?.first_chunk()?))
    };
    elf.starts_with(b"\x7fELF\x02\x01") && (0..count).all(|index| kind(index) != Some(PT_INTERP))
}

const PT_INTERP: u32 = 3;
const QEMU: &str = "qemu-system-x86_64";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_reads() {
        let machine = Machine {
            enforcer: b"\x7fELF",
            objects: &[("probe.bpf.o".into(), b"object".to_vec())],
            limit: Duration::from_secs(1),
        };
        let archive = machine.archive();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .filter_map(|entry| entry.get(104..)?.split('\0').next())
            .collect();
        assert_eq!(
            names,
            [
                "proc",
                "sys",
                "dev",
                "objects",
                "init",
                "objects/names",
                "objects/0",
                "TRAILER!!!"
            ]
        );
        assert!(text.contains("[\"probe.bpf.o\"]") && text.contains("object\0\0"));
    }

    #[test]
    fn a_kernel_s_name_leads_to_no_other_folder() {
        for name in ["", "../x", "/etc/passwd", ".", "6.12/..", "a b"] {
            assert!(
                kernel(name)
                    .unwrap_err()
                    .message
                    .contains("is no kernel release"),
                "{name}"
            );
        }
    }

    #[test]
    fn only_programs_without_an_interpreter_are_static() {
        let this = fs::read(env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&[]));
    }
}
