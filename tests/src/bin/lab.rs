//! Boots one of Debian's kernels by hand: the guest of the kernel tests with scripts, files
//! and programs of one's own, its console shown as it comes.
//!
//! ```text
//! cargo run --release -p tests --bin lab -- 6.12 --script try.sh --program target/release/x
//! ```

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tests::{
    fixtures,
    lab::{self, Cache, Machine, Script},
};

/// Boots a kernel and runs scripts in it.
#[derive(Parser)]
struct Args {
    /// Kernel series: 6.1, 6.12, 7.2 or 7.3.
    #[arg(required_unless_present = "fixtures")]
    series: Option<String>,
    /// Prints the folder of the compiled BPF fixtures, boots nothing.
    #[arg(long)]
    fixtures: bool,
    /// A script to run, in the order given; all of tests/kernel/checks if there is none.
    #[arg(long = "script", value_name = "FILE")]
    scripts: Vec<PathBuf>,
    /// A program to put into /lab/bin, with its libraries.
    #[arg(long = "program", value_name = "FILE")]
    programs: Vec<PathBuf>,
    /// A file or folder to put in.
    #[arg(long = "file", value_name = "GUEST=HOST", value_parser = pair)]
    files: Vec<(String, PathBuf)>,
    /// More words for the kernel's command line.
    #[arg(long, default_value = "")]
    append: String,
    /// MiB of memory.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Processors.
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// Guest time is the number of executed instructions.
    #[arg(long)]
    icount: bool,
    /// Seconds until the guest is stopped.
    #[arg(long, default_value_t = 1500)]
    limit: u64,
    /// Name of the console log in target/lab.
    #[arg(long, default_value = "by-hand")]
    name: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(passed) if passed => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let causes = std::iter::successors(Some(error.as_ref()), |error| error.source());
            let text: Vec<_> = causes.map(ToString::to_string).collect();
            eprintln!("lab: {}", text.join(": "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let Some(series) = &args.series else {
        println!("{}", fixtures::folder().display());
        return Ok(true);
    };
    let cache = Cache::open();
    let kernel = cache.kernel(series)?;
    let scripts = if args.scripts.is_empty() {
        lab::scripts(&lab::workspace().join("tests/kernel/checks"), series)?
    } else {
        args.scripts
            .iter()
            .map(|path| Script::read(path))
            .collect::<io::Result<_>>()?
    };
    let mut root = lab::guest(&cache, &kernel, &scripts, &args.programs)?;
    for (guest, host) in &args.files {
        if host.is_dir() {
            root.host_folder(guest, host)?;
        } else {
            root.host_file(guest, host, 0o755);
        }
    }
    let mut machine = Machine::new(kernel, &args.name)
        .append(&args.append)
        .memory(args.memory)
        .processors(args.smp)
        .limit(Duration::from_secs(args.limit));
    if args.icount {
        machine = machine.count_instructions();
    }
    let report = machine.run(&root, |line| {
        // Nobody reads on: the log has it all.
        let _ = writeln!(io::stdout(), "{line}");
    })?;
    if let Some(fault) = &report.fault {
        eprintln!("lab: {fault}; console: {}", report.console.display());
    }
    Ok(report.passed())
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (guest, host) = text.split_once('=').ok_or("expected GUEST=HOST")?;
    Ok((
        guest.trim_start_matches('/').to_owned(),
        PathBuf::from(host),
    ))
}
