//! One file per subcommand; each has an `Args` and a `run`.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use enforcer::{
    control::{Reply, Request, Runtime, ask},
    enforcer::Enforcer,
    failure::Failure,
    kernel,
    output::Output,
    perform::perform_alone,
    store::Store,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

mod admit;
mod arm;
mod completions;
mod confirm;
mod disarm;
mod enable;
mod events;
mod explain;
mod inventory;
mod load;
mod man;
mod preflight;
mod probes;
mod reload;
mod revoke;
mod run;
mod selftest;
mod status;
mod suggest;
mod trial;
mod upgrade;
mod withdraw;
mod worker;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Verify a bundle, measure it for this kernel and let its programs load.
    Admit(admit::Args),
    /// Arm the gate, load another policy, or confirm a provisional arming.
    Arm(arm::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Take the gate away; needs a permit of the authority.
    Disarm(disarm::Args),
    /// Let a generator of the policy load programs for the time of a permit.
    Enable(enable::Args),
    /// Print what the gate judged.
    Events(events::Args),
    /// Say in words how a refused program differs from what is admitted.
    Explain(explain::Args),
    /// List every BPF program in the kernel and where it came from.
    Inventory(inventory::Args),
    /// Admit a bundle and load it by its loaders, which the kernel checks itself.
    Load(load::Args),
    /// Write the manual pages into a folder.
    Man(man::Args),
    /// Say what would load on a kernel that is about to be booted.
    Preflight(preflight::Args),
    /// Put a signed list of loaders' probe programs in force.
    Probes(probes::Args),
    /// Load the policy that is in the state folder and decide everything anew.
    Reload(reload::Args),
    /// Put a signed revocation list in force, for what loads and for what is loaded.
    Revoke(revoke::Args),
    /// Run the daemon.
    Run(run::Args),
    /// Prove that the gate refuses what it must and passes what it must.
    Selftest(selftest::Args),
    /// Say what is in force, as measured now.
    Status(status::Args),
    /// Print rules and a list of what to sign, from what audit mode saw.
    Suggest(suggest::Args),
    /// Put the next build of the enforcer in the place of its file; the gate stays.
    Upgrade(upgrade::Args),
    /// Stop admitting a bundle; what it loaded stays loaded.
    Withdraw(withdraw::Args),
    /// What the daemon starts for bytes that somebody else made.
    #[command(hide = true)]
    Worker(worker::Args),
    /// What the first process of a virtual machine does that tries programs.
    #[command(hide = true)]
    TryPrograms(trial::Args),
    /// Waits for a provisional arming's deadline where no daemon runs.
    #[command(hide = true)]
    AwaitConfirmation(confirm::Args),
}

/// Where the state and the socket are.
#[derive(clap::Args)]
pub struct Places {
    /// The state folder.
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        default_value = "/var/lib/bpfseal"
    )]
    pub state: PathBuf,
    /// The folder with the control socket and the lock.
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        default_value = "/run/bpfseal"
    )]
    pub runtime: PathBuf,
}

impl Places {
    /// The daemon changes its working directory.
    fn absolute(&self) -> Result<Self, Failure> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| Failure::io("cannot use", path, error))
        };
        Ok(Self {
            state: absolute(&self.state)?,
            runtime: absolute(&self.runtime)?,
        })
    }
}

impl Command {
    /// Runs the command; the text or JSON it prints goes through `output`.
    pub fn run(self, places: &Places, output: &Output) -> Result<(), Failure> {
        let places = &places.absolute()?;
        match self {
            Self::Admit(args) => admit::run(&args, places, output),
            Self::Arm(args) => arm::run(&args, places, output),
            Self::AwaitConfirmation(args) => confirm::run(&args, places),
            Self::Completions(args) => completions::run(&args),
            Self::Disarm(args) => disarm::run(&args, places, output),
            Self::Enable(args) => enable::run(&args, places, output),
            Self::Events(args) => events::run(&args, places, output),
            Self::Explain(args) => explain::run(&args, places, output),
            Self::Inventory(args) => inventory::run(&args, places, output),
            Self::Load(args) => load::run(&args, places, output),
            Self::Man(args) => man::run(&args),
            Self::Preflight(args) => preflight::run(&args, places, output),
            Self::Probes(args) => probes::run(&args, places, output),
            Self::Reload(args) => reload::run(&args, places, output),
            Self::Revoke(args) => revoke::run(&args, places, output),
            Self::Run(args) => run::run(&args, places),
            Self::Selftest(args) => selftest::run(&args, places, output),
            Self::Status(args) => status::run(&args, places, output),
            Self::Suggest(args) => suggest::run(&args, places, output),
            Self::TryPrograms(args) => trial::run(&args),
            Self::Upgrade(args) => upgrade::run(&args, places, output),
            Self::Withdraw(args) => withdraw::run(&args, places, output),
            Self::Worker(args) => worker::run(&args),
        }
    }
}

impl Places {
    /// Has `request` performed: by the daemon, or right here where none runs.
    pub fn perform<T: DeserializeOwned>(
        &self,
        request: Request,
        body: &[u8],
    ) -> Result<T, Failure> {
        must_be_root()?;
        let value = match self.daemon()? {
            Some(stream) => {
                let mut answer = None;
                ask(stream, &request, body, |reply| {
                    answer = Some(reply);
                    false
                })?;
                match answer {
                    Some(Reply::Done(value)) => value,
                    Some(Reply::Failed(failure)) => return Err(failure),
                    Some(Reply::Record(_)) | None => Value::Null,
                }
            }
            None => {
                let runtime = Runtime::open(&self.runtime)?;
                let arms = matches!(request, Request::Arm(_));
                let open = || match arms {
                    true => self.enforcer_that_arms(),
                    false => self.enforcer(),
                };
                perform_alone(&runtime, request, body, open)?
            }
        };
        serde_json::from_value(value).map_err(|error| Failure::internal(error.to_string()))
    }

    /// The same for whoever may arm the gate. What was left of one has been cleared away by then.
    pub fn enforcer_that_arms(&self) -> Result<Enforcer, Failure> {
        let enforcer = self.enforcer()?;
        kernel::shield::begin();
        Ok(enforcer)
    }

    /// Opens the state folder and the gate. The caller holds the lock.
    pub fn enforcer(&self) -> Result<Enforcer, Failure> {
        let store = Store::open(&self.state)
            .map_err(|error| Failure::io("cannot open", &self.state, error))?;
        Enforcer::open(store, enforcer::tools::real()?)
    }

    /// Connects to the daemon; `None` where none runs.
    ///
    /// # Errors
    ///
    /// Somebody else listens in its place, who could say that all is well.
    fn daemon(&self) -> Result<Option<UnixStream>, Failure> {
        let Some(stream) = Runtime::open(&self.runtime)?.connect()? else {
            return Ok(None);
        };
        match kernel::stranger(&stream)? {
            None => Ok(Some(stream)),
            Some(pid) => Err(Failure::kernel(stranger(pid)).with_remedy(
                "Somebody answers in its place: believe nothing that it said, end it, and restart the daemon.",
            )),
        }
    }
}

fn stranger(pid: u32) -> String {
    format!("process {pid} listens on the control socket and is not the daemon")
}

/// The gate is the kernel's; only root may ask it anything.
pub fn must_be_root() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::kernel("only root commands the gate").with_remedy("Run it with sudo."))
}

/// Reads a text file that the command line names.
fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = enforcer::store::read_file(path, MAX_TEXT)
        .map_err(|error| Failure::io("cannot read", path, error))?;
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is not text", path.display())))
}

/// A signed list that is to be put in force.
#[derive(clap::Args)]
struct ListArgs {
    /// The signed list.
    #[arg(value_name = "LIST")]
    list: PathBuf,
}

impl ListArgs {
    /// Puts it in force by the request that it makes.
    fn perform<T: DeserializeOwned>(
        &self,
        places: &Places,
        request: impl Fn(String) -> Request,
    ) -> Result<T, Failure> {
        must_be_root()?;
        let list = read_text(&self.list)?;
        places.perform(request(list), &[])
    }
}

/// A permit as its text, or as a file that holds it.
fn read_permit(argument: Option<&str>) -> Result<Option<String>, Failure> {
    argument
        .map(|argument| {
            if argument.to_ascii_lowercase().starts_with("bpfseal-permit-") {
                Ok(argument.to_owned())
            } else {
                read_text(Path::new(argument))
            }
        })
        .transpose()
}

/// `90s`, `10m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("want a time as in 90s, 10m or 2h; got {text:?}");
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let (number, seconds) = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds) if (1..=7 * 86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("want a time between 1s and 168h; got {text:?}")),
    }
}

const MAX_TEXT: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for text in [
            "",
            "10",
            "m",
            "0s",
            "-1s",
            "1d",
            "999999999999999999h",
            "10µ",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
