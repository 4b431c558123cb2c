//! One virtual machine: QEMU's command line, the wait, the console.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{Cache, FetchError, Initramfs, InitramfsError, Kernel, Report, target};

/// A machine to boot once.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: Kernel,
    name: String,
    append: String,
    memory: u32,
    processors: u32,
    count_instructions: bool,
    disk: bool,
    limit: Duration,
}

/// A machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The root file system.
    #[error("the guest's file system")]
    Initramfs(#[from] InitramfsError),
    /// QEMU for more than one processor.
    #[error("QEMU of Debian 13")]
    Fetch(#[from] FetchError),
    /// QEMU or the console log.
    #[error("{doing}")]
    Host {
        /// What failed.
        doing: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Machine {
    /// A machine for `kernel`; `name` names its console log.
    pub fn new(kernel: Kernel, name: &str) -> Self {
        Self {
            kernel,
            name: name.to_owned(),
            append: String::new(),
            memory: 1024,
            processors: 1,
            count_instructions: false,
            disk: false,
            // A boot takes 3 to 12 s on an idle machine and all of today's checks two to
            // four minutes; machines that run tests are often busy with something else.
            limit: Duration::from_secs(1500),
        }
    }

    /// Adds to the kernel's command line. A later `lsm=` wins over the default one.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        self.append.push(' ');
        self.append.push_str(words);
        self
    }

    /// MiB of memory; 1024 unless told.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Processors; 1 unless told. Each is a thread of Debian 13's QEMU, as Debian 12's (7.2) crashes such guests;
    /// with one it is the QEMU of this machine, whose guests take a third less of its time.
    #[must_use]
    pub fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// Makes guest time the number of instructions executed, 1 ns each: costs measured in
    /// the guest are then the same on a busy machine.
    #[must_use]
    pub fn count_instructions(mut self) -> Self {
        self.count_instructions = true;
        self
    }

    /// An empty disk of 16 MiB, `/dev/nvme0n1`: a kind that Debian's kernels know without modules.
    #[must_use]
    pub fn disk(mut self, wanted: bool) -> Self {
        self.disk = wanted;
        self
    }

    /// How long the guest may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How much longer it may take.
    #[must_use]
    pub fn longer(mut self, more: Duration) -> Self {
        self.limit = self.limit.saturating_add(more);
        self
    }

    /// Boots, waits for the end, reads the console. `each` sees every line as it comes.
    pub fn run(
        &self,
        root: &Initramfs,
        mut each: impl FnMut(&str),
    ) -> Result<Report, MachineError> {
        let folder = target().join("lab");
        fs::create_dir_all(&folder).map_err(doing("creating the folder of console logs"))?;
        let archive = folder.join(format!("{}.cpio", self.name));
        let console = folder.join(format!("{}.log", self.name));
        root.write(&archive)?;
        let disk = folder.join(format!("{}.disk", self.name));
        if self.disk {
            File::create(&disk)
                .and_then(|file| file.set_len(DISK_BYTES))
                .map_err(doing("creating the guest's disk"))?;
        }
        let mut log = File::create(&console).map_err(doing("creating the console log"))?;
        let started = Instant::now();
        let mut child = self
            .command(&archive, &disk)?
            .spawn()
            .map_err(doing("starting qemu-system-x86_64"))?;
        let lines = console_lines(&mut child);
        let mut text = String::new();
        let mut timed_out = false;
        loop {
            let left = self.limit.saturating_sub(started.elapsed());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    each(&line);
                    writeln!(log, "{line}").map_err(doing("writing the console log"))?;
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    timed_out = true;
                    break;
                }
            }
        }
        // An ended child makes `kill` fail, which is as good.
        let _ = child.kill();
        child
            .wait()
            .map_err(doing("waiting for qemu-system-x86_64"))?;
        // Archives are as large as all the guest's programs; the log is what one reads.
        let _ = fs::remove_file(&archive);
        let _ = fs::remove_file(&disk);
        let mut report = Report::read(&text, console);
        if timed_out {
            report.fault = Some(format!("the guest did not end within {:?}", self.limit));
        }
        Ok(report)
    }

    fn command(&self, archive: &Path, disk: &Path) -> Result<Command, FetchError> {
        let (mut command, accelerator) = if self.processors == 1 {
            (Command::new("qemu-system-x86_64"), "tcg,thread=single")
        } else {
            let tool = Cache::open().tool("qemu")?;
            let mut command = Command::new(tool.join("bin/qemu-system-x86_64"));
            for firmware in ["qemu", "seabios"] {
                command
                    .arg("-L")
                    .arg(tool.join("root/usr/share").join(firmware));
            }
            (command, "tcg,thread=multi")
        };
        // Stock kernels do not boot under every /dev/kvm, and microvm machines hang now and
        // then, so this is software emulation of an ordinary board, which always works.
        command.args(["-accel", accelerator, "-cpu", "max", "-M", "q35"]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.args(["-serial", "stdio"]);
        command.args([
            "-m",
            &self.memory.to_string(),
            "-smp",
            &self.processors.to_string(),
        ]);
        if self.count_instructions {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        if self.disk {
            let file = format!("if=none,id=disk,format=raw,file={}", disk.display());
            command.args(["-drive", &file, "-device", "nvme,drive=disk,serial=1"]);
        }
        command.arg("-kernel").arg(&self.kernel.vmlinux);
        command.arg("-initrd").arg(archive);
        // A busy machine is late with the emulated timer, for which the kernel looks while it boots.
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 no_timer_check lsm=lockdown,yama,bpf{}",
            self.append
        ));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

/// Bytes of a guest's disk, which takes as many only as are written.
const DISK_BYTES: u64 = 16 << 20;

// Lines of the serial console and of QEMU's own complaints, until both have ended.
fn console_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let streams: [Option<Box<dyn io::Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as _),
        child.stderr.take().map(|err| Box::new(err) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> MachineError {
    let doing = what.to_owned();
    move |source| MachineError::Host { doing, source }
}
