//! A loader as any libbpf-rs user would write it: it knows nothing of bpfseal. It loads one
//! object as it is, sets options in `.rodata` as tools do, attaches what libbpf can attach by
//! itself, prints one line per program, and holds on until it is told to stop.

use std::{
    fs,
    io::{self, Read},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use goblin::elf::Elf;
use libbpf_rs::{ObjectBuilder, OpenObject, Program};

type Failure = Box<dyn std::error::Error>;

/// Loads a BPF object with libbpf-rs.
#[derive(Parser)]
struct Args {
    /// The object file.
    object: PathBuf,
    /// Sets an integer variable of .rodata before loading.
    #[arg(long = "set", value_name = "VAR=N", value_parser = assignment)]
    assignments: Vec<(String, u64)>,
    /// Loads, but attaches nothing.
    #[arg(long)]
    load_only: bool,
    /// Ends after attaching instead of waiting for the end of standard input.
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(Some(error.as_ref()), |error| error.source());
            let text: Vec<_> = causes.map(ToString::to_string).collect();
            eprintln!("loader: {}", text.join(": "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let bytes = fs::read(&args.object)?;
    let mut object = ObjectBuilder::default().open_memory(&bytes)?;
    for (name, value) in &args.assignments {
        assign(&mut object, &bytes, name, *value)?;
    }
    let object = object.load()?;
    let mut links = Vec::new();
    for program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        let id = Program::id_from_fd(program.as_fd())?;
        if args.load_only {
            println!("program {name} id {id}");
            continue;
        }
        // Some types have no place of their own in the object (xdp, cgroup): loaded is all.
        match program.attach() {
            Ok(link) => {
                links.push(link);
                println!("program {name} id {id} attached");
            }
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Unsupported => {
                println!("program {name} id {id}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !args.once {
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

fn assignment(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("expected VAR=N")?;
    let value = value.parse().map_err(|error| format!("{value}: {error}"))?;
    Ok((name.to_owned(), value))
}

// The symbol table says where in .rodata a variable is; the initial value of the map that
// libbpf makes of the section is what the program will read.
fn assign(object: &mut OpenObject, elf: &[u8], name: &str, value: u64) -> Result<(), Failure> {
    let elf = Elf::parse(elf)?;
    let symbol = elf
        .syms
        .iter()
        .find(|symbol| elf.strtab.get_at(symbol.st_name) == Some(name))
        .ok_or_else(|| format!("no variable {name}"))?;
    let (offset, size) = (
        usize::try_from(symbol.st_value)?,
        usize::try_from(symbol.st_size)?,
    );
    let value = value.to_le_bytes();
    for mut map in object.maps_mut() {
        if !map.name().to_string_lossy().ends_with(".rodata") {
            continue;
        }
        let bytes = map.initial_value_mut().ok_or("no .rodata")?;
        let place = bytes
            .get_mut(offset..offset + size)
            .ok_or("outside .rodata")?;
        let value = value
            .get(..size)
            .ok_or_else(|| format!("{name} is {size} bytes long"))?;
        place.copy_from_slice(value);
        return Ok(());
    }
    Err("the object has no .rodata".into())
}
