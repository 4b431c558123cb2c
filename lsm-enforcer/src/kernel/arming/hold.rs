//! One process of the enforcer changes the gate at a time.
//!
//! A lock in the file system is where its path leads, and whoever starts a command chooses that. This one is in a
//! map of the gate's, which none but the daemon's own processes can write, so it is the same for all of them.
//! Whoever has it reads what is in force after that: however long it is made to wait then, nobody has
//! put anything newer in force meanwhile, which it could undo.

use std::{io, os::unix::net::UnixStream, time::Duration};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::sockopt::socket_peercred,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{BpfGate, Doing as _, other, takeover::open_pinned};
use crate::{
    gate::{GateError, Held, Hold, Role},
    kernel::{
        pins::Pins,
        shared::{Fields, Reader},
        store,
    },
};

/// Nanoseconds of a clock tick, as in bpf/guard.h.
const TICK: u64 = 10_000_000;
/// `struct holder`: number and start of a process.
const SIZE: usize = 16;
/// So many processes in a row can have it and give it back between two looks.
const MOST: u32 = 1000;

impl BpfGate {
    /// Where somebody else has it: who, and a way to wait for him.
    pub(super) fn take_hold(&mut self, role: Role) -> Result<Hold, GateError> {
        self.role = role;
        if self.maps.is_empty() {
            return Ok(Hold::Ours);
        }
        let hold = self
            .try_hold()
            .doing("keeping others from changing the gate")?;
        if matches!(hold, Hold::Ours) {
            // Somebody may have changed it since it was opened.
            self.look_again().doing("reading the gate again")?;
        }
        Ok(hold)
    }

    fn try_hold(&self) -> io::Result<Hold> {
        let (me, holders) = (self.me()?, self.map("holders")?);
        let value = u32::from(self.role == Role::Daemon).to_ne_bytes();
        let mut tries = 0;
        loop {
            // The kernel has room for one.
            let Err(error) = holders.update(&me, &value, MapFlags::NO_EXIST) else {
                return Ok(Hold::Ours);
            };
            tries += 1;
            let Some(theirs) = holders.keys().next() else {
                // It went meanwhile, or the kernel means something else.
                if tries == MOST {
                    return Err(other(error));
                }
                continue;
            };
            if theirs == me {
                return Ok(Hold::Ours);
            }
            if let Some(held) = holder(holders, self.map("marks")?, &theirs)? {
                return Ok(Hold::Theirs(held));
            }
            // By its own key: whoever takes it at this moment has another one.
            let _somebody_else_was_first = holders.delete(&theirs);
        }
    }

    /// While arming, when nobody else can have it.
    pub(super) fn hold_alone(&self) -> io::Result<()> {
        match self.try_hold()? {
            Hold::Ours => Ok(()),
            Hold::Theirs(held) => Err(io::Error::other(format!("process {} has it", held.pid))),
        }
    }

    /// Key of this process.
    fn me(&self) -> io::Result<Vec<u8>> {
        let tgid = std::process::id();
        let mark = mark(self.map("marks")?, tgid)?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "this process is not the daemon's",
            )
        })?;
        // In ticks, which stay the same while this process arms: see `mark_who_arms` in bpf/guard.h. The kernel's
        // word, not that of /proc.
        let started = if self.guard()?.locked {
            mark / TICK
        } else {
            mark
        };
        Ok(Fields::default()
            .u32s(&[tgid, 0])
            .u64s(&[started])
            .done(SIZE))
    }

    fn look_again(&mut self) -> io::Result<()> {
        if let Some(set) = self.current_set()?
            && store::is_open(&set)?
        {
            return Err(io::Error::other(
                "it was disarmed meanwhile: start the command again",
            ));
        }
        self.origins = self.store(0).origins()?;
        Ok(())
    }

    /// Whoever has it now.
    pub(super) fn holding(&self) -> io::Result<Option<Held>> {
        holding(self.map("holders")?, self.map("marks")?)
    }
}

/// Who is at the other end of a socket, unless it is the daemon as far as the gate knows; without a gate nobody knows.
///
/// # Errors
///
/// Those of the pin and the socket.
pub fn stranger(stream: &UnixStream) -> Result<Option<u32>, GateError> {
    let look = || -> io::Result<Option<u32>> {
        let pins = Pins::find();
        let Some(marks) = open_pinned(&pins, "marks")? else {
            return Ok(None);
        };
        let peer = socket_peercred(stream)?.pid.as_raw_nonzero().get();
        let peer = peer.cast_unsigned();
        // Any command has a mark; the daemon has the gate as well.
        let holding = match open_pinned(&pins, "holders")? {
            Some(holders) => holding(&holders, &marks)?,
            None => None,
        };
        let is_daemon = holding.is_some_and(|held| held.pid == peer && held.role == Role::Daemon);
        Ok((!is_daemon).then_some(peer))
    };
    look().doing("looking who answers")
}

fn holding(holders: &MapHandle, marks: &MapHandle) -> io::Result<Option<Held>> {
    match holders.keys().next() {
        Some(key) => holder(holders, marks, &key),
        None => Ok(None),
    }
}

/// The process with this key, unless it has ended.
fn holder(holders: &MapHandle, marks: &MapHandle, key: &[u8]) -> io::Result<Option<Held>> {
    let mut reader = Reader(key);
    let (tgid, _spare, started) = (reader.u32(), reader.u32(), reader.u64());
    // The kernel takes the mark when the process is gone; another with its number has another start. While
    // somebody arms, his mark becomes one of nanoseconds.
    let is_his = |mark: u64| mark == started || mark / TICK == started;
    let Some(pid) = Pid::from_raw(tgid.cast_signed()) else {
        return Ok(None);
    };
    if !mark(marks, tgid)?.is_some_and(is_his) {
        return Ok(None);
    }
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let role = holders.lookup(key, MapFlags::ANY).map_err(other)?;
    let held = Held {
        pid: tgid,
        role: match role {
            Some(value) if value != [0; 4] => Role::Daemon,
            _ => Role::Command,
        },
        process: Some(process),
    };
    // One that was not waited for yet has ended all the same.
    Ok((!held.ends_within(Duration::ZERO)?).then_some(held))
}

/// The moment when the process with this mark began.
fn mark(marks: &MapHandle, tgid: u32) -> io::Result<Option<u64>> {
    let value = marks.lookup(&tgid.to_ne_bytes(), MapFlags::ANY);
    Ok(value.map_err(other)?.map(|value| Reader(&value).u64()))
}

impl Drop for BpfGate {
    fn drop(&mut self) {
        if let (Ok(me), Ok(holders)) = (self.me(), self.map("holders")) {
            let _somebody_elses_stays = holders.delete(&me);
        }
    }
}

impl Held {
    /// Waits for the process to end; `false`: it still runs.
    ///
    /// # Errors
    ///
    /// Those of `poll`.
    pub fn ends_within(&self, time: Duration) -> io::Result<bool> {
        let Some(process) = &self.process else {
            return Ok(false);
        };
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        let limit = Timespec::try_from(time).map_err(io::Error::other)?;
        let count = rustix::io::retry_on_intr(|| poll(&mut ended, Some(&limit)))?;
        Ok(count > 0)
    }
}
