//! Programs that programs load: light skeletons with something changed, and an admitted loader
//! that loads whatever it is given. The gate is armed by `attacker admit` before.

#![expect(unsafe_code, reason = "system calls that load programs by hand")]

use std::{fs, io, os::fd::AsRawFd};

use bundle::light::{self, Loader};
use enforcer::{gate::GateError, kernel::BpfGate};
use libbpf_rs::{MapCore, MapFlags, ObjectBuilder, ProgramInput};
use policy::Reason;

use super::{
    ARRAY, Attr, EXIT, Load, MAP_FREEZE, MAP_UPDATE_ELEM, SOCKET_FILTER, check, drain, evil, map,
    r0,
};

const PROG_TEST_RUN: u32 = 10;
const SYSCALL: u32 = 31;
const SLEEPABLE: u32 = 1 << 4;

/// Offsets in `union bpf_attr`.
const NAME: usize = 48;
const CORE_RELO_CNT: usize = 116;
const CORE_RELO_REC_SIZE: usize = 136;
/// `struct bpf_core_relo`: instruction, type, access string, kind.
const RELO: usize = 16;
const RELO_KIND: usize = 12;

/// A skeleton, and how many maps and programs its loader reports.
struct Skeleton {
    loader: Loader,
    maps: usize,
    programs: usize,
}

impl Skeleton {
    fn read(file: &str) -> io::Result<Self> {
        let header = fs::read(file)?;
        let text = String::from_utf8_lossy(&header);
        Ok(Self {
            loader: light::read(&header).map_err(io::Error::other)?,
            maps: text.matches("struct bpf_map_desc ").count(),
            programs: text.matches("struct bpf_prog_desc ").count(),
        })
    }

    /// `bpf_load_and_run()` of `skel_internal.h`, without signatures.
    fn run(&self) -> io::Result<()> {
        let Loader { insns, data } = &self.loader;
        let table = map(ARRAY, data.len() as u32, 0);
        let zero = 0u32;
        Attr::new()
            .u32(0, table.as_raw_fd() as u32)
            .u64(8, (&raw const zero) as u64)
            .u64(16, data.as_ptr() as u64)
            .call(MAP_UPDATE_ELEM)?;
        Attr::new()
            .u32(0, table.as_raw_fd() as u32)
            .call(MAP_FREEZE)?;
        let words = insns
            .chunks_exact(8)
            .map(|slot| u64::from_le_bytes(slot.try_into().expect("eight bytes")))
            .collect();
        let loader = Load {
            name: light::PROGRAM,
            prog_type: SYSCALL,
            flags: SLEEPABLE,
            fd_array: vec![table.as_raw_fd()],
            words,
            ..Load::default()
        }
        .load()?;
        // struct bpf_loader_ctx, struct bpf_map_desc, struct bpf_prog_desc.
        let mut ctx = vec![0u32; 6 + 4 * self.maps + self.programs];
        ctx[0] = 4 * ctx.len() as u32;
        let mut attr = [0u64; 10];
        attr[0] = loader.as_raw_fd() as u64;
        attr[5] = ctx[0].into(); // ctx_size_in
        attr[6] = ctx.as_mut_ptr() as u64;
        // SAFETY: the kernel reads and writes the attributes and the context, which are as large
        // as it is told and outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                PROG_TEST_RUN as libc::c_long,
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let value = (attr[0] >> 32) as i32;
        for fd in ctx[6..].iter().map(|&fd| fd as i32).filter(|&fd| fd > 2) {
            // SAFETY: the loader has put new descriptors here, which nobody else knows of.
            unsafe { libc::close(fd) };
        }
        if value < 0 {
            return Err(io::Error::from_raw_os_error(-value));
        }
        Ok(())
    }

    /// Where in the data the attributes of a program with relocations are.
    fn relocated(&self) -> Option<usize> {
        let data = &self.loader.data;
        let field = |at: usize| {
            let bytes = data.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        (0..data.len()).step_by(8).find(|&at| {
            field(at + CORE_RELO_REC_SIZE) == Some(RELO as u32)
                && field(at + CORE_RELO_CNT).is_some_and(|count| (1..1000).contains(&count))
                && data[at + NAME].is_ascii_lowercase()
        })
    }

    /// One field of one relocation: whether a member is signed instead of its place. Both are 0 in
    /// the object, so the kernel finds nothing odd.
    fn with_other_relocation(mut self) -> Self {
        let at = self.relocated().expect("the fixture has relocations");
        let count = self.loader.data[at + CORE_RELO_CNT] as usize;
        let last = at - RELO;
        let first = at - count * RELO;
        assert!(first < at);
        self.loader.data[last + RELO_KIND] ^= 3;
        self
    }

    fn without_relocations(mut self) -> Self {
        let at = self.relocated().expect("the fixture has relocations");
        self.loader.data[at + CORE_RELO_CNT] = 0;
        self
    }

    /// The last instruction before a program's `exit`.
    fn with_other_instruction(mut self) -> Self {
        let exit = EXIT.to_le_bytes();
        let data = &mut self.loader.data;
        let at = (8..data.len() - 8)
            .step_by(8)
            .find(|&at| data[at..at + 8] == exit && matches!(data[at - 8], 0xb4 | 0xb7))
            .expect("a program returns a constant");
        data[at - 4] ^= 1;
        self
    }

    fn with_other_loader(mut self) -> Self {
        let at = self.loader.insns.len() - 16;
        self.loader.insns[at + 4] ^= 1;
        self
    }
}

type Change = fn(Skeleton) -> Skeleton;

/// What is changed, and why that is refused.
const CHANGES: &[(&str, Change, Reason)] = &[
    (
        "a light skeleton with one field of a relocation changed",
        Skeleton::with_other_relocation,
        Reason::CoreResult,
    ),
    (
        "a light skeleton without its relocations",
        Skeleton::without_relocations,
        Reason::CoreResult,
    ),
    (
        "a light skeleton with an instruction changed",
        Skeleton::with_other_instruction,
        Reason::KernelCore,
    ),
    (
        "a light skeleton with another loader",
        Skeleton::with_other_loader,
        Reason::MapIndex,
    ),
];

/// `light HEADER`: a skeleton with relocations.
pub fn run(words: &[String]) -> Result<bool, GateError> {
    let [header] = words else {
        return Ok(check("light", Err("wants a header".into())));
    };
    let mut gate = BpfGate::open()?;
    drain(&mut gate);
    let read = || Skeleton::read(header).expect("the script has made it");
    let mut fine = check(
        "a light skeleton as it was made",
        read()
            .run()
            .map(|()| String::new())
            .map_err(|error| format!("{error}, {:?}", reason(&mut gate))),
    );
    for (what, change, want) in CHANGES {
        drain(&mut gate);
        let result = change(read()).run();
        fine &= refused(what, result, *want, &mut gate);
    }
    Ok(fine)
}

/// `universal FIXTURE`: an admitted loader that loads whatever it is given.
pub fn judged(fixture: &str) -> Result<bool, GateError> {
    let mut gate = BpfGate::open()?;
    drain(&mut gate);
    let admitted = Load::new("simple", SOCKET_FILTER, &[r0(0), EXIT]);
    let fine = check(
        "an admitted universal loader loads an admitted program",
        universal(fixture, &admitted)
            .map(|()| String::new())
            .map_err(|error| format!("{error}, {:?}", reason(&mut gate))),
    );
    drain(&mut gate);
    let result = universal(fixture, &evil());
    let what = "an admitted universal loader and an unsigned program";
    Ok(refused(what, result, Reason::Unsigned, &mut gate) && fine)
}

/// The same where nobody judges.
pub fn unjudged(fixture: &str) -> bool {
    let result = universal(fixture, &evil());
    check(
        "without a gate it loads an unsigned one",
        result
            .map(|()| String::new())
            .map_err(|error| error.to_string()),
    )
}

fn reason(gate: &mut BpfGate) -> Option<Reason> {
    let events = drain(gate);
    events
        .iter()
        .find(|event| event.refused)
        .and_then(|event| event.reason)
}

fn refused(what: &str, result: io::Result<()>, want: Reason, gate: &mut BpfGate) -> bool {
    let got = reason(gate);
    check(
        what,
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && got == Some(want) => {
                Ok(format!("E{}", want.number()))
            }
            Err(error) => Err(format!("{error}, {got:?}, not {want:?}")),
            Ok(()) => Err("it was loaded".into()),
        },
    )
}

/// Has the fixture load a program.
pub fn universal(fixture: &str, load: &Load) -> io::Result<()> {
    let mut object = ObjectBuilder::default()
        .open_file(fixture)
        .and_then(|object| object.load())
        .map_err(io::Error::other)?;
    let mut input = Vec::new();
    input.extend(load.prog_type.to_ne_bytes());
    input.extend((load.words.len() as u32).to_ne_bytes());
    input.extend(b"GPL\0\0\0\0\0");
    load.words
        .iter()
        .for_each(|word| input.extend(word.to_ne_bytes()));
    input.resize(512, 0);
    let table = object
        .maps_mut()
        .find(|map| map.name() == "input")
        .ok_or_else(|| io::Error::other("the fixture has no input"))?;
    table
        .update(&0u32.to_ne_bytes(), &input, MapFlags::ANY)
        .map_err(io::Error::other)?;
    let program = object
        .progs_mut()
        .next()
        .ok_or_else(|| io::Error::other("the fixture has no program"))?;
    let output = program
        .test_run(ProgramInput::default())
        .map_err(io::Error::other)?;
    match output.return_value as i32 {
        fd @ 0.. => {
            // SAFETY: the fixture has returned a new descriptor, which nobody else knows of.
            unsafe { libc::close(fd) };
            Ok(())
        }
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
