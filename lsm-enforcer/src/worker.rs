//! Child processes for bytes that somebody else made: this same executable, started again.
//!
//! Parent and child speak over pipes: one JSON line, then raw bytes, in both directions.
//! A child that crashes, hangs or prints rubbish refuses its bundle and nothing else.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use jiff::Timestamp;
use policy::Reason;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    decision,
    failure::Failure,
    sandbox,
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
        Ok(verdict)
    }

    fn measure(&self, object: &Approved) -> Result<Vec<Measured>, Failure> {
        let kernel: Option<&Path> = None;
        let output = start(Job::Measure, &(object, kernel), &object.elf)?;
        split::<Result<Vec<Measured>, Failure>>(&output)?.0
    }

    fn measure_for(&self, object: &Approved, kernel: &Path) -> Result<Vec<Measured>, Failure> {
        let output = start(Job::Measure, &(object, Some(kernel)), &object.elf)?;
        split::<Result<Vec<Measured>, Failure>>(&output)?.0
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
        split::<Result<Vec<Finding>, Failure>>(&output)?.0
    }
}

/// The child's side; never returns to what a command would do next.
pub fn work(job: Job) -> Result<(), Failure> {
    if job != Job::Measure {
        sandbox::enter()
            .map_err(|error| Failure::internal(format!("cannot give up privileges: {error}")))?;
    }
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
    // Not by path: whoever replaces the file must not choose what runs as a part of us.
    let mut child = Command::new("/proc/self/exe")
        .args(["worker", word])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::internal(format!("cannot start a worker: {error}")))?;
    let (said, complaints) = converse(&mut child, line, bytes.to_vec());
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
        return Ok(said);
    }
    let complaint = complaints.lines().next().unwrap_or_default();
    Err(broken(&format!(
        "it ended with {status} {}",
        crate::output::printable(complaint)
    )))
}

fn converse(child: &mut Child, head: Vec<u8>, body: Vec<u8>) -> (Option<Vec<u8>>, String) {
    if let Some(mut input) = child.stdin.take() {
        thread::spawn(move || {
            // A child that does not read to the end has failed, and its status says so.
            let _ = input.write_all(&head).and_then(|()| input.write_all(&body));
        });
    }
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(MAX_ANSWER).read_to_end(&mut said);
        }
        let _ = sender.send(said);
    });
    let complaints = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(4096).read_to_end(&mut text);
        }
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
