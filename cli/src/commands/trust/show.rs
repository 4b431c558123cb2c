//! `bpfseal trust show`.

use std::{collections::BTreeMap, path::PathBuf};

use bundle::Digest;
use jiff::Timestamp;
use policy::{
    Refusal,
    anchor::{self, Anchor},
    sigstore::{Counts, EMBEDDED_SINCE, TrustRoot},
};
use serde::Serialize;

use super::update::versions;
use crate::{
    Failure, Output, files,
    trust::{Place, RootArgs, store::Store},
};

/// Show a trusted root: the one in use, a stored one, or that of a file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal trust show
  bpfseal trust show acme --json
  bpfseal trust show acme --export acme_root.json      # for a policy's [keyless.NAME]
  bpfseal trust show --trusted-root trusted_root.json

Without a name, the root that keyless signatures are checked against if nothing else is
said: the public-good instance's, stored or embedded, whichever is newer.")]
pub struct Args {
    /// The name under which it is stored.
    #[arg(value_name = "NAME", conflicts_with = "trusted_root")]
    name: Option<String>,
    /// A `trusted_root.json`.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Write the `trusted_root.json` there too.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

/// A trusted root, as `--json` shows it.
#[derive(Serialize)]
struct Done {
    digest: Digest,
    /// The file it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// Day of the embedded root.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedded_since: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Stored>,
    #[serde(flatten)]
    counts: Counts,
    anchors: Vec<Anchor>,
    /// The names for `--trust`.
    names: Vec<String>,
}

/// What is known of a stored root besides.
#[derive(Serialize)]
struct Stored {
    name: String,
    mirror: String,
    fetched: Timestamp,
    fresh_until: Timestamp,
    is_fresh: bool,
    versions: BTreeMap<String, u64>,
    signs: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let place = RootArgs {
        trusted_root: args.trusted_root.clone(),
        trust_name: args.name.clone(),
    }
    .place()?;
    let json = place.json()?;
    let failed = |refusal: Refusal| Failure::refused(refusal.reason, format!("{place}: {refusal}"));
    let root = TrustRoot::from_json(json.as_bytes()).map_err(failed)?;
    let anchors = anchor::anchors(json.as_bytes()).map_err(failed)?;
    if let Some(path) = &args.export {
        files::replace(path, json.as_bytes())?;
    }
    let done = Done {
        digest: root.digest(),
        file: args.trusted_root.clone(),
        embedded_since: matches!(place, Place::Embedded).then_some(EMBEDDED_SINCE),
        stored: Stored::of(place),
        counts: root.counts(),
        anchors,
        names: match Store::of_user() {
            Some(store) => store.names()?,
            None => Vec::new(),
        },
    };
    output.result(&done, || crate::output::printable_lines(&done.describe()));
    Ok(())
}

impl Stored {
    fn of(place: Place) -> Option<Self> {
        let Place::Stored(name, instance) = place else {
            return None;
        };
        Some(Self {
            name,
            fetched: instance.fetched,
            fresh_until: instance.fresh_until,
            is_fresh: Timestamp::now() <= instance.fresh_until,
            signs: instance.signing_config.is_some(),
            mirror: instance.mirror,
            versions: instance.versions,
        })
    }
}

impl Done {
    fn describe(&self) -> String {
        let mut text = format!("trusted root {}\n", self.digest);
        let mut line = |what: &str, value: &dyn std::fmt::Display| {
            text += &format!("  {what:12} {value}\n");
        };
        match (&self.stored, &self.file) {
            (Some(stored), _) => {
                line("stored as", &stored.name);
                line("mirror", &stored.mirror);
                line("fetched", &stored.fetched);
                line("fresh until", &stored.freshness());
                line("versions", &versions(&stored.versions));
            }
            (None, Some(file)) => line("file", &file.display()),
            (None, None) => {
                let since = self.embedded_since.unwrap_or_default();
                line("embedded", &format!("{since}, the public-good instance's"));
            }
        }
        for anchor in &self.anchors {
            text += &describe(anchor);
        }
        if !self.names.is_empty() {
            text += &format!("stored: {}\n", self.names.join(", "));
        }
        text
    }
}

impl Stored {
    fn freshness(&self) -> String {
        match self.is_fresh {
            true => self.fresh_until.to_string(),
            false => format!(
                "{}: over; it still counts, `bpfseal trust update {}`",
                self.fresh_until, self.name
            ),
        }
    }
}

/// Two lines for each: where, whose and until when; which key.
fn describe(anchor: &Anchor) -> String {
    let until = anchor.until.as_deref().unwrap_or("further notice");
    let mut text = format!("{:21}  {}\n", anchor.kind, anchor.url);
    if let Some(subject) = &anchor.subject {
        text += &format!("  subject  {subject}\n");
    }
    match &anchor.key {
        Some(key) => text += &format!("  key      {} ({key})\n", anchor.id),
        None => text += &format!("  root     {}\n", anchor.id),
    }
    text += &format!(
        "  valid    {} until {until}\n",
        anchor.from.as_deref().unwrap_or("always")
    );
    text
}
