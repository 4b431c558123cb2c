//! Holds `docs/cli.md` and the help texts to what the commands are.

use clap::{Command, CommandFactory as _};

const PAGE: &str = include_str!("../../docs/cli.md");

/// Every subcommand with the words that call it.
fn commands() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    let mut left = vec![("bpfseal".to_owned(), crate::Cli::command())];
    while let Some((path, command)) = left.pop() {
        for child in command.get_subcommands() {
            if child.get_name() != "help" {
                left.push((format!("{path} {}", child.get_name()), child.clone()));
            }
        }
        found.push((path, command));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.retain(|(path, _)| path != "bpfseal");
    found
}

/// A command's section of the page, with those of its subcommands.
fn section<'a>(page: &'a str, path: &str) -> Option<&'a str> {
    let depth = path.split(' ').count();
    let heading = format!("\n{} {path}\n", "#".repeat(depth));
    let start = page.find(&heading)? + heading.len();
    let end = page[start..]
        .find("\n## ")
        .map_or(page.len(), |at| start + at);
    Some(&page[start..end])
}

#[test]
fn the_page_has_every_command_and_option() {
    let mut missing = Vec::new();
    for (path, command) in commands() {
        let Some(section) = section(PAGE, &path) else {
            missing.push(path);
            continue;
        };
        let top = section_of_all();
        for option in command.get_arguments().filter_map(|arg| arg.get_long()) {
            let option = format!("--{option}");
            if !section.contains(&option) && !top.contains(&option) {
                missing.push(format!("{path} {option}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

fn section_of_all() -> &'static str {
    PAGE.split("\n## bpfseal ").next().unwrap_or_default()
}

#[test]
fn every_command_says_what_it_does_and_shows_an_example() {
    let mut wanting = Vec::new();
    for (path, mut command) in commands() {
        if command.has_subcommands() {
            continue;
        }
        let help = command.render_long_help().to_string();
        if !help.contains("Example") || !help.contains(&path) {
            wanting.push(path);
        }
    }
    assert_eq!(wanting, Vec::<String>::new());
}

#[test]
fn the_page_has_every_exit_code() {
    use crate::failure::Exit::*;
    for exit in [Refused, Usage, NotFound, Network, Internal] {
        let row = format!("\n| {} | ", exit as u8);
        assert!(PAGE.contains(&row), "{exit:?}");
    }
}
