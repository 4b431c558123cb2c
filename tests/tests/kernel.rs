//! Boots Debian's kernels and runs `tests/kernel/checks` in each.
//!
//! `KILLS=200` makes 74_kill.sh kill the daemon that often. `PROCESSORS=2` gives each machine so many. `KERNELS="6.12 7.2"` chooses the kernels; 6.1, 6.12 and 7.3 are the default. A word on the
//! command line chooses what to report: `cargo test --release -p tests --test kernel -- 6.12`
//! boots that kernel alone, and `-- 6.12 70_daemon 71_command` with these scripts alone. Each guest check is one line; the exit code is 0 only if every
//! kernel booted, was the right one, came to its end, and no check failed.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    e2e, fixtures,
    lab::{self, Cache, FetchError, Machine, Outcome, Report, Script},
};

/// All that Debian's releases of today have; those without a default are asked for.
const SERIES: [(&str, bool); 4] = [("6.1", true), ("6.12", true), ("7.2", false), ("7.3", true)];

/// bpftrace alone is 200 MB of root file system.
const MEMORY: u32 = 2048;

fn main() -> ExitCode {
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    if env::args().any(|word| word == "--list") {
        SERIES
            .iter()
            .for_each(|(series, _)| println!("{series}: test"));
        return ExitCode::SUCCESS;
    }
    let (words, wanted): (Vec<String>, Vec<String>) = words
        .into_iter()
        .partition(|word| SERIES.iter().any(|(series, _)| series == word));
    let chosen = chosen(&words);
    let is_asked_for = !words.is_empty() || !wanted.is_empty() || env::var_os("KERNELS").is_some();
    let (machines, spared) = match machines(&chosen, &wanted, is_asked_for) {
        Ok(found) => found,
        Err(error) => {
            println!("test kernel ... FAILED: tests/kernel/checks: {error}");
            return ExitCode::FAILURE;
        }
    };
    let count = Mutex::new(Count::default());
    for (series, _) in SERIES.iter().filter(|(series, _)| !chosen.contains(series)) {
        count
            .lock()
            .expect("no thread panics")
            .skip(series, "not chosen (KERNELS)");
    }
    for name in spared {
        let count = count.lock().expect("no thread panics");
        count.skip(&name, "tried on other kernels (KERNELS, make soak)");
    }
    let programs = programs();
    // As many machines as processors: each takes one.
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(machines.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((series, scripts)) =
                    machines.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let started = Instant::now();
                    let result = boot(series, scripts, &programs);
                    let seconds = started.elapsed().as_secs_f32();
                    count
                        .lock()
                        .expect("no thread panics")
                        .add(series, result, seconds);
                }
            });
        }
    });
    count.into_inner().expect("no thread panics").end()
}

fn chosen(words: &[String]) -> Vec<&'static str> {
    let asked = env::var("KERNELS").ok();
    let asked: Option<Vec<&str>> = match &asked {
        _ if !words.is_empty() => Some(words.iter().map(String::as_str).collect()),
        Some(asked) => Some(asked.split([' ', ',']).collect()),
        None => None,
    };
    let wanted = |(series, default): &&(&'static str, bool)| {
        asked
            .as_ref()
            .map_or(*default, |asked| asked.contains(series))
    };
    SERIES
        .iter()
        .filter(wanted)
        .map(|(series, _)| *series)
        .collect()
}

// Our own programs that guests get.
fn programs() -> Vec<PathBuf> {
    vec![
        e2e::program("bpfseal-enforcer"),
        e2e::program("bpfseal"),
        PathBuf::from(env!("CARGO_BIN_EXE_loader")),
        PathBuf::from(env!("CARGO_BIN_EXE_attacker")),
        PathBuf::from(env!("CARGO_BIN_EXE_forger")),
        PathBuf::from(env!("CARGO_BIN_EXE_crowd")),
        PathBuf::from(env!("CARGO_BIN_EXE_aya-loader")),
        fixtures::folder().join("maker"),
    ]
}

enum Boot {
    Done(Report),
    Skipped(String),
    Failed(String),
}

/// Where the scripts of a kernel are parted between two machines, so that three kernels keep two
/// processors busy to the end. Those of a number share what they left behind.
const SECOND_HALF: &str = "75";

/// Scripts of one kernel that share a machine.
type Shared = (&'static str, Vec<Script>);

/// Machines, the ones without wishes first; and which scripts are left out.
fn machines(
    chosen: &[&'static str],
    wanted: &[String],
    is_asked_for: bool,
) -> std::io::Result<(Vec<Shared>, Vec<String>)> {
    let checks = lab::workspace().join("tests/kernel/checks");
    let processors = match env::var("PROCESSORS") {
        Ok(count) => Some(count.parse().map_err(std::io::Error::other)?),
        Err(_) => None,
    };
    let (mut machines, mut spared) = (Vec::new(), Vec::new());
    // The one with most machines last: short ones fill what long ones leave.
    for series in chosen.iter().rev() {
        let mut groups: BTreeMap<(u32, String, bool), Vec<Script>> = BTreeMap::new();
        for mut script in lab::scripts(Path::new(&checks), series)? {
            script.processors = processors.unwrap_or(script.processors);
            let asked = |word: &String| script.name.starts_with(word.as_str());
            if !is_asked_for && script.spare.iter().any(|spare| spare == series) {
                spared.push(format!("{series} {}", script.name));
            } else if wanted.is_empty() || wanted.iter().any(asked) {
                let group = (script.processors, script.boot.clone(), is_late(&script));
                groups.entry(group).or_default().push(script);
            }
        }
        machines.extend(groups.into_values().map(|scripts| (*series, scripts)));
    }
    Ok((machines, spared))
}

fn is_late(script: &Script) -> bool {
    script.name.as_str() >= SECOND_HALF
}

fn boot(series: &str, scripts: &[Script], programs: &[PathBuf]) -> Boot {
    let cache = Cache::open();
    let kernel = match cache.kernel(series) {
        Ok(kernel) => kernel,
        Err(FetchError::Gone(reason)) => return Boot::Skipped(reason),
        Err(error) => return Boot::Failed(describe(&error)),
    };
    let run = || -> Result<Report, Box<dyn std::error::Error>> {
        let root = lab::guest(&cache, &kernel, scripts, programs)?;
        let wish = scripts.first().map_or("", |script| script.boot.as_str());
        let processors = scripts.first().map_or(1, |script| script.processors);
        let half = match scripts.first().is_some_and(is_late) {
            true if wish.is_empty() => "late",
            _ => wish,
        };
        let many = match processors {
            1 => String::new(),
            count => format!(" smp {count}"),
        };
        let name: String = format!("kernel-{series} {half}{many}")
            .trim()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        let mut machine = Machine::new(kernel.clone(), &name)
            .memory(MEMORY)
            .processors(processors)
            .disk(scripts.iter().any(|script| script.disk))
            .append(wish);
        if let Ok(kills) = env::var("KILLS") {
            // As long as `guest/init` gives the script for each.
            let more = Duration::from_secs(20).saturating_mul(kills.parse()?);
            machine = machine.append(&format!("kills={kills}")).longer(more);
        }
        Ok(machine.run(&root, |_| ())?)
    };
    run().map_or_else(|error| Boot::Failed(describe(error.as_ref())), Boot::Done)
}

fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, series: &str, boot: Boot, seconds: f32) {
        let report = match boot {
            Boot::Done(report) => report,
            Boot::Skipped(reason) => return self.skip(series, &reason),
            Boot::Failed(reason) => return self.fail(series, &reason),
        };
        for check in &report.checks {
            let name = format!("{series} {}", check.name);
            match check.outcome {
                Outcome::Ok => {
                    self.passed += 1;
                    println!("test {name} ... ok");
                }
                Outcome::Skip => self.skip(&name, &check.detail),
                Outcome::Fail => self.fail(&name, &check.detail),
            }
        }
        let console = report.console.display();
        match &report.fault {
            Some(fault) => self.fail(
                &format!("{series} boot"),
                &format!("{fault}; console: {console}"),
            ),
            None => println!(
                "kernel {series}: {} checks in {seconds:.0} s; console: {console}",
                report.checks.len()
            ),
        }
    }

    fn fail(&mut self, name: &str, detail: &str) {
        self.failed += 1;
        println!("test {name} ... FAILED: {detail}");
    }

    fn skip(&self, name: &str, reason: &str) {
        println!("SKIPPED {name}: {}", reason.trim_start_matches("SKIPPED "));
    }

    // The same line as other test programs print, so that one script can add them up. It
    // counts `SKIPPED` lines itself.
    fn end(&self) -> ExitCode {
        let good = self.failed == 0 && self.passed > 0;
        println!(
            "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
            if good { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
        );
        if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
