//! A loader as any user of aya would write it: it knows nothing of bpfseal. It loads every program of
//! one object as it is, attaches nothing, and prints one line per program.

use std::process::ExitCode;

use aya::{Btf, Ebpf, programs::Program};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let Some(object) = std::env::args().nth(1) else {
        eprintln!("aya-loader OBJECT");
        return ExitCode::from(2);
    };
    match run(&object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(Some(error.as_ref()), |error| error.source());
            let text: Vec<_> = causes.map(ToString::to_string).collect();
            eprintln!("aya-loader: {}", text.join(": "));
            ExitCode::FAILURE
        }
    }
}

fn run(object: &str) -> Result<(), Failure> {
    let bytes = std::fs::read(object)?;
    let targets = targets(&bytes)?;
    let btf = Btf::from_sys_fs()?;
    let mut loaded = Ebpf::load(&bytes)?;
    for (name, program) in loaded.programs_mut() {
        // aya wants to be told what it reads in the section's name.
        let target = targets
            .iter()
            .find(|(of, _)| of == name)
            .map_or("", |(_, target)| target.as_str());
        match program {
            Program::KProbe(program) => program.load()?,
            Program::TracePoint(program) => program.load()?,
            Program::Xdp(program) => program.load()?,
            Program::SchedClassifier(program) => program.load()?,
            Program::Lsm(program) => program.load(target, &btf)?,
            Program::FEntry(program) => program.load(target, &btf)?,
            Program::FExit(program) => program.load(target, &btf)?,
            Program::BtfTracePoint(program) => program.load(target, &btf)?,
            other => return Err(format!("a program of type {:?}", other.prog_type()).into()),
        }
        let id = program.info()?.id();
        println!("program {name} id {id}");
    }
    Ok(())
}

/// What follows the slash of each program's section.
fn targets(elf: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let object = bundle::inventory::read("object", elf)?;
    let programs = object.programs.into_iter();
    Ok(programs
        .map(|program| (program.name, program.target.unwrap_or_default()))
        .collect())
}
