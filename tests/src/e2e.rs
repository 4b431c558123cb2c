//! Our programs as a user runs them: in a folder of their own, against a registry that
//! listens on a free port of this machine and ends with the test.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{fixtures, lab};

/// A folder that goes away at the end, which is also `$HOME` for what runs in it.
#[derive(Debug)]
pub struct Workshop {
    folder: TempDir,
}

/// What a program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Workshop {
    /// An empty one.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("there is room for a temporary folder");
        Self { folder }
    }

    /// One with the object `x.bpf.o` and keys `a` and `b` that are not encrypted.
    pub fn with_keys(algorithm: &str) -> Self {
        let workshop = Self::new();
        let object = fs::read(fixtures::object("drop_port")).expect("the fixture was built");
        workshop.write("x.bpf.o", object);
        for key in ["a", "b"] {
            workshop.bpfseal_done(&format!(
                "keygen -o {key} --algorithm {algorithm} --no-passphrase"
            ));
        }
        workshop
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and names it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the folder can be written to");
        path
    }

    /// Runs a program in the folder with nothing on standard input.
    pub fn run<A: AsRef<OsStr>>(&self, program: &Path, args: impl IntoIterator<Item = A>) -> Said {
        self.run_with(program, args, &[])
    }

    /// As [`Workshop::run`], with more environment variables.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        variables: &[(&str, &str)],
    ) -> Said {
        let output = Command::new(program)
            .args(args)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        Said::from(output)
    }

    /// Runs `bpfseal` with words that have no spaces in them.
    pub fn bpfseal(&self, words: &str) -> Said {
        self.run(&program("bpfseal"), words.split_whitespace())
    }

    /// Runs `bpfseal … --json`, which has to succeed.
    pub fn bpfseal_done(&self, words: &str) -> Value {
        let said = self.bpfseal(&format!("{words} --json"));
        assert_eq!(said.code, 0, "{words}: {}{}", said.out, said.err);
        serde_json::from_str(&said.out).expect("`--json` prints JSON")
    }

    /// Exit code and reason of a `bpfseal` that has to fail.
    pub fn bpfseal_refusal(&self, words: &str) -> (i32, Value) {
        let said = self.bpfseal(&format!("{words} --json"));
        let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
        (said.code, document["error"]["reason"].clone())
    }

    /// Runs a program that has to end with 0, and hands over its standard output.
    pub fn done<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> String {
        let said = self.run(program, args);
        assert_eq!(
            said.code,
            0,
            "{}: {}{}",
            program.display(),
            said.out,
            said.err
        );
        said.out
    }
}

impl Default for Workshop {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A running `bpfseal-registry serve` with a folder of its own.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    _folder: TempDir,
}

impl Registry {
    /// Starts one, and waits until it says that it listens.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("there is room for a temporary folder");
        let mut server = Command::new(program("bpfseal-registry"))
            .args(["serve", "--listen", "127.0.0.1:0", "--root"])
            .arg(folder.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bpfseal-registry starts");
        let mut line = String::new();
        let out = server.stdout.take().expect("standard output is a pipe");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("bpfseal-registry says something");
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .unwrap_or_else(|| panic!("bpfseal-registry said {line:?}"))
            .to_owned();
        Self {
            server,
            address,
            _folder: folder,
        }
    }

    /// A reference in it.
    pub fn reference(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has then noticed.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// One of our programs, as `make build` left it; `BPFSEAL_PROGRAMS` names another folder, for
/// programs that were packaged.
pub fn program(name: &str) -> PathBuf {
    let folder = env::var_os("BPFSEAL_PROGRAMS")
        .map_or_else(|| lab::target().join("release"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make build`",
        path.display()
    );
    path
}

/// Waits until somebody else's server takes connections, for at most 20 s. Ours say so in a
/// line; docker-registry says it at a level at which it also logs every request.
pub fn wait_until_listening(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = TcpStream::connect(address) {
        assert!(Instant::now() < deadline, "{address}: {error}");
        thread::yield_now();
    }
}

/// A tool of Debian, fetched if it is not there.
pub fn tool(name: &str) -> PathBuf {
    let path = lab::Cache::open().program(name, name);
    path.unwrap_or_else(|error| panic!("{error}"))
}
