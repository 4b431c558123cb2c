//! Keeps others from the process that is to arm the gate, while there is no gate that does.
//!
//! Whoever has the memory of a process open (`/proc/PID/mem`) or traces it keeps that for as long as the process runs,
//! whatever is refused later. So a process that may arm loads one program that refuses such things for its file, and
//! executes its file again: that gives it memory which nobody has seen. The program goes when the gate guards the
//! process, and comes again before the gate goes.

#![expect(
    unsafe_code,
    reason = "executes a descriptor, and owns one that came from before"
)]

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString, c_char},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStringExt as _,
    },
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use libbpf_rs::{
    Map, MapCore as _, MapFlags, ObjectBuilder, ProgramHandle, ProgramType,
    libbpf_sys::bpf_link_info,
};
use rustix::{io::FdFlags, thread::UnshareFlags};

use super::{arming, object::Aligned, pins::Pins, place, shared::Fields};
use crate::measure::object_info;

static SHIELD: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/shield.bpf.o")));

/// Names the descriptor of the link to the process that follows.
const VARIABLE: &str = "BPFSEAL_SHIELD";

/// What keeps others from this process.
#[derive(Debug)]
enum Guard {
    /// Nothing did, at some moment since it began; and why.
    Nothing(String),
    /// The program, as long as this link is open.
    Shield(#[expect(dead_code, reason = "held, not read")] OwnedFd),
    /// The gate.
    Gate,
}

/// The program in bpf/shield.bpf.c.
const NAME: &str = "bpfseal_shield";

/// May this process arm the gate, and has it said so?
static BEGUN: AtomicBool = AtomicBool::new(false);

static GUARD: Mutex<Guard> = Mutex::new(Guard::Nothing(String::new()));

fn set(guard: Guard) {
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = guard;
}

/// Has nobody been able to get hold of this process since it began? If somebody has, the error says why.
pub fn must_be_up() -> Result<(), String> {
    match &*GUARD.lock().unwrap_or_else(PoisonError::into_inner) {
        Guard::Nothing(why) => Err(why.clone()),
        Guard::Shield(_) | Guard::Gate => Ok(()),
    }
}

/// To be called first by a process that may arm the gate, and again once it has cleared away what was left of one. It
/// comes back in a process that was shielded when it began, where a gate is armed, or where none can be; after an error
/// this process does not arm.
pub fn begin() {
    let is_first = !BEGUN.swap(true, Ordering::Relaxed);
    let begun = match env::var_os(VARIABLE) {
        Some(number) if is_first => continue_behind(&number),
        Some(_) => return,
        None if must_be_up().is_ok() || Pins::find().hold_a_gate() => return,
        None => Err(arming::able().err().unwrap_or_else(again)),
    };
    if let Err(error) = begun {
        set(Guard::Nothing(format!(
            "it could not be guarded when it began: {error}"
        )));
    }
}

/// This process was executed by one that had raised the shield.
fn continue_behind(number: &OsStr) -> io::Result<()> {
    // The kernel names a process after the descriptor that it executed.
    rustix::thread::set_name(c"bpfseal-enforce")?;
    // Whoever shares it chooses where paths lead.
    // SAFETY: no other thread runs yet.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    let link = inherited(number)?;
    // Nobody can begin to trace it now; who did so before stays.
    place::must_not_be_traced(&fs::read_to_string("/proc/thread-self/status")?)?;
    set(Guard::Shield(link));
    Ok(())
}

/// The gate guards this process now.
pub fn leave_to_the_gate() {
    if BEGUN.load(Ordering::Relaxed) {
        set(Guard::Gate);
    }
}

/// The gate is about to go. Where this fails, nobody gets this process to arm again.
pub fn return_from_the_gate() {
    if must_be_up().is_ok() {
        let raised = File::open("/proc/self/exe").and_then(|file| raise(&file));
        set(raised.map_or_else(
            |error| Guard::Nothing(format!("it could not be guarded any more: {error}")),
            Guard::Shield,
        ));
    }
}

/// Loads the program and puts it on its hook.
fn raise(file: &File) -> io::Result<OwnedFd> {
    let (inode, device) = place::identity(&file.metadata()?);
    let raise = || -> libbpf_rs::Result<OwnedFd> {
        let mut object = ObjectBuilder::default().open_memory(&SHIELD.0)?;
        let constants = Fields::default().u64s(&[inode, device.into()]).done(16);
        for mut map in object.maps_mut() {
            if let Some(value) = map.initial_value_mut() {
                value.copy_from_slice(&constants);
            }
        }
        let object = object.load()?;
        // Until they were frozen anybody could write them.
        let is_whole = |map: Map<'_>| -> libbpf_rs::Result<bool> {
            let found = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
            Ok(found.as_ref() == Some(&constants))
        };
        for map in object.maps() {
            if !is_whole(map)? {
                let what = "somebody has changed the shield while it was loaded";
                return Err(libbpf_rs::Error::from(io::Error::other(what)));
            }
        }
        let mut programs = object.progs_mut();
        let link = programs
            .next()
            .map(|program| program.attach())
            .transpose()?;
        let link =
            link.ok_or_else(|| libbpf_rs::Error::from(io::Error::from(io::ErrorKind::NotFound)))?;
        Ok(link.as_fd().try_clone_to_owned()?)
    };
    raise().map_err(io::Error::other)
}

/// Executes this file again behind the shield with the same words, in an environment that names its link. Comes back
/// with an error alone.
fn again() -> io::Error {
    let execute = || -> io::Result<Infallible> {
        let file = File::open("/proc/self/exe")?;
        let link = raise(&file)?;
        // It is to stay open in the next process.
        rustix::io::fcntl_setfd(&link, FdFlags::empty())?;
        let named = OsString::from(format!("{VARIABLE}={}", link.as_raw_fd()));
        let environment = env::vars_os().map(|(name, value)| [name, value].join(OsStr::new("=")));
        let words = strings(env::args_os())?;
        let environment = strings(environment.chain([named]))?;
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            let all = strings.iter().map(|string| string.as_ptr());
            all.chain([ptr::null()]).collect()
        };
        let (words, environment) = (pointers(&words), pointers(&environment));
        // SAFETY: both lists end with NULL, and the strings that they point to live until the end of this function.
        unsafe { libc::fexecve(file.as_raw_fd(), words.as_ptr(), environment.as_ptr()) };
        Err(io::Error::last_os_error())
    };
    match execute() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn strings(from: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    from.map(|word| CString::new(word.into_vec()).map_err(io::Error::other))
        .collect()
}

/// The shield's link, if that descriptor is one.
fn inherited(number: &OsStr) -> io::Result<OwnedFd> {
    let other = || io::Error::other(format!("{VARIABLE} names no descriptor of the shield"));
    let number: RawFd = number
        .to_str()
        .and_then(|number| number.parse().ok())
        .filter(|&number| number >= 0)
        .ok_or_else(other)?;
    // SAFETY: a number of no descriptor is an error of this call, which only reads.
    let link = unsafe { BorrowedFd::borrow_raw(number) };
    let info = object_info::<bpf_link_info>(link).map_err(|_| other())?;
    let program = ProgramHandle::from_prog_id(info.prog_id).map_err(io::Error::other)?;
    if program.prog_type() != ProgramType::Lsm || program.name() != NAME {
        return Err(other());
    }
    // SAFETY: it is open, and was opened for this process, which has not used it yet.
    let link = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&link, FdFlags::CLOEXEC)?;
    Ok(link)
}
