//! `bpfseal trust update`.

use std::collections::BTreeMap;

use bundle::Digest;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Failure, Output,
    failure::Exit,
    signing::http::Http,
    trust::{
        refresh,
        store::{Instance, Store},
    },
};

/// Fetch what changed since; what cannot be proved to be newer changes nothing.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal trust update
  bpfseal trust update acme --json

Run it from a timer. Verification never waits for it and never asks the network: it goes by
what is stored. An instance that is refused or out of reach keeps what it has, and the others
are updated all the same.")]
pub struct Args {
    /// Which; else all that are stored.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// An instance that is up to date, as `--json` shows it.
#[derive(Serialize)]
pub struct Done {
    name: String,
    mirror: String,
    changed: bool,
    trusted_root: Digest,
    versions: BTreeMap<String, u64>,
    fresh_until: Timestamp,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let store = Store::writable()?;
    let names = match args.names.is_empty() {
        true => store.names()?,
        false => args.names.clone(),
    };
    if names.is_empty() {
        return Err(Failure::not_found("no trusted root is stored")
            .with_remedy("`bpfseal trust init` stores the public-good instance's."));
    }
    let (http, _lock) = (Http::new(), store.lock()?);
    let mut done = Vec::new();
    let mut failed: Vec<Failure> = Vec::new();
    for name in &names {
        match update(&store, name, &http) {
            Ok(one) => done.push(one),
            Err(failure) => failed.push(failure),
        }
    }
    let Some(mut failure) = worst(failed) else {
        output.result(&done, || {
            let text: String = done.iter().map(Done::describe).collect();
            crate::output::printable_lines(&text)
        });
        return Ok(());
    };
    let updated = done.iter().flat_map(|one| {
        let text = one.describe();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    failure.details.extend(updated);
    Err(failure)
}

fn update(store: &Store, name: &str, http: &Http) -> Result<Done, Failure> {
    let old = store.get(name)?;
    let new = refresh::refresh(name, &old, http, Timestamp::now())?;
    store.put(name, &new)?;
    Ok(Done::of(name, &old, &new))
}

/// One failure that stands for all: a refusal before an outage, the others as details.
fn worst(mut failed: Vec<Failure>) -> Option<Failure> {
    failed.sort_by_key(|failure| failure.exit != Exit::Refused);
    let mut all = failed.into_iter();
    let mut first = all.next()?;
    first.details.extend(all.map(|failure| failure.message));
    Some(first)
}

impl Done {
    /// What became of `old`.
    pub fn of(name: &str, old: &Instance, new: &Instance) -> Self {
        Self {
            name: name.to_owned(),
            mirror: new.mirror.clone(),
            changed: (&old.trusted_root, &old.signing_config)
                != (&new.trusted_root, &new.signing_config),
            trusted_root: Digest::of(new.trusted_root.as_bytes()),
            versions: new.versions.clone(),
            fresh_until: new.fresh_until,
        }
    }

    /// For people.
    pub fn describe(&self) -> String {
        let what = if self.changed {
            "is new"
        } else {
            "has not changed"
        };
        format!(
            "{}: the trusted root {what}: {}\n  mirror       {}\n  versions     {}\n  \
             fresh until  {}\n",
            self.name,
            self.trusted_root,
            self.mirror,
            versions(&self.versions),
            self.fresh_until
        )
    }
}

/// `root 3, timestamp 7`.
pub fn versions(of: &BTreeMap<String, u64>) -> String {
    let all: Vec<String> = of.iter().map(|(role, n)| format!("{role} {n}")).collect();
    all.join(", ")
}
