//! `bpfseal login`.

use std::io::{IsTerminal as _, Read as _};

use serde::Serialize;

use crate::{
    Failure, Output,
    reference::Host,
    registry::{Client, Connection, Progress, Secret},
};

/// Check a password with a registry and remember it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal login registry.example.com --username alice
  printf %s \"$TOKEN\" | bpfseal login registry.example.com -u ci --password-stdin

It is kept where docker, oras and skopeo look: $REGISTRY_AUTH_FILE if set, else
$DOCKER_CONFIG/config.json or ~/.docker/config.json, or the credential helper named there.")]
pub struct Args {
    /// host[:port]
    registry: String,
    /// The account.
    #[arg(short, long)]
    username: String,
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Done {
    registry: String,
    username: String,
    stored: String,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let host = host(&args.registry)?;
    let password = read_password(args)?;
    let client = Client::new(&args.connection, Progress::hidden())?;
    let stored = client.login(&host, &args.username, &password)?;
    let done = Done {
        registry: host.to_string(),
        username: args.username.clone(),
        stored,
    };
    output.result(&done, || {
        format!(
            "logged in to {} as {}, remembered in {}",
            done.registry, done.username, done.stored
        )
    });
    Ok(())
}

/// A registry's name on the command line.
pub fn host(text: &str) -> Result<Host, Failure> {
    text.parse().map_err(|error| {
        Failure::usage(format!("{error}")).with_remedy("Write it as in references: host[:port].")
    })
}

fn read_password(args: &Args) -> Result<Secret, Failure> {
    let failed =
        |error: std::io::Error| Failure::usage(format!("cannot read the password: {error}"));
    if args.password_stdin {
        let mut text = zeroize::Zeroizing::new(String::new());
        std::io::stdin()
            .take(LONGEST_PASSWORD)
            .read_to_string(&mut text)
            .map_err(failed)?;
        return Ok(Secret::new(text.trim_end_matches(['\r', '\n'])));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for a password")
            .with_remedy("Give it on standard input with `--password-stdin`."));
    }
    let prompt = format!("Password of {} on {}: ", args.username, args.registry);
    rpassword::prompt_password(prompt)
        .map(Secret::new)
        .map_err(failed)
}

/// Tokens of clouds are a few kilobytes.
const LONGEST_PASSWORD: u64 = 64 << 10;
