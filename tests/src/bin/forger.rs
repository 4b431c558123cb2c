//! Forges programs out of an admitted one and tries to load them with raw bpf() commands. Each line says what was tried
//! and what came of it; the exit code is 0 only if the kernel refused all that it should.
//!
//! `variants OBJECT` takes a signed object that the gate admits, lets libbpf relocate and load
//! it once (the control: that must work), and loads the same programs again with one thing
//! changed at a time. `race OBJECT` changes what a map's fd means while the kernel reads the
//! program. `unsigned` loads programs that nobody made.
#![expect(
    unsafe_code,
    reason = "bpf() commands that no safe interface would send"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use clap::{Parser, Subcommand};
use libbpf_rs::{AsRawLibbpf, MapCore, Object, ObjectBuilder, ProgramMut};
use libbpf_sys as sys;

type Failure = Box<dyn std::error::Error>;

/// Forges programs and tries to load them.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Attack,
}

#[derive(Subcommand)]
enum Attack {
    /// Loads an admitted object's programs with one thing changed at a time.
    Variants {
        /// The object file.
        object: PathBuf,
    },
    /// Changes which map a file descriptor means while a program is loaded.
    Race {
        /// The object file.
        object: PathBuf,
        /// How many loads.
        #[arg(long, default_value_t = 200)]
        rounds: u32,
    },
    /// Loads programs that nobody signed, of many types.
    Unsigned,
}

fn main() -> ExitCode {
    let mut score = Score::default();
    let result = match Args::parse().command {
        Attack::Variants { object } => variants(&object, &mut score),
        Attack::Race { object, rounds } => race(&object, rounds, &mut score),
        Attack::Unsigned => {
            unsigned(&mut score);
            Ok(())
        }
    };
    if let Err(error) = result {
        println!("control failed: {error}");
        return ExitCode::from(2);
    }
    println!(
        "attacks: {} refused, {} succeeded",
        score.refused, score.succeeded
    );
    if score.succeeded == 0 && score.refused > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Score {
    refused: u32,
    succeeded: u32,
}

impl Score {
    fn add<T>(&mut self, what: &str, result: io::Result<T>) {
        match result {
            Ok(_) => {
                self.succeeded += 1;
                println!("SUCCEEDED {what}");
            }
            // Anything but EPERM means that the attack never came as far as the gate.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                self.refused += 1;
                println!("refused {what}");
            }
            Err(error) => println!("failed otherwise {what}: {error}"),
        }
    }
}

/// One load, with all that an attacker chooses.
#[derive(Clone)]
struct Load {
    prog_type: sys::bpf_prog_type,
    attach_type: sys::bpf_attach_type,
    attach_btf_id: u32,
    flags: u32,
    insns: Vec<sys::bpf_insn>,
}

impl Load {
    fn run(&self) -> io::Result<OwnedFd> {
        let mut options = sys::bpf_prog_load_opts {
            sz: size_of::<sys::bpf_prog_load_opts>() as _,
            expected_attach_type: self.attach_type,
            attach_btf_id: self.attach_btf_id,
            prog_flags: self.flags,
            attempts: 1,
            ..Default::default()
        };
        let (name, license) = (c"attack", c"Dual BSD/GPL");
        // SAFETY: all pointers are to values that live until the call returns, and the count
        // is that of the instructions.
        let fd = unsafe {
            sys::bpf_prog_load(
                self.prog_type,
                name.as_ptr(),
                license.as_ptr(),
                self.insns.as_ptr(),
                self.insns.len() as _,
                &raw mut options,
            )
        };
        owned(fd)
    }
}

// libbpf's low-level calls return a negative error number.
fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call that returned it made it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn done(code: i32) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::from_raw_os_error(-code))
    } else {
        Ok(())
    }
}

fn load_object(path: &PathBuf) -> Result<Object, Failure> {
    let object = ObjectBuilder::default().open_file(path)?.load()?;
    println!("control: {} loads", path.display());
    Ok(object)
}

// What libbpf sent to the kernel, map file descriptors and all.
fn relocated(program: &ProgramMut<'_>) -> Load {
    let pointer = program.as_libbpf_object().as_ptr();
    // SAFETY: the program belongs to a loaded object that outlives this call.
    let attach_btf_id = unsafe { attach_btf_id(pointer) };
    Load {
        prog_type: program.prog_type() as _,
        attach_type: program.attach_type() as _,
        attach_btf_id,
        flags: program.flags(),
        insns: program.insns().to_vec(),
    }
}

// libbpf has no accessor: the kernel tells for the loaded program.
unsafe fn attach_btf_id(program: *const sys::bpf_program) -> u32 {
    let mut info = sys::bpf_prog_info::default();
    let mut size = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: the caller's program is alive; the size is that of the value written to.
    unsafe {
        let fd = sys::bpf_program__fd(program);
        sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut size);
    }
    info.attach_btf_id
}

fn variants(path: &PathBuf, score: &mut Score) -> Result<(), Failure> {
    let object = load_object(path)?;
    for program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        let load = relocated(&program);
        load.run()
            .map_err(|error| format!("{name} as libbpf relocated it: {error}"))?;
        println!("control: {name} loads again by raw bpf()");
        for index in 0..load.insns.len() {
            let mut changed = load.clone();
            // A no-op that the verifier would take, so that nothing but the gate objects.
            changed.insns[index].imm ^= 1;
            score.add(
                &format!("{name}: constant of instruction {index} changed"),
                changed.run(),
            );
        }
        let mut longer = load.clone();
        longer.insns.insert(0, mov_r0(0));
        score.add(&format!("{name}: one instruction more"), longer.run());
        let mut flagged = load.clone();
        flagged.flags ^= sys::BPF_F_TEST_RND_HI32;
        score.add(&format!("{name}: other flags"), flagged.run());
        for prog_type in [
            sys::BPF_PROG_TYPE_SOCKET_FILTER,
            sys::BPF_PROG_TYPE_KPROBE,
            sys::BPF_PROG_TYPE_TRACEPOINT,
            sys::BPF_PROG_TYPE_SCHED_CLS,
        ] {
            if prog_type == load.prog_type {
                continue;
            }
            let mut other = load.clone();
            (other.prog_type, other.attach_type, other.attach_btf_id) = (prog_type, 0, 0);
            score.add(&format!("{name}: as program type {prog_type}"), other.run());
        }
        maps(&name, &load, &object, score)?;
    }
    Ok(())
}

// Other maps in place of the object's own.
fn maps(name: &str, load: &Load, object: &Object, score: &mut Score) -> Result<(), Failure> {
    let used = map_references(&load.insns);
    let mut distinct: Vec<RawFd> = used.iter().map(|index| load.insns[*index].imm).collect();
    distinct.sort_unstable();
    distinct.dedup();
    for map in object.maps() {
        let fd = map.as_fd().as_raw_fd();
        if !distinct.contains(&fd) {
            continue;
        }
        let (map_type, key, value, entries) = (
            map.map_type() as u32,
            map.key_size(),
            map.value_size(),
            map.max_entries(),
        );
        let map_name = map.name().to_string_lossy().into_owned();
        let mut forged = vec![("of another size", map_type, key, value, entries * 2, false)];
        if map_name.ends_with(".rodata") {
            forged.push(("not frozen", map_type, key, value, entries, false));
            forged.push((
                "frozen with other contents",
                map_type,
                key,
                value,
                entries,
                true,
            ));
        }
        for (how, map_type, key, value, entries, frozen) in forged {
            let other = match create_map(
                map_type,
                key,
                value,
                entries,
                frozen,
                map_name.ends_with(".rodata"),
            ) {
                Ok(other) => other,
                Err(error) => {
                    println!("failed otherwise {name}: map {map_name} {how}: {error}");
                    continue;
                }
            };
            let changed = with_map(load, fd, other.as_raw_fd());
            score.add(&format!("{name}: map {map_name} {how}"), changed.run());
        }
        // One map's descriptor where another's belongs: each alone is admitted.
        for other in distinct.iter().filter(|other| **other != fd) {
            let changed = with_map(load, fd, *other);
            score.add(
                &format!("{name}: map {map_name} is another of its maps"),
                changed.run(),
            );
        }
    }
    // The same map twice under two descriptors, so that indices do not say which is which.
    if let (Some(first), true) = (used.first(), used.len() > 1) {
        let fd = load.insns[*first].imm;
        // SAFETY: `dup` has no memory to harm; the fd is open.
        let second = owned(unsafe { libc::dup(fd) })?;
        let mut changed = load.clone();
        let same: Vec<usize> = used
            .iter()
            .copied()
            .filter(|index| load.insns[*index].imm == fd)
            .collect();
        if let (Some(last), true) = (same.last(), same.len() > 1) {
            changed.insns[*last].imm = second.as_raw_fd();
            score.add(
                &format!("{name}: one map under two descriptors"),
                changed.run(),
            );
        }
    }
    Ok(())
}

fn create_map(
    map_type: u32,
    key: u32,
    value: u32,
    entries: u32,
    frozen: bool,
    rodata: bool,
) -> io::Result<OwnedFd> {
    let options = sys::bpf_map_create_opts {
        sz: size_of::<sys::bpf_map_create_opts>() as _,
        map_flags: if rodata {
            sys::BPF_F_RDONLY_PROG | sys::BPF_F_MMAPABLE
        } else {
            0
        },
        ..Default::default()
    };
    // SAFETY: the name and the options live until the call returns.
    let fd = unsafe {
        sys::bpf_map_create(
            map_type,
            c"forged".as_ptr(),
            key,
            value,
            entries,
            &raw const options,
        )
    };
    let fd = owned(fd)?;
    if rodata {
        let contents = vec![0xa5_u8; value as usize];
        let zero = 0_u32;
        // SAFETY: the key has four bytes and the contents as many as the map's value.
        done(unsafe {
            sys::bpf_map_update_elem(
                fd.as_raw_fd(),
                (&raw const zero).cast(),
                contents.as_ptr().cast(),
                0,
            )
        })?;
    }
    if frozen {
        // SAFETY: the fd is open.
        done(unsafe { sys::bpf_map_freeze(fd.as_raw_fd()) })?;
    }
    Ok(fd)
}

// Where a program names a map: the first halves of `ld_imm64` with source 1 (a map) or 2 (a
// place in a map's value).
fn map_references(insns: &[sys::bpf_insn]) -> Vec<usize> {
    let wide = (sys::BPF_LD | sys::BPF_DW | sys::BPF_IMM) as u8;
    let named = |insn: &sys::bpf_insn| insn.code == wide && matches!(insn.src_reg(), 1 | 2);
    insns
        .iter()
        .enumerate()
        .filter(|(_, insn)| named(insn))
        .map(|(index, _)| index)
        .collect()
}

fn with_map(load: &Load, fd: RawFd, other: RawFd) -> Load {
    let mut changed = load.clone();
    for index in map_references(&load.insns) {
        if changed.insns[index].imm == fd {
            changed.insns[index].imm = other;
        }
    }
    changed
}

fn mov_r0(value: i32) -> sys::bpf_insn {
    sys::bpf_insn {
        code: (sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K) as u8,
        imm: value,
        ..Default::default()
    }
}

fn exit() -> sys::bpf_insn {
    sys::bpf_insn {
        code: (sys::BPF_JMP | sys::BPF_EXIT) as u8,
        ..Default::default()
    }
}

// S4: a second thread, which shares the file table, makes an admitted map's descriptor mean
// another map and back again, as fast as it can. A load that succeeds is a bypass if the
// program is bound to the other map.
fn race(path: &PathBuf, rounds: u32, score: &mut Score) -> Result<(), Failure> {
    let object = load_object(path)?;
    let program = object
        .progs_mut()
        .next()
        .ok_or("the object has no program")?;
    let load = relocated(&program);
    let at = *map_references(&load.insns)
        .first()
        .ok_or("the program has no map")?;
    let own = load.insns[at].imm;
    let map = object
        .maps()
        .find(|map| map.as_fd().as_raw_fd() == own)
        .ok_or("the map is gone")?;
    let good = map.as_fd().try_clone_to_owned()?;
    let (kind, key, value, entries) = (
        map.map_type() as u32,
        map.key_size(),
        map.value_size(),
        map.max_entries(),
    );
    // A map of the same kind and size is input like any other, so the other one differs: in
    // size, or where it is read-only data, in contents.
    let rodata = map.name().to_string_lossy().ends_with(".rodata");
    let entries = if rodata { entries } else { entries * 2 };
    let evil = create_map(kind, key, value, entries, rodata, rodata)?;
    let shared = map.as_fd().try_clone_to_owned()?;
    let load = with_map(&load, own, shared.as_raw_fd());
    let stop = AtomicBool::new(false);
    let (mut loaded, mut wrong, mut refused) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for source in [&evil, &good] {
                    // SAFETY: both descriptors are open; `dup2` has no memory to harm.
                    unsafe { libc::dup2(source.as_raw_fd(), shared.as_raw_fd()) };
                }
            }
        });
        for _ in 0..rounds {
            match load.run() {
                Ok(fd) => {
                    loaded += 1;
                    if bound_to(&fd, &evil) {
                        wrong += 1;
                    }
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("race: {loaded} loaded, {wrong} of them with the other map, {refused} refused");
    score.refused += refused + loaded - wrong;
    score.succeeded += wrong;
    Ok(())
}

fn bound_to(program: &OwnedFd, map: &OwnedFd) -> bool {
    let id = map_id(map);
    let mut ids = [0_u32; 64];
    let mut info = sys::bpf_prog_info {
        nr_map_ids: ids.len() as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut size = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: the info names an array with room for as many ids as it says.
    unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) };
    ids[..(info.nr_map_ids as usize).min(64)].contains(&id)
}

fn map_id(map: &OwnedFd) -> u32 {
    map_info(map).map_or(0, |info| info.id)
}

fn map_info(map: &OwnedFd) -> io::Result<sys::bpf_map_info> {
    let mut info = sys::bpf_map_info::default();
    let mut size = size_of::<sys::bpf_map_info>() as u32;
    // SAFETY: the size is that of the value written to.
    done(unsafe { sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &raw mut info, &raw mut size) })?;
    Ok(info)
}

fn unsigned(score: &mut Score) {
    // `r0 = 1; exit` would be a loader's probe with r0 = 0: this one is nobody's.
    let types = [
        ("socket filter", sys::BPF_PROG_TYPE_SOCKET_FILTER, 0),
        ("kprobe", sys::BPF_PROG_TYPE_KPROBE, 0),
        ("tc", sys::BPF_PROG_TYPE_SCHED_CLS, 0),
        ("tracepoint", sys::BPF_PROG_TYPE_TRACEPOINT, 0),
        ("xdp", sys::BPF_PROG_TYPE_XDP, 0),
        ("perf event", sys::BPF_PROG_TYPE_PERF_EVENT, 0),
        (
            "cgroup connect4",
            sys::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            sys::BPF_CGROUP_INET4_CONNECT,
        ),
        ("raw tracepoint", sys::BPF_PROG_TYPE_RAW_TRACEPOINT, 0),
        ("lightweight tunnel", sys::BPF_PROG_TYPE_LWT_IN, 0),
        ("socket operations", sys::BPF_PROG_TYPE_SOCK_OPS, 0),
    ];
    for (name, prog_type, attach_type) in types {
        for length in [2, 9, 1000] {
            let mut insns = vec![mov_r0(1); length - 1];
            insns.push(exit());
            let load = Load {
                prog_type,
                attach_type,
                attach_btf_id: 0,
                flags: 0,
                insns,
            };
            score.add(&format!("{name} with {length} instructions"), load.run());
        }
    }
}
