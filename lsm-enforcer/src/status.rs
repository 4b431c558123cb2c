//! What is in force, said as it is measured and not as it was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use bundle::Digest;
use policy::protect::Switch;
use serde::{Deserialize, Serialize};

use crate::{
    enforcer::{Enforcer, ProbeStatus, RevocationStatus, SelfTest},
    failure::Failure,
    gate::{Armed, Counters, GeneratorState, Mode},
    host::Executable,
};

mod programs;

use programs::left_behind;
pub use programs::{ProgramCounts, Standing};

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The one line that matters.
    pub headline: String,
    /// Was an unsigned program refused a moment ago?
    pub enforcing: bool,
    /// Is the gate in the kernel?
    pub armed: bool,
    /// The mode that is pinned.
    pub mode: Option<Mode>,
    /// Why nothing is refused, while it is armed for audit only.
    #[serde(default)]
    pub why_audit: Option<String>,
    /// Permits that were used since arming.
    #[serde(default)]
    pub permits_used: usize,
    /// Does the policy want nothing in the kernel that nobody judged?
    #[serde(default)]
    pub strict: bool,
    /// What stands behind `enforcing` and is not as good as it sounds, one clause each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The gates.
    #[serde(default)]
    pub gates: Vec<GateStatus>,
    /// Seconds until a provisional arming falls back to audit.
    pub unconfirmed_seconds: Option<u64>,
    /// Does the daemon run?
    pub daemon: bool,
    /// It runs and did not answer: it is stopped, frozen or busy. This was measured without it.
    #[serde(default)]
    pub daemon_silent: bool,
    /// What an attacker may still use, one clause each: what the policy leaves open, and programs
    /// that nobody signed.
    #[serde(default)]
    pub remaining: Vec<String>,
    /// Keyrings by which the kernel may verify loaders.
    #[serde(default)]
    pub kernel_keyrings: Vec<String>,
    /// What a permit must name.
    pub host: String,
    /// The policy.
    pub policy: Option<PolicyStatus>,
    /// The authority.
    pub authority: Option<AuthorityStatus>,
    /// Admitted bundles.
    pub bundles: Vec<BundleStatus>,
    /// Stored bundles that the policy does not admit.
    pub refused_bundles: Vec<RefusedBundle>,
    /// Programs in the kernel.
    pub programs: ProgramCounts,
    /// Since arming.
    pub counters: Option<Counters>,
    /// The last self test, with the refusal proved just now.
    pub selftest: Option<SelfTest>,
    /// The step of the kernel ladder.
    pub rung: String,
    /// What this kernel cannot show the gate.
    pub blind: Vec<String>,
    /// What the gate does not cover on any kernel.
    pub not_covered: Vec<String>,
    /// What stands in the way of enforcing.
    pub obstacles: Vec<String>,
    /// The revocation list, if there is one.
    #[serde(default)]
    pub revocation: Option<RevocationStatus>,
    /// The list of probe programs, if there is one.
    #[serde(default)]
    pub probes: Option<ProbeStatus>,
    /// Rules that trust an executable instead of a signature: what these make is not attested.
    #[serde(default)]
    pub generators: Vec<GeneratorState>,
    /// Ways into kernel memory, by the policy's word: is it closed? `None` while not armed.
    #[serde(default)]
    pub protect: Option<BTreeMap<String, bool>>,
    /// The daemon's executable.
    pub executable: String,
    /// Is it linked statically?
    pub executable_is_static: bool,
}

/// One of the gates, and by which pinned programs it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// 1 admission, 2 binding, 3 attachment, 0 self-protection.
    pub number: u8,
    /// What it does.
    pub does: String,
    /// Its pinned programs; none: it is not there.
    pub hooks: Vec<String>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Version in force.
    pub version: u64,
    /// Digest of the policy in force.
    pub digest: Digest,
    /// Why the policy on disk was not taken, if it was not.
    pub on_disk: Option<String>,
}

/// Who commands the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// SHA-256 of its key.
    pub key: Digest,
    /// How far it can be relied upon.
    pub trust: String,
}

/// An admitted bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleStatus {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Package name.
    pub name: Option<String>,
    /// Package version.
    pub version: Option<String>,
    /// Rule that admitted it.
    pub rule: String,
    /// Who signed it.
    pub signers: Vec<String>,
    /// Programs that may load.
    pub programs: usize,
    /// Programs that could not be measured for this kernel.
    pub unmeasured: usize,
}

/// A stored bundle that is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedBundle {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Why.
    pub why: String,
}

impl Status {
    /// Measures.
    pub fn measure(enforcer: &mut Enforcer, daemon: bool) -> Result<Self, Failure> {
        let armed = enforcer.armed()?;
        let biting = match armed {
            Some(_) => enforcer.watch()?,
            None => false,
        };
        let bundles = enforcer.accepted()?;
        let standing = Standing::measure(enforcer)?;
        let coverage = enforcer.gate().coverage()?;
        let obstacles: Vec<String> = enforcer
            .obstacles()?
            .into_iter()
            .map(|obstacle| obstacle.what)
            .collect();
        let executable = enforcer.host().executable();
        let generators = enforcer.generators()?;
        let mode = armed.as_ref().map(|armed| armed.mode);
        let mut status = Self {
            headline: String::new(),
            enforcing: biting && mode == Some(Mode::Enforce) && standing.falls_short.is_none(),
            armed: armed.is_some(),
            mode,
            why_audit: armed
                .as_ref()
                .map(|armed| enforcer.why_audit(armed))
                .transpose()?
                .flatten(),
            permits_used: armed.as_ref().map_or(0, |armed| armed.spent.len()),
            strict: standing.strict,
            warnings: [
                coverage.warnings,
                standing.warnings,
                replaced(&executable),
                enforcer.strays().to_vec(),
                left_behind(&enforcer.left_behind()?),
            ]
            .concat(),
            gates: gates(&enforcer.gate().hooks()?),
            unconfirmed_seconds: armed
                .as_ref()
                .and_then(|armed| armed.confirm_by)
                .map(|by| by.saturating_sub(enforcer.host().since_boot()).as_secs()),
            daemon,
            daemon_silent: false,
            remaining: Vec::new(),
            kernel_keyrings: keyrings_of(enforcer),
            host: enforcer.host().id(),
            policy: armed.as_ref().map(|armed| PolicyStatus {
                version: armed.policy_version,
                digest: armed.policy,
                on_disk: enforcer.trouble().map(Failure::line),
            }),
            authority: armed.as_ref().map(|armed| AuthorityStatus {
                key: armed.authority,
                trust:
                    "trust on first use, until reboot: the next boot takes it from the state folder"
                        .to_owned(),
            }),
            bundles: bundles
                .iter()
                .map(|known| BundleStatus {
                    digest: known.verdict.bundle,
                    name: known.verdict.name.clone(),
                    version: known.verdict.version.clone(),
                    rule: known.verdict.rule.clone(),
                    signers: known.verdict.signers.clone(),
                    programs: known.images().count(),
                    unmeasured: known.programs.len() - known.images().count(),
                })
                .collect(),
            refused_bundles: enforcer
                .rejected()
                .iter()
                .map(|rejected| RefusedBundle {
                    digest: rejected.bundle,
                    why: rejected.failure.line(),
                })
                .collect(),
            programs: standing.programs,
            counters: armed
                .is_some()
                .then(|| enforcer.gate().counters())
                .transpose()?,
            selftest: enforcer.last_selftest().cloned(),
            rung: coverage.rung,
            blind: coverage.blind,
            not_covered: not_covered(armed.as_ref(), !generators.is_empty()),
            obstacles,
            revocation: enforcer.revocation_status()?,
            probes: enforcer.probe_status(armed.as_ref()),
            protect: armed.as_ref().map(|armed| {
                let row =
                    |&switch: &Switch| (switch.word().to_owned(), armed.protect.is_on(switch));
                Switch::ALL.iter().map(row).collect()
            }),
            generators,
            executable: executable.path,
            executable_is_static: executable.is_static,
        };
        status.remaining = status.what_remains();
        status.headline = status.say(biting, standing.falls_short);
        Ok(status)
    }

    fn say(&self, biting: bool, falls_short: Option<String>) -> String {
        let Some(mode) = self.mode else {
            let why = match self.obstacles.first() {
                Some(obstacle) => format!("and cannot be: {obstacle}"),
                None => "so every BPF program loads".to_owned(),
            };
            return format!("NOT enforcing: the gate is not armed, {why}");
        };
        if !biting {
            let why = self.obstacles.first().cloned().unwrap_or_else(|| {
                match mode {
                    Mode::Enforce => "an unsigned program loaded a moment ago",
                    Mode::Audit => "an unsigned program loaded a moment ago and was not seen",
                }
                .to_owned()
            });
            return format!("NOT enforcing: the gate is armed but does not bite: {why}");
        }
        if let Some(line) = falls_short {
            return line;
        }
        match (mode, self.unconfirmed_seconds) {
            (Mode::Audit, _) => {
                let because = self
                    .why_audit
                    .as_ref()
                    .map_or_else(String::new, |why| format!(", because {why}"));
                format!(
                    "Audit only{because}: unsigned BPF programs load and are reported, nothing is refused"
                )
            }
            (Mode::Enforce, seconds) => {
                let first = seconds.map_or_else(
                    || "Enforcing: unsigned BPF programs are refused, one was just now".to_owned(),
                    |seconds| {
                        format!(
                            "Enforcing, but not confirmed: falls back to audit in {seconds} s unless \
                             `bpfseal-enforcer arm --confirm` comes"
                        )
                    },
                );
                let all = std::iter::once(first).chain(self.remaining.iter().cloned());
                all.collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {name:<12} {value}");
        };
        if let Some(policy) = &self.policy {
            line(
                "policy",
                &format!("version {}, {}", policy.version, policy.digest),
            );
            if let Some(why) = &policy.on_disk {
                line("", &format!("the one on disk was NOT taken: {why}"));
            }
        }
        if let Some(authority) = &self.authority {
            line(
                "authority",
                &format!("{} ({})", authority.key, authority.trust),
            );
        }
        if let Some(revocation) = &self.revocation {
            line("revocation", &revocation.line());
        }
        if let Some(probes) = &self.probes {
            line("probes", &probes.line());
        }
        if self.permits_used > 0 {
            let used = format!(
                "{} used since arming; `events` says for what",
                self.permits_used
            );
            line("permits", &used);
        }
        line("host", &self.host);
        for bundle in &self.bundles {
            line("admitted", &bundle.line());
        }
        for refused in &self.refused_bundles {
            line("refused", &format!("{}: {}", refused.digest, refused.why));
        }
        let programs = &self.programs;
        line("programs", &programs.line());
        if self.armed && programs.before > 0 {
            line("", NEVER_LOOKED_AT);
        }
        for warning in &self.warnings {
            line("WARNING", warning);
        }
        if let Some(protect) = &self.protect {
            let closed: Vec<&str> = protect
                .iter()
                .filter(|(_, closed)| **closed)
                .map(|(word, _)| word.as_str())
                .collect();
            line("closed ways", &closed.join(", "));
        }
        for gate in &self.gates {
            let hooks = if gate.hooks.is_empty() {
                "not there".to_owned()
            } else {
                gate.hooks.join(", ")
            };
            line(
                &format!("gate {}", gate.number),
                &format!("{}: {hooks}", gate.does),
            );
        }
        if let Some(counters) = &self.counters {
            line(
                "since arming",
                &format!(
                    "{} passed, {} refused, {} let pass by audit, {} attempts on the gate, {} events lost; {} programs on record",
                    counters.passed,
                    counters.refused,
                    counters.audited,
                    counters.protected,
                    counters.events_lost,
                    counters.records
                ),
            );
        }
        if let Some(test) = &self.selftest {
            for check in &test.checks {
                line("self test", &format!("{} ({:.0})", check.line(), test.time));
            }
        }
        line("kernel", &self.rung);
        for clause in &self.blind {
            line("cannot see", clause);
        }
        for clause in &self.not_covered {
            line("not covered", clause);
        }
        for obstacle in &self.obstacles {
            line("obstacle", obstacle);
        }
        line("generators", &self.generators_line());
        for generator in &self.generators {
            let stands = match (&generator.why_not, generator.until) {
                (Some(why), _) => format!("not let in now: {why}"),
                (None, Some(until)) => format!("let in until {} s after boot", until.as_secs()),
                (None, None) => "let in".to_owned(),
            };
            line("", &format!("{}: {stands}", generator.name));
        }
        line("daemon", &self.daemon_line());
        format!("{}\n{text}", self.headline)
    }

    /// Short, for one line; `not_covered` and `blind` have the limits of any gate.
    fn what_remains(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.generators.is_empty() {
            all.push(self.generators_line());
        }
        if !self.kernel_keyrings.is_empty() {
            let words = self.kernel_keyrings.join(", ");
            all.push(format!("loaders pass that the kernel verifies by: {words}"));
        }
        match self.programs.before {
            0 => {}
            1 => all.push("1 program from before arming".to_owned()),
            n => all.push(format!("{n} programs from before arming")),
        }
        let open: Vec<&str> = self
            .protect
            .iter()
            .flatten()
            .filter(|(_, closed)| !**closed)
            .map(|(word, _)| word.as_str())
            .collect();
        if !open.is_empty() {
            all.push(format!("left open by the policy: {}", open.join(", ")));
        }
        all
    }

    fn generators_line(&self) -> String {
        match self.generators.len() {
            0 => "none".to_owned(),
            1 => "1 generator: its programs are not attested".to_owned(),
            n => format!("{n} generators: their programs are not attested"),
        }
    }

    fn daemon_line(&self) -> String {
        let running = if self.daemon_silent {
            "does NOT answer: it is stopped, frozen or busy; the gate holds, but events wait and \
             nobody watches"
        } else if self.daemon {
            "running"
        } else if self.armed {
            "NOT running: the gate holds, but events wait and nobody watches"
        } else {
            "not running"
        };
        let linking = if self.executable_is_static {
            "static"
        } else {
            "dynamically linked: its identity includes libraries"
        };
        format!("{running}; {} ({linking})", self.executable)
    }
}

impl BundleStatus {
    fn line(&self) -> String {
        let name = self.name.as_deref().unwrap_or("(no name)");
        let version = self
            .version
            .as_deref()
            .map(|v| format!(" {v}"))
            .unwrap_or_default();
        let unmeasured = match self.unmeasured {
            0 => String::new(),
            n => format!(" ({n} more cannot load on this kernel)"),
        };
        format!(
            "{name}{version}, {} programs{unmeasured}, signed by {}, {}, {}",
            self.programs,
            self.signers.join(", "),
            self.rule,
            self.digest
        )
    }
}

fn keyrings_of(enforcer: &Enforcer) -> Vec<String> {
    let policy = enforcer.policy();
    let keyrings = policy.map(|trusted| trusted.policy().kernel_keyrings());
    let words = keyrings
        .into_iter()
        .flatten()
        .map(|trusted| trusted.keyring.word());
    words.map(str::to_owned).collect()
}

fn replaced(executable: &Executable) -> Vec<String> {
    let line = "the daemon is the build that was in its place before: restart it";
    Vec::from_iter(executable.is_replaced.then(|| line.to_owned()))
}

fn gates(hooks: &[String]) -> Vec<GateStatus> {
    GATES
        .iter()
        .map(|&(number, does, prefixes)| GateStatus {
            number,
            does: does.to_owned(),
            hooks: hooks
                .iter()
                .filter(|hook| prefixes.iter().any(|prefix| hook.starts_with(prefix)))
                .cloned()
                .collect(),
        })
        .collect()
}

/// Said where there are programs from before arming.
pub(crate) const NEVER_LOOKED_AT: &str =
    "those from before arming were never looked at; `inventory` lists them";

/// Number, purpose, and how the names of its programs begin.
const GATES: [(u8, &str, &[&str]); 4] = [
    (1, "admission, before the verifier", &["gate1", "forget"]),
    (
        2,
        "binding, before there is a descriptor",
        &["gate2", "see"],
    ),
    (3, "attachment", &["gate3", "gate_"]),
    (
        0,
        "self-protection",
        &["guard", "last", "mark", "note", "unmark"],
    ),
];
/// What no gate covers, and what the policy leaves open.
fn not_covered(armed: Option<&Armed>, generators: bool) -> Vec<String> {
    let off = armed.map_or_else(BTreeSet::new, |armed| armed.protect.off());
    let open = off.iter().map(|switch| {
        let (what, word) = (switch.refuses(), switch.word());
        format!("{what}: left open by the policy (`{word}` in [protect])")
    });
    let of_generators = GENERATORS_NOT_COVERED.iter().filter(|_| generators);
    NOT_COVERED
        .iter()
        .chain(of_generators)
        .map(|&text| text.to_owned())
        .chain(open)
        .collect()
}

/// Limits of the gate as such; `docs/threat-model.md` has the reasons.
const NOT_COVERED: &[&str] = &[
    "contents of ordinary maps, .data and program arrays belong to whoever holds them",
    "whoever registers a struct of functions (struct_ops) chooses which admitted members it has, of any bundles, and its flags and name",
    "which module is meant, where several have a function of one name, is decided when the daemon starts, reloads or admits",
    "interfaces in network namespaces that no process and no mount keeps: what was revoked is detached there only from \
     links",
    "a loader that renames functions in the BTF of the program to be replaced picks another one of the same prototype",
    "which admitted struct of functions an admitted program is associated with (7.2 and later)",
    "probes of loaders in maps, while no rule names places and nothing is revoked; they return a constant",
    "a request of io_uring that sets a socket option on the way out of a call of that option (6.7 and later)",
    "pins of a BPF file system below another, from before arming",
    "what was withdrawn and not revoked, once somebody brings an old state folder back; after the end of an \
     [[exception]], until a daemon looks",
    "test runs (BPF_PROG_TEST_RUN) of admitted programs without places, on whatever packets their holder makes",
    "up to 64 instructions of whoever holds a key for lists of probes; they are attached nowhere",
    "where events go while no daemon runs: to the log of whichever command collects them",
    "whoever held the enforcer and acted before it began anew, or switched ftrace off meanwhile: then it may be his",
    "where loaded programs are attached by netlink, ioctl or socket options once somebody took the gate's pins away, and \
     who writes the daemon's file then; calls of bpf() are refused",
    "programs of control groups from before arming that answer otherwise for kernel memory and sysctl, where another hook \
     does not refuse it first",
    "kprobe programs from before arming that have functions answer otherwise (bpf_override_return, which Debian's kernels \
     do not have)",
    "who listened on the daemon's socket before a second daemon was started by hand",
    "registers of devices that drivers show in debugfs",
    "values of .kconfig and addresses of symbols without types, which are read from /boot and /proc when a bundle is \
     admitted",
    "the kernel's own memory by signed modules that have faults, devices with direct memory access, and what was opened \
     before arming: mappings of /dev/mem and of PCI devices, I/O ports (iopl), /proc/kcore",
];

/// The same of generators.
const GENERATORS_NOT_COVERED: &[&str] = &[
    "the memory of generators, where it is swapped out to a device of somebody's",
    "writes to the disk below a generator's file that is known by SHA-256 alone; `fsverity` and `dmverity` see them",
    "of a volume with dm-verity: pages that a table from before arming let in, and the path that a mount shows",
    "where generators attach what they made, and what they loaded before the end of a permit",
    "a generator's control group is the one that /sys/fs/cgroup shows",
];

#[cfg(test)]
mod tests;
