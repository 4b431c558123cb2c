//! The control socket: one JSON request a line, a bundle's bytes behind it where there is
//! one, one JSON reply a line. Only root speaks to it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    enforcer::ArmRequest, failure::Failure, record::Record, store::MAX_BUNDLE, workshop::Stream,
};

/// What is asked of the enforcer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// Arm, or load another policy.
    Arm(Box<ArmRequest>),
    /// Make a provisional arming final.
    Confirm,
    /// Let a generator work for the time of a permit.
    Enable {
        /// Its name in the policy.
        name: String,
        /// The permit's text.
        permit: Option<String>,
    },
    /// Take the gate away.
    Disarm {
        /// The permit's text.
        permit: Option<String>,
        /// The authority's key, if the state folder lost it.
        authority: Option<String>,
    },
    /// Load the policy in the state folder.
    Reload {
        /// The permit's text.
        permit: Option<String>,
    },
    /// Admit the bundle that follows.
    Admit {
        /// Where it came from.
        scope: Option<String>,
        /// Its bytes.
        length: u64,
    },
    /// Withdraw a bundle.
    Withdraw {
        /// Digest or name.
        what: String,
    },
    /// Compare refused instructions with what is admitted, or with the bundle that follows.
    Explain {
        /// The instructions; `None`: those of the last refused attempt in the log.
        stream: Option<Stream>,
        /// By the program's name.
        program: Option<String>,
        /// Only these bundles: digest or name.
        what: Option<String>,
        /// Bytes of the bundle.
        length: u64,
        /// Let a proven layout load.
        admit: bool,
    },
    /// Measure everything for the kernel whose BTF is in a file.
    Preflight {
        /// The file.
        btf: PathBuf,
    },
    /// Put a revocation list of the authority's in force.
    Revoke {
        /// The signed file.
        list: String,
    },
    /// Put a list of probe programs in force.
    Probes {
        /// The signed file.
        list: String,
    },
    /// Let another build take the place of the enforcer's file.
    Upgrade {
        /// Where it is.
        file: PathBuf,
        /// Also one that can begin with the next boot alone.
        at_boot: bool,
    },
    /// What is in force.
    Status,
    /// Every loaded program.
    Inventory,
    /// What the gate judged.
    Events {
        /// Go on as they come.
        follow: bool,
        /// From then on.
        since: Option<Timestamp>,
    },
    /// Rules for what audit mode saw.
    Suggest,
    /// Prove that the gate bites.
    Selftest,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// What the command has to say.
    Done(Value),
    /// Why it failed.
    Failed(Failure),
    /// A record for one who follows.
    Record(Record),
}

impl From<Result<Value, Failure>> for Reply {
    fn from(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// The folder with the socket and the lock.
#[derive(Clone, Debug)]
pub struct Runtime {
    folder: PathBuf,
}

impl Runtime {
    /// Opens the folder; makes it, for root alone, if it is not there.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| Failure::io("cannot make", folder, error))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Connects to the daemon; `None` where none runs.
    pub fn connect(&self) -> Result<Option<UnixStream>, Failure> {
        match UnixStream::connect(self.socket()) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(Failure::io("cannot connect to", &self.socket(), error)),
            },
        }
    }

    /// Takes the lock that whoever changes the gate holds; waits a while for it.
    pub fn lock(&self, patience: Duration) -> Result<Lock, Failure> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Failure::io("cannot open", &path, error))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { file }),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Failure::usage(format!(
                        "another bpfseal-enforcer holds {}",
                        path.display()
                    ))
                    .with_remedy("Wait for it, or look: `fuser -v` with that path."));
                }
                Err(error) => return Err(Failure::io("cannot lock", &path, error.into())),
            }
        }
    }

    /// Listens, for root alone. The caller holds the lock, so an old socket is nobody's.
    pub fn listen(&self, _lock: &Lock) -> Result<UnixListener, Failure> {
        let path = self.socket();
        let failed = |error| Failure::io("cannot listen on", &path, error);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(listener)
    }
}

/// Held by whoever may change the gate.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing is not enough: a child that is just being started has the file open as well, until
    /// it executes its program.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Sends a request and hands over each reply until the daemon ends the connection, or until
/// `each` has enough.
pub fn ask(
    stream: UnixStream,
    request: &Request,
    body: &[u8],
    mut each: impl FnMut(Reply) -> bool,
) -> Result<(), Failure> {
    let broken = |error: io::Error| {
        Failure::kernel(format!("the daemon broke off: {error}"))
            .with_remedy("The gate stays as it is; look at the daemon's log and try again.")
    };
    let mut line = serde_json::to_string(request).map_err(|e| Failure::internal(e.to_string()))?;
    line.push('\n');
    let mut writer = &stream;
    writer
        .write_all(line.as_bytes())
        .and_then(|()| writer.write_all(body))
        .map_err(broken)?;
    let mut count = 0;
    for line in BufReader::new(&stream).lines() {
        let reply = serde_json::from_str(&line.map_err(broken)?)
            .map_err(|error| Failure::internal(format!("the daemon's reply: {error}")))?;
        count += 1;
        if !each(reply) {
            return Ok(());
        }
    }
    if count == 0 {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

/// Reads a request and the bytes behind it.
pub fn receive(stream: &UnixStream) -> Result<(Request, Vec<u8>), Failure> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let garbled = |error: &dyn std::fmt::Display| Failure::usage(format!("the request: {error}"));
    reader
        .by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)
        .map_err(|e| garbled(&e))?;
    let request: Request = serde_json::from_slice(&line).map_err(|e| garbled(&e))?;
    let mut body = Vec::new();
    if let Request::Admit { length, .. } | Request::Explain { length, .. } = &request {
        if *length > MAX_BUNDLE {
            return Err(garbled(&format!("{length} bytes; at most {MAX_BUNDLE}")));
        }
        reader
            .take(*length)
            .read_to_end(&mut body)
            .map_err(|e| garbled(&e))?;
        if body.len() as u64 != *length {
            return Err(garbled(&format!("{} bytes of {length} came", body.len())));
        }
    }
    Ok((request, body))
}

/// A policy with its signature and the keys in it, JSON-escaped twice.
const MAX_LINE: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_follows_its_request() {
        let (client, server) = UnixStream::pair().unwrap();
        let request = Request::Admit {
            scope: Some("tools/x".to_owned()),
            length: 5,
        };
        let sent = request.clone();
        let asking = std::thread::spawn(move || {
            let mut replies = Vec::new();
            ask(client, &sent, b"bytes", |reply| {
                replies.push(reply);
                true
            })
            .unwrap();
            replies
        });
        assert_eq!(receive(&server).unwrap(), (request, b"bytes".to_vec()));
        let reply = Reply::Done(serde_json::json!({ "mode": "enforce" }));
        writeln!(&server, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
        drop(server);
        assert_eq!(asking.join().unwrap(), [reply]);
    }

    #[test]
    fn rubbish_and_short_bodies_are_refused() {
        for (sent, want) in [
            (
                "nonsense\n",
                "the request: expected ident at line 1 column 2",
            ),
            (
                "{\"command\":\"admit\",\"scope\":null,\"length\":9}\nbytes",
                "the request: 5 bytes of 9 came",
            ),
        ] {
            let (client, server) = UnixStream::pair().unwrap();
            (&client).write_all(sent.as_bytes()).unwrap();
            drop(client);
            assert_eq!(receive(&server).unwrap_err().message, want);
        }
    }

    #[test]
    fn a_lock_ends_though_a_child_that_is_being_started_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(folder.path()).unwrap();
        let lock = runtime.lock(Duration::ZERO).unwrap();
        let _of_a_child = lock.file.try_clone().unwrap();
        drop(lock);
        runtime.lock(Duration::ZERO).unwrap();
    }

    #[test]
    fn only_one_holds_the_lock_and_only_root_reads_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(&folder.path().join("run")).unwrap();
        assert!(runtime.connect().unwrap().is_none());
        let lock = runtime.lock(Duration::ZERO).unwrap();
        assert_eq!(runtime.lock(Duration::ZERO).unwrap_err().exit as u8, 2);
        let _listener = runtime.listen(&lock).unwrap();
        let mode = fs::metadata(runtime.socket()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(runtime.connect().unwrap().is_some());
    }
}
