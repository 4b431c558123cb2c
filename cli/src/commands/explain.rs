//! `bpfseal explain`.

use policy::{Reason, explain};
use serde::Serialize;

use crate::{Failure, Output};

/// Say what a reason means and what to do.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bpfseal explain E401
  bpfseal explain unsigned")]
pub struct Args {
    /// A reason by number or word; without one, every reason is listed.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Explained {
    number: u32,
    code: &'static str,
    what: &'static str,
    remedy: &'static str,
    text: &'static str,
}

impl From<Reason> for Explained {
    fn from(reason: Reason) -> Self {
        Self {
            number: reason.number(),
            code: reason.code(),
            what: reason.what(),
            remedy: reason.remedy(),
            text: explain::entry(reason),
        }
    }
}

pub fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let Some(word) = &args.reason else {
        let all: Vec<Explained> = Reason::ALL.iter().map(|&reason| reason.into()).collect();
        output.result(&all, list);
        return Ok(());
    };
    let reason = explain::find(word).ok_or_else(|| {
        let hint = explain::suggest(word);
        Failure::not_found(format!("no reason is called {word:?}{hint}"))
            .with_remedy("`bpfseal explain` lists them all.")
    })?;
    let text = || format!("{reason}\n\n{}\n", plain(explain::entry(reason)));
    output.result(&Explained::from(reason), text);
    Ok(())
}

fn list() -> String {
    let lines: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Markdown as a terminal shows it best: without its marks for bold and code blocks.
fn plain(markdown: &str) -> String {
    let lines: Vec<String> = markdown
        .lines()
        .filter(|line| !line.starts_with("```"))
        .map(|line| line.replace("**", ""))
        .collect();
    lines.join("\n")
}
