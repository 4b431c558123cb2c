//! Child processes for bytes that somebody else made: this same executable, started again.
//!
//! Parent and child speak over sockets, which nobody else can open through `/proc`: one JSON line, then raw
//! bytes, in both directions.
//! A child that crashes, hangs or prints rubbish refuses its bundle and nothing else.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Child,
    sync::mpsc,
    thread,
    time::Duration,
};

use jiff::Timestamp;
use policy::Reason;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    decision,
    failure::Failure,
    ourselves, sandbox,
    store::Document,
    workshop::{Approved, Finding, Measured, Stream, Task, Verdict, Workshop},
};

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Verify and decide, without privileges.
    Verify,
    /// Measure what was verified, with libbpf.
    Measure,
    /// Compare a stream with what was verified, without privileges.
    Explain,
}

/// Children of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Workers;

/// What goes to the verifying child before the bundle's bytes.
#[derive(Serialize, Deserialize)]
struct Order {
    document: Document,
    authority: String,
    scope: Option<String>,
    now: Timestamp,
}

/// What goes to the comparing child before the object's bytes.
#[derive(Serialize, Deserialize)]
struct Question {
    object: Approved,
    measured: Vec<Measured>,
    stream: Stream,
}

impl Workshop for Workers {
    fn verify(&self, task: &Task<'_>) -> Result<Verdict, Failure> {
        let order = Order {
            document: task.document.clone(),
            authority: task.authority.to_owned(),
            scope: task.scope.map(str::to_owned),
            now: task.now,
        };
        let output = start(Job::Verify, &order, task.bundle)?;
        let (result, mut bytes): (Result<Verdict, Failure>, &[u8]) = split(&output)?;
        let mut verdict = result?;
        for object in &mut verdict.objects {
            let Some((elf, rest)) = bytes.split_at_checked(object.size) else {
                return Err(broken("it sent too few bytes"));
            };
            object.elf = elf.to_vec();
            bytes = rest;
        }
        must_be_all(bytes)?;
        Ok(verdict)
    }

    fn measure(&self, object: &Approved) -> Result<Vec<Measured>, Failure> {
        let kernel: Option<&Path> = None;
        let output = start(Job::Measure, &(object, kernel), &object.elf)?;
        alone::<Result<Vec<Measured>, Failure>>(&output)?
    }

    fn measure_for(&self, object: &Approved, kernel: &Path) -> Result<Vec<Measured>, Failure> {
        let output = start(Job::Measure, &(object, Some(kernel)), &object.elf)?;
        alone::<Result<Vec<Measured>, Failure>>(&output)?
    }

    fn explain(
        &self,
        object: &Approved,
        measured: &[Measured],
        stream: &Stream,
    ) -> Result<Vec<Finding>, Failure> {
        let question = Question {
            object: object.clone(),
            measured: measured.to_vec(),
            stream: stream.clone(),
        };
        let output = start(Job::Explain, &question, &object.elf)?;
        alone::<Result<Vec<Finding>, Failure>>(&output)?
    }
}

/// The child's side; never returns to what a command would do next.
pub fn work(job: Job) -> Result<(), Failure> {
    // What it answers decides.
    let given_up = ourselves::stay_in_memory()
        .and_then(|()| sandbox::step_down())
        .and_then(|()| match job {
            Job::Measure => Ok(()),
            Job::Verify | Job::Explain => sandbox::enter(),
        });
    given_up.map_err(|error| Failure::internal(format!("cannot give up privileges: {error}")))?;
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_ANSWER)
        .read_to_end(&mut input)
        .map_err(|error| Failure::internal(format!("standard input: {error}")))?;
    let (head, bytes) = match job {
        Job::Verify => {
            let (order, bundle): (Order, _) = split(&input)?;
            let task = Task {
                bundle,
                scope: order.scope.as_deref(),
                document: &order.document,
                authority: &order.authority,
                now: order.now,
            };
            let result = decision::decide(&task);
            let bytes = result
                .iter()
                .flat_map(|v| &v.objects)
                .flat_map(|o| o.elf.clone())
                .collect();
            (serde_json::to_string(&result), bytes)
        }
        Job::Explain => {
            let (mut question, elf): (Question, _) = split(&input)?;
            question.object.elf = elf.to_vec();
            let findings =
                decision::explain(&question.object, &question.measured, &question.stream);
            (serde_json::to_string(&findings), Vec::new())
        }
        Job::Measure => {
            let ((mut object, kernel), elf): ((Approved, Option<PathBuf>), _) = split(&input)?;
            object.elf = elf.to_vec();
            (
                serde_json::to_string(&decision::measure(&object, kernel.as_deref())),
                Vec::new(),
            )
        }
    };
    let head = head.map_err(|error| Failure::internal(error.to_string()))?;
    let mut output = io::stdout().lock();
    output
        .write_all(format!("{head}\n").as_bytes())
        .and_then(|()| output.write_all(&bytes))
        .and_then(|()| output.flush())
        .and_then(|()| sandbox::answered())
        .map_err(|error| Failure::internal(format!("standard output: {error}")))
}

/// Starts a child, feeds it, and takes what it says if it ends well and in time.
fn start(job: Job, head: &impl Serialize, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut line = serde_json::to_vec(head).map_err(|e| Failure::internal(e.to_string()))?;
    line.push(b'\n');
    let word = match job {
        Job::Verify => "verify",
        Job::Measure => "measure",
        Job::Explain => "explain",
    };
    let started = || -> io::Result<(Child, [UnixStream; 3])> {
        let mut command = ourselves::again(&["worker", word])?;
        let (input, its_input) = UnixStream::pair()?;
        let (output, its_output) = UnixStream::pair()?;
        let (complaints, its_complaints) = UnixStream::pair()?;
        command
            .stdin(OwnedFd::from(its_input))
            .stdout(OwnedFd::from(its_output))
            .stderr(OwnedFd::from(its_complaints));
        // The child's ends are closed here with the command.
        Ok((command.spawn()?, [input, output, complaints]))
    };
    let (mut child, sockets) =
        started().map_err(|error| Failure::internal(format!("cannot start a worker: {error}")))?;
    let (said, complaints) = converse(&mut child, sockets, line, bytes.to_vec());
    let undisturbed = ended_undisturbed(&child);
    let status = child
        .wait()
        .map_err(|error| Failure::internal(format!("a worker: {error}")))?;
    let Some(said) = said else {
        return Err(broken(&format!(
            "it did not answer within {} s",
            PATIENCE.as_secs()
        )));
    };
    if status.success() {
        return match undisturbed {
            Ok(()) => Ok(said),
            Err(error) => Err(Failure::refused(
                Reason::Trace,
                format!("somebody put breakpoints into a worker process: {error}"),
            )),
        };
    }
    let complaint = complaints.lines().next().unwrap_or_default();
    Err(broken(&format!(
        "it ended with {status} {}",
        crate::output::printable(complaint)
    )))
}

/// While nobody has waited for it its number is its own.
fn ended_undisturbed(child: &Child) -> io::Result<()> {
    let pid = Pid::from_child(child);
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    sandbox::must_have_answered(child.id())
}

fn converse(
    child: &mut Child,
    [mut input, output, complaints]: [UnixStream; 3],
    head: Vec<u8>,
    body: Vec<u8>,
) -> (Option<Vec<u8>>, String) {
    thread::spawn(move || {
        // A child that does not read to the end has failed, and its status says so.
        let _ = input
            .write_all(&head)
            .and_then(|()| input.write_all(&body))
            .and_then(|()| input.shutdown(Shutdown::Write));
    });
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = output.take(MAX_ANSWER).read_to_end(&mut said);
        let _ = sender.send(said);
    });
    let complaints = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = complaints.take(4096).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let said = receiver.recv_timeout(PATIENCE).ok();
    if said.is_none() {
        // It may have ended just now; then there is nothing to kill.
        let _ = child.kill();
    }
    (said, complaints.join().unwrap_or_default())
}

/// The JSON line and what is behind it.
fn split<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Failure> {
    let end = bytes
        .iter()
        .position(|&b| b == b'\n')
        .ok_or_else(|| broken("it sent no line"))?;
    let head = serde_json::from_slice(&bytes[..end]).map_err(|e| broken(&e.to_string()))?;
    Ok((head, &bytes[end + 1..]))
}

/// The JSON line, and nothing behind it.
fn alone<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let (head, rest) = split(bytes)?;
    must_be_all(rest)?;
    Ok(head)
}

fn must_be_all(rest: &[u8]) -> Result<(), Failure> {
    match rest {
        [] => Ok(()),
        _ => Err(broken("it sent more than its answer")),
    }
}

fn broken(what: &str) -> Failure {
    Failure::refused(
        Reason::MalformedBundle,
        format!("the worker process failed: {what}"),
    )
    .with_remedy("Nothing was admitted. If the bundle is sound, report this.")
}

/// Emulated machines are slow: a worker takes 0.1 s on a real one.
const PATIENCE: Duration = Duration::from_secs(120);
/// A bundle and a policy, the objects again, or images as JSON numbers, which take four times their bytes.
const MAX_ANSWER: u64 = 1 << 30;
