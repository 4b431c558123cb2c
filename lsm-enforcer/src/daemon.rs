//! `run`: holds the lock, serves the socket, empties the gate's ring buffer, watches.
//!
//! One thread owns the enforcer; connections have threads of their own and hand over jobs.
//! The daemon's death changes nothing in the kernel.

use std::{
    io::Write as _,
    os::unix::net::{UnixListener, UnixStream},
    sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock,
    control::{self, Reply, Request, Runtime},
    enforcer::Enforcer,
    failure::Failure,
    gate::Role,
    notify,
    output::printable,
    perform::perform,
    record::{Level, Record},
    signals,
};

/// How the daemon runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Between two proofs that the gate bites; jittered by a quarter.
    pub watch: Duration,
}

/// One request with the way back.
struct Job {
    request: Request,
    body: Vec<u8>,
    replies: SyncSender<Reply>,
}

/// Runs until SIGTERM or SIGINT. `open` makes the enforcer once the lock is held.
pub fn run(
    runtime: &Runtime,
    options: Options,
    open: impl FnOnce() -> Result<Enforcer, Failure>,
) -> Result<(), Failure> {
    signals::install();
    let lock = runtime.lock(LOCK_PATIENCE)?;
    let mut enforcer = open()?;
    enforcer.hold(Role::Daemon, LOCK_PATIENCE)?;
    let taken = enforcer.take_over();
    print_fresh(&mut enforcer);
    taken?;
    let listener = runtime.listen(&lock)?;
    let (sender, jobs) = mpsc::channel();
    thread::spawn(move || accept(&listener, &sender));
    notify::ready();
    anstream::eprintln!("listening on {}", runtime.socket().display());
    serve(&mut enforcer, &jobs, options)?;
    notify::stopping();
    Ok(())
}

fn serve(enforcer: &mut Enforcer, jobs: &Receiver<Job>, options: Options) -> Result<(), Failure> {
    let mut followers: Vec<SyncSender<Reply>> = Vec::new();
    let mut next_watch = Instant::now() + jittered(options.watch);
    while !signals::stop() {
        // Waking for events is what tells who did it while the process still lives; a
        // request waits this long at most.
        if let Err(failure) = enforcer.drain(TICK) {
            enforcer.note(Level::Alarm, "daemon", failure.line());
            thread::sleep(TICK);
        }
        match enforcer.armed() {
            Ok(Some(_)) => {}
            Ok(None) => thread::sleep(TICK),
            Err(failure) => {
                enforcer.note(Level::Alarm, "gate", failure.line());
                return Err(failure);
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(job) => answer(enforcer, job, &mut followers),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(Failure::internal("the control socket's thread ended"));
                }
            }
        }
        // A second or two, so only one between requests.
        if let Err(failure) = enforcer.prove_next() {
            enforcer.note(Level::Info, "explain", failure.line());
        }
        if let Err(failure) = enforcer.follow_refused_module() {
            enforcer.note(Level::Alarm, "bundle", failure.line());
        }
        if signals::take_reload() {
            // Its failure is noted in the log; the policy in force stays.
            let _ = enforcer.reload(None);
        }
        if let Err(failure) = enforcer.look_for_revocations() {
            enforcer.note(Level::Alarm, "revocation", failure.line());
        }
        let settled = enforcer.settle();
        if let Err(failure) = settled {
            enforcer.note(Level::Alarm, "arming", failure.line());
        }
        if Instant::now() >= next_watch {
            next_watch = Instant::now() + jittered(options.watch);
            if let Err(failure) = enforcer.watch() {
                enforcer.note(Level::Alarm, "gate", failure.line());
            }
        }
        for record in print_fresh(enforcer) {
            // One who does not read is dropped, not waited for.
            followers.retain(|follower| follower.try_send(Reply::Record(record.clone())).is_ok());
        }
    }
    enforcer.note(Level::Info, "daemon", "stopped; the gate stays as it is");
    print_fresh(enforcer);
    Ok(())
}

fn answer(enforcer: &mut Enforcer, job: Job, followers: &mut Vec<SyncSender<Reply>>) {
    let follows = matches!(job.request, Request::Events { follow: true, .. });
    let reply = Reply::from(perform(enforcer, job.request, &job.body, true));
    let ok = matches!(reply, Reply::Done(_));
    // A client that went away needs no answer.
    if job.replies.send(reply).is_ok() && ok && follows {
        // What is fresh by now was in the reply already.
        print_fresh(enforcer);
        followers.push(job.replies);
    }
}

/// The journal of the host gets a line a record.
fn print_fresh(enforcer: &mut Enforcer) -> Vec<Record> {
    let fresh = enforcer.take_fresh();
    for record in &fresh {
        anstream::eprintln!("{}", printable(&record.line()));
    }
    fresh
}

/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

fn accept(listener: &UnixListener, jobs: &Sender<Job>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No descriptor is left, most likely: asking again at once would take a whole processor.
            thread::sleep(PAUSE);
            continue;
        };
        let jobs = jobs.clone();
        thread::spawn(move || converse(&stream, &jobs));
    }
}

fn converse(stream: &UnixStream, jobs: &Sender<Job>) {
    let write = |reply: &Reply| {
        let mut line = serde_json::to_string(reply).unwrap_or_default();
        line.push('\n');
        let mut writer = stream;
        writer.write_all(line.as_bytes())
    };
    // The socket's mode lets only root in; this holds even if somebody changes it.
    if rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid != rustix::process::geteuid())
    {
        let _ = write(&Reply::Failed(Failure::usage(
            "only root commands the gate",
        )));
        return;
    }
    let _ = stream.set_read_timeout(Some(CLIENT_PATIENCE));
    let (request, body) = match control::receive(stream) {
        Ok(received) => received,
        Err(failure) => {
            let _ = write(&Reply::Failed(failure));
            return;
        }
    };
    let (replies, incoming) = mpsc::sync_channel(FOLLOWER_BACKLOG);
    if jobs
        .send(Job {
            request,
            body,
            replies,
        })
        .is_err()
    {
        return;
    }
    for reply in incoming {
        if write(&reply).is_err() {
            return;
        }
    }
}

/// Nobody shall know the second in which the gate is not looked at.
fn jittered(period: Duration) -> Duration {
    let quarter = u64::try_from(period.as_millis() / 4).unwrap_or(0).max(1);
    let noise = u64::from(clock::since_boot().subsec_nanos()) / 7 % (2 * quarter);
    period.saturating_sub(Duration::from_millis(quarter)) + Duration::from_millis(noise)
}

const TICK: Duration = Duration::from_millis(50);
/// A command that does its own work holds the lock for seconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
/// Between a connection and its request.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Records that one who follows may be behind.
const FOLLOWER_BACKLOG: usize = 4096;
