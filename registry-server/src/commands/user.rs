//! `bpfseal-registry user`.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use command::Output;

use crate::{
    access::{hash, read_users, valid_name},
    failure::{Exit, Failure},
};

/// Add, remove and list the users of an htpasswd file.
///
/// A serving registry sees the change within a second; tokens of a removed user, or of an
/// old password, are worth nothing from then on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal-registry user add --htpasswd users alice
  printf %s \"$PASSWORD\" | bpfseal-registry user add --htpasswd users ci --password-stdin
  bpfseal-registry user remove --htpasswd users alice
  bpfseal-registry user list --htpasswd users")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Add a user, or give one a new password.
    Add {
        #[command(flatten)]
        file: File,
        /// Letters, digits and . _ - @ +
        name: String,
        /// Read the password from standard input instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a user.
    Remove {
        #[command(flatten)]
        file: File,
        /// Whom.
        name: String,
    },
    /// Check a user's password: exit code 1 if it is another.
    Check {
        #[command(flatten)]
        file: File,
        /// Whose.
        name: String,
        /// Read the password from standard input instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Print the names.
    List {
        #[command(flatten)]
        file: File,
    },
}

#[derive(clap::Args)]
struct File {
    /// The file, created if it does not exist.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "users.htpasswd",
        env = "BPFSEAL_REGISTRY_HTPASSWD"
    )]
    htpasswd: PathBuf,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.what {
        What::Add {
            file,
            name,
            password_stdin,
        } => add(&file.htpasswd, name, *password_stdin, output),
        What::Remove { file, name } => remove(&file.htpasswd, name, output),
        What::Check {
            file,
            name,
            password_stdin,
        } => check(&file.htpasswd, name, *password_stdin),
        What::List { file } => list(&file.htpasswd, output),
    }
}

fn add(path: &Path, name: &str, stdin: bool, output: &Output) -> Result<(), Failure> {
    if !valid_name(name) {
        let message = format!("{name:?} cannot be a user's name");
        return Err(Failure::new(Exit::Usage, message).with_remedy(
            "Use letters, digits and . _ - @ + (but not anonymous, authenticated, oidc).",
        ));
    }
    let mut users = if path.exists() {
        users(path)?
    } else {
        BTreeMap::new()
    };
    let hash = hash(&password(name, stdin, true)?).map_err(|message| {
        Failure::new(Exit::Usage, message).with_remedy("Choose another password.")
    })?;
    let event = match users.insert(name.to_owned(), hash) {
        None => "added",
        Some(_) => "changed",
    };
    write(path, &users)?;
    done(name, event, output);
    Ok(())
}

fn remove(path: &Path, name: &str, output: &Output) -> Result<(), Failure> {
    let mut users = users(path)?;
    if users.remove(name).is_none() {
        return Err(unknown(name));
    }
    write(path, &users)?;
    done(name, "removed", output);
    Ok(())
}

fn check(path: &Path, name: &str, stdin: bool) -> Result<(), Failure> {
    let users = users(path)?;
    let hash = users.get(name).ok_or_else(|| unknown(name))?;
    match bcrypt::verify(password(name, stdin, false)?, hash) {
        Ok(true) => Ok(()),
        _ => Err(Failure::new(
            Exit::Refused,
            format!("that is not {name}'s password"),
        )),
    }
}

fn list(path: &Path, output: &Output) -> Result<(), Failure> {
    let users = users(path)?;
    let names: Vec<&String> = users.keys().collect();
    output.result(&serde_json::json!({ "users": names }), || {
        names.iter().map(|name| format!("{name}\n")).collect()
    });
    Ok(())
}

fn users(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    read_users(path).map_err(|error| {
        Failure::from_error(Exit::Usage, &error).with_remedy("Name the file with --htpasswd.")
    })
}

fn password(name: &str, stdin: bool, twice: bool) -> Result<String, Failure> {
    let unreadable = |error: io::Error| Failure::from_error(Exit::Usage, &error);
    if stdin {
        let mut line = String::new();
        io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(unreadable)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !io::stdin().is_terminal() {
        let message = "there is no terminal to ask for a password";
        return Err(Failure::new(Exit::Usage, message).with_remedy("Use --password-stdin."));
    }
    let ask = |prompt: String| rpassword::prompt_password(prompt).map_err(unreadable);
    let password = ask(format!("Password of {name}: "))?;
    if twice && ask("Again: ".to_owned())? != password {
        return Err(Failure::new(Exit::Usage, "the passwords differ"));
    }
    Ok(password)
}

/// Replaces the file in one step: a serving registry reads the old one or the new one.
fn write(path: &Path, users: &BTreeMap<String, String>) -> Result<(), Failure> {
    let text: String = users
        .iter()
        .map(|(name, hash)| format!("{name}:{hash}\n"))
        .collect();
    let write = || -> io::Result<()> {
        let beside = path.with_added_extension("new");
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside);
        let mut file = file?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if let Ok(before) = fs::metadata(path) {
            fs::set_permissions(&beside, before.permissions())?;
        }
        fs::rename(&beside, path)
    };
    write().map_err(|error| {
        let message = format!("cannot write {}: {error}", path.display());
        Failure::new(Exit::Usage, message).with_remedy("Name the file with --htpasswd.")
    })
}

fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no user {name}"))
}

fn done(name: &str, event: &str, output: &Output) {
    let done = serde_json::json!({ "event": event, "user": name });
    output.result(&done, || format!("{event} {name}"));
}
