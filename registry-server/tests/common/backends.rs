//! PostgreSQL and an S3-compatible store, started by the test and gone with it.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{Client, eventually};

/// Runs a command until standard input ends, which it also does when the test dies; then
/// runs `$after`. SIGQUIT stops PostgreSQL at once; a shell's background processes start with
/// it ignored, so the others need SIGTERM.
const SUPERVISOR: &str = r#"after=$1; shift; "$@" & pid=$!; cat >/dev/null; kill -QUIT $pid; kill -TERM $pid; wait $pid; eval "$after""#;

/// A process that ends with the test.
struct Supervised(Child);

impl Supervised {
    fn start(after: &str, command: &[&str], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SUPERVISOR, "supervisor", after])
            .args(command);
        shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap());
        Self(shell.stderr(log).spawn().unwrap())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A database server of its own.
pub struct Postgres {
    server: Option<Supervised>,
    /// What becomes of its folder when it ends.
    after: String,
    folder: PathBuf,
    port: u16,
}

impl Postgres {
    /// A new one with one database.
    pub fn start() -> Self {
        Self::new(false)
    }

    fn new(forever: bool) -> Self {
        let installed = cached("postgresql").join("root");
        let folder = tempfile::Builder::new()
            .prefix("bpfseal-postgres-")
            .tempdir();
        let folder = folder.unwrap().keep();
        // It refuses to run as root, and nobody else can read root's cache.
        run(Command::new("chmod").arg("755").arg(&folder));
        for part in ["usr/lib", "usr/share/postgresql"] {
            let to = folder.join(part);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            run(Command::new("cp")
                .arg("-r")
                .arg(installed.join(part))
                .arg(to));
        }
        std::fs::create_dir(folder.join("data")).unwrap();
        if is_root() {
            run(Command::new("chown").arg("nobody").arg(folder.join("data")));
        }
        let mut this = Self {
            server: None,
            after: String::new(),
            port: free_port(),
            folder,
        };
        if forever {
            this.after = format!("rm -rf '{}'", this.folder.display());
        }
        let init = this.command("initdb");
        let arguments = [
            "--no-locale",
            "-E",
            "UTF8",
            "-U",
            "test",
            "-A",
            "trust",
            "--no-sync",
        ];
        run(Command::new(&init[0])
            .args(&init[1..])
            .args(arguments)
            .arg("-D")
            .arg(this.data()));
        this.up();
        this
    }

    /// For everybody in this test program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(true))
    }

    /// Makes a database and returns its URL.
    pub fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://test@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs a statement.
    pub fn execute(&self, database: &str, sql: &str) {
        try_execute(&self.url(database), sql).unwrap();
    }

    /// Starts it, and waits until it answers.
    pub fn up(&mut self) {
        let port = self.port.to_string();
        let mut command = self.command("postgres");
        let data = self.data().display().to_string();
        // Durability is PostgreSQL's own matter; flushing would only slow the test down.
        command.extend(
            ["-D", &data, "-p", &port, "-h", "127.0.0.1", "-k", "", "-F"].map(String::from),
        );
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.server = Some(Supervised::start(
            &self.after,
            &command,
            &self.folder.join("log"),
        ));
        let url = self.url("postgres");
        eventually(|| try_execute(&url, "SELECT 1").is_ok());
    }

    /// Stops it at once, as a crash would.
    pub fn down(&mut self) {
        self.server = None;
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Runs one of PostgreSQL's client programs.
    pub fn client(program: &str, arguments: &[&str]) {
        let root = cached("postgresql-client").join("root/usr/lib");
        let mut command = Command::new(root.join("postgresql/15/bin").join(program));
        let libraries = root.join("x86_64-linux-gnu");
        run(command.env("LD_LIBRARY_PATH", libraries).args(arguments));
    }

    fn command(&self, program: &str) -> Vec<String> {
        let usr = self.folder.join("usr");
        let libraries = usr.join("lib/x86_64-linux-gnu").display().to_string();
        let program = usr.join("lib/postgresql/15/bin").join(program);
        let mut command = Vec::new();
        if is_root() {
            let nobody = [
                "setpriv",
                "--reuid",
                "nobody",
                "--regid",
                "nogroup",
                "--clear-groups",
            ];
            command.extend(nobody.map(String::from));
        }
        command.extend(["env".to_owned(), format!("LD_LIBRARY_PATH={libraries}")]);
        command.push(program.display().to_string());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.server = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn try_execute(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    use sqlx::Connection as _;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::postgres::PgConnection::connect(url).await?;
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await?;
        connection.close().await
    })
}

/// Looks whether an object exists and then writes it, in threads that take turns every 5 ms: on
/// a busy machine two writers could both be told that they were first. Turns of a minute make
/// each request one step.
const MOTO: &str = "import sys; sys.setswitchinterval(60); from moto.server import main; main()";

/// An S3-compatible store in memory whose conditional writes are atomic.
pub struct Moto {
    _server: Supervised,
    pub port: u16,
}

impl Moto {
    /// For everybody in this test program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(|| {
            let program = cached("moto").join("bin/python3").display().to_string();
            let port = free_port();
            let text = port.to_string();
            let log = std::env::temp_dir().join(format!("bpfseal-moto-{port}.log"));
            let command = [&*program, "-c", MOTO, "-H", "127.0.0.1", "-p", &*text];
            let after = format!("rm -f '{}'", log.display());
            let server = Supervised::start(&after, &command, &log);
            eventually(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
            Moto {
                _server: server,
                port,
            }
        })
    }

    /// Makes a bucket and returns its URL.
    pub fn bucket(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bucket{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut client = Client::connect(([127, 0, 0, 1], self.port).into());
        assert_eq!(client.send(&format!("PUT /{name}"), &[], b"").status, 200);
        format!("s3://{name}/some/prefix")
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// What `tests/lab/fetch.sh` keeps for the tests.
pub fn cached(tool: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/fetch.sh");
    let fetched = Command::new(script).arg(tool).output().unwrap();
    assert!(
        fetched.status.success(),
        "{}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("bpfseal/tools").join(tool)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let _ = std::io::stderr().write_all(&output.stderr);
    assert!(output.status.success(), "{command:?}");
}
