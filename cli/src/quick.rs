//! The commands that run often, read without the other twenty-odd: to describe them all to
//! the parser takes longer than to verify a signature.

use clap::{Parser, Subcommand};

use crate::{
    Cli,
    commands::{Command, verify, verify_blob},
};

#[derive(Parser)]
#[command(name = "bpfseal", version, propagate_version = true)]
struct Quick {
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Often,
}

#[derive(Subcommand)]
enum Often {
    Verify(verify::Args),
    VerifyBlob(verify_blob::Args),
}

/// What `words` (without the program) ask for, if it is one of these and has no mistake;
/// `None` says nothing: the whole parser decides, and explains.
pub fn parse<'w>(words: impl Iterator<Item = &'w std::ffi::OsStr> + Clone) -> Option<Cli> {
    let first = words.clone().next()?;
    if first != "verify" && first != "verify-blob" {
        return None;
    }
    let program = std::ffi::OsStr::new("bpfseal");
    let quick = Quick::try_parse_from(std::iter::once(program).chain(words)).ok()?;
    Some(Cli {
        json: quick.json,
        command: match quick.command {
            Often::Verify(args) => Command::Verify(args),
            Often::VerifyBlob(args) => Command::VerifyBlob(args),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::parse;
    use crate::commands::Command;

    #[test]
    fn only_what_is_meant_is_read_quickly() {
        let blob = "verify-blob --bundle b --key k tool";
        for (line, want) in [
            (blob, Some((false, "verify-blob"))),
            (
                "verify-blob --json --bundle b --key k tool",
                Some((true, "verify-blob")),
            ),
            ("verify x.tar --key k --json", Some((true, "verify"))),
            // Whatever is wrong, or asks for an explanation, goes to the whole parser.
            ("--json verify x.tar --key k", None),
            ("verify --help", None),
            ("verify -V", None),
            ("verify", None),
            ("verify x.tar --key k --nonsense", None),
            ("verif x.tar --key k", None),
            ("sign x.tar --key k", None),
            ("", None),
        ] {
            let got = parse(line.split_whitespace().map(OsStr::new));
            let got = got.map(|cli| {
                let name = match cli.command {
                    Command::Verify(_) => "verify",
                    Command::VerifyBlob(_) => "verify-blob",
                    _ => "another",
                };
                (cli.json, name)
            });
            assert_eq!(got, want, "{line}");
        }
    }
}
