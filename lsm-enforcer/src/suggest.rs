//! What audit mode saw, as rules to paste and as a list of what to sign.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use policy::Reason;
use serde::{Deserialize, Serialize};

use crate::record::{Attempt, Outcome, Record};

/// The suggestion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// Executables that load programs nobody signed, most frequent first.
    pub enroll: Vec<Loader>,
    /// TOML to paste into the policy.
    pub rules: String,
}

/// An executable that loads programs nobody admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loader {
    /// Its path; its thread's name where the process had ended.
    pub exe: String,
    /// Name of its rule: its file's name, which is also what `enroll` calls the package.
    pub name: String,
    /// How often it tried.
    pub attempts: u64,
    /// Names of its programs.
    pub programs: BTreeSet<String>,
    /// Their types.
    pub program_types: BTreeSet<String>,
    /// Why they were not admitted, as words.
    pub reasons: BTreeSet<String>,
}

/// Reads the log. `keys` are the names of the policy's keys.
pub fn suggest(records: &[Record], keys: &[String]) -> Suggestion {
    let mut loaders: BTreeMap<String, Loader> = BTreeMap::new();
    let mut filters = 0;
    let attempts = records.iter().filter_map(|record| match record {
        Record::Attempt(attempt) => Some(attempt),
        Record::Notice(_) => None,
    });
    let mut missed: Vec<&Attempt> = attempts
        .filter(|attempt| attempt.outcome != Outcome::Passed && is_about_a_program(attempt))
        .map(Box::as_ref)
        .collect();
    // Those with a path first: a process that had ended is known by its thread's name only,
    // which is the start of the file's name.
    missed.sort_by_key(|attempt| attempt.exe.is_none());
    for attempt in missed {
        if is_device_filter(attempt) {
            filters += 1 + attempt.suppressed;
            continue;
        }
        let name = match &attempt.exe {
            Some(exe) => plain(exe.rsplit('/').next().unwrap_or(exe)),
            None => {
                let comm = plain(&attempt.comm);
                let known = loaders.keys().find(|name| name.starts_with(&comm));
                known.cloned().unwrap_or(comm)
            }
        };
        let loader = loaders.entry(name.clone()).or_insert_with(|| Loader {
            exe: attempt.exe.clone().unwrap_or_else(|| attempt.comm.clone()),
            name,
            attempts: 0,
            programs: BTreeSet::new(),
            program_types: BTreeSet::new(),
            reasons: BTreeSet::new(),
        });
        loader.attempts += 1 + attempt.suppressed;
        loader.programs.insert(attempt.name.clone());
        loader.program_types.extend(attempt.program_type.clone());
        loader.reasons.extend(attempt.reason.clone());
    }
    let mut enroll: Vec<Loader> = loaders.into_values().collect();
    enroll.sort_by_key(|loader| std::cmp::Reverse(loader.attempts));
    let rules = rules(&enroll, filters, keys);
    Suggestion { enroll, rules }
}

/// The gates' reasons, not those about the gate itself.
fn is_about_a_program(attempt: &Attempt) -> bool {
    attempt
        .number
        .is_some_and(|number| (400..600).contains(&number))
}

fn is_device_filter(attempt: &Attempt) -> bool {
    attempt.number == Some(Reason::Unsigned.number())
        && attempt.program_type.as_deref() == Some("cgroup_device")
        && attempt.insns <= policy::shape::MAX_INSNS
}

fn rules(loaders: &[Loader], filters: u64, keys: &[String]) -> String {
    let mut toml = String::new();
    // Writing to a String does not fail.
    if filters > 0 {
        let _ = write!(
            toml,
            "# {filters} device filters, as systemd, runc and crun write them\n{SHAPE}"
        );
    }
    let signers = if keys.is_empty() {
        "\"KEY\"".to_owned()
    } else {
        quoted(keys)
    };
    for loader in loaders {
        let programs: Vec<String> = loader.programs.iter().cloned().collect();
        let exe = comment(&loader.exe);
        let programs = comment(&programs.join(", "));
        let _ = writeln!(toml, "# {exe} tried {} times: {programs}", loader.attempts);
        let known = KNOWN.iter().find(|known| known.name == loader.name);
        let is_made = |kind: &&String| known.is_some_and(|known| known.makes(kind));
        let (made, held): (Vec<_>, Vec<_>) = loader.program_types.iter().partition(is_made);
        let maker = known.filter(|known| !made.is_empty() || known.makes == ["*"]);
        if let Some(known) = maker {
            let _ = write!(toml, "{}", known.generator(&exe, &made));
        }
        if maker.is_none() || !held.is_empty() {
            let _ = write!(toml, "{}", rule(loader, known, &held, &signers));
        }
        toml.push('\n');
    }
    toml
}

/// The rule for programs that are in files, and how to sign these.
fn rule(loader: &Loader, known: Option<&Known>, types: &[&String], signers: &str) -> String {
    let name = &loader.name;
    let sign = match known.map(|known| known.objects) {
        None => format!(
            "bpfseal enroll {} --name {name} --key KEY",
            comment(&loader.exe)
        ),
        Some(Objects::Files) => format!(
            "bpfseal pack FILE.o -o FILE.tar --name {name}, then bpfseal sign FILE.tar --key KEY; FILE.o is what it loads"
        ),
        Some(Objects::Library(library)) => {
            format!("bpfseal enroll {library} --name {name} --key KEY; docs/policy.md#systemd")
        }
    };
    format!(
        "# sign it: {sign}\n[[rule]]\nname = {name:?}\nscope = {name:?}\n\
         signed_by = {{ at_least = 1, of = [{signers}] }}\nprogram_types = [{}]\n\
         tunables = {{ \"*\" = \"any\" }}    # its command line options; narrow them by name\n\
         map_sizes = {{ \"*\" = \"any\" }}\n",
        quoted(types),
    )
}

/// A loader whose programs are not in its executable.
struct Known {
    /// Its file's name.
    name: &'static str,
    /// Types of programs that it makes as it goes, so that nobody can sign them; `*` is all.
    makes: &'static [&'static str],
    /// Where the others are.
    objects: Objects,
    /// Lines that its `[[generator]]` has besides.
    limits: &'static str,
}

#[derive(Clone, Copy)]
enum Objects {
    /// In files that its command line names.
    Files,
    /// In a library.
    Library(&'static str),
}

impl Known {
    fn makes(&self, kind: &str) -> bool {
        self.makes.contains(&"*") || self.makes.contains(&kind)
    }

    /// In comments: the digests are for a person to look up, and to mean it.
    fn generator(&self, exe: &str, types: &[&String]) -> String {
        let Self { name, limits, .. } = self;
        let types = quoted(types);
        let toml = format!(
            "[[generator]]\nname = {name:?}\nexe = {{ path = {exe:?}, sha256 = \"…\" }}\n\
             libraries = [ … ]    # LD_TRACE_LOADED_OBJECTS=1 {exe}\nprogram_types = [{types}]\n{limits}"
        );
        let lines = toml.lines().map(|line| format!("# {line}\n"));
        let lines: String = lines.collect();
        format!(
            "# it makes them as it goes: nobody can sign them, and what it makes is not attested; docs/policy.md#generator\n{lines}"
        )
    }
}

/// By the names of their files; of all others it is supposed that they hold their programs.
const KNOWN: &[Known] = &[
    Known {
        name: "bpftool",
        makes: &[],
        objects: Objects::Files,
        limits: "",
    },
    Known {
        name: "tc",
        makes: &[],
        objects: Objects::Files,
        limits: "",
    },
    Known {
        name: "xdp-loader",
        makes: &[],
        objects: Objects::Files,
        limits: "",
    },
    // `ip vrf exec` writes the device's number into its program.
    Known {
        name: "ip",
        makes: &["cgroup_sock"],
        objects: Objects::Files,
        limits: "",
    },
    Known {
        name: "bpftrace",
        makes: &["*"],
        objects: Objects::Files,
        limits: "permit = true\n",
    },
    // IPAddressDeny= and its kin.
    Known {
        name: "systemd",
        makes: &["cgroup_skb"],
        objects: Objects::Library("/usr/lib/*/systemd/libsystemd-core-*.so"),
        limits: "map_types = [\"lpm_trie\", \"array\"]\nuid = 0\n",
    },
];

const SHAPE: &str = "[[shape]]
name = \"device filters\"
program_types = [\"cgroup_device\"]
calls = []
maps = 0
max_insns = 4096

";

fn quoted<T: AsRef<str>>(words: &[T]) -> String {
    words
        .iter()
        .map(|word| format!("{:?}", word.as_ref()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A name that means nothing else in a scope: no star, no quote, no slash.
fn plain(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.chars()
        .map(|c| if keep(c) { c } else { '_' })
        .collect()
}

/// A program's name is its loader's to choose: it must not end the comment and go on as TOML.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

impl Suggestion {
    /// For people: the TOML is all one needs.
    pub fn text(&self) -> String {
        if self.rules.is_empty() {
            return "# nothing to suggest: nothing was tried that is not admitted\n".to_owned();
        }
        self.rules.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{fake, gate::Event, observe::Observed, record::Origin};

    fn attempt(event: Event, exe: &str) -> Record {
        let observed = Observed {
            exe: Some(exe.to_owned()),
            ..Observed::default()
        };
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        Record::Attempt(Box::new(Attempt::new(
            &event,
            observed,
            Origin::default(),
            now,
            Duration::from_secs(100),
        )))
    }

    /// One whose process was gone.
    fn ended(event: Event) -> Record {
        match attempt(event, "") {
            Record::Attempt(mut attempt) => {
                attempt.exe = None;
                Record::Attempt(attempt)
            }
            notice @ Record::Notice(_) => notice,
        }
    }

    #[test]
    fn rules_parse_and_name_what_to_sign() {
        let mut filter = Event {
            refused: false,
            ..fake::event()
        };
        filter.identity.prog_type = 15;
        let records = [
            attempt(
                Event {
                    refused: false,
                    ..fake::event()
                },
                "/usr/sbin/opensnoop",
            ),
            attempt(
                Event {
                    refused: false,
                    ..fake::event()
                },
                "/usr/sbin/opensnoop",
            ),
            attempt(
                Event {
                    name: "x\"\n[[rule]]".to_owned(),
                    ..fake::event()
                },
                "/tmp/e\nname = 1",
            ),
            attempt(filter, "/usr/lib/systemd/systemd"),
            ended(Event {
                comm: "opensnoo".to_owned(),
                refused: false,
                ..fake::event()
            }),
            attempt(
                Event {
                    reason: Some(Reason::OwnPin),
                    ..fake::event()
                },
                "/bin/rm",
            ),
            attempt(
                Event {
                    refused: false,
                    reason: None,
                    ..fake::event()
                },
                "/bin/good",
            ),
        ];
        let suggestion = suggest(&records, &["release".to_owned()]);
        let seen: Vec<_> = suggestion
            .enroll
            .iter()
            .map(|l| (l.exe.as_str(), l.attempts))
            .collect();
        assert_eq!(seen, [("/usr/sbin/opensnoop", 3), ("/tmp/e\nname = 1", 1)]);
        let pem = fake::somebody().pem();
        let text = format!(
            "version = 1\n[keys.release]\npem = {pem:?}\n{}",
            suggestion.rules
        );
        let document = fake::signed(fake::authority(), &text);
        let trusted = crate::trust::Trusted::verify(&document, &fake::authority().public).unwrap();
        let names: Vec<_> = trusted
            .policy()
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert_eq!(names[0], "opensnoop");
        assert_eq!(
            (
                trusted.policy().rules().len(),
                trusted.policy().shapes().len()
            ),
            (2, 1)
        );
    }

    fn tried(exe: &str, prog_type: u32) -> Record {
        let mut event = Event {
            refused: false,
            ..fake::event()
        };
        event.identity.prog_type = prog_type;
        attempt(event, exe)
    }

    /// It says this of an executable that tried programs of these types, and not that.
    fn says(exe: &str, types: &[u32], wanted: &[&str], unwanted: &[&str]) {
        let records: Vec<Record> = types.iter().map(|&kind| tried(exe, kind)).collect();
        let said = suggest(&records, &["fleet".to_owned()]).text();
        for words in wanted {
            assert!(said.contains(words), "{exe}: {words:?} in\n{said}");
        }
        for words in unwanted {
            assert!(!said.contains(words), "{exe}: {words:?} in\n{said}");
        }
        let pem = fake::somebody().pem();
        let text = format!("version = 1\n[keys.fleet]\npem = {pem:?}\n{said}");
        let document = fake::signed(fake::authority(), &text);
        crate::trust::Trusted::verify(&document, &fake::authority().public).unwrap();
    }

    #[test]
    fn it_says_how_to_sign_what_each_loader_loads() {
        let (tracepoint, xdp, skb, sock, lsm) = (5, 6, 8, 9, 29);
        says(
            "/usr/sbin/opensnoop",
            &[tracepoint],
            &["# sign it: bpfseal enroll /usr/sbin/opensnoop --name opensnoop --key KEY\n"],
            &["generator", "pack"],
        );
        says(
            "/usr/sbin/bpftool",
            &[xdp],
            &[
                "# sign it: bpfseal pack FILE.o -o FILE.tar --name bpftool, then bpfseal sign FILE.tar --key KEY; ",
            ],
            &["generator", "enroll"],
        );
        says(
            "/usr/sbin/ip",
            &[sock],
            &["# [[generator]]\n# name = \"ip\"\n"],
            &["pack", "[[rule]]"],
        );
        says(
            "/usr/bin/bpftrace",
            &[tracepoint],
            &[
                "# exe = { path = \"/usr/bin/bpftrace\", sha256 = \"…\" }\n",
                "# program_types = [\"tracepoint\"]\n# permit = true\n\n",
            ],
            &["enroll", "[[rule]]"],
        );
        let systemd = "/usr/lib/systemd/systemd";
        says(
            systemd,
            &[skb],
            &[
                "# program_types = [\"cgroup_skb\"]\n# map_types = [\"lpm_trie\", \"array\"]\n# uid = 0\n\n",
            ],
            &["enroll", "[[rule]]"],
        );
        says(
            systemd,
            &[skb, lsm],
            &[
                "# [[generator]]\n",
                "# sign it: bpfseal enroll /usr/lib/*/systemd/libsystemd-core-*.so --name systemd --key KEY; ",
                "\nprogram_types = [\"lsm\"]\n",
            ],
            &["enroll /usr/lib/systemd/systemd "],
        );
    }

    #[test]
    fn nothing_seen_is_nothing_suggested() {
        assert_eq!(suggest(&[], &[]), Suggestion::default());
    }
}
