//! A second thread that changes what a load points to while the kernel reads it: its instructions in the
//! caller's memory, the descriptor of its target, the descriptor of its types.

#![expect(
    unsafe_code,
    reason = "memory and descriptors that change under a system call"
)]

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
};

use enforcer::{
    gate::{Class, Gate, GateError},
    kernel::BpfGate,
};

use super::{
    Attr, EXIT, Load, PROG_LOAD, TRACING, admissions, arm_with, check, entry, evil, long,
    own::next_id, r0, simple, ways::function_id,
};

// enum bpf_cmd
const OBJ_GET_INFO_BY_FD: u32 = 15;
const BTF_LOAD: u32 = 18;
const BTF_GET_FD_BY_ID: u32 = 19;
const BTF_GET_NEXT_ID: u32 = 23;

const FENTRY: u32 = 24;

/// Instructions of the program that is raced for: the kernel's copying takes several pages.
const INSNS: usize = 4000;

/// How a number of loads ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub right: usize,
    pub wrong: usize,
    pub refused: usize,
    pub errors: Vec<String>,
}

impl Outcome {
    /// `Ok(true)`: what was loaded is what was to be loaded.
    pub fn count(&mut self, result: io::Result<bool>) {
        match result {
            Ok(true) => self.right += 1,
            Ok(false) => self.wrong += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => self.refused += 1,
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    /// The thread came in time, and came too late.
    const fn is_both(&self) -> bool {
        self.right > 0 && self.wrong + self.refused > 0
    }
}

/// The changes that a thread makes.
pub struct Turns(AtomicUsize);

impl Turns {
    /// Loads so often, and on until it is over, but not for ever.
    pub fn race(
        &self,
        rounds: usize,
        is_over: impl Fn(&Outcome) -> bool,
        mut load: impl FnMut() -> io::Result<bool>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        for round in 0..20 * rounds {
            if round >= rounds && is_over(&outcome) {
                break;
            }
            self.wait();
            outcome.count(load());
        }
        outcome
    }

    /// Waits for the next one, however seldom the kernel interrupts anybody.
    fn wait(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        while self.0.load(Ordering::Relaxed) == seen {
            thread::yield_now();
        }
    }
}

/// Acts while a thread makes one change after another; each gets its number.
pub fn meanwhile<T>(change: impl Fn(usize) + Sync, act: impl FnOnce(&Turns) -> T) -> T {
    let (turns, stop) = (Turns(AtomicUsize::new(0)), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                change(turns.0.fetch_add(1, Ordering::Relaxed));
            }
        });
        let result = act(&turns);
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// As much of `struct bpf_prog_info` as it takes.
struct Info([u32; 58]);

impl Info {
    fn of(program: &OwnedFd) -> io::Result<Self> {
        let mut info = Self([0; 58]);
        Attr::new()
            .u32(0, program.as_raw_fd() as u32)
            .u32(4, size_of_val(&info.0) as u32)
            .u64(8, info.0.as_mut_ptr() as u64)
            .call(OBJ_GET_INFO_BY_FD)?;
        Ok(info)
    }

    /// The kernel's digest of the instructions.
    const fn tag(&self) -> [u32; 2] {
        [self.0[2], self.0[3]]
    }

    /// The types that describe it.
    const fn types(&self) -> u32 {
        self.0[32]
    }

    /// Whose type the target is, and which.
    const fn target(&self) -> [u32; 2] {
        [self.0[55], self.0[56]]
    }
}

fn admitted() -> Load {
    long(INSNS, None)
}

/// Loads again and again while a thread changes one constant and changes it back.
fn instructions(rounds: usize, at: usize) -> io::Result<Outcome> {
    let mut load = admitted();
    let want = Info::of(&load.load()?)?.tag();
    let signed = load.words[at];
    // SAFETY: one of the words, which live as long as `load` does; from here on only the kernel reads them
    // otherwise.
    let word = unsafe { AtomicU64::from_ptr(load.words.as_mut_ptr().add(at)) };
    let change = |turn: usize| word.store(signed ^ (turn as u64 & 1) << 32, Ordering::Relaxed);
    Ok(meanwhile(change, |turns| {
        turns.race(rounds, Outcome::is_both, || {
            let info = Info::of(&load.load()?)?;
            Ok(info.tag() == want)
        })
    }))
}

/// A load of something else while a thread exchanges two descriptors under a third.
fn exchanging<T>(fds: [&OwnedFd; 2], load: impl FnOnce(i32, &Turns) -> T) -> io::Result<T> {
    let target = fds[0].try_clone()?;
    let number = target.as_raw_fd();
    let sources = fds.map(AsRawFd::as_raw_fd);
    // SAFETY: two numbers; the target stays open until the thread has ended.
    let exchange = |turn: usize| unsafe {
        libc::dup2(sources[turn % 2], number);
    };
    Ok(meanwhile(exchange, |turns| load(number, turns)))
}

fn tracer() -> Load {
    Load {
        attach_type: FENTRY,
        btf_id: function_id("vfs_unlink").unwrap_or_default(),
        ..Load::new("tracer", TRACING, &[r0(0x7ace), r0(0), EXIT])
    }
}

/// A program whose types have a function with the number that the tracer's target has among the kernel's: the
/// tracer fits either.
fn namesake(function: u32) -> io::Result<OwnedFd> {
    let types = Types::with_function(function).load()?;
    described(&simple(), types.as_raw_fd(), function)
}

/// Loads it with types that describe its function.
fn described(load: &Load, types: i32, function: u32) -> io::Result<OwnedFd> {
    let about = [0, function];
    Attr::new()
        .u32(0, load.prog_type)
        .u32(4, load.words.len() as u32)
        .u64(8, load.words.as_ptr() as u64)
        .u64(16, c"GPL".as_ptr() as u64)
        .bytes(48, load.name.as_bytes())
        .u32(72, types as u32)
        .u32(76, size_of_val(&about) as u32)
        .u64(80, about.as_ptr() as u64)
        .u32(88, 1)
        .open(PROG_LOAD)
}

/// The smallest number that a function has there.
const SMALLEST: u32 = 3;

/// BTF by hand: `int` again and again, a prototype, and a function of that.
struct Types(Vec<u8>);

impl Types {
    /// The function has this number.
    fn with_function(number: u32) -> Self {
        const NAMES: &[u8] = b"\0int\0context\0decide\0";
        const INT: [u32; 4] = [1, 1 << 24, 4, 1 << 24 | 32];
        // int (*)(int context)
        const PROTOTYPE: [u32; 5] = [0, 13 << 24 | 1, 1, 5, 1];
        let mut types: Vec<u32> = (2..number).flat_map(|_| INT).collect();
        types.extend(PROTOTYPE);
        types.extend([13, 12 << 24, number - 1]);
        let length = 4 * types.len() as u32;
        let header = [0x0001_eb9f, 24, 0, length, length, NAMES.len() as u32];
        let words = header.iter().chain(&types);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(NAMES);
        Self(bytes)
    }

    fn load(&self) -> io::Result<OwnedFd> {
        Attr::new()
            .u64(0, self.0.as_ptr() as u64)
            .u32(16, self.0.len() as u32)
            .open(BTF_LOAD)
    }
}

/// The kernel's own types: the first ones that it has.
fn kernel_types() -> io::Result<OwnedFd> {
    let first = next_id(BTF_GET_NEXT_ID, 0).ok_or_else(io::Error::last_os_error)?;
    Attr::new().u32(0, first).open(BTF_GET_FD_BY_ID)
}

/// A tracer of a function of the kernel, or of a program: which, a descriptor says that a thread exchanges.
fn target(rounds: usize) -> io::Result<Outcome> {
    let tracer = tracer();
    let (kernel, program) = (kernel_types()?, namesake(tracer.btf_id)?);
    let bound_to = |attach_fd: i32| {
        let load = Load {
            attach_fd: attach_fd as u32,
            ..tracer.clone()
        };
        load.load().and_then(|loaded| Info::of(&loaded))
    };
    let want = bound_to(kernel.as_raw_fd())?.target();
    exchanging([&kernel, &program], |number, turns| {
        turns.race(rounds, Outcome::is_both, || {
            bound_to(number).map(|info| info.target() == want)
        })
    })
}

/// An admitted program, or an unsigned one, while a thread exchanges the types that describe it; and how many
/// types the kernel took.
fn types(rounds: usize, load: &Load) -> io::Result<(Outcome, usize)> {
    let [one, other] = [(); 2].map(|()| Types::with_function(SMALLEST).load());
    let want = Info::of(&simple().load()?)?.tag();
    exchanging([&one?, &other?], |number, turns| {
        let taken = RefCell::new(BTreeSet::new());
        let is_over = |outcome: &Outcome| outcome.right == 0 || taken.borrow().len() == 2;
        let outcome = turns.race(rounds, is_over, || {
            let info = Info::of(&described(load, number, SMALLEST)?)?;
            taken.borrow_mut().insert(info.types());
            Ok(info.tag() == want)
        });
        (outcome, taken.borrow().len())
    })
}

/// Without a gate the thread wins now and then; with one it never does.
pub fn run(rounds: usize) -> Result<bool, GateError> {
    let words = [("first", 0), ("last", INSNS - 2)];
    let mut fine = true;
    let exchanged = |outcome: &Outcome| outcome.is_both() && outcome.wrong > 0;
    for (which, at) in words {
        let name = format!("without a gate a thread has its {which} instruction loaded");
        fine &= check(&name, said(instructions(rounds, at), exchanged));
    }
    let name = "without a gate a thread has a tracer of another program loaded";
    fine &= check(name, said(target(rounds), exchanged));
    let mut gate = BpfGate::open()?;
    let mut all = admissions();
    let signed = [admitted(), tracer()].map(|load| entry(&load, vec![], Class::Signed));
    all.entries.extend(signed);
    arm_with(&mut gate, &all)?;
    let held = |outcome: &Outcome| {
        outcome.right > 0 && outcome.refused > 0 && outcome.wrong == 0 && outcome.errors.is_empty()
    };
    for (which, at) in words {
        let name = format!("a thread never gets its {which} instruction in");
        fine &= check(&name, said(instructions(rounds, at), held));
    }
    let name = "a thread never gets a tracer of another program in";
    // The kernel looks twice at the descriptor: for a program, then for types.
    let torn = |outcome: &Outcome| {
        let errors = Vec::new();
        let looked_between = io::Error::from_raw_os_error(libc::EINVAL).to_string();
        outcome.errors.iter().all(|error| *error == looked_between)
            && held(&Outcome { errors, ..*outcome })
    };
    fine &= check(name, said(target(rounds), torn));
    fine &= check(
        "a thread that exchanges types changes no verdict",
        described_anew(rounds),
    );
    gate.disarm()?;
    Ok(fine)
}

fn said(
    outcome: io::Result<Outcome>,
    is_right: impl FnOnce(&Outcome) -> bool,
) -> Result<String, String> {
    let outcome = outcome.map_err(|error| error.to_string())?;
    match is_right(&outcome) {
        true => Ok(format!("{outcome:?}")),
        false => Err(format!("{outcome:?}")),
    }
}

fn described_anew(rounds: usize) -> Result<String, String> {
    let said = |error: io::Error| error.to_string();
    let (admitted, taken) = types(rounds, &simple()).map_err(said)?;
    let (unsigned, _) = types(rounds, &evil()).map_err(said)?;
    let always = Outcome {
        right: admitted.right.max(rounds),
        ..Outcome::default()
    };
    let never = Outcome {
        refused: rounds,
        ..Outcome::default()
    };
    let line = format!("{admitted:?} by {taken} types, {unsigned:?}");
    match admitted == always && unsigned == never && taken == 2 {
        true => Ok(line),
        false => Err(line),
    }
}
